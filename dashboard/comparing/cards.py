"""One question with what each experiment answered, as HTML that shows texts and nothing else.

Gold answers are shaded in the context; what an experiment answered is underlined in its colour and numbered,
as the table above numbers it. The trap: answers overlap, so the text is cut at every edge, and each piece
carries all marks that lie on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from dashboard.charts.series import COLORS
from dashboard.data.comparison import Board
from dashboard.marking import BOX, shown
from qa.printing import decimal
from qa.scored import Answers
from qa.squad import Question

GOLD = "background: rgb(34 197 94 / 28%); color: inherit; border-radius: 3px; padding: 1px 0"
QUIET = "opacity: .72; font-size: .86em"
CELL = "padding: 3px 14px 3px 0; vertical-align: top; border: none; unicode-bidi: isolate"
WHOLE = "white-space: nowrap"
RIGHT, WRONG = "✓ right", "✗ wrong"


class Mark(NamedTuple):
    """A stretch of the context: by whom (-1: gold), from where to where."""

    by: int
    start: int
    end: int


def card(board: Board, number: int) -> str:
    """The question of that number with gold and given answers and its context.

    Args:
        board: of the experiments.
        number: of the question.
    """
    question = board.questions[number]
    golds = (
        " · ".join(shown(answer) for answer in dict.fromkeys(question.answers))
        or "none: the text does not say"
    )
    about = " · ".join(shown(text) for text in (question.title, question.id) if text)
    rows = "".join(_row(index, answers, number) for index, answers in enumerate(board.answers))
    return (
        f'<div dir="auto" style="font-weight: 600; font-size: 1.05em; overflow-wrap: anywhere">'
        f"{shown(question.question)}</div>"
        f'<div style="{QUIET}; overflow-wrap: anywhere">{about}</div>'
        f'<div dir="auto" style="margin: 6px 0; overflow-wrap: anywhere">Gold: '
        f'<span style="{GOLD}">{golds}</span></div>'
        f'<div style="overflow-x: auto"><table style="border-collapse: collapse; margin: 4px 0 8px">{rows}'
        f"</table></div>{BOX.format(marked(question, board.answers, number))}"
    )


def _row(index: int, answers: Answers, number: int) -> str:
    text, probability = answers.texts[number], answers.probabilities[number]
    given = {None: "<i>nothing predicted</i>", "": "<i>no answer</i>"}.get(text) or shown(text or "")
    sure = "" if np.isnan(probability) else f"probability {decimal(probability, 3)}"
    line = f"border-bottom: 3px solid {_color(index)}; {WHOLE}"
    cells = (
        f'<span style="{line}">{index + 1}&ensp;{shown(answers.name)}</span>',
        f'<span style="{WHOLE}">{RIGHT if answers.right[number] else WRONG}</span>',
        f'<span style="{WHOLE}">F1 {100 * answers.f1s[number]:.0f} %</span>',
        f'<span dir="auto" style="font-weight: 600; overflow-wrap: anywhere">{given}</span>',
        f'<span style="{QUIET}; {WHOLE}">{sure}</span>',
    )
    return "".join(["<tr>", *(f'<td style="{CELL}">{cell}</td>' for cell in cells), "</tr>"])


def _color(index: int) -> str:
    return COLORS[index % len(COLORS)]


def marked(question: Question, answers: Sequence[Answers], number: int) -> str:
    """The context with gold and given answers marked.

    Args:
        question: whose context.
        answers: of each experiment.
        number: of the question.
    """
    length = len(question.context)
    golds = [
        Mark(-1, start, start + len(text))
        for text, start in zip(question.answers, question.starts, strict=True)
        if start >= 0
    ]
    given = [Mark(by, *span) for by, each in enumerate(answers) if (span := each.spans[number]) is not None]
    marks = [mark for mark in (*golds, *given) if 0 <= mark.start < mark.end <= length]
    edges = sorted({0, length, *(edge for mark in marks for edge in mark[1:])})
    return "".join(_piece(question.context, start, end, marks) for start, end in pairwise(edges))


def _piece(context: str, start: int, end: int, marks: Sequence[Mark]) -> str:
    on = [mark for mark in marks if mark.start <= start and end <= mark.end]
    piece = shown(context[start:end])
    if any(mark.by < 0 for mark in on):
        piece = f'<mark style="{GOLD}">{piece}</mark>'
    # The first experiment's line is innermost; the next ones lie below it.
    for depth, mark in enumerate(mark for mark in on if mark.by >= 0):
        style = f"border-bottom: 2px solid {_color(mark.by)}; padding-bottom: {1 + 3 * depth}px"
        tail = f'<sup style="opacity: .8">{mark.by + 1}</sup>' if mark.end == end else ""
        piece = f'<span style="{style}">{piece}{tail}</span>'
    return piece
