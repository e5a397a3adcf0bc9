"""Start and end scores of all windows -> ranked answer spans, and one no-answer score per question.

A question's candidates are all spans of its context of at most `max_answer_length` tokens. A span that
several windows contain counts once, with the best score any of them gives it. *Probability* is the softmax
over all of these spans together with "no answer", whose score is the lowest [CLS] score of the windows: a
question is unanswerable only if every window says so. The traps: scores of different windows may be compared
only as raw sums of logits, so no softmax is taken within a window; and where several tokens are pieces of one
character, only the first may start an answer and only the last end it, or one text would be several spans.

Spans of a question form a band [context tokens, max_answer_length] (row: start, column: length - 1), and the
bands of many questions are stacked, so the work is a handful of array operations whatever their number.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from qa.windows import WindowSet

Float = NDArray[np.float64]
Index = NDArray[np.int64]

# Cells of a stacked band at a time: 4 M cells are 32 MB of float64, small enough to stay near the caches.
CELLS = 4_000_000


@dataclass(frozen=True, slots=True)
class Candidate:
    """One span of the context.

    Attributes:
        text: `context[start:end]`.
        start: first character.
        end: one past the last character.
        probability: among all spans of all windows and "no answer".
        score: start logit + end logit, the best over the windows that contain the span.
        window: ordinal of the window that gave this score.
    """

    text: str
    start: int
    end: int
    probability: float
    score: float
    window: int


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one question; a refused question has the text "" at 0:0.

    Attributes:
        text: `context[start:end]`.
        start: first character.
        end: one past the last character.
        probability: of this answer; of "no answer" where the question is refused.
        no_answer_probability: of "no answer", among the same alternatives.
        no_answer_score: the lowest [CLS] start logit + end logit over the windows.
        window: ordinal of the window that gave the answer.
        windows: how many windows the context has.
        n_best: the best spans, best first; empty if the context has no token that could be an answer.
    """

    text: str
    start: int
    end: int
    probability: float
    no_answer_probability: float
    no_answer_score: float
    window: int
    windows: int
    n_best: tuple[Candidate, ...]

    def with_threshold(self, threshold: float | None) -> Answer:
        """The same answer, refused if "no answer" is more probable than `threshold` (None: never refuse)."""
        if threshold is None or self.no_answer_probability <= threshold:
            return self
        return replace(self, text="", start=0, end=0, probability=self.no_answer_probability)


def decode(
    windows: WindowSet,
    start_logits: NDArray[np.float32],
    end_logits: NDArray[np.float32],
    *,
    max_answer_length: int = 30,
    n_best: int = 20,
) -> list[Answer]:
    """The answer to each question, without any threshold: the best span, however probable "no answer" is.

    Args:
        windows: of Q questions, S tokens in all.
        start_logits: [S], flat as the windows are.
        end_logits: [S].
        max_answer_length: longest span, in tokens.
        n_best: how many spans to keep for each question.

    Returns:
        Q answers.
    """
    start = start_logits.astype(np.float64)
    # Ends past the last token of all are masked below, but must exist to be read.
    end = np.pad(end_logits.astype(np.float64), (0, max_answer_length))
    cls = windows.splits[:-1] + windows.cls
    null = start[cls] + end[cls]
    answers: list[Answer] = []
    for first, last in _chunks(windows, max_answer_length):
        band = _Band.of(windows, slice(first, last), start, end, max_answer_length)
        answers += band.answers(windows, null[first:last], n_best)
    return answers


def _chunks(windows: WindowSet, max_answer_length: int) -> Iterator[tuple[int, int]]:
    """Ranges of windows that hold whole questions and at most about CELLS cells."""
    if not len(windows):
        return
    rows = np.cumsum(windows.context_end - windows.context_start, dtype=np.int64) * max_answer_length
    last_of_question = np.flatnonzero(np.diff(windows.question, append=-1))
    first, done = 0, 0
    for last in last_of_question.tolist():
        if rows[last] - done >= CELLS or last == len(windows) - 1:
            yield first, last + 1
            first, done = last + 1, int(rows[last])


