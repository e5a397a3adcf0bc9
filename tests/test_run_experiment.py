"""`python run_experiment.py` as a user types it, and several processes on one experiment."""

import builtins
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import folders
import run_experiment
import small_runs
import tiny_models
from qa.config import settings_text
from qa.experiment import Experiment

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    model = tiny_models.save(folder / "model")
    file = folder / "config.yaml"
    chosen = small_runs.settings(model, epochs=1, limit_train=16)
    file.write_text(settings_text(chosen))
    return file


@pytest.fixture
def run(config, tmp_path):
    return lambda *more: run_experiment.main(
        ["--config", str(config), "--experiments-dir", str(tmp_path), *more]
    )


def test_a_run_prints_what_it_will_do_and_what_it_found(run, tmp_path, capsys):
    assert run("--name", "a", "--set", "seed=7") == 0
    output = capsys.readouterr()
    assert output.out.startswith("a: EM ")
    for word in ("device", "16 questions, 16 windows", "2 of 8 windows", "about"):
        assert word in output.err
    assert Experiment(tmp_path / "a").settings().seed == 7


def test_seeds_print_mean_and_deviation(run, tmp_path, capsys):
    assert run("--name", "s", "--seeds", "1", "2") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[:2]] == ["s-seed-1", "s-seed-2"]
    assert "sd over 2 seeds" in lines[2]
    assert "sd over 2 seeds" in lines[3]


def test_the_name_is_asked_for_in_a_terminal(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    answers = iter(["asked", "asked"])
    monkeypatch.setattr(builtins, "input", lambda prompt: next(answers))
    assert run() == 0
    assert Experiment(tmp_path / "asked").state() == "finished"
    assert run() == 2, "the name is taken by a finished experiment"
    assert "exists already" in capsys.readouterr().err


def test_without_a_terminal_a_name_must_be_given(run, capsys):
    assert run() == 2
    assert "--name" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--name", "../x"], "is not allowed"),
        (["--name", "x", "--set", "lerning_rate=1"], "did you mean 'learning_rate'"),
        (["--name", "x", "--set", "epochs=-1"], "epochs: -1 is not allowed"),
        (["--name", "x", "--set", "epochs"], "no '='"),
        (["--name", "x", "--set", "dataset=none.json"], "none.json: cannot be read"),
        (["--name", "x", "--set", "model_name=microsoft/deberta-v3-base"], "--pocket"),
        (["--name", "x", "--resume", "--set", "epochs=1"], "leave --set"),
    ],
)
def test_bad_input_is_one_line_and_status_2(run, tmp_path, capsys, more, message):
    assert run(*more) == 2
    output = capsys.readouterr()
    assert message in output.err
    assert len(output.err.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_pocket_has_settings_of_its_own():
    chosen = run_experiment._settings(run_experiment._parser().parse_args(["--pocket", "--set", "epochs=1"]))
    assert (chosen.model_name, chosen.dataset, chosen.epochs) == ("pocket", "pocket", 1)


def test_a_config_that_is_not_there(tmp_path, capsys):
    assert run_experiment.main(["--name", "x", "--config", str(tmp_path / "no.yaml")]) == 2
    assert "cannot be read" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_make_one_experiment(config, tmp_path, prove):
    """`torchrun` with two CPU processes: one set of files, written once, and every window read once."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [str(ROOT / "run_experiment.py"), "--config", str(config), "--experiments-dir", str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(
        [*command, "--name", "two"], env=environment, capture_output=True, text=True, check=False, timeout=280
    )
    assert finished.returncode == 0, finished.stderr[-2000:]
    experiment = Experiment(tmp_path / "two")
    assert experiment.problems() == []
    assert experiment.state() == "finished"
    assert finished.stdout.count("two: EM") == 1, "only the first process speaks"
    assert experiment.environment()["processes"] == 2
    assert experiment.status()["total_steps"] == 1, "16 windows in batches of 2 × 8"
    steps = [row["step"] for row in experiment.history()]
    assert steps == sorted(set(steps))
    lines = (experiment.path / "predictions.jsonl").read_text().splitlines()
    ids = [json.loads(line)["id"] for line in lines]
    assert ids == [question.id for question in experiment.validation_questions().questions]


def test_what_is_resumed_must_be_there(tmp_path, capsys):
    assert run_experiment.main(["--name", "x", "--experiments-dir", str(tmp_path), "--resume"]) == 2
    assert "no experiment 'x'" in capsys.readouterr().err


@pytest.mark.parametrize("more", [["--resume"], ["--pocket"]])
def test_settings_that_would_not_be_read_are_refused(tmp_path, capsys, more):
    given = ["--name", "x", "--experiments-dir", str(tmp_path), "--config", "none.yaml"]
    assert run_experiment.main([*given, *more]) == 2
    assert "--config" in capsys.readouterr().err


def test_what_goes_on_with_a_stopped_run_is_said_in_full(tmp_path, capsys):
    folders.write(tmp_path / "my runs", "base", "stopped")
    stopped = Experiment(tmp_path / "my runs" / "base")
    assert run_experiment._tell([stopped]) == 0
    command = f"python run_experiment.py --name base --resume --experiments-dir '{tmp_path / 'my runs'}'"
    assert capsys.readouterr().out == f"base: stopped; go on with: {command}\n"
    assert run_experiment._tell([stopped], seeds=True) == 0
    assert capsys.readouterr().out == "base: stopped; go on with: the same command\n"
    assert Experiment(Path("experiments/base")).resume_command().endswith("--name base --resume")
