"""Intervals against a plain resampling loop and the analytic standard error; McNemar against binomials."""

from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import qa.intervals
from qa.intervals import (
    as_interval,
    holm,
    mcnemar,
    paired_interval,
    paragraph_interval,
    paragraph_intervals,
)


def clustered(paragraphs, seed=0, size=8):
    """Values of questions that share an effect within their paragraph, and the paragraphs' keys."""
    rng = np.random.default_rng(seed)
    keys = np.repeat(np.arange(paragraphs), rng.integers(1, size, size=paragraphs))
    values = rng.normal(size=paragraphs)[keys] + rng.normal(size=len(keys))
    return values, [f"Title/{key}" for key in keys]


def test_interval_against_a_plain_loop():
    values, paragraphs = clustered(12)
    keys = sorted(set(paragraphs))
    of_paragraph = {
        key: [value for value, other in zip(values, paragraphs, strict=True) if other == key] for key in keys
    }
    means = []
    for drawn in np.random.default_rng(5).integers(len(keys), size=(200, len(keys))):
        sample = [value for index in drawn for value in of_paragraph[keys[index]]]
        means.append(sum(sample) / len(sample))
    means.sort()
    # Of 200 sorted means numbered from 0, the quantiles 0.05 and 0.95 lie between two neighbours.
    expected = tuple(
        means[int(at)] + (at - int(at)) * (means[int(at) + 1] - means[int(at)])
        for at in (0.05 * 199, 0.95 * 199)
    )
    found = paragraph_interval(values, paragraphs, level=0.9, resamples=200, seed=5)
    assert found == pytest.approx(expected, abs=1e-12)


def test_interval_against_the_analytic_standard_error():
    values, paragraphs = clustered(400)
    keys, index = np.unique(paragraphs, return_inverse=True)
    residuals = np.bincount(index, weights=values - values.mean())
    standard_error = np.sqrt(np.sum(residuals**2)) / len(
        values
    )  # of a ratio of sums over clusters, linearised
    low, high = paragraph_interval(values, paragraphs)
    assert (low + high) / 2 == pytest.approx(values.mean(), abs=0.1 * standard_error)
    assert (high - low) / 2 == pytest.approx(1.96 * standard_error, rel=0.04)
    assert len(keys) == 400


def test_questions_of_one_paragraph_are_not_independent():
    values, paragraphs = clustered(200)
    low, high = paragraph_interval(values, paragraphs, resamples=2000)
    alone = paragraph_interval(values, [str(index) for index in range(len(values))], resamples=2000)
    assert high - low > 1.2 * (alone[1] - alone[0])


def test_blocks_change_nothing(monkeypatch):
    values, paragraphs = clustered(30)
    whole = paragraph_interval(values, paragraphs, resamples=500)
    monkeypatch.setattr(qa.intervals, "_DRAWS_PER_BLOCK", 30 * 7)
    assert paragraph_interval(values, paragraphs, resamples=500) == pytest.approx(whole, abs=1e-12)
    monkeypatch.setattr(qa.intervals, "_DRAWS_PER_BLOCK", 1)  # a block holds one resample at least
    assert paragraph_interval(values, paragraphs, resamples=500) == pytest.approx(whole, abs=1e-12)


def test_interval_depends_on_the_seed_but_not_on_the_order_of_questions():
    values, paragraphs = clustered(30)
    interval = paragraph_interval(values, paragraphs, resamples=500, seed=1)
    assert paragraph_interval(values, paragraphs, resamples=500, seed=1) == interval
    assert paragraph_interval(values, paragraphs, resamples=500, seed=2) != interval
    order = np.random.default_rng(0).permutation(len(values))
    shuffled = paragraph_interval(
        values[order], [paragraphs[index] for index in order], resamples=500, seed=1
    )
    assert shuffled == pytest.approx(interval, abs=1e-12)