@dataclass(frozen=True, slots=True)
class _Band:
    """Scores of all spans of some questions, stacked; R rows in all, L lengths.

    Attributes:
        scores: [R, L], -inf where there is no such span, finite for no two spans of the same characters.
        window: ordinal of the window that gave each score [R, L].
        base: first row of each question [questions + 1].
        tokens: a flat token position for each row (of the last window that has it) [R].
        first_window: first window of each question, relative to the chunk [questions].
        questions: which questions [questions].
    """

    scores: Float
    window: NDArray[np.int32]
    base: Index
    tokens: Index
    first_window: Index
    questions: Index

    @staticmethod
    def of(windows: WindowSet, part: slice, start: Float, end: Float, length: int) -> _Band:
        """The band of the windows in `part`, which hold whole questions."""
        ordinal, before = windows.ordinal[part], windows.first_context_token[part].astype(np.int64)
        counts = (windows.context_end - windows.context_start)[part].astype(np.int64)
        first_window = np.flatnonzero(ordinal == 0)
        questions = windows.question[part][first_window].astype(np.int64)
        sizes = np.maximum.reduceat(before + counts, first_window)
        base = np.concatenate([[0], np.cumsum(sizes)])
        question = np.cumsum(ordinal == 0, dtype=np.int64) - 1
        scores = np.full((int(base[-1]), length), -np.inf)
        window = np.zeros(scores.shape, dtype=np.int32)
        tokens = np.zeros(len(scores), dtype=np.int64)
        at = (windows.splits[:-1] + windows.context_start)[part]
        reach = np.lib.stride_tricks.sliding_window_view(end, length)
        # Windows of one ordinal belong to different questions, so none of their rows coincide.
        for number in range(int(ordinal.max()) + 1):
            chosen = np.flatnonzero(ordinal == number)
            within, which = _ranges(counts[chosen])
            place = at[chosen][which] + within
            rows = (base[question[chosen]] + before[chosen])[which] + within
            fits = np.arange(length) < (counts[chosen][which] - within)[:, None]
            sums = np.where(fits, start[place][:, None] + reach[place], -np.inf)
            better = sums > scores[rows]
            scores[rows] = np.where(better, sums, scores[rows])
            window[rows] = np.where(better, number, window[rows])
            tokens[rows] = place
        can_start, can_end = _edges(windows.chars[tokens], np.repeat(questions, sizes))
        ends = np.lib.stride_tricks.sliding_window_view(np.pad(can_end, (0, length)), length)[:-1]
        scores[~(can_start[:, None] & ends)] = -np.inf
        return _Band(scores, window, base, tokens, first_window, questions)

    def answers(self, windows: WindowSet, null: Float, n_best: int) -> Iterator[Answer]:
        """The answers of the band's questions; `null` has a score per window of the chunk."""
        lowest = np.minimum.reduceat(null, self.first_window)
        counts = np.diff(np.append(self.first_window, len(null)))
        for index, question in enumerate(self.questions):
            scores = self.scores[self.base[index] : self.base[index + 1]].ravel()
            peak = max(float(scores.max(initial=-np.inf)), float(lowest[index]))
            total = peak + np.log(np.exp(scores - peak).sum() + np.exp(lowest[index] - peak))
            best = self._candidates(windows, index, windows.contexts[question], float(total), n_best)
            yield _answer(
                best, float(np.exp(lowest[index] - total)), float(lowest[index]), int(counts[index])
            )

    def _candidates(
        self, windows: WindowSet, index: int, context: str, total: float, n_best: int
    ) -> tuple[Candidate, ...]:
        rows = slice(int(self.base[index]), int(self.base[index + 1]))
        scores, ordinals, chars = self.scores[rows], self.window[rows], windows.chars[self.tokens[rows]]
        candidates = []
        for cell in _largest(scores.ravel(), n_best).tolist():
            row, extent = divmod(cell, scores.shape[1])
            start, end, score = int(chars[row, 0]), int(chars[row + extent, 1]), float(scores[row, extent])
            probability, window = float(np.exp(score - total)), int(ordinals[row, extent])
            candidates.append(Candidate(context[start:end], start, end, probability, score, window))
        return tuple(candidates)


def _edges(chars: NDArray[np.int32], question: Index) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Tokens that may start an answer and tokens that may end one [R], given their characters [R, 2].

    None that covers nothing; of several that begin at the same character the first, and of several that stop
    at the same character the last.
    """
    usable = np.flatnonzero(chars[:, 1] > chars[:, 0])
    start, end, of = chars[usable, 0], chars[usable, 1], question[usable]
    can_start, can_end = np.zeros((2, len(chars)), dtype=np.bool_)
    can_start[usable] = (np.diff(start, prepend=-1) != 0) | (np.diff(of, prepend=-1) != 0)
    can_end[usable] = (np.diff(end, append=-1) != 0) | (np.diff(of, append=-1) != 0)
    return can_start, can_end


def _ranges(counts: Index) -> tuple[Index, Index]:
    """0 .. count-1 for each count in turn, and which count each belongs to."""
    which = np.repeat(np.arange(len(counts)), counts)
    return np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts), which


def _largest(scores: Float, count: int) -> Index:
    """Positions of the `count` largest finite scores, largest first; of equal scores the earlier position."""
    if count < len(scores):
        # Everything equal to the last one kept stays in, so that ties do not depend on the partition.
        positions = np.flatnonzero(scores >= np.partition(scores, len(scores) - count)[len(scores) - count])
    else:
        positions = np.arange(len(scores))
    positions = positions[np.isfinite(scores[positions])]
    return positions[np.lexsort((positions, -scores[positions]))][:count]


def _answer(best: tuple[Candidate, ...], no_answer: float, no_answer_score: float, windows: int) -> Answer:
    if not best:
        return Answer("", 0, 0, 1.0, 1.0, no_answer_score, 0, windows, ())
    top = best[0]
    return Answer(
        text=top.text,
        start=top.start,
        end=top.end,
        probability=top.probability,
        no_answer_probability=no_answer,
        no_answer_score=no_answer_score,
        window=top.window,
        windows=windows,
        n_best=best,
    )
