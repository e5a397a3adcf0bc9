"""Means of streams: against means of everything at once, and intervals against the bootstrap's."""

import numpy as np
import pytest

from probes.atlas_statistics import ClusterMeans, by_paragraph
from qa.intervals import paragraph_interval


def stream(values, paragraphs):
    means = ClusterMeans(values.shape[1:])
    for questions in by_paragraph(paragraphs):
        means.add(values[questions])
    return means


def data(paragraphs=80, cells=(2, 3), seed=0):
    """Questions of a paragraph are alike; some have no value in some cells."""
    draw = np.random.default_rng(seed)
    sizes = draw.integers(1, 8, paragraphs)
    keys = np.repeat([f"p{n}" for n in range(paragraphs)], sizes)
    own = np.repeat(draw.normal(size=(paragraphs, *cells)), sizes, axis=0)
    values = 3 + own + draw.normal(size=(len(keys), *cells))
    values[draw.random(values.shape) < 0.1] = np.nan
    return values, keys.tolist()


def test_means_are_those_of_all_values_at_once():
    values, paragraphs = data()
    means = stream(values, paragraphs).means()
    np.testing.assert_allclose(means.value, np.nanmean(values, axis=0), rtol=0, atol=1e-12)
    np.testing.assert_array_equal(means.count, np.isfinite(values).sum(0))


def test_intervals_are_those_of_the_formula_and_near_those_of_the_bootstrap():
    values, paragraphs = data(cells=(2,))
    means = stream(values, paragraphs).means()
    keys = np.array(paragraphs)
    for cell in (0, 1):
        there = np.isfinite(values[:, cell])
        own, of = values[there, cell], keys[there]
        residual = [(own[of == key] - own.mean()).sum() for key in np.unique(of)]
        error = np.sqrt(np.var(residual) * len(residual) ** 2 / (len(residual) - 1)) / len(own)
        reach = means.high[cell] - means.value[cell]
        assert reach == pytest.approx(1.9908 * error, rel=1e-3)  # Student's t of about 78 degrees of freedom
        low, high = paragraph_interval(own, list(of))
        assert means.low[cell] == pytest.approx(low, abs=0.1 * reach)
        assert means.high[cell] == pytest.approx(high, abs=0.1 * reach)


def test_an_interval_holds_the_truth_about_as_often_as_it_says():
    held = 0
    for seed in range(200):
        values, paragraphs = data(paragraphs=12, cells=(1,), seed=seed)
        means = stream(values, paragraphs).means()
        held += bool(means.low[0] <= 3 <= means.high[0])
    assert 180 <= held <= 199


def test_parts_may_be_merged_in_any_order():
    values, paragraphs = data()
    cut = paragraphs.index("p40")
    first, second = stream(values[:cut], paragraphs[:cut]), stream(values[cut:], paragraphs[cut:])
    whole = stream(values, paragraphs).means()
    second.merge(first)
    np.testing.assert_allclose(second.means().low, whole.low, rtol=0, atol=1e-12)


def test_too_little_has_no_interval():
    means = ClusterMeans((2,))
    means.add(np.array([[1.0, np.nan], [2.0, np.nan]]))
    found = means.means()
    assert found.value[0] == 1.5
    assert found.count.tolist() == [2, 0]
    assert np.isnan([found.value[1], *found.low, *found.high]).all()


def test_runs_of_paragraphs():
    assert list(by_paragraph([])) == []
    assert [(run.start, run.stop) for run in by_paragraph(["a", "a", "b", "a"])] == [(0, 2), (2, 3), (3, 4)]
