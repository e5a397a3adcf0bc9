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
from qa import files
from qa.config import Settings, make_settings
from qa.experiment import Experiment
from qa.training import resume_experiment, train_experiment

NAME = "small"

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


def run(root: Path, chosen: Settings) -> None:
    """Start the run, or go on with it; in this process."""
    torch.set_num_threads(1)
    if (root / NAME / "config.yaml").exists():
        resume_experiment(root=root, name=NAME)
    else:
        train_experiment(chosen, root=root, name=NAME)


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
