"""Thresholds against every threshold there is, and against leaking from a question into its own threshold."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qa.errors import UserError
from qa.thresholds import best_threshold, cross_fitted_thresholds


def test_best_threshold_by_hand():
    # Refusing the two questions above 0.5 and answering the two below gets all four right.
    threshold, value = best_threshold([0.1, 0.4, 0.6, 0.9], answered=[1, 1, 0, 0], refused=[0, 0, 1, 1])
    assert (threshold, value) == (0.5, 1.0)


def test_ties_go_to_the_middle_of_the_widest_interval():
    # Thresholds in [0.125, 0.25) and in [0.375, 0.875) get three of four right.
    found = best_threshold([0.125, 0.25, 0.375, 0.875], answered=[1, 0, 1, 0], refused=[0, 1, 0, 1])
    assert found == (0.625, 0.75)
    # A question that scores the same either way does not divide an interval.
    found = best_threshold([0.125, 0.25, 0.875], answered=[1, 0.5, 0], refused=[0, 0.5, 1])
    assert found == (0.5, 2.5 / 3)


def test_a_question_on_the_threshold_is_answered():
    threshold, value = best_threshold([0.0, 1.0], answered=[1, 1], refused=[0, 0])
    assert (threshold, value) == (1.0, 1.0)
    # No threshold in [0, 1] refuses a question whose no-answer probability is 0.
    assert best_threshold([0.0], answered=[0], refused=[1]) == (0.5, 0.0)


eighths = st.lists(
    st.tuples(st.integers(0, 8), st.sampled_from([0, 0.25, 1]), st.sampled_from([0, 1])),
    min_size=1,
    max_size=12,
)


@given(eighths)
def test_best_threshold_against_every_threshold(rows):
    """With probabilities in eighths, [k/8, (k+1)/8) are all the intervals there are, and 1 is on its own."""
    probabilities = [eighth / 8 for eighth, _, _ in rows]

    def mean(threshold):
        return sum(
            refused if p > threshold else answered
            for p, (_, answered, refused) in zip(probabilities, rows, strict=True)
        ) / len(rows)

    means = [mean(eighth / 8) for eighth in range(9)]
    best = max(means)
    runs, start = [], None
    for eighth, value in enumerate([*means, None]):
        if value == best and start is None:
            start = eighth
        elif value != best and start is not None:
            runs.append((start / 8, min(eighth, 8) / 8))
            start = None
    low, high = max(runs, key=lambda run: run[1] - run[0])

    threshold, value = best_threshold(
        probabilities, answered=[row[1] for row in rows], refused=[row[2] for row in rows]
    )
    assert value == pytest.approx(best, abs=1e-12)
    assert threshold == (low + high) / 2


def test_the_middle_stays_between_neighbouring_floats():
    """The middle of two neighbours rounds to the even one; for one of these pairs that is the upper."""
    start = 0.3
    floats = [start := float(np.nextafter(start, 1)) for _ in range(3)]
    for low, high in pairwise(floats):
        threshold, value = best_threshold([low, high], answered=[1, 0], refused=[0, 1])
        assert (threshold, value) == (low, 1.0)


@pytest.mark.parametrize(
    ("probabilities", "words"),
    [([], "no questions"), ([0.5, float("nan")], "is nan"), ([-0.5, 0.5], "is -0.5"), ([0.5, 1.5], "is 1.5")],
)
def test_probabilities_that_are_refused(probabilities, words):
    ones = [1.0] * len(probabilities)
    with pytest.raises(UserError, match=words):
        best_threshold(probabilities, answered=ones, refused=ones)


@pytest.fixture
def refusals():
    """100 questions on 20 paragraphs: no-answer probabilities, scores if answered, if refused, paragraphs."""
    rng = np.random.default_rng(7)
    refused = rng.integers(2, size=100).astype(float)
    answered = (1 - refused) * rng.random(100)
    probabilities = np.clip(rng.normal(0.3 + 0.3 * refused, 0.2), 0, 1)
    return probabilities, answered, refused, [f"p{index // 5}" for index in range(100)]


def cross_fit(refusals, **options):
    probabilities, answered, refused, groups = refusals
    return cross_fitted_thresholds(
        probabilities, answered=answered, refused=refused, groups=groups, **options
    )


def test_a_fold_for_each_group_tunes_on_all_others(refusals):
    probabilities, answered, refused, groups = refusals
    thresholds = cross_fit(refusals, folds=100)
    for group in set(groups):
        others = np.array([other != group for other in groups])
        expected, _ = best_threshold(
            probabilities[others], answered=answered[others], refused=refused[others]
        )
        np.testing.assert_array_equal(thresholds[~others], expected)


def test_no_question_is_scored_with_a_threshold_tuned_on_its_paragraph(refusals):
    probabilities, answered, refused, groups = refusals
    thresholds = cross_fit(refusals)
    changed_elsewhere = False
    for group in set(groups):
        inside = np.array([other == group for other in groups])
        altered = (
            np.where(inside, 1 - probabilities, probabilities),
            np.where(inside, 1 - answered, answered),
            np.where(inside, 1 - refused, refused),
            groups,
        )
        again = cross_fit(altered)
        np.testing.assert_array_equal(again[inside], thresholds[inside])
        changed_elsewhere |= bool(np.any(again != thresholds))
    assert changed_elsewhere


def test_a_paragraph_has_one_threshold(refusals):
    *_, paragraphs = refusals
    thresholds = cross_fit(refusals)
    assert len(set(zip(paragraphs, thresholds, strict=True))) == len(set(paragraphs))
    assert 1 < len(set(thresholds)) <= 5


def test_folds_depend_on_seed_and_keys_but_not_on_order(refusals):
    thresholds = cross_fit(refusals, seed=3)
    np.testing.assert_array_equal(cross_fit(refusals, seed=3), thresholds)
    assert np.any(cross_fit(refusals, seed=4) != thresholds)
    order = np.random.default_rng(0).permutation(100)
    probabilities, answered, refused, groups = refusals
    shuffled = (probabilities[order], answered[order], refused[order], [groups[index] for index in order])
    np.testing.assert_array_equal(cross_fit(shuffled, seed=3), thresholds[order])


@pytest.mark.parametrize(("groups", "folds"), [(["p"] * 4, 5), (["p", "p", "q", "r"], 1)])
def test_nothing_to_tune_on(groups, folds):
    with pytest.raises(UserError, match=f"{folds} folds over {len(set(groups))} paragraphs"):
        cross_fitted_thresholds([0.5] * 4, answered=[1] * 4, refused=[0] * 4, groups=groups, folds=folds)
