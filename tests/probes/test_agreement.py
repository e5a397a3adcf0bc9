"""Agreement computed on paper, by scipy, and with a null that is uniform where nothing agrees."""

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import false_discovery_control, kstest, spearmanr

import paper
from probes.agreement import MEASURES, SUMMARIES, agree, compare, corrected, from_tokens, summarise
from probes.attribution import attribute
from probes.head_gradients import captured
from probes.maps import CLS, SEP
from probes.norms import norm_weighted
from probes.summaries import rollout
from probes.targets import Asked, Target
from probing import CONTEXT, QUESTION
from qa.errors import UserError


def draws(seed, rows=5, words=20):
    draw = np.random.default_rng(seed)
    return draw.dirichlet(np.full(words, 0.3), size=rows), draw.normal(size=words)


def test_values_are_those_of_scipy():
    attended, scores = draws(0)
    found = compare(attended, scores, top=4, permutations=10)
    for number, row in enumerate(attended):
        assert found["rank_correlation"].value[number] == pytest.approx(spearmanr(row, abs(scores)).statistic)
        shares = abs(scores) / abs(scores).sum()
        assert found["distance"].value[number] == pytest.approx(jensenshannon(row, shares, base=2))
        common = set(np.argsort(-row)[:4]) & set(np.argsort(-abs(scores))[:4])
        assert found["top_overlap"].value[number] == len(common) / 4


def test_what_is_the_same_agrees_fully_and_what_is_apart_not_at_all():
    scores = np.array([0.5, -0.3, 0.2, 0.0, 0.0, 0.0])
    apart = np.array([0.0, 0.0, 0.0, 0.2, 0.3, 0.5])
    found = compare(np.stack([abs(scores), apart]), scores, top=3, permutations=1000)
    assert found["rank_correlation"].value[0] == pytest.approx(1)
    np.testing.assert_allclose(found["distance"].value, [0, 1], atol=1e-7)
    assert found["top_overlap"].value.tolist() == [1, 0]
    # 3! of 6! orders leave the three words where they are, the first of 6 * 5 * 4.
    assert found["distance"].p[0] == pytest.approx(1 / 120, abs=0.01)
    assert found["top_overlap"].p[0] == pytest.approx(1 / 20, abs=0.02)
    assert found["distance"].p[1] == found["top_overlap"].p[1] == 1


def test_p_values_are_shares_of_the_orders_that_agree_as_well():
    """Against a count over the very orders, each measured by scipy."""
    attended, scores = draws(1, rows=2, words=12)
    found = compare(attended, scores, top=3, permutations=99, seed=5)
    orders = np.argsort(np.random.default_rng(5).random((99, 12)), axis=1)
    for number, row in enumerate(attended):
        observed = spearmanr(row, abs(scores)).statistic
        others = [spearmanr(row, abs(scores)[order]).statistic for order in orders]
        expected = (1 + np.sum(np.array(others) >= observed - 1e-9)) / 100
        assert found["rank_correlation"].p[number] == pytest.approx(expected)
        distance = jensenshannon(row, abs(scores), base=2)
        others = [jensenshannon(row, abs(scores)[order], base=2) for order in orders]
        expected = (1 + np.sum(np.array(others) <= distance + 1e-9)) / 100
        assert found["distance"].p[number] == pytest.approx(expected)


def test_on_a_random_ranking_the_null_is_uniform(prove):
    """Many seeds: p-values of rankings that have nothing to do with the attention."""
    seeds = 2000 if prove else 400
    p = {name: [] for name in MEASURES}
    for seed in range(seeds):
        attended, scores = draws(seed, rows=1)
        for name, measured in compare(attended, scores, top=5, permutations=199, seed=seed).items():
            p[name].append(measured.p[0])
    for name in ("rank_correlation", "distance"):
        assert kstest(p[name], "uniform").pvalue > 0.01, name
    for values in p.values():  # of a measure with few values, no p-value is smaller than it should be
        for level in (0.05, 0.2, 0.5):
            assert np.mean(np.array(values) <= level) <= level + 3 * np.sqrt(level / seeds)


