"""What maps say together: the words of the question that the answer attends to; rollout; all but the sinks.

What gives attention again can be viewed, joined and saved as any; `Attended.each` applies it to all windows.

The trap: layers differ widely in how much of their attention goes from the answer to the question, so a plain
sum over layers is the voice of a few of them; here each layer has the same say.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from probes.maps import (
    ALL_HEADS,
    ANSWER,
    CLS,
    QUESTION,
    SEP,
    Attention,
    Bool,
    check_bytes,
    row_shares,
    spans_of,
)
from qa.errors import UserError


@dataclass(frozen=True, slots=True)
class AttendedWord:
    """A word of the question, and how much of the answer's attention to the question it gets.

    Attributes:
        text: as in the question; the token where it covers no text.
        weight: share of 1; all words of the question sum to 1.
        start: first character in the question; -1 where it covers no text.
        end: one past its last character; likewise.
    """

    text: str
    weight: float
    start: int
    end: int


def attended_words(attention: Attention) -> tuple[AttendedWord, ...]:
    """The words of the question that the answer attends to, heaviest first; the first is the main one.

    Attention from the answer's tokens to the question's tokens, summed over answer tokens and heads, divided
    in each layer by what all tokens of the question get there, and averaged over layers; a word gets the sum
    of its pieces. [CLS] and [SEP] are no part of it. Words of equal weight are in the order of the text.

    Args:
        attention: of the window that gave the answer (`Attended.window()`), with the layers and heads that
            are to count.

    Returns:
        All words of the question; none where the window holds no answer (it was refused, or is empty) or
        no question (the tokenizer dropped all of its characters), or the one attends to the other nowhere.
    """
    rows, columns = (np.flatnonzero(attention.regions == region) for region in (ANSWER, QUESTION))
    received = attention.probabilities[:, :, rows[:, None], columns].sum((1, 2), dtype=np.float64)  # [L, Q]
    heard = received[received.sum(1) > 0]
    if not len(heard):
        return ()
    shares = (heard / heard.sum(1, keepdims=True)).mean(0)  # [Q]
    _, firsts, groups = np.unique(attention.words[columns], return_index=True, return_inverse=True)
    spans = spans_of(attention.chars[columns], groups.astype(np.int32), len(firsts))
    weights = np.bincount(groups, weights=shares)
    return tuple(
        AttendedWord(
            attention.question[start:end] or attention.tokens[columns[firsts[word]]],
            float(weights[word]),
            start,
            end,
        )
        for word in np.argsort(-weights, kind="stable").tolist()
        for start, end in [spans[word].tolist()]
    )


def without_sinks(attention: Attention) -> Attention:
    """Attention to all but [CLS] and [SEP], in float32: their columns are 0, the rest of a row sums to 1.

    Most of what many heads do flows into these sinks, so the rest may be little, enlarged: show it beside
    `View.sinks`, which says how much was left out. A row that had nothing else is 0.

    Raises:
        UserError: more than a few gigabytes.
    """
    check_bytes(attention.probabilities.size * 4, f"{len(attention.layers)} layers without sinks")
    hidden = _sinks(attention)
    rest = np.empty(attention.probabilities.shape, dtype=np.float32)
    for layer, maps in enumerate(attention.probabilities):
        rest[layer] = row_shares(np.where(hidden, np.float32(0), maps))
    return replace(attention, probabilities=rest)


def rollout(attention: Attention, *, first: int = 0, sinks: bool = True) -> Attention:
    """How much of each token of the input is in each token after each layer (Abnar and Zuidema 2020).

    Attention is averaged over heads, each token keeps half of itself (the residual connection), and what
    layer after layer mixes is multiplied up: https://arxiv.org/abs/2005.00928. Several windows are rolled out
    first and joined then: `attended.each(rollout).joined()`.

    Args:
        attention: of one window, with all layers from `first` to the last that is wanted; also weighted with
            norms. The average is over the heads it has: for the paper's, all of the model's.
        first: the layer whose input is asked about, counted from 0.
        sinks: whether [CLS] and [SEP] are attended to. If not, the rest of each row is shared out again after
            the average; a row that had nothing else keeps itself.

    Returns:
        One map, "head" ALL_HEADS, for each layer from `first`: row i says what the token at i is made of once
        that layer is through. Rows sum to 1; float32.

    Raises:
        UserError: a layer on the way was not captured, or the windows are joined.
    """
    if len(np.unique(attention.windows)) > 1:
        raise UserError("rollout: these windows are joined; roll out each of them and join the results")
    layers = _layers_from(first, attention.layers)
    hidden = np.zeros_like(attention.regions, dtype=np.bool_) if sinks else _sinks(attention)
    itself = np.eye(len(attention.tokens), dtype=np.float32)
    through = itself
    maps = np.empty((len(layers), 1, *itself.shape), dtype=np.float32)
    for place, layer in enumerate(layers):
        mean = attention.probabilities[attention.layers.index(layer)].mean(0, dtype=np.float32)
        step = row_shares(row_shares(np.where(hidden, 0, mean)) + itself)
        through = maps[place, 0] = step @ through
    return replace(attention, probabilities=maps, layers=layers, heads=(ALL_HEADS,), norms=None)


def _sinks(attention: Attention) -> Bool:
    return np.isin(attention.regions, (CLS, SEP))


def _layers_from(first: int, captured: tuple[int, ...]) -> tuple[int, ...]:
    """All layers from the first to the last that was captured."""
    layers = tuple(range(first, max(captured) + 1))
    if not layers or not set(layers) <= set(captured):
        raise UserError(
            f"rollout: from layer {first} on, but captured are {sorted(captured)}; capture each layer from "
            "there to the last, or choose another first one"
        )
    return layers
