"""Scores of tokens as scores of the words of question and context, which is what all rankings are of.

A word has the sum over its tokens. Special tokens are no words of the text and have no score; the trap is
that most of an attention row may go to them, so what is left sums to less than 1.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from probes.maps import CLS, QUESTION, SEP, Attention, spans_of
from probes.words import Int
from qa.spans import Float


class Word(NamedTuple):
    """A word of the question or the context.

    Attributes:
        text: as written; the token where it covers no text.
        region: the position in `probes.maps.REGIONS`; of a word with a token of the answer, the answer.
        start: first character, in the question for its words and in the context for all others.
        end: one past its last character.
    """

    text: str
    region: int
    start: int
    end: int


def word_numbers(layout: Attention) -> Int:
    """The number of each token's word among the W words of the text, -1 for special tokens [T]."""
    inside = ~np.isin(layout.regions, (CLS, SEP))
    numbers = np.full(len(inside), -1, dtype=np.int32)
    numbers[inside] = np.unique(layout.words[inside], return_inverse=True)[1]
    return numbers


def by_word(scores: NDArray[np.floating], layout: Attention) -> Float:
    """Sums over the tokens of each word of the text [..., W], of scores of tokens [..., T]."""
    numbers = word_numbers(layout)
    inside = np.flatnonzero(numbers >= 0)
    member = np.zeros((len(inside), int(numbers.max(initial=-1)) + 1))
    member[np.arange(len(inside)), numbers[inside]] = 1
    sums: Float = scores[..., inside].astype(np.float64) @ member
    return sums


def words_of_layout(layout: Attention) -> tuple[Word, ...]:
    """The W words of the text, in order."""
    numbers = word_numbers(layout)
    inside = np.flatnonzero(numbers >= 0)
    count = int(numbers.max(initial=-1)) + 1
    firsts = inside[np.unique(numbers[inside], return_index=True)[1]]
    regions = np.zeros(count, dtype=np.int32)
    np.maximum.at(regions, numbers[inside], layout.regions[inside])
    spans = spans_of(layout.chars[inside], numbers[inside], count)
    words = []
    for first, region, (start, end) in zip(firsts, regions.tolist(), spans.tolist(), strict=True):
        text = layout.question if layout.regions[first] == QUESTION else layout.context
        words.append(Word(text[start:end] or layout.tokens[first], region, start, end))
    return tuple(words)
