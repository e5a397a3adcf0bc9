"""What an explanation explains: scores at positions that are fixed before anything is changed.

A target is a weighted sum of start and end scores of one window: those of a span, of "no answer" ([CLS]), or
of one span less those of another, which asks why this answer and not that one. The weights are set once, from
the unchanged model's reading. The trap: the highest score of a changed input may be at another position; who
follows it explains another answer at each step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from probes.span_target import SpanTarget
from qa.errors import UserError
from qa.reader import Read, Reader
from qa.spans import Answer, Candidate, Float, Index
from qa.squad import Question
from qa.windows import WindowSet, answer_labels

KINDS = ("predicted", "gold", "runner_up", "no_answer")
PARTS = {"start": "start score", "end": "end score", "sum": "start + end score"}
NAMES = {
    "predicted": "predicted answer",
    "gold": "gold answer",
    "runner_up": "runner-up",
    "no_answer": "no answer",
}


@dataclass(frozen=True, slots=True)
class Target:
    """What to explain, in words.

    Attributes:
        kind: one of KINDS. The predicted answer is the best span, be it refused or not; the runner-up is the
            best one that shares no character with it, or else the second best.
        part: one of PARTS.
        against: the kind whose score is subtracted; None: nothing is.

    Raises:
        UserError: another kind or part, or a kind against itself.
    """

    kind: str = "predicted"
    part: str = "sum"
    against: str | None = None

    def __post_init__(self) -> None:
        for name in (self.kind, *([] if self.against is None else [self.against])):
            if name not in KINDS:
                raise UserError(f"target: {name!r}; choose {', '.join(KINDS)}")
        if self.part not in PARTS:
            raise UserError(f"target: part {self.part!r}; choose {', '.join(PARTS)}")
        if self.against == self.kind:
            raise UserError(f"target: {self.kind!r} against itself is always 0; choose two different ones")

    @property
    def label(self) -> str:
        """For people."""
        less = "" if self.against is None else f" − {NAMES[self.against]}"
        return f"{NAMES[self.kind]}{less}, {PARTS[self.part]}"


@dataclass(frozen=True, slots=True, eq=False)
class Fixed:
    """A target at its positions in one window of T tokens.

    Attributes:
        target: what it is, in words.
        span: the span explained; None for "no answer".
        window: ordinal of the window.
        weights: what the start and the end score of each token count [2, T].
        tokens: positions of the tokens of the span, of [CLS] for "no answer": who attends when the question
            is what the answer attends to.
        score: the weighted sum for the unchanged window, in logits.
    """

    target: Target
    span: SpanTarget | None
    window: int
    weights: Float
    tokens: Index
    score: float


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """A question that a model has read, whose targets can be fixed.

    Attributes:
        reader: the model.
        question: its text.
        context: likewise.
        read: its windows, scores and answer.
        gold: first character and end of the gold answer in the context; None where it is not known.
    """

    reader: Reader
    question: str
    context: str
    read: Read
    gold: tuple[int, int] | None

    @staticmethod
    def of(reader: Reader, question: str, context: str, *, gold: tuple[int, int] | None = None) -> Asked:
        """Read the question.

        Args:
            reader: the model.
            question: any text that is not blank.
            context: likewise, of any length.
            gold: first character and end of the gold answer in the context.

        Raises:
            UserError: blank text, a context without a token that could be an answer, or a gold answer that is
                not in it.
        """
        if gold is not None and not 0 <= gold[0] < gold[1] <= len(context):
            raise UserError(
                f"gold: characters {gold[0]} to {gold[1]}, but the context has {len(context)}; give the "
                "first character of the answer and one past its last"
            )
        read = reader.read(reader.windows([(question, context)]))
        if not read.answers[0].n_best:
            raise UserError("context: it has no token that could be an answer; give a text with words in it")
        return Asked(reader, question, context, read, gold)

    @property
    def answer(self) -> Answer:
        """As `Reader.answer` gives it."""
        return self.read.answers[0]

    @property
    def windows(self) -> WindowSet:
        """Of the one question."""
        return self.read.windows

    def span(self, kind: str) -> SpanTarget | None:
        """The span of one of KINDS; None for "no answer".

        Raises:
            UserError: there is none.
        """
        if kind == "no_answer":
            return None
        best, *others = self.answer.n_best
        if kind == "gold":
            return SpanTarget.of(self.windows, self._gold())
        if kind == "predicted":
            return SpanTarget.of(self.windows, best)
        if not others:
            raise UserError("target: the context has one possible answer only, so there is no runner-up")
        apart = [span for span in others if span.end <= best.start or best.end <= span.start]
        return SpanTarget.of(self.windows, (apart or others)[0])

    def fix(self, target: Target) -> Fixed:
        """The positions of a target: in the window that gave its answer, where that holds all of it.

        Raises:
            UserError: there is no such span, or no window holds both.
        """
        kinds = [target.kind] if target.against is None else [target.kind, target.against]
        spans = [self.span(kind) for kind in kinds]
        ends = [self._ends(span) for span in spans]
        shared = sorted(set.intersection(*map(set, ends)))
        if not shared:
            raise UserError(
                f"target: no window holds both the {NAMES[kinds[0]]} and the {NAMES[kinds[1]]}, so their "
                "scores cannot be compared in one; choose one of them alone"
            )
        window = next(number for number in [*map(self._window, spans), *shared] if number in shared)
        weights = np.zeros((2, int(self.windows.lengths[window])))
        counted = [target.part in (part, "sum") for part in ("start", "end")]
        for sign, where in zip((1, -1), ends, strict=False):
            weights[[0, 1], list(where[window])] += sign * np.array(counted)
        first, last = ends[0][window]
        return Fixed(
            target=target,
            span=spans[0],
            window=window,
            weights=weights,
            tokens=np.arange(first, last + 1),
            score=float((weights * self._scores(window)).sum()),
        )

    def _scores(self, window: int) -> Float:
        """Start and end scores of a window [2, T]."""
        tokens = slice(*self.windows.splits[window : window + 2].tolist())
        return np.stack([self.read.start[tokens], self.read.end[tokens]]).astype(np.float64)

    def _ends(self, span: SpanTarget | None) -> dict[int, tuple[int, int]]:
        """First and last token in each window that holds the span; of "no answer" [CLS] in all."""
        splits = self.windows.splits
        if span is None:
            return {number: (int(cls), int(cls)) for number, cls in enumerate(self.windows.cls)}
        numbers = np.searchsorted(splits, span.places[:, 0], side="right") - 1
        places = span.places - splits[numbers, None]
        return {
            int(number): (int(first), int(last))
            for number, (first, last) in zip(numbers, places, strict=True)
        }

    def _window(self, span: SpanTarget | None) -> int:
        """The window whose score counts: of the best score of a span, of the lowest one of [CLS]."""
        if span is not None:
            return span.window
        cls = self.windows.splits[:-1] + self.windows.cls
        return int((self.read.start[cls].astype(np.float64) + self.read.end[cls]).argmin())

    def _gold(self) -> Candidate:
        """The tokens around the gold answer, in the window that scores them best."""
        if self.gold is None:
            raise UserError("target: the gold answer is not known; say where it is, or choose another target")
        start, end = self.gold
        asked = Question("", "", "", self.question, self.context, (self.context[start:end],), (start,))
        firsts, lasts = answer_labels(self.windows, [asked])
        held = np.flatnonzero(firsts != self.windows.cls)
        if not len(held):
            raise UserError(
                "target: no window holds the gold answer whole; raise max_length or choose another"
            )
        scores = [self._scores(int(n))[[0, 1], [firsts[n], lasts[n]]].sum() for n in held]
        window = int(held[int(np.argmax(scores))])
        at = self.windows.splits[window]
        start, end = (
            int(self.windows.chars[at + firsts[window], 0]),
            int(self.windows.chars[at + lasts[window], 1]),
        )
        return Candidate(self.context[start:end], start, end, float("nan"), float(max(scores)), window)
