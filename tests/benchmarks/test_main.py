"""The command: which cases it chooses, what it refuses, and one run of it in a process of its own."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import small_runs
import tiny_models
from benchmark_cases import Counting, case
from benchmarks import __main__ as command
from benchmarks.report import BEGIN, END
from qa.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
GROUPS = {
    "speed": [
        case(Counting, calls=[], name="speed-one"),
        case(Counting, calls=[], name="speed-gpu", device="cuda"),
    ],
    "size": [case(Counting, calls=[], name="size")],
}


def chosen(*names, cuda=False):
    return [found.name for found in command.choose(GROUPS, names, cuda=cuda)]


def test_names_of_comparisons_and_of_cases():
    assert chosen("speed", cuda=True) == ["speed-one", "speed-gpu"]
    assert chosen("size", "speed-one", "size") == ["size", "speed-one"]


def test_without_a_name_everything_that_can_run_here():
    assert chosen() == ["speed-one", "size"]
    assert chosen(cuda=True) == ["speed-one", "speed-gpu", "size"]


def test_a_case_for_cuda_is_refused_where_there_is_none():
    with pytest.raises(UserError, match="speed-gpu needs a CUDA device"):
        chosen("speed-gpu")


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("atention", "attention"), ("decoding", "decode"), ("attention-brt", "attention-bert")],
)
def test_an_unknown_name_is_one_line_with_the_nearest(name, nearest, capsys):
    assert command.main([name]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert re.fullmatch(rf"benchmarks: .*'{name}'; did you mean .*{nearest}.*\n", printed.err)


def test_a_name_like_no_other_gets_the_list(capsys):
    assert command.main(["xyz"]) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert all(name in printed for name in command.COMPARISONS)


@pytest.mark.parametrize("rounds", ["0", "-1", "two", "²"])
def test_rounds_are_whole_numbers(rounds, capsys):
    with pytest.raises(SystemExit, match="2"):
        command.main(["decode", "--rounds", rounds])
    assert "is not a whole number of at least 1" in capsys.readouterr().err


def test_a_readme_without_a_place_is_refused_before_anything_is_measured(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command, "compare", None)
    assert command.main(["decode", "--write-readme", str(tmp_path / "none.md")]) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_the_readme_has_the_place():
    command.check_readme(command.README)


def test_every_command_of_the_readme_parses():
    lines = re.findall(r"^python -m benchmarks(.*)$", command.README.read_text("utf-8"), re.MULTILINE)
    assert len(lines) > 3
    for line in lines:
        options = command._parser().parse_args(shlex.split(line, comments=True))
        assert set(options.names) <= set(command.COMPARISONS)


def test_data_that_cannot_be_read_is_one_line(tmp_path, capsys):
    assert command.main(["decode", "--dataset", str(tmp_path / "none.json")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert "none.json: cannot be read" in lines[-1]
    assert all(line.startswith(("benchmarks: ", "decode: ")) for line in lines)


@pytest.mark.slow
def test_the_command_from_outside(tmp_path):
    data = small_runs.write_questions(tmp_path / "dev.json", paragraphs=4, seed=3)
    model = tiny_models.save(tmp_path / "model")
    readme = tmp_path / "README.md"
    readme.write_text(f"{BEGIN}\n{END}\n")
    arguments = ["decode", "--rounds", "1", "--dataset", data, "--model", model, "--write-readme", readme]
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks", *map(str, arguments), "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    assert found["decode"]["max_difference"] == 0
    assert found["decode"].keys() == {
        "ours",
        "theirs",
        "ratio",
        "max_difference",
        "ours_peak_mb",
        "theirs_peak_mb",
        "spread",
        "machine",
    }
    assert "decode: round 1 of 1" in run.stderr
    assert "| `decode` |" in readme.read_text()
