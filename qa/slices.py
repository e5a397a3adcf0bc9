"""Scores over groups of like questions: where an experiment is good, and where another is better.

A slicing puts every question into one of a few groups, or leaves it out where it does not apply (an
unanswerable question has no answer to measure). It depends on the questions alone, except for the number of
windows, which is that of the reference. The trap: many groups are looked at, so that of their 95 % intervals
one in twenty lies beside the truth; a slice is a hint where to read questions, not a finding.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qa.comparison import Interval
from qa.intervals import as_interval, paragraph_intervals
from qa.scored import Answers
from qa.squad import Question

WORDS = ("what", "who", "when", "where", "which", "why", "how many", "how", "other")
_WORD = re.compile(r"\b(how\s+(?:many|much)|how|what|whom?|whose|when|where|which|why)\b")
_OUTSIDE = -1
# Paragraphs of a group below which resampling them makes intervals that are much too narrow.
FEWEST = 10


@dataclass(frozen=True, slots=True, eq=False)
class Slicing:
    """One way to part the questions.

    Attributes:
        name: short, for files.
        title: what is counted, for people.
        labels: of the groups, in order; only those with questions.
        group: number of each question's group [N]; -1 where the slicing does not apply.
    """

    name: str
    title: str
    labels: tuple[str, ...]
    group: NDArray[np.int64]

    def masks(self) -> NDArray[np.bool_]:
        """Which questions each group has, [G, N]."""
        masks: NDArray[np.bool_] = self.group == np.arange(len(self.labels))[:, None]
        return masks


@dataclass(frozen=True, slots=True)
class Slice:
    """One experiment on one group of questions.

    Attributes:
        slicing: name of the slicing.
        label: of the group.
        experiment: name of the experiment.
        count: questions in the group.
        value: mean of the metric, in percent.
        interval: of 95 %, by paragraph; None for fewer than FEWEST paragraphs or values that are all alike.
        difference: from the reference in points; None for the reference itself.
        difference_interval: 95 % interval of it, paired, by paragraph; None likewise.
    """

    slicing: str
    label: str
    experiment: str
    count: int
    value: float
    interval: Interval
    difference: float | None
    difference_interval: Interval


def slicings(questions: Sequence[Question], windows: NDArray[np.int64]) -> list[Slicing]:
    """Every slicing that parts these questions into two groups at least.

    Args:
        questions: N of them.
        windows: in how many windows each was read, [N]; 0 where unknown.
    """
    words = [question_word(question.question) for question in questions]
    answers = [_words(question.answers[0]) if question.answers else 0 for question in questions]
    contexts = [_words(question.context) for question in questions]
    repeats = [repeats_of(question) for question in questions]
    answerable = ["answerable" if question.answers else "unanswerable" for question in questions]
    found = [
        _slicing("question_word", "question word", WORDS, words),
        _ranges("answer_length", "words of the first gold answer", (1, 2, 3, 5, 8), answers),
        _ranges("context_length", "words of the context", (1, 75, 100, 125, 150, 200, 300), contexts),
        _ranges("windows", "windows the reference read", (1, 2, 3, 4), windows.tolist()),
        _ranges("answer_repeated", "times the gold answer is in the context", (1, 2, 3, 4), repeats),
        _slicing("answerable", "has an answer", ("answerable", "unanswerable"), answerable),
    ]
    return [slicing for slicing in found if len(slicing.labels) > 1]


def question_word(question: str) -> str:
    """The first question word, one of WORDS; how much counts as how many, whose and whom as who."""
    found = _WORD.search(question.lower())
    if found is None:
        return "other"
    word = found[1]
    if word.startswith("how"):
        return "how" if word == "how" else "how many"
    return "who" if word.startswith("who") else word


def repeats_of(question: Question) -> int:
    """How often the first gold answer stands in the context, as words and whatever the case; 0 if nowhere."""
    if not question.answers or not question.answers[0].strip():
        return 0
    text = re.escape(question.answers[0].strip())
    return len(re.findall(rf"(?<!\w){text}(?!\w)", question.context, re.IGNORECASE))


def _words(text: str) -> int:
    return len(text.split())


def _ranges(name: str, title: str, starts: tuple[int, ...], values: Sequence[int]) -> Slicing:
    """Groups from each start to the next, the last one open; smaller values are outside."""
    ends = [start - 1 for start in starts[1:]]
    labels = [str(low) if low == high else f"{low}–{high}" for low, high in zip(starts, ends, strict=False)]
    labels.append(f"{starts[-1]} or more")
    places = np.searchsorted(starts, values, side="right") - 1
    return _filled(name, title, labels, places)


def _slicing(name: str, title: str, labels: Sequence[str], values: Sequence[str]) -> Slicing:
    number = {label: index for index, label in enumerate(labels)}
    return _filled(name, title, labels, np.array([number[value] for value in values], dtype=np.int64))


def _filled(name: str, title: str, labels: Sequence[str], group: NDArray[np.int64]) -> Slicing:
    """The slicing without the groups that no question is in."""
    used = [index for index in range(len(labels)) if (group == index).any()]
    new = np.full(len(labels) + 1, _OUTSIDE, dtype=np.int64)
    new[used] = np.arange(len(used))
    return Slicing(name, title, tuple(labels[index] for index in used), new[group])


def slice_scores(
    slicing: Slicing,
    experiments: Sequence[Answers],
    questions: Sequence[Question],
    *,
    metric: Callable[[Answers], NDArray[np.float64]],
) -> list[Slice]:
    """Every experiment on every group.

    Args:
        slicing: of the questions.
        experiments: the reference first.
        questions: what all answered.
        metric: one value per question in [0, 1], [N].
    """
    masks = slicing.masks()
    values = np.stack([100 * metric(answers) for answers in experiments])  # [E, N]
    changes = values - values[0]
    paragraphs = [question.paragraph for question in questions]
    bounds = paragraph_intervals(np.concatenate([values, changes[1:]]), masks, paragraphs)  # [G, 2E - 1, 2]
    # Values that are all alike say nothing of how others would differ.
    bounds[bounds[..., 0] == bounds[..., 1]] = np.nan
    found = []
    for group, (label, mask) in enumerate(zip(slicing.labels, masks, strict=True)):
        if len({paragraphs[number] for number in np.flatnonzero(mask)}) < FEWEST:
            bounds[group] = np.nan
        for index, answers in enumerate(experiments):
            change = bounds[group, len(experiments) + index - 1] if index else np.full(2, np.nan)
            found.append(
                Slice(
                    slicing.name,
                    label,
                    answers.name,
                    int(mask.sum()),
                    float(values[index, mask].mean()),
                    as_interval(bounds[group, index]),
                    float(changes[index, mask].mean()) if index else None,
                    as_interval(change),
                )
            )
    return found
