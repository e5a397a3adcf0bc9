"""`make demo-experiments` with a tiny model in place of the bundled one."""

import pytest

import small_runs
import tiny_models
from pocket import demo
from probes.atlas_snapshots import read_training
from qa import model
from qa.config import read_settings
from qa.experiment import Experiment
from qa.pocket import POCKET_SETTINGS


@pytest.fixture
def small(tmp_path, monkeypatch):
    """The bundled model is a tiny one, and fine-tuning is a few steps."""
    monkeypatch.setattr(model, "POCKET_MODEL", tiny_models.save(tmp_path / "model"))
    settings = tmp_path / "config.yaml"
    settings.write_text(
        "model_name: pocket\ndataset: pocket\nepochs: 1\nmax_length: 96\nstride: 32\n"
        "limit_train: 8\nlimit_validation: 16\nmax_question_length: 30\nevaluations_per_epoch: 2\n"
        "atlas_snapshots: 2\n"
    )
    monkeypatch.setattr(demo, "POCKET_SETTINGS", settings)
    return tmp_path / "experiments"


def run(root) -> int:
    return demo.main(["--experiments-dir", str(root)])


def scored_steps(experiment) -> list[int]:
    return [row["step"] for row in experiment.history() if "f1" in row]


def test_both_are_made_once_and_compared(small, capsys):
    assert run(small) == 0
    printed = capsys.readouterr().out
    base, tuned = (Experiment(small / name) for name in (demo.BASE, demo.TUNED))
    assert base.metrics()["count"] == tuned.metrics()["count"] == 16
    assert f"{tuned.metrics()['f1']:.2f}" in printed
    assert "McNemar" in printed
    assert read_training(tuned).steps == [0, *scored_steps(tuned)]
    files = sorted((item, item.stat().st_mtime_ns) for item in small.rglob("*") if item.is_file())
    assert run(small) == 0
    assert capsys.readouterr().out == printed
    assert files == sorted((item, item.stat().st_mtime_ns) for item in small.rglob("*") if item.is_file())


def test_the_heads_are_recorded_whether_it_went_on_or_not(small, monkeypatch):
    with monkeypatch.context() as patch:
        small_runs.StopAfter(patch, 1)
        assert run(small) == 2
    tuned = Experiment(small / demo.TUNED)
    assert tuned.state() == "stopped"
    assert run(small) == 0
    assert len(scored_steps(tuned)) == 2
    assert read_training(tuned).steps == [0, *scored_steps(tuned)]


def test_the_bundled_settings_ask_for_a_small_atlas():
    assert read_settings(POCKET_SETTINGS).atlas_snapshots == 8


def test_goes_on_where_it_was_interrupted(small, monkeypatch, capsys):
    def interrupted(*_arguments, **_named):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "train_experiment", interrupted)
    assert run(small) == 2
    assert "the same command goes on" in capsys.readouterr().err


def test_a_base_that_is_not_whole_is_named(small, capsys):
    (small / demo.BASE).mkdir(parents=True)
    (small / demo.BASE / "config.yaml").write_text("epochs: 1\n")
    assert run(small) == 2
    message = capsys.readouterr().err
    assert f"{demo.BASE} is broken; remove the folder" in message
