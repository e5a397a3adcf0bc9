"""Start and end scores of all windows -> ranked answer spans, and one no-answer score per question.

A question's candidates are all spans of its context of at most `max_answer_length` tokens. A span that
several windows contain counts once, with the best score any of them gives it. *Probability* is the softmax
over all of these spans together with "no answer", whose score is the lowest [CLS] score of the windows: a
question is unanswerable only if every window says so. The traps: scores of different windows may be compared
only as raw sums of logits, so no softmax is taken within a window; and where several tokens are pieces of one
character, only the first may start an answer and only the last end it, or one text would be several spans.

The scores of all questions are worked out together, in blocks (`qa.span_scores`). Most who decode want texts,
so the n-best spans are worked out when somebody first looks at them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from qa.span_scores import SpanScores, TokenScores
from qa.windows import WindowSet

Float = NDArray[np.float64]
Index = NDArray[np.int64]

# Context tokens of a block, about: its arrays are 512 kB each, and a handful of them stay in the caches.
BLOCK = 64_000


class Candidate(NamedTuple):
    """One span of the context; a named tuple, because a data set has hundreds of thousands of them.

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
        n_best: the best spans, best first; empty if the context has no token that could be an answer. Those
            of an answer that `decode` gives are worked out when they are first looked at.
    """

    text: str
    start: int
    end: int
    probability: float
    no_answer_probability: float
    no_answer_score: float
    window: int
    windows: int
    n_best: Sequence[Candidate]

    def with_threshold(self, threshold: float | None) -> Answer:
        """The same answer, refused if "no answer" is more probable than `threshold` (None: never refuse)."""
        if threshold is None or self.no_answer_probability <= threshold:
            return self
        return replace(self, text="", start=0, end=0, probability=self.no_answer_probability)


class NBest(Sequence[Candidate]):
    """The best spans of one question, made when they are looked at; equal to a tuple of the same spans."""

    __slots__ = ("_block", "_position")

    def __init__(self, block: _Block, position: int) -> None:
        self._block = block
        self._position = position

    def spans(self) -> tuple[Candidate, ...]:
        """All of them."""
        return self._block.candidates(self._position)

    @overload
    def __getitem__(self, index: int) -> Candidate: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Candidate, ...]: ...

    def __getitem__(self, index: int | slice) -> Candidate | tuple[Candidate, ...]:
        return self.spans()[index]

    def __len__(self) -> int:
        return int(np.diff(self._block.n_best.splits)[self._position])

    def __iter__(self) -> Iterator[Candidate]:
        return iter(self.spans())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, (tuple, NBest)) and self.spans() == tuple(other)

    def __hash__(self) -> int:
        return hash(self.spans())

    def __repr__(self) -> str:
        return repr(self.spans())


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
        start_logits: [S], flat as the windows are; a token whose score is not finite starts no span.
        end_logits: [S]; likewise ends none.
        max_answer_length: longest span, in tokens.
        n_best: how many spans to keep for each question.

    Returns:
        Q answers.
    """
    # Copies, because n-best spans are worked out later, when the caller may have changed the arrays.
    start, end = start_logits.copy(), end_logits.copy()
    answers: list[Answer] = []
    for part in _parts(windows):
        answers += _Block(windows, part, start, end, max_answer_length, n_best).answers()
    return answers


