"""Training runs of seconds, for tests: a tiny random model on a few short questions, in a process to kill.

Processes come from a fork server that has imported torch already; a run that is killed ten times would
otherwise spend its life importing.
"""

import json
import multiprocessing
import os
import random
import signal
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

import tiny
import tiny_models
from qa import files
from qa.config import Settings, make_settings
from qa.experiment import Experiment
from qa.importing import import_model
from qa.squad import load_questions
from qa.training import launch, resume_experiment, train_experiment
from qa.training.trainer import QATrainer

NAME = "small"
SAME = ("exact_match", "f1", "eval_loss", "no_answer_threshold")

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(["small_runs"])


def write_questions(file: Path, *, paragraphs: int, seed: int) -> Path:
    """A SQuAD v2.0 file with two short questions a paragraph, every fourth without an answer."""
    draw = random.Random(seed)
    data = []
    for number in range(paragraphs):
        words = draw.sample(tiny.WORDS, 12)
        context = " ".join(words)
        qas = []
        for half in range(2):
            at = draw.randrange(1, len(words))
            answers = [{"text": words[at], "answer_start": len(" ".join(words[:at])) + 1}]
            missing = (2 * number + half) % 4 == 3
            qas.append(
                {
                    "id": f"{seed}-{number}-{half}",
                    "question": f"Who wrote the {words[at - 1]}?",
                    "is_impossible": missing,
                    "answers": [] if missing else answers,
                }
            )
        paragraph = {"context": context, "qas": qas}
        data.append({"title": f"article {number // 4}", "paragraphs": [paragraph]})
    file.write_text(json.dumps({"version": "v2.0", "data": data}))
    return file


def settings(model: Path, **changes: Any) -> Settings:
    """Two epochs over 40 questions with an answer or none, evaluated twice an epoch."""
    values = {
        "model_name": str(model),
        "dataset": str(write_questions(model.with_name("train.json"), paragraphs=20, seed=1)),
        "validation_dataset": str(write_questions(model.with_name("validation.json"), paragraphs=12, seed=2)),
        "epochs": 2,
        "batch_size": 8,
        "learning_rate": 1e-3,
        "max_length": 96,
        "stride": 16,
        "max_question_length": 32,
        "n_best": 3,
        "precision": "fp32",
        "device": "cpu",
    }
    return make_settings(values | changes)


def imported(root: Path, name: str, **changes: Any) -> Experiment:
    """An experiment that nobody trained: a tiny random model, made beside `root` if none is there."""
    model = root.parent / "model"
    if not model.exists():
        tiny_models.save(model)
    questions = load_questions(str(write_questions(root.parent / "q.json", paragraphs=4, seed=5)))
    values = {"stride": 16, "max_question_length": 32, "device": "cpu", "no_answer_threshold": None}
    return import_model(str(model), questions, root=root, name=name, settings=make_settings(values | changes))


def run(root: Path, chosen: Settings) -> None:
    """Start the run, or go on with it, in this process; one thread, for sums depend on their number."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        if (root / NAME / "config.yaml").exists():
            resume_experiment(root=root, name=NAME)
        else:
            train_experiment(chosen, root=root, name=NAME)
    finally:
        torch.set_num_threads(threads)


def start(root: Path, chosen: Settings, *, die_at_flush: int | None = None) -> BaseProcess:
    """The same in a process of its own, which kills itself at its n-th flush to the disk if told to."""
    process = _server.Process(target=_child, args=(root, chosen, die_at_flush))
    process.start()
    return process


def _child(root: Path, chosen: Settings, die_at_flush: int | None) -> None:
    if die_at_flush is not None:
        _die_at_flush(die_at_flush)
    run(root, chosen)


def _die_at_flush(count: int) -> None:
    """SIGKILL inside the n-th save: the temporary file is written, the rename has not happened."""
    flush, seen = files.flush, []

    def flush_or_die(path: Path) -> None:
        seen.append(path)
        if len(seen) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        flush(path)

    files.flush = flush_or_die


def broken_files(experiment: Experiment) -> list[str]:
    """What a reader who comes by at any moment finds wrong with the files that are there."""
    readers = {
        "config.yaml": experiment.settings,
        "status.json": experiment.status,
        "environment.json": experiment.environment,
        "history.jsonl": experiment.history,
        "metrics.json": experiment.metrics,
        "predictions.jsonl": experiment.predictions,
    }
    found = []
    for name, read in readers.items():
        if (experiment.path / name).exists():
            try:
                read()
            except files.BrokenFileError as error:
                found.append(str(error))
    return found


def assert_same_result(experiment: Experiment, whole: Experiment, *, rows: bool = False) -> None:
    """The scores are equal, the answers to the byte, and each step is in the history once.

    With `rows` every row of the history is equal too, but for its speed; a stop on request adds a row.
    """
    assert experiment.state() == "finished"
    ours, theirs = experiment.metrics(), whole.metrics()
    assert {key: ours[key] for key in SAME} == {key: theirs[key] for key in SAME}
    answers = [item.path.joinpath("predictions.jsonl").read_bytes() for item in (experiment, whole)]
    assert answers[0] == answers[1]
    steps = [row["step"] for row in experiment.history()]
    assert steps == sorted(set(steps))
    scored = [
        [(row["step"], row["f1"], row["eval_loss"]) for row in item.history() if "f1" in row]
        for item in (experiment, whole)
    ]
    assert scored[0] == scored[1]
    if rows:
        assert without_speed(experiment) == without_speed(whole)


def without_speed(experiment: Experiment) -> list[dict]:
    return [
        {key: value for key, value in row.items() if key != "examples_per_second"}
        for row in experiment.history()
    ]


class StopAfter:
    """Asks the run to stop after some evaluations, as Ctrl-C would."""

    def __init__(self, monkeypatch, evaluations):
        self.left, self.on = evaluations, True
        real = QATrainer.evaluate

        def evaluate(trainer, *args, **kwargs):
            metrics = real(trainer, *args, **kwargs)
            self.left -= 1
            return metrics

        monkeypatch.setattr(QATrainer, "evaluate", evaluate)
        monkeypatch.setattr(launch.StopRequest, "agreed", lambda stop, world_size: self.on and self.left <= 0)

    def off(self):
        self.on = False
