"""Sentences about one answer say what was found, and hedge where that is little."""

import numpy as np
import pytest

from dashboard.findings import about_heads, about_masking
from probes.agreement import MEASURES, Agreement, Measured
from probes.faithfulness import Band, Curve, Faithfulness

SHARES = np.array([0, 0.1, 0.5, 1])
NAMES = {"a": "method a", "b": "method b", "c": "method c"}


def agreement(values, corrected, summaries=(0.5, 0.5, 0.5)):
    heads = Measured(np.array(values), np.array(corrected), np.array(corrected))
    three = Measured(np.ones(3), np.array(summaries), np.array(summaries))
    return Agreement(dict.fromkeys(MEASURES, heads), dict.fromkeys(MEASURES, three), (), 5, 100, "by name")


def found(losses, chance=(0.1, 0.2, 0.3), full=0.9):
    """Rankings and random ones that lose so much at every inner share."""

    def curve(loss):
        return Curve(np.array([full, full - loss, full - loss, 0]), np.zeros(4), SHARES, full)

    random = tuple(map(curve, chance))
    band = Band(random, np.zeros((2, 4)), np.zeros((2, 4)))
    return Faithfulness({name: curve(loss) for name, loss in losses.items()}, band, (), full)


def test_heads_that_agree_are_counted_and_the_first_is_named():
    said = about_heads(agreement([[0.1, 0.7], [0.2, -0.3]], [[0.5, 0.001], [0.04, 1]], (0.01, 0.5, 0.02)))
    assert said.startswith("2 of 4 heads rank the words as the attribution does beyond chance")
    assert "layer 0, head 1 (rank correlation 0.70)" in said
    assert said.endswith("Of all heads together, raw attention and value-norm attention do too.")
    said = about_heads(agreement([[0.1, 0.7]], [[0.5, 0.001]]))
    assert said.endswith("All heads together do not, in any of the three ways of summing them up.")


def test_no_head_that_agrees_is_no_finding():
    said = about_heads(agreement([[0.1, 0.2]], [[0.5, 0.06]]))
    assert said.startswith("No head of 2 ranks the words")
    assert said.endswith("which says little.")
    assert "ranks no words" in about_heads(agreement([[np.nan]], [[np.nan]]))


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        ({"a": 0.8, "b": 0.5, "c": 0.1}, "method a is the most faithful (comprehensiveness 0.80"),
        ({"a": 0.8, "b": 0.79, "c": 0.1}, "method a and method b take the answer away equally soon"),
        ({"a": 0.8, "b": 0.79, "c": 0.785}, "method a, method b and method c take the answer"),
        ({"a": 0.25, "b": 0.2, "c": 0.1}, "No ranking takes this answer away sooner than random ones"),
    ],
)
def test_masking(losses, said):
    assert said in about_masking(found(losses), NAMES)


def test_an_improbable_answer_says_nothing():
    assert "say next to nothing" in about_masking(found({"a": 0.05, "b": 0}, (0, 0), full=0.06), NAMES)
