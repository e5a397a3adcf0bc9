"""Runs from start to finish: what a folder holds, and that stopping or killing one loses nothing."""

import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.data_loader import prepare_data_loader, skip_first_batches
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader

import small_runs
import tiny_models
from qa import files
from qa.batches import TrainingOrder
from qa.errors import UserError
from qa.evaluation import evaluate
from qa.experiment import Experiment
from qa.reader import Reader
from qa.training import job, launch, resume_experiment, train_experiment, train_seeds
from qa.training.estimate import duration, measure
from qa.training.trainer import QATrainer

SAME = ("exact_match", "f1", "eval_loss", "no_answer_threshold")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny_models.save(tmp_path_factory.mktemp("models") / "deberta")


@pytest.fixture(scope="module")
def whole(model, tmp_path_factory) -> Experiment:
    """A run that nothing disturbed."""
    root = tmp_path_factory.mktemp("whole")
    process = small_runs.start(root, small_runs.settings(model))
    process.join(200)
    assert process.exitcode == 0
    return Experiment(root / small_runs.NAME)


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


def test_a_finished_folder_holds_what_it_says(whole, model):
    expected = {"config.yaml", "status.json", "environment.json", "history.jsonl", "metrics.json"}
    assert expected | {"predictions.jsonl", "best_model"} <= {item.name for item in whole.path.iterdir()}
    assert whole.problems() == []
    assert whole.settings().model_name == str(model)
    assert whole.status()["total_steps"] == whole.status()["step"]
    assert whole.checkpoints() == {}, "what resume needs is not needed any more"
    environment = whole.environment()
    assert environment["seed"] == 42
    assert set(environment["data"]) == {"training", "validation"}
    metrics = whole.metrics()
    assert {"exact_match", "f1", "eval_loss", "count", "HasAns_f1", "NoAns_f1"} <= set(metrics)
    assert metrics["exact_match_interval"][0] <= metrics["exact_match"] <= metrics["exact_match_interval"][1]
    assert "folds" in metrics["no_answer_threshold_from"]
    assert metrics["seconds"] > 0
    assert metrics["peak_memory_mb"] > 50


def test_history_has_losses_and_scores(whole):
    history = whole.history()
    assert [row["step"] for row in history] == sorted({row["step"] for row in history})
    assert all({"loss", "learning_rate", "examples_per_second"} <= set(row) for row in history)
    scored = [row for row in history if "f1" in row]
    assert len(scored) == 4, "two epochs, two evaluations each"
    assert max(row["f1"] for row in scored) == pytest.approx(whole.status()["best_f1"])


def test_every_answer_is_a_slice_of_its_context(whole):
    contexts = {question.id: question.context for question in whole.validation_questions().questions}
    rows = whole.predictions()
    assert {row["id"] for row in rows} == set(contexts)
    for row in rows:
        assert contexts[row["id"]][row["start"] : row["end"]] == row["prediction"]
        assert row["windows"] >= 1
        assert 0 <= row["no_answer_probability"] <= 1


def test_the_best_model_answers_as_the_predictions_say(whole):
    reader = Reader.of(whole, device="cpu")
    questions = whole.validation_questions().questions[:5]
    found = reader.answers([(question.question, question.context) for question in questions])
    for answer, row in zip(found, whole.predictions(), strict=False):
        assert answer.n_best[0].text == row["n_best"][0]["text"]
        assert answer.no_answer_probability == pytest.approx(row["no_answer_probability"], abs=1e-5)


def test_the_model_learns(whole):
    losses = [row["loss"] for row in whole.history()]
    assert sum(losses[-3:]) < sum(losses[:3])


@pytest.mark.slow
def test_killed_at_random_moments_and_resumed(whole, model, tmp_path, prove):
    """SIGKILL anywhere, a save included; nobody ever reads a broken file, and the result is the same."""
    chosen = small_runs.settings(model)
    experiment = Experiment(tmp_path / small_runs.NAME)
    kills = random.Random(7)
    deaths = 0
    for number in range(10 if prove else 4):
        # Every other time in the middle of a save, else whenever the clock says.
        inside = kills.randrange(1, 14) if number % 2 == 0 else None
        process = small_runs.start(tmp_path, chosen, die_at_flush=inside)
        end = time.monotonic() + (120 if inside else kills.uniform(0.5, 6))
        while process.is_alive() and time.monotonic() < end:
            assert small_runs.broken_files(experiment) == []
            time.sleep(0.02)
        process.kill()
        process.join()
        deaths += process.exitcode == -signal.SIGKILL
        assert small_runs.broken_files(experiment) == []
        if experiment.path.exists() and experiment.state() == "finished":
            break
    assert deaths, "at least one run was killed"
    if experiment.state() != "finished":
        process = small_runs.start(tmp_path, chosen)
        process.join(200)
        assert process.exitcode == 0
    assert_same_result(experiment, whole, rows=True)


