"""`python -m probes atlas` as a user types it."""

import json

import pandas as pd
import pytest

import small_runs
from probes import __main__ as commands
from probes.atlas_files import latest_atlas


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("command") / "experiments"
    for name in ("a", "b"):
        small_runs.imported(root, name)
    return root


@pytest.fixture
def run(root, capsys):
    def run(*words):
        status = commands.main(["atlas", *words, "--experiments-dir", str(root)])
        return status, capsys.readouterr()

    return run


def test_it_says_what_it_found_and_where(run, root, tmp_path):
    status, said = run("a", "--knockouts", "4", "--export", str(tmp_path / "tables"))
    assert status == 0
    assert said.out.startswith(
        "a: 2 layers of 2 heads, 8 questions of q.json, heads switched off (zero) for 4"
    )
    assert "log-probability of the gold answer lost without a head" in said.out
    assert f"written to {root / 'a' / 'analyses'}" in said.err
    assert len(pd.read_csv(tmp_path / "tables" / "heads.csv")) == 4
    assert latest_atlas(root / "a").about["knockouts"] == 4


def test_one_json_object_is_the_last_line(run, root):
    status, said = run("a", "--limit", "4", "--knockouts", "0", "--json")
    found = json.loads(said.out.splitlines()[-1])
    assert status == 0
    assert found["questions"] == 4
    assert found["agreement"] is None
    assert found["important"] == []
    status, said = run("a", "--how", "mean", "--json", "--dataset", str(root.parent / "q.json"))
    found = json.loads(said.out.splitlines()[-1])
    assert found["how"] == "mean"
    assert len(found["important"]) == 4
    assert -1 <= found["agreement"]["low"] <= 1 if found["agreement"] else True


def test_two_experiments(run, tmp_path):
    status, said = run("a", "--against", "b", "--export", str(tmp_path))
    assert status == 0
    assert said.out.splitlines() == [
        "a and b, 8 questions:",
        "changed   none",
        "vanished  none",
        "appeared  none",
    ]
    assert len(pd.read_csv(tmp_path / "difference.csv")) == 8
    status, said = run("a", "--against", "b", "--json")
    assert json.loads(said.out.splitlines()[-1])["other"] == "b"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nobody"], "no experiment 'nobody'"),
        (["a", "--against", "a"], "that is the same experiment"),
        (["a", "--dataset", "nowhere.json"], "nowhere.json"),
    ],
)
def test_what_is_wrong_is_one_line(run, words, says):
    status, said = run(*words)
    assert status == 2
    assert says in said.err
    assert said.err.count("\n") == 1


@pytest.mark.parametrize("words", [["a", "--limit", "0"], ["a", "--knockouts", "-1"], ["a", "--how", "soft"]])
def test_numbers_and_choices_are_checked(run, words):
    with pytest.raises(SystemExit):
        run(*words)
