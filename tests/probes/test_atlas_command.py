"""`python -m probes atlas` as a user types it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import small_runs
from probes import __main__ as commands
from probes.analyses import FOLDER
from probes.atlas_details import table_csv
from probes.atlas_files import latest_atlas
from probes.atlas_making import parts_of
from qa import files
from qa.squad import load_questions

ROOT = Path(__file__).resolve().parents[2]
LAUNCHERS = {
    "torchrun": ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"],
    "accelerate launch": [
        "accelerate.commands.launch",
        "--multi_gpu",
        "--num_processes",
        "2",
        "--main_process_port",
        "0",
    ],
}


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
    assert "the same over the 3 answerable questions" in said.out
    assert "the same over the 1 unanswerable questions" in said.out
    assert f"written to {root / 'a' / 'analyses'}" in said.err
    assert len(pd.read_csv(tmp_path / "tables" / "heads.csv")) == 4
    for part, count in (("answerable", 6), ("unanswerable", 2)):
        table = pd.read_csv(tmp_path / "tables" / f"heads-{part}.csv")
        assert table["entropy_questions"].tolist() == [count] * 4
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
    assert {name: part["questions"] for name, part in found["parts"].items()} == {
        "answerable": 6,
        "unanswerable": 2,
    }
    assert all(len(part["important"]) == 4 for part in found["parts"].values())
    assert -1 <= found["agreement"]["low"] <= 1 if found["agreement"] else True


def test_an_interval_that_is_not_known_is_null(run):
    """One question is one paragraph, which says nothing about how paragraphs differ."""
    status, said = run("a", "--limit", "1", "--json")
    found = json.loads(said.out.splitlines()[-1], parse_constant=pytest.fail)
    assert status == 0
    assert len(found["important"]) == 4
    assert all(head["knockout_low"] is None and head["knockout"] is not None for head in found["important"])


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


@pytest.fixture(scope="module")
def alone(root):
    """The files that one process makes, of questions that are more than one part."""
    file = small_runs.write_questions(root.parent / "many.json", paragraphs=9, seed=5)
    assert len(parts_of(load_questions(str(file), "validation"))) > 1
    words = ["a", "--dataset", str(file), "--knockouts", "3", "--experiments-dir", str(root)]
    files.remove(root / "a" / FOLDER)
    assert commands.main(["atlas", *words]) == 0
    return words, tables(root)


def tables(root):
    return {file.name: pq.read_table(file).to_pandas() for file in sorted((root / "a" / FOLDER).iterdir())}


def flat(column):
    """The numbers of a column, one a row or many."""
    return np.concatenate([np.atleast_1d(value) for value in column])


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_two_processes_of_a_launcher_make_the_files_of_one(root, alone, launcher, tmp_path):
    words, expected = alone
    files.remove(root / "a" / FOLDER)
    logs = ["--tee", "3", "--log_dir", str(tmp_path)]
    command = [sys.executable, "-m", *LAUNCHERS[launcher], *logs, "-m", "probes", "atlas", *words, "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    ended = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=280
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    said = {file.parent.name: file.read_text() for file in tmp_path.rglob("stdout.log")}
    assert json.loads(said.pop("0"))["questions"] == 18
    assert said == {"1": ""}, "only the first process speaks"
    found = tables(root)
    assert found.keys() == expected.keys()
    for name, table in found.items():
        for column in table:
            ours, theirs = (flat(one[name][column]) for one in (found, expected))
            if ours.dtype.kind == "f":
                np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6, err_msg=f"{name} {column}")
            else:
                assert ours.tolist() == theirs.tolist(), f"{name} {column}"


def test_no_cell_of_a_table_is_a_formula():
    table = pd.DataFrame({"id": ["=1+1", "plain"], "value": [-1.5, np.nan]})
    assert table_csv(table).splitlines() == ["id,value", "'=1+1,-1.5", "plain,"]