@pytest.mark.slow
def test_sigterm_saves_and_says_stopped(whole, model, tmp_path):
    chosen = small_runs.settings(model)
    experiment = Experiment(tmp_path / small_runs.NAME)
    process = small_runs.start(tmp_path, chosen)
    # Only once the handler listens: the first row of the history is written after that.
    while process.is_alive() and not (experiment.path / "history.jsonl").exists():
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGTERM)
    process.join(120)
    assert process.exitcode == 0
    if experiment.state() != "finished":
        assert experiment.state() == "stopped"
        assert experiment.checkpoints()
        resume_experiment(root=tmp_path, name=small_runs.NAME)
    assert_same_result(experiment, whole)


def test_patience_survives_a_resume(model, tmp_path, monkeypatch):
    """F1 only falls after the first evaluation: two epochs later the run ends, interrupted or not."""
    scores = iter([0.9, *(0.8 - step / 100 for step in range(30))])
    real = launch.evaluate
    monkeypatch.setattr(launch, "evaluate", lambda *a, **k: _with_f1(real(*a, **k), next(scores)))
    chosen = small_runs.settings(model, epochs=6, patience=2, limit_train=16, evaluations_per_epoch=1)
    stopper = _StopAfter(monkeypatch, evaluations=2)
    train_experiment(chosen, root=tmp_path, name="p")
    assert Experiment(tmp_path / "p").state() == "stopped"
    stopper.off()
    resume_experiment(root=tmp_path, name="p")
    epochs = [row["epoch"] for row in Experiment(tmp_path / "p").history() if "f1" in row]
    assert epochs == pytest.approx([1, 2, 3])
    assert Experiment(tmp_path / "p").metrics()["best_step"] == 2, "16 questions in batches of 8"


def _with_f1(found, value):
    found.scores.f1s[:] = value
    return found


class _StopAfter:
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


def test_a_loss_that_is_not_finite_ends_the_run_with_advice(model, tmp_path):
    chosen = small_runs.settings(model)
    with pytest.MonkeyPatch.context() as patch:
        real = QATrainer.training_step
        patch.setattr(QATrainer, "training_step", lambda *a, **k: real(*a, **k) * float("nan"))
        with pytest.raises(UserError, match=r"not finite .* lower learning_rate"):
            train_experiment(chosen, root=tmp_path, name="nan")
    status = Experiment(tmp_path / "nan").status()
    assert status["state"] == "failed"
    assert "learning_rate" in status["message"]


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory"), MemoryError()],
)
def test_out_of_memory_names_the_settings(model, tmp_path, monkeypatch, error):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(QATrainer, "training_step", fail)
    with pytest.raises(UserError, match=r"lower batch_size \(now 8"):
        train_experiment(small_runs.settings(model), root=tmp_path, name="oom")
    assert Experiment(tmp_path / "oom").status()["state"] == "failed"


def test_a_full_disk_is_one_line_and_the_run_goes_on_later(whole, model, tmp_path, monkeypatch):
    chosen = small_runs.settings(model)
    calls = []

    def fail_later(path):
        calls.append(path)
        if len(calls) > 12:
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files, "flush", fail_later)
        with pytest.raises(UserError, match="No space left"):
            train_experiment(chosen, root=tmp_path, name=small_runs.NAME)
    experiment = Experiment(tmp_path / small_runs.NAME)
    assert small_runs.broken_files(experiment) == []
    resume_experiment(root=tmp_path, name=small_runs.NAME)
    assert_same_result(experiment, whole)


def test_an_existing_name_is_refused(whole, model):
    with pytest.raises(UserError, match="exists already"):
        train_experiment(small_runs.settings(model), root=whole.path.parent, name=whole.name)
    with pytest.raises(UserError, match="is finished"):
        resume_experiment(root=whole.path.parent, name=whole.name)


