"""A text whose words are coloured by signed scores, as HTML that shows the text and nothing else.

Two hues stand for the two signs, more of a hue for a larger score, none at zero. The traps: nobody may have
to tell the hues apart, so every word says its sign and score when pointed at, and the page lists the
strongest words of either sign; and a blank between two words is no part of either.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np

from dashboard.marking import BOX, inline, shown
from probes.maps import QUESTION
from probes.word_scores import Word
from qa.spans import Float

SUPPORTS, OPPOSES = "37 99 235", "239 68 68"  # seen on light pages and on dark ones
LEAST = 0.02  # of the largest score: less is not coloured
MOST = 75  # percent of a hue
ANSWER = "border-bottom: 2px solid #ca8a04;"
SPAN = '<span title="{}" style="{}border-radius: 3px; padding: 1px 0">{}</span>'


def coloured(
    text: str,
    scores: Iterable[tuple[int, int, float]],
    *,
    top: float,
    answer: tuple[int, int],
    unit: str,
    signed: bool = True,
) -> str:
    """The text with its words coloured.

    Args:
        text: any.
        scores: first character, end and score of stretches that do not overlap.
        top: the size of a score that is coloured most.
        answer: first character and end of what is underlined; equal for nothing.
        unit: of the scores, in our words.
        signed: whether a score says for or against.
    """
    score_of = {(start, end): score for start, end, score in scores if 0 <= start < end}
    inside = [edge for edge in answer if answer[0] < answer[1]]
    edges = sorted({0, len(text), *inside, *(edge for stretch in score_of for edge in stretch)})
    pieces = []
    for start, end in pairwise(edges):
        # The answer may end inside of a word, of which each part has the colour of the whole.
        score = next((value for (a, b), value in score_of.items() if a <= start and end <= b), 0.0)
        is_answer = answer[0] <= start and end <= answer[1]
        said = f"{sign(score)} " if signed else ""
        said += f"{abs(score):.3g} {unit}"
        pieces.append(_piece(text[start:end], score / (top or 1.0), said, is_answer=is_answer))
    return BOX.format("".join(pieces))


def _piece(text: str, share: float, said: str, *, is_answer: bool) -> str:
    style = ANSWER if is_answer else ""
    if abs(share) < LEAST:
        return SPAN.format("", style, shown(text)) if style else shown(text)
    hue = SUPPORTS if share > 0 else OPPOSES
    style += f"background: rgb({hue} / {MOST * min(1.0, abs(share)):.0f}%); "
    return SPAN.format(said, style, shown(text))


def sign(score: float) -> str:
    """The sign in a word."""
    return "supports" if score > 0 else "opposes"


def both_texts(
    question: str,
    context: str,
    words: Sequence[Word],
    scores: Float,
    *,
    answer: tuple[int, int],
    unit: str,
    signed: bool,
) -> tuple[str, str]:
    """Question and context with the words of a window coloured on one scale.

    Args:
        question: its text.
        context: likewise.
        words: of the window [W].
        scores: of them [W].
        answer: first character and end in the context.
        unit: of the scores.
        signed: whether a score says for or against.
    """
    top = float(np.abs(scores).max(initial=0.0))
    stretches: dict[bool, list[tuple[int, int, float]]] = {True: [], False: []}
    for word, score in zip(words, scores.tolist(), strict=True):
        stretches[word.region == QUESTION].append((word.start, word.end, score))
    return (
        coloured(question, stretches[True], top=top, answer=(0, 0), unit=unit, signed=signed),
        coloured(context, stretches[False], top=top, answer=answer, unit=unit, signed=signed),
    )


def strongest(words: Sequence[Word], scores: Float, *, count: int, signed: bool) -> str:
    """The words with the largest scores in Markdown, with the sign of each in words where there are signs."""
    order = np.argsort(-np.abs(scores), kind="stable")
    said = []
    for name, chosen in (("supports", scores > 0), ("opposes", scores < 0)):
        places = [place for place in order.tolist() if chosen[place]][:count]
        if places:
            number = "+.3g" if signed else ".3g"
            listed = ", ".join(
                f"**{inline(words[place].text)}** ({format(scores[place], number)})" for place in places
            )
            said.append(f"{name.capitalize() if signed else 'Most'}: {listed}.")
    return " ".join(said) or "No word has any score."
