"""Several windows of one context joined back onto the text, as the answer was chosen from them.

The answer is the best span of any one window; so the row of a token, a whole distribution, is taken from one
window: from the one that gave the answer for all tokens it holds, and for the rest of the context from the
window in which the token has the most context around it. So the rows that led to the answer are those the
model answered with, and every row still sums to 1. The trap: two tokens that share no window never attended
to each other, and nothing is known about them; their cell is 0, and `seen` says that it means nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from probes.maps import CONTEXT, Attention, check_bytes, groups_of
from probes.words import Int, sentences_of, words_of
from qa.errors import UserError


def join(windows: Sequence[Attention], *, first: int) -> Attention:
    """Attention over the question and all of the context that the windows cover, each token once.

    [CLS], the question and both separators are taken from the window `first` too. The number of cells grows
    with the square of the context: select layers and heads before joining. Norms belong to windows and are
    left behind: weight with them before joining.

    Args:
        windows: of one question, with the same layers and heads, in the order of the text; they need not be
            all, but the one that gave the answer should be among them.
        first: ordinal of the window whose rows go before those of all others: `Answer.window`.

    Raises:
        UserError: no such window, or more than a few gigabytes.
    """
    ordinals = [int(window.windows[0]) for window in windows]
    if first not in ordinals:
        raise UserError(f"first: {first}, but only the windows {ordinals} are here; capture that one as well")
    primary = windows[ordinals.index(first)]
    places, size = _places(windows)
    L, H = primary.probabilities.shape[:2]
    check_bytes(L * H * size * size * primary.probabilities.itemsize, f"{size} tokens joined, {L * H} maps")
    source = _source(windows, places, ordinals.index(first), size)
    probabilities = np.zeros((L, H, size, size), dtype=primary.probabilities.dtype)
    seen = np.zeros((size, size), dtype=np.bool_)
    tokens, chars = np.empty(size, dtype=object), np.empty((size, 2), dtype=np.int32)
    regions = np.empty(size, dtype=np.int32)
    for number, (window, place) in enumerate(zip(windows, places, strict=True)):
        tokens[place], chars[place], regions[place] = window.tokens, window.chars, window.regions
        own = np.flatnonzero(source[place] == number)
        probabilities[:, :, place[own, None], place] = window.probabilities[:, :, own]
        seen[place[own, None], place] = True
    words, sentences = (
        groups_of(regions, chars, question=primary.question, context=primary.context, cut=cut)
        for cut in (words_of, sentences_of)
    )
    return Attention(
        probabilities=probabilities,
        layers=primary.layers,
        heads=primary.heads,
        tokens=tuple(tokens),
        chars=chars,
        words=words,
        sentences=sentences,
        regions=regions,
        windows=np.array(ordinals, dtype=np.int32)[source],
        seen=None if seen.all() else seen,
        before=min(window.before for window in windows),
        question=primary.question,
        context=primary.context,
        answer=primary.answer,
    )


def _places(windows: Sequence[Attention]) -> tuple[list[Int], int]:
    """Where each window's tokens are among all, and how many there are."""
    contexts = [window.regions >= CONTEXT for window in windows]
    within = [window.before + np.arange(held.sum()) for window, held in zip(windows, contexts, strict=True)]
    covered = np.unique(np.concatenate(within))
    places = []
    for held, tokens in zip(contexts, within, strict=True):
        start = int(held.argmax()) if held.any() else len(held)
        place = np.arange(len(held), dtype=np.int32)
        place[held] = start + np.searchsorted(covered, tokens)
        place[start + len(tokens) :] += len(covered) - len(tokens)
        places.append(place)
    return places, len(contexts[0]) - len(within[0]) + len(covered)


def _source(windows: Sequence[Attention], places: Sequence[Int], primary: int, size: int) -> Int:
    """The position in `windows` of the window that each row is taken from [size]."""
    room = np.full((len(windows), size), -1, dtype=np.int32)
    for number, (window, place) in enumerate(zip(windows, places, strict=True)):
        held = window.regions >= CONTEXT
        room[number, place[~held]] = 0
        count = int(held.sum())
        room[number, place[held]] = np.minimum(np.arange(count), np.arange(count)[::-1])
    room[primary, places[primary]] = size
    source: Int = room.argmax(0).astype(np.int32)
    return source