def test_resume_refuses_other_questions(model, tmp_path, monkeypatch):
    _StopAfter(monkeypatch, evaluations=1)
    train_experiment(small_runs.settings(model), root=tmp_path, name="r")
    config = tmp_path / "r" / "config.yaml"
    config.write_text(config.read_text().replace("limit_train: null", "limit_train: 39"))
    with pytest.raises(UserError, match="training questions have changed"):
        resume_experiment(root=tmp_path, name="r")


def test_seeds_make_a_group_and_differ(model, tmp_path):
    chosen = small_runs.settings(model, epochs=1, limit_train=16)
    done = train_seeds(chosen, [1, 2], root=tmp_path, name="s")
    assert [experiment.name for experiment in done] == ["s-seed-1", "s-seed-2"]
    assert {experiment.settings().group for experiment in done} == {"s"}
    assert done[0].history()[0]["loss"] != done[1].history()[0]["loss"]
    again = train_seeds(chosen, [1, 2], root=tmp_path, name="s")
    assert [experiment.metrics() for experiment in again] == [experiment.metrics() for experiment in done]


def test_a_model_path_of_one_s_own(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    chosen = small_runs.settings(
        model, epochs=1, limit_train=16, best_model_path="models/experiment_1/best_model"
    )
    first = train_experiment(chosen, root=tmp_path / "e", name="one")
    assert first.model_folder() == tmp_path / "models" / "experiment_1" / "best_model"
    assert Reader.of(first, device="cpu").answer("Who?", "Ada went home.").text in "Ada went home."
    with pytest.raises(UserError, match="best_model_path"):
        train_experiment(chosen, root=tmp_path / "e", name="two")
    assert not (tmp_path / "e" / "two" / "config.yaml").exists()


def test_layers_learn_at_their_own_rates(model, tmp_path, monkeypatch):
    groups = []
    real = QATrainer._layer_groups
    monkeypatch.setattr(QATrainer, "_layer_groups", lambda self: groups.extend(real(self)) or real(self))
    chosen = small_runs.settings(
        model, layer_decay=0.5, learning_rate=0.08, epochs=1, limit_train=16, warmup=0
    )
    train_experiment(chosen, root=tmp_path, name="decay")
    assert {round(group["lr"], 6) for group in groups} == {0.08, 0.04, 0.02, 0.01}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stride": 90}, "stride: 90 tokens of overlap"),
        ({"max_length": 400}, "reads at most"),
        ({"model_name": "nowhere/nothing"}, "--pocket"),
        ({"dataset": "missing.json"}, "missing.json: cannot be read"),
        ({"held_out_articles": 2}, "both set"),
        ({"validation_dataset": None}, "has no validation split"),
        ({"device": "cuda"}, "device: 'cuda' is not available"),
        ({"precision": "fp16"}, "fp16 needs a CUDA device"),
        ({"report_to": "wandbb"}, "no tracker 'wandbb'"),
        ({"report_to": "wandb"}, "wandb is not installed"),
        ({"best_model_path": "~nobody_at_all/x"}, "is no path"),
    ],
)
def test_what_cannot_work_is_refused_before_a_folder_is_made(model, tmp_path, changes, message):
    if changes == {"device": "cuda"} and torch.cuda.is_available():
        changes = {"device": "mps"}
        message = "device: 'mps' is not available"
    with pytest.raises(UserError, match=message):
        train_experiment(small_runs.settings(model, **changes), root=tmp_path, name="bad")
    assert not (tmp_path / "bad").exists()


def test_articles_set_aside_are_not_trained_on(model, tmp_path):
    chosen = small_runs.settings(
        model, held_out_articles=3, validation_dataset=None, epochs=1, limit_train=16
    )
    done = train_experiment(chosen, root=tmp_path, name="aside")
    titles = {question.title for question in done.validation_questions().questions}
    assert len(titles) == 3
    assert done.environment()["data"]["validation"]["name"].endswith("(3 articles set aside)")


def test_a_probe_is_called_after_each_evaluation(model, tmp_path):
    steps = []
    chosen = small_runs.settings(model, epochs=1, limit_train=16, evaluations_per_epoch=1)
    train_experiment(
        chosen,
        root=tmp_path,
        name="probe",
        on_evaluation=lambda network, step: steps.append((step, network.training)),
    )
    assert steps == [(2, False)]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_measuring_leaves_model_and_random_state_alone(model, checkpointing):
    prepared = job.prepare(small_runs.settings(model, gradient_checkpointing=checkpointing))
    torch.manual_seed(3)
    before = torch.get_rng_state()
    step, forward = measure(prepared)
    assert step > 0
    assert forward > 0
    assert torch.equal(before, torch.get_rng_state())
    network = prepared.encoder.model
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not network.training


