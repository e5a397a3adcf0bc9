"""Two real systems on SQuAD's development set: every number of the comparison found in another way."""

import json
from collections import Counter

import numpy as np
import pytest
from scipy.stats import binomtest

from qa.comparison import cells_of, compare, compare_with, scores_of
from qa.importing import import_predictions
from qa.metrics import read_predictions
from qa.scored import read_answers, scored_sets
from qa.squad import load_questions

NAMES = ("r-net-plus-v1.1", "bert-ensemble-v1.1")


@pytest.fixture(scope="module")
def systems(squad_dir, tmp_path_factory):
    """The two experiments, the questions, and their answers."""
    root = tmp_path_factory.mktemp("systems")
    questions = load_questions(str(squad_dir / "dev-v1.1.json"))
    pair = [
        import_predictions(
            read_predictions(squad_dir / "predictions" / f"{name}.json"),
            questions,
            root=root,
            name=name,
            source=name,
        )[0]
        for name in NAMES
    ]
    answers = [read_answers(scored_sets(one)[questions.sha256()], questions.questions) for one in pair]
    return pair, questions.questions, answers


def test_scores_are_the_official_ones(systems, squad_dir):
    _, questions, answers = systems
    official = json.loads((squad_dir / "predictions" / "official_scores.json").read_text())
    for name, own in zip(NAMES, scores_of(answers, questions), strict=True):
        expected = official[f"{name}.json"]
        assert [score.value for score in own] == pytest.approx([expected["exact"], expected["f1"]], abs=1e-9)
        assert {score.count for score in own} == {expected["total"]}


def test_two_by_two_adds_up_and_mcnemar_is_the_exact_binomial(systems):
    pair, questions, answers = systems
    found = compare(*pair)
    rows = [{row["id"]: row["exact_match"] for row in one.predictions()} for one in pair]
    counts = Counter((rows[0][question.id], rows[1][question.id]) for question in questions)
    assert found.right == (counts[1, 1], counts[1, 0], counts[0, 1], counts[0, 0])
    assert sum(found.right) == len(questions)
    assert np.bincount(cells_of(*answers)).tolist() == [*found.right]
    assert found.p_value == pytest.approx(
        binomtest(counts[1, 0], counts[1, 0] + counts[0, 1]).pvalue, rel=1e-12
    )


def test_interval_agrees_with_a_straightforward_loop(systems):
    _, questions, answers = systems
    (found,) = compare_with(answers[0], answers[1:], questions)
    members: dict[str, list[int]] = {}
    for number, question in enumerate(questions):
        members.setdefault(question.paragraph, []).append(number)
    paragraphs = [np.array(numbers) for numbers in members.values()]
    draw = np.random.default_rng(123)
    for number, difference in enumerate(found.differences):
        change = 100 * (answers[1].scores[number] - answers[0].scores[number])
        means = []
        for _ in range(1000):
            drawn = [paragraphs[place] for place in draw.integers(len(paragraphs), size=len(paragraphs))]
            means.append(change[np.concatenate(drawn)].mean())
        # Another seed and fewer resamples: the ends differ by chance, about a twentieth of the width.
        width = difference.interval[1] - difference.interval[0]
        assert difference.interval == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.1 * width)
        assert difference.interval[0] < difference.difference < difference.interval[1]
