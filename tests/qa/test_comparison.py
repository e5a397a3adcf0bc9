"""Two experiments on the same questions, against scores and intervals found in other ways."""

import json

import numpy as np
import pytest
from scipy.stats import binomtest

from qa.comparison import compare, describe
from qa.errors import UserError
from qa.experiment import Experiment
from qa.importing import import_predictions
from qa.intervals import paragraph_interval
from qa.squad import QuestionSet, load_questions

QUESTIONS = load_questions("pocket", "validation")


def predictions(seed: int, share: float) -> dict[str, str]:
    """A gold answer (or none where there is none) for about this share, else a word of the context."""
    draw = np.random.default_rng(seed)
    found = {}
    for question in QUESTIONS.questions:
        gold = question.answers[0] if question.answers else ""
        words = question.context.split()
        found[question.id] = gold if draw.random() < share else str(draw.choice(words))
    return found


@pytest.fixture
def pair(tmp_path) -> tuple[Experiment, Experiment]:
    answers = {"one": predictions(0, 0.4), "two": predictions(1, 0.6)}
    return tuple(
        import_predictions(answer, QUESTIONS, root=tmp_path, name=name, source="a test")[0]
        for name, answer in answers.items()
    )


def test_scores_are_those_of_the_experiments(pair):
    found = {item.metric: item for item in compare(*pair).differences}
    first, second = (experiment.metrics() for experiment in pair)
    assert [*found] == [
        f"{part}{metric}" for part in ("", "HasAns_", "NoAns_") for metric in ("exact_match", "f1")
    ]
    for metric, item in found.items():
        assert item.first == pytest.approx(first[metric], abs=1e-9)
        assert item.second == pytest.approx(second[metric], abs=1e-9)
        assert item.difference == pytest.approx(second[metric] - first[metric], abs=1e-9)
    assert found["NoAns_f1"].count == first["NoAns_count"]


def test_interval_is_of_the_differences(pair):
    rows = [{row["id"]: row for row in experiment.predictions()} for experiment in pair]
    differences = [100 * (rows[1][q.id]["f1"] - rows[0][q.id]["f1"]) for q in QUESTIONS.questions]
    expected = paragraph_interval(differences, [q.paragraph for q in QUESTIONS.questions])
    found = next(item for item in compare(*pair).differences if item.metric == "f1")
    assert found.interval == pytest.approx(expected)


def test_two_by_two_and_mcnemar(pair):
    found = compare(*pair)
    exact = [{row["id"]: row["exact_match"] for row in experiment.predictions()} for experiment in pair]
    cells = [(exact[0][q.id], exact[1][q.id]) for q in QUESTIONS.questions]
    assert found.right == tuple(cells.count(cell) for cell in ((1, 1), (1, 0), (0, 1), (0, 0)))
    only = found.right[1:3]
    assert found.p_value == pytest.approx(binomtest(only[0], sum(only)).pvalue)


def test_an_experiment_against_itself(pair):
    found = compare(pair[0], pair[0])
    assert found.p_value == 1
    assert {item.interval for item in found.differences} == {(0, 0)}


def test_without_unanswerable_questions_there_are_no_parts(tmp_path):
    questions = QuestionSet("some", "1.1", tuple(q for q in QUESTIONS.questions if q.answers)[:9], ())
    pair = [
        import_predictions(predictions(seed, 0.5), questions, root=tmp_path, name=f"e{seed}", source="a test")
        for seed in (0, 1)
    ]
    assert [item.metric for item in compare(pair[0][0], pair[1][0]).differences] == ["exact_match", "f1"]


def test_in_words(pair):
    text = describe(compare(*pair)).splitlines()
    assert text[0].split()[:3] == ["one", "two", "difference"]
    assert text[1].startswith("exact_match")
    assert "only in two" in text[-1]
    assert "McNemar p = " in text[-1]


def test_different_questions_cannot_be_compared(pair, tmp_path):
    half = QUESTIONS.limited(100)
    other, _ = import_predictions(predictions(0, 1), half, root=tmp_path, name="half", source="a test")
    with pytest.raises(UserError, match="different questions; evaluate both"):
        compare(pair[0], other)


def test_a_missing_row_is_named(pair):
    file = pair[1].path / "predictions.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[1:]))
    with pytest.raises(UserError, match=f"no row for 1 of its questions \\({json.loads(lines[0])['id']}"):
        compare(*pair)