@pytest.mark.parametrize(
    "changes",
    [
        {"gradient_accumulation_steps": 2, "batch_size": 4},
        {"gradient_checkpointing": True},
        {"precision": "bf16"},
        {"padding": "max_length"},
        {"workers": 1},
        {"group_by_length": False},
        {"epochs": 1.5, "evaluations_per_epoch": 3},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_every_way_to_train_stops_and_resumes_exactly(model, tmp_path, monkeypatch, changes):
    chosen = small_runs.settings(model, **{"limit_train": 24, "evaluations_per_epoch": 2} | changes)
    whole = train_experiment(chosen, root=tmp_path, name="whole")
    stopper = _StopAfter(monkeypatch, evaluations=1)
    train_experiment(chosen, root=tmp_path, name="parts")
    assert Experiment(tmp_path / "parts").state() == "stopped"
    stopper.off()
    assert_same_result(resume_experiment(root=tmp_path, name="parts"), whole)


def test_old_names_of_weights_resume_exactly(tmp_path, monkeypatch):
    """`bert-base-uncased` says LayerNorm.gamma and beta, and is saved as it was loaded."""
    old = tiny_models.save(tmp_path / "models" / "bert", "bert")
    weights = load_file(old / "model.safetensors")
    renamed = {_old_name(name): tensor for name, tensor in weights.items()}
    assert renamed.keys() != weights.keys()
    save_file(renamed, old / "model.safetensors", metadata={"format": "pt"})
    chosen = small_runs.settings(old)
    whole = train_experiment(chosen, root=tmp_path, name="whole")
    stopper = _StopAfter(monkeypatch, evaluations=2)
    train_experiment(chosen, root=tmp_path, name="parts")
    stopper.off()
    assert_same_result(resume_experiment(root=tmp_path, name="parts"), whole)


def _old_name(name):
    return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")


def test_the_order_is_the_epoch_s_own_even_behind_a_skipping_loader():
    """With several processes a resumed epoch skips batches through wrappers that pass no epoch on."""
    order = TrainingOrder(np.arange(1, 41), 4, seed=1, group=True)
    loader = DataLoader(list(range(40)), batch_size=4, sampler=order)
    shard = prepare_data_loader(loader, num_processes=2, process_index=0, put_on_device=False)
    shard.set_epoch(1)
    whole = [batch.tolist() for batch in shard]
    order.set_epoch(0)
    rest = skip_first_batches(shard, 2)
    rest.set_epoch(1)
    order.set_epoch(1)  # what the trainer does besides; without it the rest is epoch 0's
    assert [batch.tolist() for batch in rest] == whole[2:]


def test_resume_refuses_another_number_of_processes(model, tmp_path, monkeypatch):
    _StopAfter(monkeypatch, evaluations=1)
    train_experiment(small_runs.settings(model), root=tmp_path, name="r")
    environment = tmp_path / "r" / "environment.json"
    environment.write_text(environment.read_text().replace('"processes": 1', '"processes": 2'))
    with pytest.raises(UserError, match="began with processes 2, this run has 1"):
        resume_experiment(root=tmp_path, name="r")


def test_broken_weights_are_one_line(model, tmp_path):
    prepared = job.prepare(small_runs.settings(model))
    with torch.no_grad():
        prepared.encoder.model.qa_outputs.weight.fill_(float("nan"))
    with pytest.raises(UserError, match="scores are not finite"):
        evaluate(prepared.encoder, prepared.validation, prepared.reading)


@pytest.mark.parametrize(
    ("seeds", "changes", "message"),
    [
        ([1, -1], {}, "seed: -1 is not allowed"),
        ([1, 2], {"best_model_path": "x"}, "several seeds"),
        ([1, 2], {"epochs": 3}, "exists with other settings"),
    ],
)
def test_seeds_are_refused_before_any_is_trained(model, tmp_path, seeds, changes, message):
    chosen = small_runs.settings(model, epochs=1, limit_train=16)
    train_seeds(chosen, [2], root=tmp_path, name="s")
    with pytest.raises(UserError, match=message):
        train_seeds(chosen.changed(**changes), seeds, root=tmp_path, name="s")
    assert not (tmp_path / "s-seed-1").exists()


@pytest.mark.parametrize(("seconds", "text"), [(12.3, "12 s"), (700, "12 min"), (12000, "3 h 20 min")])
def test_duration_in_words(seconds, text):
    assert duration(seconds) == text
