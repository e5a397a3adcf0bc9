"""Heads in the course of training: what is recorded, that it changes nothing, and that it goes on."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

import run_experiment
import small_runs
import tiny_models
from probes.analyses import METADATA, find_analyses
from probes.atlas_making import spread
from probes.atlas_measures import MAP_MEASURES
from probes.atlas_questions import map_measures
from probes.atlas_snapshots import SNAPSHOT, Snapshots, read_training
from qa.config import settings_text
from qa.errors import UserError
from qa.experiment import Experiment
from qa.reader import Reader
from qa.training import train_experiment


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_models.save(tmp_path_factory.mktemp("snapshots") / "model")


@pytest.fixture(scope="module")
def trained(model, tmp_path_factory):
    """The same training without and with snapshots."""
    root = tmp_path_factory.mktemp("trained") / "experiments"
    for name, count in (("without", 0), ("with", 4)):
        chosen = small_runs.settings(model, epochs=1, atlas_snapshots=count)
        watch = Snapshots(Experiment(root / name)).take if count else None
        train_experiment(chosen, root=root, name=name, on_evaluation=watch)
    return root


def test_there_is_one_before_the_first_step_and_one_at_each_evaluation(trained):
    experiment = Experiment(trained / "with")
    training = read_training(experiment)
    scored = [row["step"] for row in experiment.history() if "f1" in row]
    assert training.steps == [0, *scored]
    assert training.about["questions"] == 4
    assert training.about["layers"] == training.about["heads"] == 2
    assert len(training.at(0)) == 4
    assert not training.at(0).equals(training.at(scored[-1]))
    assert read_training(Experiment(trained / "without")) is None


def test_a_snapshot_is_what_the_model_of_that_step_shows(trained):
    experiment = Experiment(trained / "with")
    questions = spread(experiment.validation_questions(), 4).questions
    assert len({question.paragraph for question in questions}) > 1, "or there would be no interval"
    reader = Reader.of(experiment, device="cpu")
    best = experiment.metrics()["best_step"]
    rows = read_training(experiment).at(best)
    each = [map_measures(reader, question) for question in questions]
    for measure in MAP_MEASURES:
        expected = np.nanmean([found[measure.name] for found in each], axis=0).ravel()
        np.testing.assert_allclose(rows[measure.name], expected, rtol=1e-5, atol=1e-6, err_msg=measure.name)


def test_looking_does_not_change_the_training(trained):
    both = [Experiment(trained / name) for name in ("without", "with")]
    small_runs.assert_same_result(*both, rows=True)


def test_the_setting_alone_makes_them(model, tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(settings_text(small_runs.settings(model, epochs=1, limit_train=16, atlas_snapshots=2)))
    root = tmp_path / "experiments"
    same = ["--config", str(file), "--experiments-dir", str(root), "--name", "r"]
    assert run_experiment.main(same) == 0
    assert read_training(Experiment(root / "r")).steps == [0, 1, 2]
    assert run_experiment.main([*same, "--seeds", "1", "2"]) == 0
    for seed in (1, 2):
        assert read_training(Experiment(root / f"r-seed-{seed}")).steps == [0, 1, 2]


def test_a_resumed_training_has_the_snapshots_of_an_undisturbed_one(model, tmp_path, monkeypatch):
    file = tmp_path / "config.yaml"
    file.write_text(settings_text(small_runs.settings(model, epochs=1, limit_train=32, atlas_snapshots=2)))
    root = tmp_path / "experiments"
    same = ["--config", str(file), "--experiments-dir", str(root)]
    assert run_experiment.main([*same, "--name", "whole"]) == 0
    with monkeypatch.context() as patch:
        small_runs.StopAfter(patch, 1)
        assert run_experiment.main([*same, "--name", "stopped"]) == 0
    assert Experiment(root / "stopped").state() == "stopped"
    assert run_experiment.main(["--experiments-dir", str(root), "--name", "stopped", "--resume"]) == 0
    whole, stopped = (read_training(Experiment(root / name)) for name in ("whole", "stopped"))
    assert whole.heads.equals(stopped.heads)


def test_what_does_not_belong_together_is_refused(trained, tmp_path):
    experiment = Experiment(tmp_path / "copy")
    folder = experiment.path / "analyses"
    folder.mkdir(parents=True)
    for path in find_analyses(Experiment(trained / "with"), SNAPSHOT):
        (folder / path.name).write_bytes(path.read_bytes())
    paths = find_analyses(experiment, SNAPSHOT)
    kept = paths[0].read_bytes()
    table = pq.read_table(paths[0])
    header = json.loads(table.schema.metadata[METADATA])
    for change in ({"questions": 7}, {"layers": 1, "heads": 4}):
        metadata = {METADATA: json.dumps({**header, "about": header["about"] | change})}
        pq.write_table(table.replace_schema_metadata(metadata), paths[0])
        with pytest.raises(UserError, match="not of the same heads and questions"):
            read_training(experiment)
    paths[0].write_bytes(kept[:-5])
    with pytest.raises(UserError, match="cut short"):
        read_training(experiment)
