"""`make demo-experiments` with a tiny model in place of the bundled one."""

import pytest

import tiny_models
from qa import demo, model
from qa.experiment import Experiment


@pytest.fixture
def small(tmp_path, monkeypatch):
    """The bundled model is a tiny one, and fine-tuning is a few steps."""
    monkeypatch.setattr(model, "POCKET_MODEL", tiny_models.save(tmp_path / "model"))
    settings = tmp_path / "config.yaml"
    settings.write_text(
        "model_name: pocket\ndataset: pocket\nepochs: 1\nmax_length: 96\nstride: 32\n"
        "limit_train: 8\nlimit_validation: 40\nmax_question_length: 30\nevaluations_per_epoch: 1\n"
    )
    monkeypatch.setattr(demo, "POCKET_SETTINGS", settings)
    return tmp_path / "experiments"


def run(root) -> int:
    return demo.main(["--experiments-dir", str(root)])


def test_both_are_made_once_and_compared(small, capsys):
    assert run(small) == 0
    printed = capsys.readouterr().out
    base, tuned = (Experiment(small / name) for name in (demo.BASE, demo.TUNED))
    assert base.metrics()["count"] == tuned.metrics()["count"] == 40
    assert f"{tuned.metrics()['f1']:.2f}" in printed
    assert "McNemar" in printed
    files = sorted((item, item.stat().st_mtime_ns) for item in small.rglob("*") if item.is_file())
    assert run(small) == 0
    assert capsys.readouterr().out == printed
    assert files == sorted((item, item.stat().st_mtime_ns) for item in small.rglob("*") if item.is_file())


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
