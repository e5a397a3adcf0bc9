"""Stopping or killing a run loses nothing: what it ends with is what an undisturbed run ends with."""

import os
import random
import signal
import time

import numpy as np
import pytest
from accelerate.data_loader import prepare_data_loader, skip_first_batches
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader

import small_runs
import tiny_models
from qa import files
from qa.batches import TrainingOrder
from qa.errors import UserError
from qa.experiment import Experiment
from qa.training import launch, resume_experiment, train_experiment


@pytest.mark.slow
def test_killed_at_random_moments_and_resumed(whole, model, tmp_path, prove):
    """SIGKILL anywhere, a save included; nobody ever reads a broken file, and the result is the same."""
    chosen = small_runs.settings(model)
    draw = random.Random(7)
    wanted = 10 if prove else 4
    deaths = folders = 0
    while deaths < wanted:
        root = tmp_path / str(folders)
        experiment = Experiment(root / small_runs.NAME)
        # Every other time in the middle of a save, else whenever the clock says.
        inside = draw.randrange(1, 14) if deaths % 2 == 0 else None
        process = small_runs.start(root, chosen, die_at_flush=inside)
        end = time.monotonic() + (120 if inside else draw.uniform(0.5, 4))
        while process.is_alive() and time.monotonic() < end:
            assert small_runs.broken_files(experiment) == []
            time.sleep(0.02)
        process.kill()
        process.join()
        deaths += process.exitcode == -signal.SIGKILL
        assert small_runs.broken_files(experiment) == []
        if process.exitcode == 0 or deaths == wanted:
            if experiment.state() != "finished":
                small_runs.start(root, chosen).join(200)
            small_runs.assert_same_result(experiment, whole, rows=True)
            folders += 1


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
        small_runs.run(tmp_path, chosen)
    small_runs.assert_same_result(experiment, whole)


def test_patience_survives_a_resume(model, tmp_path, monkeypatch):
    """F1 only falls after the first evaluation: two epochs later the run ends, interrupted or not."""
    scores = iter([0.9, *(0.8 - step / 100 for step in range(30))])
    real = launch.evaluate
    monkeypatch.setattr(launch, "evaluate", lambda *a, **k: _with_f1(real(*a, **k), next(scores)))
    chosen = small_runs.settings(model, epochs=6, patience=2, limit_train=16, evaluations_per_epoch=1)
    stopper = small_runs.StopAfter(monkeypatch, evaluations=2)
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
            small_runs.run(tmp_path, chosen)
    experiment = Experiment(tmp_path / small_runs.NAME)
    assert small_runs.broken_files(experiment) == []
    small_runs.run(tmp_path, chosen)
    small_runs.assert_same_result(experiment, whole)


def test_resume_refuses_other_questions(model, tmp_path, monkeypatch):
    small_runs.StopAfter(monkeypatch, evaluations=1)
    train_experiment(small_runs.settings(model), root=tmp_path, name="r")
    config = tmp_path / "r" / "config.yaml"
    config.write_text(config.read_text().replace("limit_train: null", "limit_train: 39"))
    with pytest.raises(UserError, match="training questions have changed"):
        resume_experiment(root=tmp_path, name="r")


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
    stopper = small_runs.StopAfter(monkeypatch, evaluations=1)
    train_experiment(chosen, root=tmp_path, name="parts")
    assert Experiment(tmp_path / "parts").state() == "stopped"
    stopper.off()
    small_runs.assert_same_result(resume_experiment(root=tmp_path, name="parts"), whole)


def test_old_names_of_weights_resume_exactly(tmp_path, monkeypatch):
    """`bert-base-uncased` says LayerNorm.gamma and beta, and is saved as it was loaded."""
    old = tiny_models.save(tmp_path / "models" / "bert", "bert")
    weights = load_file(old / "model.safetensors")
    renamed = {_old_name(name): tensor for name, tensor in weights.items()}
    assert renamed.keys() != weights.keys()
    save_file(renamed, old / "model.safetensors", metadata={"format": "pt"})
    chosen = small_runs.settings(old)
    whole = train_experiment(chosen, root=tmp_path, name="whole")
    stopper = small_runs.StopAfter(monkeypatch, evaluations=2)
    train_experiment(chosen, root=tmp_path, name="parts")
    stopper.off()
    small_runs.assert_same_result(resume_experiment(root=tmp_path, name="parts"), whole)


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
    small_runs.StopAfter(monkeypatch, evaluations=1)
    train_experiment(small_runs.settings(model), root=tmp_path, name="r")
    environment = tmp_path / "r" / "environment.json"
    environment.write_text(environment.read_text().replace('"processes": 1', '"processes": 2'))
    with pytest.raises(UserError, match="began with processes 2, this run has 1"):
        resume_experiment(root=tmp_path, name="r")
