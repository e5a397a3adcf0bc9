"""What attention probabilities are of: tokens, words, sentences and regions of a question and its context.

Every view groups tokens: a group is attended to with the sum over its tokens, and attends with their mean, so
rows sum to 1 whatever the unit. Special tokens stay rows and columns of their own: what flows into them is
most of what many heads do, and a view that hides such sinks shows noise enlarged. The trap: the region
"context" is the context without the answer, because regions, too, must share the tokens out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from probes.words import Int
from qa.errors import UserError

Float = NDArray[np.float32]
Bool = NDArray[np.bool_]

REGIONS = ("[CLS]", "question", "[SEP]", "context", "answer")
CLS, QUESTION, SEP, CONTEXT, ANSWER = range(len(REGIONS))
UNITS = ("token", "word", "sentence", "region")
ALL_HEADS = -1  # in place of a head's number

# Maps of a long context fill any memory; what is refused says how to ask for less.
MOST_BYTES = 4 << 30


@dataclass(frozen=True, slots=True)
class View:
    """Attention between N tokens, words, sentences or regions.

    Attributes:
        unit: one of UNITS.
        probabilities: row: who attends; column: who is attended to [L, H, N, N]. Rows sum to 1 where those of
            the tokens do; the row of a region without tokens is NaN.
        layers: the number of each layer in the model [L].
        heads: the number of each head, ALL_HEADS for all in one [H].
        labels: what is written beside a row or column [N].
        chars: first character and end in the question or the context, -1 for special tokens [N, 2].
        regions: the position in REGIONS; of a group with a token of the answer, the answer [N].
        seen: false between what no window that the row is from holds; None: all is true [N, N].
    """

    unit: str
    probabilities: Float
    layers: tuple[int, ...]
    heads: tuple[int, ...]
    labels: tuple[str, ...]
    chars: Int
    regions: Int
    seen: Bool | None

    def between(self, query: str, key: str) -> Float:
        """How much a region attends to another one, by layer and head: mean over its rows [L, H].

        Exact for the unit "region"; otherwise each word or sentence weighs the same, however many tokens.
        """
        rows, columns = (self.regions == _region(name) for name in (query, key))
        if not rows.any():
            return np.full(self.probabilities.shape[:2], np.nan, dtype=np.float32)
        flow: Float = self.probabilities[:, :, rows][..., columns].sum(-1).mean(-1)
        return flow

    def sinks(self) -> Float:
        """How much each row attends to [CLS] and [SEP] together, by layer and head [L, H, N]."""
        sinks: Float = self.probabilities[..., np.isin(self.regions, (CLS, SEP))].sum(-1)
        return sinks


@dataclass(frozen=True, slots=True)
class Attention:
    """Attention probabilities between the T tokens of one window, or of several joined (`probes.joining`).

    Attributes:
        probabilities: float16 or float32 [L, H, T, T]; row: the token that attends; column: the one attended
            to; rows sum to 1 (in float16 to 1e-3). Or what was made of them (`probes.norms.norm_weighted`,
            `probes.summaries`), which says what its rows sum to.
        layers: the number of each layer in the model [L].
        heads: the number of each head, ALL_HEADS for all in one [H].
        tokens: as the tokenizer writes them [T].
        chars: first character and end of each token, trimmed of blanks, in the question for tokens of the
            question and in the context for the rest; -1 for special tokens [T, 2].
        words: which word each token is a piece of, ascending from 0; special tokens are words [T].
        sentences: which sentence, likewise [T].
        regions: the position in REGIONS [T].
        windows: the ordinal of the window that each row is from [T].
        seen: false where a column is not in the row's window, so that the 0 there says nothing; None where
            all is true [T, T].
        before: tokens of the context before the first one here.
        question: the whole question.
        context: the whole context.
        answer: first character and end of the answer in the context; (0, 0) if there is none.
        norms: how long each token's value is, see `probes.norms.value_norms` [L, H, T]. None where it was not
            captured, or does not apply: a token has one in each window it is in, and so none once joined.
    """

    probabilities: NDArray[np.float16] | Float
    layers: tuple[int, ...]
    heads: tuple[int, ...]
    tokens: tuple[str, ...]
    chars: Int
    words: Int
    sentences: Int
    regions: Int
    windows: Int
    seen: Bool | None
    before: int
    question: str
    context: str
    answer: tuple[int, int]
    norms: Float | None = None

    def select(self, *, layers: Sequence[int] | None = None, heads: Sequence[int] | None = None) -> Attention:
        """The same for some layers and heads, by their numbers in the model.

        Raises:
            UserError: one that was not captured.
        """
        rows, columns = _places("layers", layers, self.layers), _places("heads", heads, self.heads)
        return replace(
            self,
            probabilities=self.probabilities[np.ix_(rows, columns)],
            layers=tuple(self.layers[row] for row in rows),
            heads=tuple(self.heads[column] for column in columns),
            norms=None if self.norms is None else self.norms[np.ix_(rows, columns)],
        )

    def by(self, unit: str) -> View:
        """The attention between tokens, words, sentences or regions.

        Raises:
            UserError: another unit.
        """
        groups = self._groups(unit)
        count = len(REGIONS) if unit == "region" else int(groups[-1]) + 1
        chars = spans_of(self.chars, groups, count)
        known = {"token": self.tokens, "region": REGIONS}
        return View(
            unit=unit,
            probabilities=_grouped(self.probabilities, groups, count),
            layers=self.layers,
            heads=self.heads,
            labels=known.get(unit) or self._labels(groups, chars),
            chars=chars,
            regions=np.arange(count, dtype=np.int32) if unit == "region" else self._regions(groups, count),
            seen=None if self.seen is None else _any(self.seen, groups, count),
        )

    def _groups(self, unit: str) -> Int:
        if unit not in UNITS:
            raise UserError(f"unit: {unit!r}; choose {', '.join(UNITS)}")
        if unit == "token":
            return np.arange(len(self.tokens), dtype=np.int32)
        return {"word": self.words, "sentence": self.sentences, "region": self.regions}[unit]

    def _labels(self, groups: Int, chars: Int) -> tuple[str, ...]:
        """The text of each word or sentence; its first token where it covers no text."""
        labels = []
        for token, (start, end) in zip(np.unique(groups, return_index=True)[1], chars, strict=True):
            text = self.question if self.regions[token] == QUESTION else self.context
            labels.append(text[start:end] or self.tokens[token])
        return tuple(labels)

    def _regions(self, groups: Int, count: int) -> Int:
        regions = np.zeros(count, dtype=np.int32)
        np.maximum.at(regions, groups, self.regions)  # the answer is the last of them
        return regions


def groups_of(regions: Int, chars: Int, *, question: str, context: str, cut: Callable[[str], Int]) -> Int:
    """Number the groups of tokens that share a word or a sentence of the texts, from 0 [T].

    A token that covers several words joins them; one that covers none belongs to what is at its place.

    Args:
        regions: positions in REGIONS [T].
        chars: characters of each token, as in `Attention` [T, 2].
        question: text of the question.
        context: text of the context.
        cut: gives the word or sentence of each character of a text.
    """
    begins = np.ones(len(regions), dtype=np.int32)
    in_question = regions == QUESTION
    for tokens, text in ((in_question, question), (~in_question & (regions > SEP), context)):
        places = np.flatnonzero(tokens)
        if not len(places):
            continue
        numbers = cut(text)
        start, end = chars[places].T
        first = numbers[np.minimum(start, len(text) - 1)]
        last = numbers[np.minimum(np.maximum(end - 1, start), len(text) - 1)]
        begins[places[1:]] = first[1:] > np.maximum.accumulate(last)[:-1]
    return np.cumsum(begins, dtype=np.int32) - 1


def row_shares(maps: Float) -> Float:
    """Each row divided by its sum [..., T, T]; a row of zeros stays one."""
    sums = maps.sum(-1, keepdims=True)
    sums[sums == 0] = 1
    shares: Float = maps / sums
    return shares


def check_bytes(needed: int, what: str) -> None:
    """Refuse maps that would take more than a few gigabytes.

    Raises:
        UserError: saying how to ask for less.
    """
    if needed > MOST_BYTES:
        raise UserError(
            f"attention: {what} would take {needed / 1e9:.1f} GB, and at most {MOST_BYTES / 1e9:.1f} GB is "
            "allowed; choose fewer layers, heads or windows"
        )


def _grouped(probabilities: NDArray[np.float16] | Float, groups: Int, count: int) -> Float:
    """Sums over the columns and means over the rows of each group [L, H, count, count]."""
    member = np.zeros((len(groups), count), dtype=np.float32)
    member[np.arange(len(groups)), groups] = 1
    sizes = member.sum(0)
    mean = (member / np.maximum(sizes, 1)).T
    grouped = np.empty((*probabilities.shape[:2], count, count), dtype=np.float32)
    for layer, maps in enumerate(probabilities):  # a layer at a time, as float32 takes twice the memory
        grouped[layer] = mean @ (maps.astype(np.float32) @ member)
    grouped[:, :, sizes == 0] = np.nan
    return grouped


def _any(seen: Bool, groups: Int, count: int) -> Bool:
    together = np.zeros((count, count), dtype=np.bool_)
    rows, columns = np.nonzero(seen)
    together[groups[rows], groups[columns]] = True
    return together


def spans_of(chars: Int, groups: Int, count: int) -> Int:
    """First character and end of what the tokens of each group cover; (-1, -1) for nothing [count, 2]."""
    covers = chars[:, 1] > chars[:, 0]
    spans = np.full((count, 2), -1, dtype=np.int32)
    spans[np.unique(groups[covers]), 0] = np.iinfo(np.int32).max
    np.minimum.at(spans[:, 0], groups[covers], chars[covers, 0])
    np.maximum.at(spans[:, 1], groups[covers], chars[covers, 1])
    return spans


def _places(name: str, wanted: Sequence[int] | None, there: tuple[int, ...]) -> list[int]:
    if wanted is None:
        return list(range(len(there)))
    if not wanted or not set(wanted) <= set(there):
        raise UserError(f"{name}: {list(wanted)}; captured are {list(there)}")
    return [there.index(number) for number in wanted]


def _region(name: str) -> int:
    if name not in REGIONS:
        raise UserError(f"region: {name!r}; choose {', '.join(REGIONS)}")
    return REGIONS.index(name)
