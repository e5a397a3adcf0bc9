"""A map in words: where a head looks, its strongest pairs, and what switching it off does. Markdown.

What can be seen in a picture is said as well, for whoever cannot see it or does not trust it. The trap: words
of the text are untrusted; they go through `inline`.
"""

from __future__ import annotations

from collections.abc import Sequence

from dashboard.marking import in_cell, inline
from probes.knockout import Effects
from probes.maps import ANSWER, CLS, QUESTION, SEP, View
from probes.overview import Habits, Pair

HABIT = 0.3  # the share from which it is called one
LONGEST = 30  # characters of a word
PLACES = {QUESTION: "question", ANSWER: "answer", CLS: "special", SEP: "special"}


def habit(found: Habits) -> str:
    """Where a head looks, in two sentences."""
    kinds = {
        "[CLS] and [SEP], where heads look that have nothing to say": found.sinks,
        "the word before": found.previous,
        "the word after": found.following,
        "the word itself": found.itself,
    }
    name, share = max(kinds.items(), key=lambda item: item[1])
    first = f"**{share:.0%}** goes to {name}. " if share >= HABIT else ""
    return (
        f"{first}Of what the words attend to, {found.question:.0%} is in the question, {found.context:.0%} "
        f"in the context and {found.answer:.0%} in the answer; {found.sinks:.0%} is [CLS] and [SEP]."
    )


def pair(view: View, found: Pair, *, value: str) -> str:
    """The strongest pair in words."""
    return (
        f"The strongest pair here: **{_word(view, found.query)}** → **{_word(view, found.key)}** "
        f"({value or 'attention'} {found.weight:.3f})."
    )


def difference(view: View, found: Pair, first: str, second: str) -> str:
    """The largest difference of two models' maps in words."""
    more, than = (second, first) if found.weight > 0 else (first, second)
    return (
        f"The largest difference: **{_word(view, found.query)}** → **{_word(view, found.key)}** gets "
        f"{abs(found.weight):.3f} more in {inline(more)} than in {inline(than)}."
    )


def _word(view: View, place: int) -> str:
    return inline(view.labels[place], LONGEST)


def place_of(view: View, place: int) -> str:
    """In which part of the input a row or column is."""
    return PLACES.get(int(view.regions[place]), "context")


def rows_of_pairs(view: View, pairs: Sequence[Pair], *, value: str) -> list[dict[str, str | float]]:
    """The pairs as rows of a table."""
    return [
        {
            "attends": in_cell(view.labels[found.query], LONGEST),
            "in the": place_of(view, found.query),
            "attended to": in_cell(view.labels[found.key], LONGEST),
            "in the ": place_of(view, found.key),
            value or "attention": found.weight,
        }
        for found in pairs
    ]


def switched_off(effects: Effects, place: tuple[int, ...]) -> str:
    """What switching a head off does to the answer, in a sentence."""
    after, change = effects.answers[place], effects.probability[place]
    before = effects.answer
    said = (
        f"the probability of “{inline(effects.span.text, LONGEST)}” changes by **{_points(change)} "
        f"points**, that of “no answer” by {_points(effects.no_answer_probability[place])}"
    )
    if not effects.changed[place]:
        return f"Without it {said}; the answer stays {_answer(before.text)}."
    return f"Without it {said}, and the answer becomes {_answer(after.text)}."


def _points(change: float) -> str:
    return f"{round(100 * float(change), 2) + 0:+.2f}"  # + 0, as there is a zero with a minus


def _answer(text: str) -> str:
    return f"**{inline(text, 2 * LONGEST)}**" if text else "**no answer**"