def test_a_higher_level_is_wider():
    values, paragraphs = clustered(30)
    narrow, wide = (
        paragraph_interval(values, paragraphs, level=level, resamples=500) for level in (0.5, 0.95)
    )
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_equal_values_leave_no_doubt():
    assert paragraph_interval([1, 1, 1], ["p", "p", "q"], resamples=50) == (1.0, 1.0)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_fewer_than_two_paragraphs_have_no_interval(count):
    assert paragraph_interval([1.0] * count, ["p"] * count) is None
    assert paired_interval([1.0] * count, [0.0] * count, paragraphs=["p"] * count) is None


def test_paired_interval_is_of_the_difference():
    a, paragraphs = clustered(30)
    b = a + np.random.default_rng(9).normal(0.5, 0.1, size=len(a))
    expected = paragraph_interval(b - a, paragraphs, resamples=500, seed=4)
    low, high = paired_interval(a, b, paragraphs=paragraphs, resamples=500, seed=4)
    assert (low, high) == expected
    assert 0.4 < low < 0.5 < high < 0.6
    assert paired_interval(b, a, paragraphs=paragraphs, resamples=500, seed=4) == pytest.approx((-high, -low))


def test_pairs_of_different_length_are_refused():
    with pytest.raises(ValueError, match="same shape"):
        paired_interval([1.0], [1.0, 0.0], paragraphs=["p", "q"])
    with pytest.raises(ValueError, match="same shape"):
        mcnemar([True], [True, False])


def test_mcnemar_by_hand():
    # 5 questions only a has right, 1 only b: 2 (C(6,0) + C(6,1)) / 2^6.
    a = [True] * 5 + [False] + [True] * 10
    b = [False] * 5 + [True] + [True] * 10
    assert mcnemar(a, b) == pytest.approx(14 / 64)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 5))
def test_mcnemar_against_binomial_coefficients(only_a, only_b, both):
    a = [1.0] * only_a + [0.0] * only_b + [1.0] * both
    b = [0.0] * only_a + [1.0] * only_b + [1.0] * both
    discordant = only_a + only_b
    tail = sum(comb(discordant, count) for count in range(min(only_a, only_b) + 1))
    expected = min(1.0, 2 * tail / 2**discordant)
    assert mcnemar(a, b) == pytest.approx(expected, rel=1e-9)
    assert mcnemar(b, a) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_without_discordant_pairs():
    assert mcnemar([True, False], [True, False]) == 1.0
    assert mcnemar([], []) == 1.0


def test_many_means_at_once_against_a_plain_loop(monkeypatch):
    values, paragraphs = clustered(9, size=4)
    both = np.stack([values, values**2])
    groups = np.stack([np.ones(len(values), bool), np.arange(len(values)) % 3 == 0])
    keys = sorted(set(paragraphs))
    members = [np.array([other == key for other in paragraphs]) for key in keys]
    means = []
    for drawn in np.random.default_rng(3).integers(len(keys), size=(300, len(keys))):
        sample = np.concatenate([np.flatnonzero(members[index]) for index in drawn])
        means.append([[value[sample[group[sample]]].mean() for value in both] for group in groups])
    expected = np.moveaxis(np.quantile(np.array(means), [0.025, 0.975], axis=0), 0, -1)
    found = paragraph_intervals(both, groups, paragraphs, resamples=300, seed=3)
    assert found == pytest.approx(expected, abs=1e-12)
    monkeypatch.setattr(qa.intervals, "_SUMS_AT_ONCE", 1)  # one value at a time
    assert paragraph_intervals(both, groups, paragraphs, resamples=300, seed=3) == pytest.approx(found)


def test_a_group_on_one_paragraph_has_no_interval_and_one_on_few_is_not_empty():
    values = np.array([[0.0, 1.0, 0.0, 1.0]])
    groups = np.array([[True, True, False, False], [True, False, True, False], [False] * 4])
    found = paragraph_intervals(values, groups, ["p", "p", "q", "r"], resamples=200)
    assert [as_interval(bounds) for bounds in found[:, 0]] == [None, (0.0, 0.0), None]


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []
