"""Start and end scores of every token of a context, in the order of the text.

The trap: a token that several windows hold has a score in each. The highest counts, of start and end each,
as the best span is the best of any window; so the two of one token may be from two windows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from probes.maps import Float
from probes.words import Int
from qa.reader import Read


@dataclass(frozen=True, slots=True)
class TextScores:
    """Scores of the N tokens of one context.

    Attributes:
        chars: first character and end of each token in the context [N, 2].
        start: start scores, in logits [N].
        end: end scores [N].
    """

    chars: Int
    start: Float
    end: Float

    @staticmethod
    def of(read: Read) -> TextScores:
        """The scores that a model gave the context of one question."""
        windows = read.windows
        sizes = windows.context_end - windows.context_start
        count = int((windows.first_context_token + sizes).max())
        chars = np.zeros((count, 2), dtype=np.int32)
        start, end = (np.full(count, -np.inf, dtype=np.float32) for _ in range(2))
        for number, first in enumerate(windows.first_context_token.tolist()):
            here = slice(first, first + int(sizes[number]))
            flat = int(windows.splits[number] + windows.context_start[number])
            there = slice(flat, flat + int(sizes[number]))
            chars[here] = windows.chars[there]
            np.maximum(start[here], read.start[there], out=start[here])
            np.maximum(end[here], read.end[there], out=end[here])
        return TextScores(chars, start, end)

    def span(self, start: int, end: int) -> tuple[int, int]:
        """First token and one past the last that overlap the characters from `start` to `end`."""
        inside = np.flatnonzero((self.chars[:, 0] < end) & (self.chars[:, 1] > start))
        return (int(inside[0]), int(inside[-1]) + 1) if len(inside) else (0, 0)

    def near(self, place: int, most: int) -> tuple[TextScores, int]:
        """At most so many tokens around one of them, and how many come before those."""
        first = max(0, min(place - most // 2, len(self.start) - most))
        part = slice(first, first + most)
        return TextScores(self.chars[part], self.start[part], self.end[part]), first