def test_corrected_for_the_number_of_heads():
    p = np.array([0.01, np.nan, 0.04, 0.03, 0.5])
    found = corrected(p)
    np.testing.assert_allclose(found[~np.isnan(p)], false_discovery_control(p[~np.isnan(p)], method="bh"))
    np.testing.assert_allclose(found, [0.04, np.nan, 0.16 / 3, 0.16 / 3, 0.5])
    assert np.isnan(corrected(np.array([np.nan]))).all()
    # Of 72 heads that agree with nothing, 1 of 20 falls below 0.05 by itself, and none once corrected.
    draw = np.random.default_rng(0)
    found = compare(draw.dirichlet(np.ones(30), size=72), draw.normal(size=30), top=5)
    assert 0 < (found["rank_correlation"].p < 0.05).sum() < 15
    assert (found["rank_correlation"].corrected >= 0.05).all()


def test_a_head_that_ranks_nothing_has_no_agreement():
    attended = np.array([[0.25, 0.25, 0.25, 0.25], [0.0, 0, 0, 0], [0.1, 0.2, 0.3, 0.4]])
    found = compare(attended, np.array([1.0, 2, 3, 4]), top=2, permutations=20)
    for name in ("rank_correlation", "top_overlap"):
        assert np.isnan(found[name].value).tolist() == [True, True, False]
    assert np.isnan(found["distance"].value).tolist() == [False, True, False]
    for measured in found.values():
        assert (np.isnan(measured.p) == np.isnan(measured.value)).all()
        assert (np.isnan(measured.corrected) == np.isnan(measured.value)).all()


def test_heads_and_summaries_of_a_question(reader_of):
    asked = Asked.of(reader_of("deberta-v3"), QUESTION, CONTEXT)
    fixed = asked.fix(Target())
    found = attribute(asked, fixed, steps=8)
    attention = captured(asked, fixed.window)
    agreement = agree(asked, fixed, found.word_scores, permutations=50, top=7)
    assert agreement.words == found.words()
    assert (agreement.top, agreement.permutations, agreement.correction) == (7, 50, "Benjamini-Hochberg")
    words = np.array([np.isin(attention.regions, (CLS, SEP), invert=True)])[0]
    row = attention.probabilities[1, 0][fixed.tokens].mean(0)
    by_hand = [row[words][attention.words[words] == word].sum() for word in np.unique(attention.words[words])]
    expected = spearmanr(by_hand, abs(found.word_scores)).statistic
    assert agreement.heads["rank_correlation"].value[1, 0] == pytest.approx(expected, abs=1e-6)
    for name in MEASURES:
        assert agreement.heads[name].value.shape == agreement.heads[name].corrected.shape == (2, 2)
        assert agreement.summaries[name].value.shape == (len(SUMMARIES),)
    again = agree(asked, fixed, found.word_scores, attention=attention, permutations=50, top=7)
    assert (again.heads["distance"].p == agreement.heads["distance"].p).all()


def test_summaries_are_of_all_heads(reader_of):
    asked = Asked.of(reader_of("bert"), QUESTION, CONTEXT)
    fixed = asked.fix(Target())
    attention = captured(asked, fixed.window)
    mean, rolled, weighted = summarise(attention, fixed)
    np.testing.assert_allclose(mean, from_tokens(attention, fixed).mean((0, 1)), rtol=1e-6)
    np.testing.assert_allclose(rolled, from_tokens(rollout(attention), fixed)[1, 0], rtol=1e-6)
    np.testing.assert_allclose(weighted, from_tokens(norm_weighted(attention), fixed).mean((0, 1)), rtol=1e-5)


def test_the_head_that_carries_the_answer_agrees():
    asked = Asked.of(paper.reader(), paper.QUESTION, paper.CONTEXT)
    fixed = asked.fix(Target())
    found = agree(asked, fixed, attribute(asked, fixed).word_scores, top=1)
    assert found.heads["distance"].value[0, 0] == pytest.approx(0, abs=0.01)
    assert found.heads["top_overlap"].value[0, 0] == 1
    # One word in W is in the same place by chance.
    assert found.heads["top_overlap"].p[0, 0] == pytest.approx(1 / len(found.words), abs=0.03)


@pytest.mark.parametrize("options", [{"permutations": 0}, {"top": 0}])
def test_what_cannot_be_compared(options):
    with pytest.raises(UserError, match="both must be at least 1"):
        compare(*draws(0), **({"top": 3} | options))


def test_scores_of_other_words_are_refused():
    asked = Asked.of(paper.reader(), paper.QUESTION, paper.CONTEXT)
    with pytest.raises(UserError, match=r"scores: shape \(3,\), but the window has 18 words"):
        agree(asked, asked.fix(Target()), np.zeros(3))
