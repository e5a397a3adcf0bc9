"""The cases of listing experiments at a small size: both sides agree, and a row that is wrong would show."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import home
from benchmarks.comparison import Options, compare


@pytest.fixture
def cases(tmp_path, monkeypatch):
    monkeypatch.setattr(home, "COUNT", 12)
    monkeypatch.setattr(home, "ROWS", (3, 5))
    home.experiments.cache_clear()
    return {case.name: case for case in home.cases(Options(tmp_path))}


def test_the_cases_are_a_later_and_a_first_visit():
    again, first = home.cases(Options(Path("scratch")))
    assert (again.name, first.name) == ("home", "home-first")
    assert again.what == "list 1,000 experiments again, one of which has moved on"


@pytest.mark.parametrize("name", ["home", "home-first"])
def test_both_sides_agree(cases, name):
    result = compare(replace(cases[name], rounds=1), peak=lambda _case, _side: None, say=lambda _: None)
    assert result.max_difference == 0
    assert min(result.ours, result.theirs, result.ratio) > 0


def test_what_is_listed_is_what_was_made(cases, tmp_path):
    rows = cases["home"].prepare("ours")()
    assert [row.name for row in rows] == [f"experiment-{number:04}" for number in range(12)]
    assert [row.state for row in rows] == ["running", *["finished"] * 11]
    assert {row.problems for row in rows} == {0}
    metrics = json.loads((tmp_path / "experiments" / "experiment-0007" / "metrics.json").read_text())
    assert (rows[7].exact_match, rows[7].f1) == (metrics["exact_match"], metrics["f1"])
    assert rows[0].f1 is None


def test_a_later_visit_opens_the_one_that_moved(cases):
    looking = cases["home"].prepare("ours")
    before = looking.index.opened
    for _ in range(3):
        looking()
    assert looking.index.opened == before + 3


def test_a_wrong_row_shows(cases):
    ours, theirs = cases["home"].prepare("ours"), cases["home"].prepare("theirs")
    assert cases["home"].difference(ours, theirs) == 0
    wrong = lambda: [row._replace(f1=0.0) for row in theirs()]  # noqa: E731  # one line says it best
    assert cases["home"].difference(ours, wrong) == 12


def test_predictions_are_hard_links(cases, tmp_path):
    cases["home"].prepare("ours")
    files = [folder / "predictions.jsonl" for folder in sorted((tmp_path / "experiments").iterdir())]
    assert len({file.stat().st_ino for file in files}) == 2
    assert [len(file.read_text().splitlines()) for file in files[:3]] == [3, 5, 3]