def _parts(windows: WindowSet) -> Iterator[slice]:
    """Windows in pieces that hold whole questions and about BLOCK context tokens."""
    tokens = np.cumsum(windows.context_end - windows.context_start, dtype=np.int64)
    ends = np.flatnonzero(np.diff(windows.question, append=-1))
    closing = ends[np.flatnonzero(np.diff(tokens[ends] // BLOCK, append=-1))] + 1
    for first, last in pairwise([0, *closing.tolist()]):
        yield slice(first, last)


@dataclass(frozen=True, slots=True)
class _Columns:
    """Spans of many questions, K in all; those of question q are splits[q]:splits[q+1]. See `Candidate`."""

    splits: Index
    start: NDArray[np.int32]
    end: NDArray[np.int32]
    probability: Float
    score: Float
    window: NDArray[np.int32]

    def rows(self, part: slice) -> Iterator[tuple[int, int, float, float, int]]:
        """Start, end, probability, score and window of these spans."""
        columns = (self.start, self.end, self.probability, self.score, self.window)
        return zip(*(column[part].tolist() for column in columns), strict=True)


@dataclass(frozen=True, eq=False)  # without slots: a cached property needs a place
class _Block:
    """Q whole questions of a decoding.

    Attributes:
        windows: of all questions.
        part: those of this block.
        start: start scores, flat as the windows are.
        end: end scores.
        max_answer_length: longest span, in tokens.
        number: how many spans to keep for each question.
    """

    windows: WindowSet
    part: slice
    start: NDArray[np.float32]
    end: NDArray[np.float32]
    max_answer_length: int
    number: int

    def answers(self) -> Iterator[Answer]:
        """The answers, in order."""
        scores = self._span_scores()
        best = self._columns(scores, 1)
        answered = np.flatnonzero(np.diff(best.splits))
        places, probabilities = (
            np.zeros((3, len(self.contexts)), dtype=np.int64),
            np.ones((2, len(self.contexts))),
        )
        places[:, answered] = best.start, best.end, best.window
        no_answer = self.no_answer_scores
        total = np.logaddexp(scores.log_total, no_answer)
        probabilities[:, answered] = best.probability, np.exp((no_answer - total)[answered])
        counts = np.diff(self.first_windows, append=self.part.stop - self.part.start)
        starts, ends, ordinals = places.tolist()
        return map(
            Answer,
            [context[start:end] for context, start, end in zip(self.contexts, starts, ends, strict=True)],
            starts,
            ends,
            *probabilities.tolist(),
            no_answer.tolist(),
            ordinals,
            counts.tolist(),
            [NBest(self, position) for position in range(len(starts))],
        )

    def candidates(self, position: int) -> tuple[Candidate, ...]:
        """The best spans of one question of the block."""
        context = self.contexts[position]
        spans = self.n_best.rows(slice(*self.n_best.splits[position : position + 2].tolist()))
        return tuple([Candidate(context[span[0] : span[1]], *span) for span in spans])

    @cached_property
    def n_best(self) -> _Columns:
        """The best spans of all questions."""
        return self._columns(self._span_scores(), self.number)

    @cached_property
    def first_windows(self) -> Index:
        """The first window of each question, counted from the block's first [Q]."""
        return np.flatnonzero(self.windows.ordinal[self.part] == 0)

    @cached_property
    def contexts(self) -> tuple[str, ...]:
        """Of the questions."""
        first, last = self.windows.question[[self.part.start, self.part.stop - 1]].tolist()
        return self.windows.contexts[first : last + 1]

    @cached_property
    def no_answer_scores(self) -> Float:
        """The lowest [CLS] score of each question's windows [Q]."""
        cls = (self.windows.splits[:-1] + self.windows.cls)[self.part]
        scores: Float = self.start[cls].astype(np.float64) + self.end[cls]
        return np.minimum.reduceat(scores, self.first_windows)

    def _span_scores(self) -> SpanScores:
        return SpanScores.of(
            TokenScores.of(
                self.windows, self.part, self.start, self.end, max_answer_length=self.max_answer_length
            )
        )

    def _columns(self, scores: SpanScores, number: int) -> _Columns:
        """The `number` best spans of each question."""
        ranked = scores.ranked(number)
        total = np.logaddexp(scores.log_total, self.no_answer_scores)
        return _Columns(
            splits=ranked.splits,
            start=self.windows.chars[ranked.first, 0],
            end=self.windows.chars[ranked.last, 1],
            probability=np.exp(ranked.score - np.repeat(total, np.diff(ranked.splits))),
            score=ranked.score,
            window=self.windows.ordinal[self.part][ranked.window],
        )
