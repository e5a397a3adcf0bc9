"""Settings differ by type and value; what an experiment does not have differs from all that have it."""

import pytest

from qa.config import Settings, settings_text
from qa.differing import MISSING, setting_rows, settings_of, shown
from qa.experiment import Experiment
from qa.files import write_json, write_text


def experiment(root, name, environment, **changes) -> Experiment:
    write_text(root / name / "config.yaml", settings_text(Settings(**changes)))
    if environment is not None:
        write_json(root / name / "environment.json", environment)
    return Experiment(root / name)


@pytest.mark.parametrize(
    ("first", "second", "differs"),
    [
        (1, 1, False),
        (1, 2, True),
        (1, 1.0, True),
        (1, True, True),
        (0, False, True),
        ("1", 1, True),
        (None, "null", True),
        (["a"], ["a"], False),
        (["a"], "a", True),
        (0.1 + 0.2, 0.3, True),
    ],
)
def test_equal_only_with_the_same_type(first, second, differs):
    (row,) = setting_rows([{"key": first}, {"key": second}])
    assert row.differs is differs
    assert row.chosen == (first, second)


def test_missing_is_different_also_from_null():
    rows = setting_rows([{"a": None, "b": 1}, {"b": 1, "c": 2}, {}])
    assert [(row.key, row.differs, row.values) for row in rows] == [
        ("a", True, ("null", MISSING, MISSING)),
        ("b", True, ("1", "1", MISSING)),
        ("c", True, (MISSING, "2", MISSING)),
    ]
    assert setting_rows([]) == []


def test_values_as_people_write_them():
    values = (None, True, 3e-5, 2.0, 16, ["a", "b"], "text")
    assert [*map(shown, values)] == ["null", "true", "3e-05", "2", "16", "a, b", "text"]


def test_a_run_has_all_settings_its_data_and_its_circumstances(tmp_path):
    environment = {
        "versions": {"torch": "2.13", "numpy": "2"},
        "precision": "bf16",
        "data": {"training": {"name": "train.json", "sha256": "ab" * 32}, "validation": {"name": "x"}},
    }
    found = settings_of(experiment(tmp_path, "one", environment, seed=7))
    assert found.keys() > Settings().as_dict().keys()
    assert found["seed"] == 7
    assert {key: found[key] for key in found.keys() - Settings().as_dict().keys()} == {
        "data.training": "train.json (abababababab)",
        "environment.torch": "2.13",
        "environment.precision": "bf16",
    }


def test_what_was_imported_has_no_settings_of_a_training(tmp_path):
    data = {"data": {}}
    model = settings_of(experiment(tmp_path, "model", {"imported": "model", **data}))
    assert "max_length" in model
    assert "learning_rate" not in model
    texts = settings_of(experiment(tmp_path, "texts", {"imported": "predictions", **data}))
    assert [*texts] == ["model_name", "validation_dataset"]
    rows = {row.key: row for row in setting_rows([model, texts])}
    assert rows["max_length"].values == ("512", MISSING)


def test_a_broken_experiment_misses_what_is_broken(tmp_path):
    assert settings_of(Experiment(tmp_path / "nothing")) == {}
    assert settings_of(experiment(tmp_path, "one", None)) == Settings().as_dict()
