"""Does a head look where the gradients point? Attention from the answer against an attribution, with a null.

Three measures over the W words of a window, for each of M distributions of attention: rank correlation
(Spearman), the share of the k highest words that both have, and the Jensen-Shannon distance (0: alike, 1:
nothing in common) of both made to sum to 1. An attribution counts by its size, whatever its sign. *Null*: the
attribution's words are exchanged at random, many times; a p-value is the share of these that agree at least
as well. Heads are many, so their p-values are corrected by Benjamini-Hochberg, the summaries' on their own.

The trap: a small p-value says that words are not exchangeable, not that the attention explains the answer;
both also prefer words of content and those near the answer. And words next to each other are alike, which
makes the null somewhat too narrow.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import false_discovery_control, rankdata

from probes.head_gradients import captured
from probes.maps import Attention
from probes.norms import norm_weighted
from probes.summaries import rollout
from probes.targets import Asked, Fixed
from probes.word_scores import Word, by_word, words_of_layout
from qa.errors import UserError
from qa.spans import Float

MEASURES = {
    "rank_correlation": "rank correlation (higher: agrees more)",
    "top_overlap": "share of top words in common (higher: agrees more)",
    "distance": "Jensen-Shannon distance (lower: agrees more)",
}
SUMMARIES = ("mean", "rollout", "value_norm")
CORRECTION = "Benjamini-Hochberg"
PERMUTATIONS = 1000

# Differences below this are rounding; a permutation that only reorders the sum must count as equal.
_EQUAL = 1e-9
_NUMBERS_PER_BLOCK = 1 << 21


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """One measure of agreement; [L, H] for heads, [3] for the summaries in the order of SUMMARIES.

    Attributes:
        value: of each; NaN where a distribution is constant or empty, so that it ranks nothing.
        p: share of random orders of the words that agree at least as well.
        corrected: p-values after correction for their number; NaN where `value` is.
    """

    value: Float
    p: Float
    corrected: Float


@dataclass(frozen=True, slots=True, eq=False)
class Agreement:
    """How attention from the answer agrees with an attribution, over W words.

    Attributes:
        heads: by MEASURES' names, for each layer and head [L, H].
        summaries: likewise for the mean of all heads, rollout and value norms [3].
        words: of question and context in the window [W].
        top: k, of the overlap.
        permutations: how many made the null.
        correction: of the p-values, by name.
    """

    heads: dict[str, Measured]
    summaries: dict[str, Measured]
    words: tuple[Word, ...]
    top: int
    permutations: int
    correction: str


def agree(
    asked: Asked,
    fixed: Fixed,
    scores: Float,
    *,
    attention: Attention | None = None,
    top: int = 10,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> Agreement:
    """Agreement of every head, and of summaries of all heads, with scores of words.

    Args:
        asked: the question.
        fixed: the target; attention is that from its tokens.
        scores: of the words of its window [W]: `Attribution.word_scores`, of the same window.
        attention: of that window with norms, all layers and heads, where it has been captured; None: it is.
        top: k; no more than half of the words are compared.
        permutations: how many.
        seed: of the permutations.

    Raises:
        UserError: scores of other words, or no positive `top` and `permutations`.
    """
    attention = captured(asked, fixed.window) if attention is None else attention
    words = words_of_layout(attention)
    if scores.shape != (len(words),):
        raise UserError(
            f"scores: shape {scores.shape}, but the window has {len(words)} words; give one for each"
        )
    attended = from_tokens(attention, fixed)
    L, H, count = attended.shape
    top = max(1, min(top, count // 2))
    options = {"top": top, "permutations": permutations, "seed": seed}
    heads = compare(attended.reshape(L * H, count), scores, **options)
    summaries = compare(summarise(attention, fixed), scores, **options)
    return Agreement(
        heads={name: _shaped(measured, (L, H)) for name, measured in heads.items()},
        summaries=summaries,
        words=words,
        top=top,
        permutations=permutations,
        correction=CORRECTION,
    )


def from_tokens(attention: Attention, fixed: Fixed) -> Float:
    """What the words get from the target's tokens, mean over these, for each layer and head [L, H, W]."""
    return by_word(attention.probabilities[:, :, fixed.tokens].mean(2, dtype=np.float32), attention)


def summarise(attention: Attention, fixed: Fixed) -> Float:
    """The same for the SUMMARIES of all heads: mean, rollout to the last layer, value norms [3, W]."""
    mean = from_tokens(attention, fixed).mean((0, 1))
    rolled = from_tokens(rollout(attention), fixed)[-1, 0]
    weighted = from_tokens(norm_weighted(attention), fixed).mean((0, 1))
    return np.stack([mean, rolled, weighted])


