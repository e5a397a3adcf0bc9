"""A view small enough to be read: the question, and the context around the answer.

A picture of hundreds of words shows none of them. The trap: what is left out was attended to as well, so rows
of the smaller view sum to less than 1, and whoever shows it must say so.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from probes.maps import ANSWER, CLS, CONTEXT, QUESTION, SEP, Bool, View
from probes.words import Int


def around_answer(view: View, most: int) -> View:
    """At most so many rows and columns of a view, in the order of the text.

    Special tokens stay, then the question, of which more than half of `most` is cut off, then the context
    nearest to the answer, or its beginning where there is no answer.

    Args:
        view: of tokens, words or sentences.
        most: at least as many as there are special tokens.
    """
    return view if len(view.labels) <= most else at_places(view, places_around_answer(view, most))


def places_around_answer(view: View, most: int) -> Int:
    """The places that `around_answer` keeps, ascending; all of them where there are not more."""
    if len(view.labels) <= most:
        return np.arange(len(view.labels), dtype=np.int32)
    context = np.flatnonzero(view.regions >= CONTEXT)
    special = np.flatnonzero(np.isin(view.regions, (CLS, SEP)))
    question = np.flatnonzero(view.regions == QUESTION)[: min(most // 2, most - len(special))]
    nearest = _nearest(view.regions[context] == ANSWER, most - len(special) - len(question))
    kept = np.sort(np.concatenate([special, question, context[nearest]]))
    return kept.astype(np.int32)


def at_places(view: View, places: Int) -> View:
    """Some rows and columns of a view."""
    square = np.ix_(places, places)
    return replace(
        view,
        probabilities=view.probabilities[:, :, square[0], square[1]],
        labels=tuple(view.labels[place] for place in places),
        chars=view.chars[places],
        regions=view.regions[places],
        seen=None if view.seen is None else view.seen[square],
    )


def _nearest(is_answer: Bool, room: int) -> slice:
    """A stretch of so many places with the answer in its middle, as far as the ends allow."""
    places = np.flatnonzero(is_answer)
    middle = int(places[0] + places[-1] + 1) // 2 if len(places) else 0
    first = max(0, min(middle - room // 2, len(is_answer) - room))
    return slice(first, first + max(0, room))
