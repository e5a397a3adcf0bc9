"""A span of the context held fixed, so that its scores can be followed while the model is changed.

Taking the best span anew each time would follow whatever is best now. A span is fixed by its characters, and
so by its tokens in every window that holds it whole. The trap: its probability is over the spans of all
windows, and its score there is the best that any window gives it, while start and end scores are followed in
one window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qa.spans import Answer, Candidate, Float
from qa.windows import WindowSet

Logits = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class SpanTarget:
    """A span of one question's context.

    Attributes:
        text: `context[start:end]`.
        start: first character.
        end: one past the last character.
        window: ordinal of the window in which its scores are followed.
        first: position of its first token in that window.
        last: position of its last token there.
        places: its first and last token in each of V windows that hold it, flat as the windows are [V, 2].
        place: which of them is `window`.
    """

    text: str
    start: int
    end: int
    window: int
    first: int
    last: int
    places: NDArray[np.int64]
    place: int

    @staticmethod
    def of(windows: WindowSet, span: Candidate) -> SpanTarget:
        """A span that was found in the windows of one question."""
        window = windows[span.window]
        covers = window.chars[:, 1] > window.chars[:, 0]
        # Of the pieces of one character the first may start a span, and the last end it.
        first = np.flatnonzero(covers & (window.chars[:, 0] == span.start))[0]
        last = np.flatnonzero(covers & (window.chars[:, 1] == span.end))[-1]
        ends = window.first_context_token + np.array([first, last])  # tokens of the context
        before, size = windows.first_context_token, windows.context_end - windows.context_start
        holds = np.flatnonzero((before <= ends[0]) & (ends[1] < before + size))
        flat = (windows.splits[:-1] + windows.context_start - before)[holds]
        return SpanTarget(
            text=span.text,
            start=span.start,
            end=span.end,
            window=span.window,
            first=window.context.start + int(first),
            last=window.context.start + int(last),
            places=flat[:, None] + ends,
            place=int(np.searchsorted(holds, span.window)),
        )

    def scores(self, start: Logits, end: Logits) -> tuple[Float, Float]:
        """Its start and end scores in its window [N], [N], given those of all tokens N times [N, S]."""
        first, last = self.places[self.place]
        return start[:, first].astype(np.float64), end[:, last].astype(np.float64)

    def probability(self, start: Logits, end: Logits, answers: Sequence[Answer]) -> Float:
        """Its probability among all spans of all windows and "no answer" [N].

        Args:
            start: start scores of all tokens N times [N, S].
            end: end scores [N, S].
            answers: what `qa.spans.decode` makes of each.
        """
        first, last = self.places.T
        score = (start[:, first].astype(np.float64) + end[:, last]).max(1)
        probability: Float = np.exp(score - np.array([_log_total(answer) for answer in answers]))
        return probability


def _log_total(answer: Answer) -> float:
    """Logarithm of the sum of e to the score, over all spans and "no answer"."""
    best = answer.n_best[0]
    # The more probable of the two is far from 0, where a logarithm has no digits left.
    score, probability = max(
        (best.score, best.probability), (answer.no_answer_score, answer.no_answer_probability)
    )
    return score - float(np.log(probability))