def compare(
    attended: Float, scores: Float, *, top: int, permutations: int = PERMUTATIONS, seed: int = 0
) -> dict[str, Measured]:
    """The measures of M distributions over W words against one attribution, by name [M].

    Args:
        attended: not negative [M, W].
        scores: of any sign [W].
        top: how many of the highest words to compare, at most W.
        permutations: how many make the null.
        seed: of the permutations.

    Raises:
        UserError: no positive number of permutations or of top words.
    """
    if permutations < 1 or top < 1:
        raise UserError(f"permutations {permutations}, top {top}; both must be at least 1")
    size = np.abs(scores)
    rng = np.random.default_rng(seed)
    orders = np.argsort(rng.random((permutations, len(size))), axis=1)
    exchanged = np.concatenate([size[None], size[orders]])  # [1 + N, W]
    found = {
        "rank_correlation": _rank_correlations(attended, exchanged),
        "top_overlap": _overlaps(attended, exchanged, top),
        "distance": -_distances(attended, exchanged),
    }
    return {name: _measured(values, sign=-1 if name == "distance" else 1) for name, values in found.items()}


def _measured(values: Float, *, sign: int) -> Measured:
    """Value and p-values of agreement [M, 1 + N], of which the first column is the observed one."""
    observed = values[:, :1]
    # The observed order is one of all orders (Phipson and Smyth 2010): no p-value is 0.
    p = (values >= observed - _EQUAL).mean(1)
    p[np.isnan(observed[:, 0])] = np.nan
    return Measured(sign * observed[:, 0], p, corrected(p))


def corrected(p: Float) -> Float:
    """p-values [M] after Benjamini and Hochberg 1995, who bound false discoveries; NaN stays."""
    known = ~np.isnan(p)
    result = np.full(p.shape, np.nan)
    if known.any():
        result[known] = false_discovery_control(p[known], method="bh")
    return result


def _rank_correlations(attended: Float, exchanged: Float) -> Float:
    """Spearman's rho [M, 1 + N]; NaN for a constant."""
    return _standard(rankdata(attended, axis=1)) @ _standard(rankdata(exchanged, axis=1)).T


def _standard(ranks: Float) -> Float:
    centred = ranks - ranks.mean(1, keepdims=True)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    result: Float = centred / np.where(length == 0, np.nan, length)
    return result


def _overlaps(attended: Float, exchanged: Float, top: int) -> Float:
    """Share of the k highest words that both have [M, 1 + N]; NaN for a constant, which has no highest."""
    shares: Float = _highest(attended, top) @ _highest(exchanged, top).T / top
    shares[np.ptp(attended, axis=1) == 0] = np.nan
    shares[:, np.ptp(exchanged, axis=1) == 0] = np.nan
    return shares


def _highest(values: Float, top: int) -> Float:
    """1 for each of the k highest of a row, 0 for the rest; of equal ones the first [..., W]."""
    mark = np.zeros(values.shape)
    np.put_along_axis(mark, np.argsort(-values, axis=1, kind="stable")[:, :top], 1.0, axis=1)
    return mark


def _distances(attended: Float, exchanged: Float) -> Float:
    """Jensen-Shannon distance, the square root of the divergence in bits [M, 1 + N]; NaN for zeros only."""
    p, q = _shares(attended), _shares(exchanged)
    own, other = _entropy(p), _entropy(q)
    result = np.empty((len(p), len(q)))
    rows = max(1, _NUMBERS_PER_BLOCK // p.size)
    for start in range(0, len(q), rows):
        part = slice(start, start + rows)
        mixed = _entropy((p[:, None] + q[None, part]) / 2)
        result[:, part] = mixed - (own[:, None] + other[None, part]) / 2
    distances: Float = np.sqrt(np.clip(result, 0, 1))
    return distances


def _shares(values: Float) -> Float:
    sums = values.sum(1, keepdims=True)
    shares: Float = values / np.where(sums == 0, np.nan, sums)
    return shares


def _entropy(p: Float) -> Float:
    """In bits, over the last axis."""
    entropy: Float = -(p * np.log2(np.where(p > 0, p, 1))).sum(-1)
    return entropy


def _shaped(measured: Measured, shape: tuple[int, int]) -> Measured:
    return Measured(
        measured.value.reshape(shape), measured.p.reshape(shape), measured.corrected.reshape(shape)
    )
