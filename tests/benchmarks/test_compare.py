"""Both sides of the comparison find the same numbers, and would notice another answer."""

from functools import partial

import numpy as np
import pytest

import small_runs
from benchmarks import compare
from benchmarks.comparison import Options
from benchmarks.comparison import compare as run
from qa.intervals import paragraph_intervals
from qa.metrics import score_answer
from qa.squad import Question, load_questions


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    """As many as make the loop's time short."""
    monkeypatch.setattr(compare, "RESAMPLES", 200)
    monkeypatch.setattr("qa.comparison.paragraph_intervals", partial(paragraph_intervals, resamples=200))


@pytest.fixture
def case(tmp_path):
    """On small questions, every fourth without an answer."""
    data = small_runs.write_questions(tmp_path / "dev.json", paragraphs=12, seed=4)
    (case,) = compare.cases(Options(tmp_path, dataset=str(data)))
    return case


def test_both_sides_agree_with_unanswerable_questions(case):
    result = run(case, rounds=1, peak=lambda _case, _side: None, say=lambda _: None)
    assert result.max_difference < 1e-9
    assert min(result.ours, result.theirs) > 0
    assert "dev.json" in case.what
    assert len(case.prepare("ours")()) == 6 * 4 + 5


def test_both_sides_agree_on_squad(squad_dir):
    (case,) = compare.cases(Options(squad_dir, dataset=str(squad_dir / "dev-v1.1.json")))
    ours, theirs = case.prepare("ours"), case.prepare("theirs")
    assert case.difference(ours, theirs) < 1e-9
    assert len(ours()) == 2 * 4 + 5


def test_another_answer_shows(case):
    ours, theirs = case.prepare("ours"), case.prepare("theirs")
    changed = dict(theirs.texts[0])
    changed[next(iter(changed))] = "something else entirely"
    assert case.difference(ours, compare.InLoops(theirs.questions, (changed, theirs.texts[1]))) > 1e-3


@pytest.mark.parametrize("version", ["1.1", "2.0"])
@pytest.mark.parametrize(
    ("text", "golds"),
    [
        ("The cat!", ("cat",)),
        ("a b", ("b c", "a")),
        ("the", ("A",)),
        ("", ("x",)),
        ("x", ("the", "x y")),
        ("", ("",)),
    ],
)
def test_the_written_out_functions_are_the_official_rules(text, golds, version):
    question = Question("i", "", "/0", "q", "c", golds, (-1,) * len(golds))
    found = compare.official(question, text, is_v2=version == "2.0")
    assert found == pytest.approx(score_answer(text, golds, version=version))


def test_answers_are_drawn_as_often_right_as_told():
    questions = load_questions("pocket", "validation")
    drawn = compare.drawn_answers(questions, share=0.7, seed=0)
    right = [
        score_answer(drawn[one.id], one.answers, version="2.0")[0]
        for one in questions.questions
        if one.answers
    ]
    assert np.mean(right) == pytest.approx(0.7, abs=0.1)
    assert drawn == compare.drawn_answers(questions, share=0.7, seed=0)
