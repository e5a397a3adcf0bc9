"""What many maps say at a glance: thumbnails, parts of a map, its strongest pairs, one word in every head.

Two maps of the same text are compared by what their rows and columns cover, so that two tokenizers' words
meet. The trap: a part of a map has rows that no longer sum to 1, and a thumbnail, which keeps the largest
value of each piece so that a single strong cell survives, has not even cells that are probabilities.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.maps import (
    ANSWER,
    CLS,
    CONTEXT,
    QUESTION,
    REGIONS,
    SEP,
    Attention,
    Float,
    View,
)
from probes.readable import at_places
from probes.words import Int
from qa.errors import UserError

# Side (question, context or a special token's region), first character and end; -1 and a number if special.
Unit = tuple[int, int, int]

EVERYTHING = tuple(range(len(REGIONS)))
TEXT = (QUESTION, CONTEXT, ANSWER)
# Part of a map: regions of its rows, and of its columns.
PARTS = {
    "everything": (EVERYTHING, EVERYTHING),
    "without special tokens": (TEXT, TEXT),
    "question → context": ((QUESTION,), (CONTEXT, ANSWER)),
    "context → question": ((CONTEXT, ANSWER), (QUESTION,)),
    "answer → question": ((ANSWER,), (QUESTION,)),
    "question → answer": ((QUESTION,), (ANSWER,)),
    "answer → everything": ((ANSWER,), EVERYTHING),
    "everything → answer": (EVERYTHING, (ANSWER,)),
    "within the question": ((QUESTION,), (QUESTION,)),
    "within the context": ((CONTEXT, ANSWER), (CONTEXT, ANSWER)),
}


@dataclass(frozen=True, slots=True)
class Pair:
    """A cell of a map: who attends, who is attended to, by their places in the view, and how much."""

    query: int
    key: int
    weight: float


@dataclass(frozen=True, slots=True)
class Habits:
    """Where one head's attention goes: shares of 1, the mean over the rows that are text.

    Attributes:
        sinks: to [CLS] and [SEP].
        itself: to the same word.
        previous: to the word before.
        following: to the word after.
        question: to the question.
        context: to the context without the answer.
        answer: to the answer.
    """

    sinks: float
    itself: float
    previous: float
    following: float
    question: float
    context: float
    answer: float


@dataclass(frozen=True, slots=True)
class Pinned:
    """One token, word or sentence in every head.

    Attributes:
        gives: its row, how much it attends to each of N [L, H, N].
        gets: its column, how much each of N attends to it [L, H, N].
    """

    gives: Float
    gets: Float


def pooled(maps: NDArray[np.float16] | Float, side: int) -> Float:
    """The largest value of each piece of maps cut into `side` by `side` pieces [..., s, s].

    Args:
        maps: none below 0 [..., T, T].
        side: rows and columns of the result, s, where T is not less.
    """
    T = maps.shape[-1]
    if side >= T:
        return maps.astype(np.float32)
    edges = np.arange(side) * T // side
    # Half-precision numbers from 0 up sort as their bits do, and numpy has a fast maximum only for those.
    bits: NDArray[Any] = maps.view(np.uint16) if maps.dtype == np.float16 else maps
    rows = np.maximum.reduceat(bits, edges, axis=-2)
    largest = np.maximum.reduceat(rows, edges, axis=-1)
    return largest.view(maps.dtype).astype(np.float32)


def part_of(view: View, part: str) -> tuple[Int, Int]:
    """Places of the rows and of the columns of a part of a view.

    Args:
        view: of tokens, words or sentences.
        part: one of PARTS.

    Raises:
        UserError: another part.
    """
    if part not in PARTS:
        raise UserError(f"part: {part!r}; choose {', '.join(PARTS)}")
    rows, columns = (np.flatnonzero(np.isin(view.regions, regions)) for regions in PARTS[part])
    return rows.astype(np.int32), columns.astype(np.int32)


def strongest(values: Float, count: int, *, rows: Int, columns: Int) -> tuple[Pair, ...]:
    """The largest cells of one map, by size without the sign, heaviest first; none that is 0 or unknown.

    Args:
        values: of one map [N, N].
        count: how many at most.
        rows: places that are looked at.
        columns: likewise.
    """
    part = np.nan_to_num(values[np.ix_(rows, columns)])
    sizes = np.abs(part).ravel()
    found = np.argsort(-sizes, kind="stable")[:count]
    places = (divmod(place, len(columns)) for place in found[sizes[found] > 0].tolist())
    return tuple(Pair(int(rows[r]), int(columns[c]), float(part[r, c])) for r, c in places)


def habits(view: View, values: Float) -> Habits:
    """Where a head's attention goes.

    Args:
        view: that the map is of, with a word of text at least.
        values: the map; rows sum to 1 [N, N].
    """
    text = np.flatnonzero(np.isin(view.regions, TEXT))
    own = values[text]
    beside = np.pad(own, ((0, 0), (1, 1)))  # nothing is before the first word or after the last
    itself, previous, following = (
        float(beside[np.arange(len(text)), text + 1 + step].mean()) for step in (0, -1, 1)
    )
    to = {region: float(own[:, view.regions == region].sum(1).mean()) for region in EVERYTHING}
    return Habits(to[CLS] + to[SEP], itself, previous, following, to[QUESTION], to[CONTEXT], to[ANSWER])


def pinned(attention: Attention, unit: str, place: int) -> Pinned:
    """The row and the column of one token, word or sentence in every head, without the rest of the maps.

    Args:
        attention: of one window.
        unit: token, word or sentence.
        place: as in `attention.by(unit)`.

    Raises:
        UserError: another unit or a place that is not there.
    """
    tokens = np.arange(len(attention.tokens), dtype=np.int32)
    known = {"token": tokens, "word": attention.words, "sentence": attention.sentences}
    if unit not in known:
        raise UserError(f"unit: {unit!r}; choose {', '.join(known)}")
    groups = known[unit]
    count = int(groups[-1]) + 1
    if not 0 <= place < count:
        raise UserError(f"{unit}: {place}; this window has 0 to {count - 1}")
    own = np.flatnonzero(groups == place)
    member = np.zeros((len(groups), count), dtype=np.float32)
    member[np.arange(len(groups)), groups] = 1
    gives = attention.probabilities[:, :, own].astype(np.float32).mean(2) @ member
    gets = attention.probabilities[:, :, :, own].astype(np.float32).sum(3) @ (member / member.sum(0))
    return Pinned(gives, gets)


def matched(first: View, second: View) -> tuple[View, View]:
    """The rows and columns that two views of one question have in common, in the order of the text.

    Units meet where they cover the same characters of the question or the context; special tokens meet in
    their order. The answers of the two may differ, so each view keeps its own regions.
    """
    places = {unit: place for place, unit in enumerate(units_of(first))}
    both = [(places[unit], place) for place, unit in enumerate(units_of(second)) if unit in places]
    own, other = (np.array(column, dtype=np.int32) for column in zip(*both, strict=True))
    return at_places(first, own), at_places(second, other)


def moved(first: Attention, second: Attention) -> Float:
    """How much of each head's attention went elsewhere from one model to the other [L, H].

    Total variation distance, half the sum of a row's absolute differences, mean over rows: 0 for equal maps,
    1 where no token attends to anything it attended to before.

    Raises:
        UserError: the two were not cut into the same tokens, layers and heads.
    """
    if first.tokens != second.tokens or first.probabilities.shape != second.probabilities.shape:
        raise UserError(
            "these two models cut the text into other tokens, or have other layers and heads; compare two "
            "of one architecture and tokenizer"
        )
    distances = np.empty(first.probabilities.shape[:2], dtype=np.float32)
    for layer, (own, other) in enumerate(zip(first.probabilities, second.probabilities, strict=True)):
        difference = own.astype(np.float32) - other
        distances[layer] = np.abs(difference).sum(-1).mean(-1) / 2
    return distances


def units_of(view: View) -> tuple[Unit, ...]:
    """What each token, word or sentence covers; equal for one that another view of the question has too."""
    found: list[Unit] = []
    special = 0
    for region, (start, end) in zip(view.regions.tolist(), view.chars.tolist(), strict=True):
        if region in (CLS, SEP) or start < 0:
            found.append((region if region in (CLS, SEP) else CONTEXT, -1, special))
            special += 1
        else:
            found.append((QUESTION if region == QUESTION else CONTEXT, start, end))
    return tuple(found)


def first_head(attention: Attention) -> tuple[int, int]:
    """The layer and head to show first: where the answer looks most at the question.

    Where there is no answer, where the context does.
    """
    rows = attention.regions == ANSWER
    if not rows.any():
        rows = attention.regions == CONTEXT
    columns = np.flatnonzero(attention.regions == QUESTION)
    flows = attention.probabilities[:, :, np.flatnonzero(rows)[:, None], columns].astype(np.float32)
    layer, head = np.unravel_index(int(flows.sum((-2, -1)).argmax()), flows.shape[:2])
    return attention.layers[int(layer)], attention.heads[int(head)]
