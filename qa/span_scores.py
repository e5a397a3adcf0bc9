"""Scores of all spans of many questions at once, without listing the spans.

The best span that begins at a token is its start score plus the best end score within reach, and the sum of e
to the score over these spans is a product with a sum over the same reach. Both need only running maxima and
sums, found by doubling: an array is combined with itself moved by 1, 2, 4 ... tokens. The tokens of all
windows lie in one row of cells, with gaps between windows so that no reach leaves its window. Only for the
few tokens with which a question's best spans begin is every span seen.

The trap: a token that several windows have gives its spans other scores in each, and only the best of them
counts, which no product of sums knows. So every span of such a token is seen as well, and the cell in the
window that has it first stands for all of them: it is the token's *own* cell, and its other cells stay empty.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from qa.windows import WindowSet

Float = NDArray[np.float64]
Logits = NDArray[np.float32]
Index = NDArray[np.int64]
Bool = NDArray[np.bool_]
Real = TypeVar("Real", np.float32, np.float64)

# exp(-708) is the least number with all digits in float64: where every start and end score is below SAFE and
# the best span above -SAFE, a span with a score that is less counts for nothing.
SAFE = 300.0


@dataclass(frozen=True, slots=True)
class TokenScores:
    """Start and end scores of the tokens of N windows; C cells, of Q questions.

    Attributes:
        first: first cell of each window, and C [N + 1].
        context: the cell of the first context token of each window [N].
        token: that token, flat as the windows are [N].
        before: context tokens before each window [N].
        question: of each window, 0 .. Q-1 [N].
        length: tokens of a span at most; no more than the longest context of a window has.
        start: score of each cell, -inf where no span may begin [C].
        end: likewise where none may end, with more of those behind [C + length - 1].
        shared: own cells of the tokens that several windows have [D].
        copies: the other cells of those.
    """

    first: Index
    context: Index
    token: Index
    before: Index
    question: Index
    length: int
    start: Logits
    end: Logits
    shared: Index
    copies: Index

    @staticmethod
    def of(
        windows: WindowSet,
        part: slice,
        start: Logits,
        end: Logits,
        *,
        max_answer_length: int,
    ) -> TokenScores:
        """The cells of the windows in `part`, which hold whole questions; scores are flat as the windows."""
        lead, stop = windows.context_start[part], windows.context_end[part]
        before, lengths = windows.first_context_token[part].astype(np.int64), windows.lengths[part]
        question = np.cumsum(windows.ordinal[part] == 0, dtype=np.int64) - 1
        length = min(max_answer_length, max(int((stop - lead).max()), 1))
        # Between two contexts lie special tokens and a question; where these are too few, a gap makes up.
        gaps = np.maximum(length - 1 - (lengths - stop) - np.append(lead[1:], length), 0)
        moved = np.cumsum(gaps) - gaps
        tokens = slice(int(windows.splits[part.start]), int(windows.splits[part.stop]))
        splits = windows.splits[part.start : part.stop + 1] - tokens.start
        copies, originals = _copies(before, (stop - lead).astype(np.int64), question, splits[:-1] + lead)
        borders = splits[:-1][np.diff(question, prepend=-1) != 0]
        can_start, can_end = _edges(windows.chars[tokens], borders, copies, originals)
        taken = np.repeat(np.tile([True, False], len(gaps)), np.stack([lengths, gaps], axis=1).ravel())
        more = np.zeros(length - 1, dtype=np.bool_)
        return TokenScores(
            first=splits + np.append(moved, gaps.sum()),
            context=splits[:-1] + moved + lead,
            token=splits[:-1] + tokens.start + lead,
            before=before,
            question=question,
            length=length,
            start=_spread(start[tokens], can_start, taken),
            end=_spread(end[tokens], can_end, np.append(taken, more)),
            shared=np.unique(originals + moved[np.searchsorted(splits, originals, side="right") - 1]),
            copies=copies + moved[np.searchsorted(splits, copies, side="right") - 1],
        )

    def place(self, cells: Index) -> tuple[Index, Index]:
        """The window of each cell [n], and how many tokens of the context come before it [n]."""
        window = np.searchsorted(self.first, cells, side="right") - 1
        return window, self.before[window] + cells - self.context[window]

    def spans(self, cells: Index) -> tuple[Float, Index]:
        """The spans that begin at own cells [n]: best score, and window that gives it [n, length], twice.

        The column is the span's length - 1; a score is -inf where there is no such span.
        """
        window, position = self.place(cells)
        reach = np.arange(self.length)
        scores = self.start[cells][:, None].astype(np.float64) + self.end[cells[:, None] + reach]
        windows = np.repeat(window[:, None], self.length, axis=1)
        question, before = np.append(self.question, -1), np.append(self.before, 0)
        rows, step = np.arange(len(cells) if len(self.copies) else 0), 1
        while len(rows):
            other = window[rows] + step
            has = (question[other] == question[window[rows]]) & (before[other] <= position[rows])
            rows, other, step = rows[has], other[has], step + 1
            there = self.context[other] + position[rows] - before[other]
            sums = self.start[there][:, None].astype(np.float64) + self.end[there[:, None] + reach]
            better = sums > scores[rows]
            scores[rows] = np.where(better, sums, scores[rows])
            windows[rows] = np.where(better, other[:, None], windows[rows])
        return scores, windows


@dataclass(frozen=True, slots=True)
class Ranked:
    """The best spans of Q questions, K in all; those of question q are splits[q]:splits[q+1], best first.

    Attributes:
        splits: [Q + 1].
        score: start score + end score, the best over the windows that contain the span [K].
        window: the first window that gives it this score [K].
        first: first token of the span in that window, flat as the windows are [K].
        last: its last token there [K].
    """

    splits: Index
    score: Float
    window: Index
    first: Index
    last: Index


@dataclass(frozen=True, slots=True)
class SpanScores:
    """What all spans of Q questions come to.

    Attributes:
        tokens: the scores of their tokens.
        splits: the cells of question q are splits[q]:splits[q+1] [Q + 1].
        best: best score of the spans that begin at an own cell, -inf at any other cell [C].
        log_total: logarithm of the sum of e to the score over all spans, -inf if there is none [Q].
    """

    tokens: TokenScores
    splits: Index
    best: Float
    log_total: Float

    @staticmethod
    def of(tokens: TokenScores) -> SpanScores:
        """Best scores and sums."""
        splits = tokens.first[np.flatnonzero(np.diff(tokens.question, prepend=-1, append=-1))]
        best = np.add(tokens.start, windowed(np.maximum, tokens.end, tokens.length), dtype=np.float64)
        with np.errstate(over="ignore", invalid="ignore"):  # `_correct` sees to these
            powers = windowed(np.add, np.exp(tokens.end, dtype=np.float64), tokens.length)
            powers *= np.exp(tokens.start, dtype=np.float64)
        best[tokens.copies], powers[tokens.copies] = -np.inf, 0
        if len(tokens.shared):
            scores, _ = tokens.spans(tokens.shared)
            best[tokens.shared] = scores.max(axis=1)
            powers[tokens.shared] = np.exp(scores).sum(axis=1)
        sums = np.add.reduceat(powers, splits[:-1])
        log_total = np.log(sums, out=np.full(len(sums), -np.inf), where=sums > 0)
        found = SpanScores(tokens, splits, best, log_total)
        found._correct()
        return found

    def _correct(self) -> None:
        """Sum span by span, below the best, where powers of e may have left the range of float64."""
        start, end, best = (
            np.maximum.reduceat(scores, self.splits[:-1])
            for scores in (self.tokens.start, self.tokens.end, self.best)
        )
        safe = (start < SAFE) & (end < SAFE) & (best > -SAFE)
        for question in np.flatnonzero(~safe & np.isfinite(best)):
            cells = np.arange(self.splits[question], self.splits[question + 1])
            scores, _ = self.tokens.spans(cells[np.isfinite(self.best[cells])])
            self.log_total[question] = best[question] + np.log(np.exp(scores - best[question]).sum())

    def ranked(self, number: int) -> Ranked:
        """The `number` best spans of each question; of equal ones the first in the text, then the shorter.

        They begin at the `number` cells with the best scores: before any other cell come as many spans.
        """
        tokens = self.tokens
        least = _limits(self.best, self.splits, number)
        cells, splits = _largest(self.best, self.splits, number, least)
        scores, windows = tokens.spans(cells)
        # As many spans reach `least`: one for each cell.
        reach = np.flatnonzero(scores >= np.repeat(least, np.diff(splits))[:, None])
        row, extent = np.divmod(reach, tokens.length)
        score, splits = scores[row, extent], np.searchsorted(row, splits)
        chosen, splits = _largest(score, splits, number, _limits(score, splits, number))
        question = np.repeat(np.arange(len(least)), np.diff(splits))
        chosen = chosen[np.lexsort((-score[chosen], question))]
        row, extent = row[chosen], extent[chosen]
        window = windows[row, extent]
        _, position = tokens.place(cells[row])
        first = tokens.token[window] + position - tokens.before[window]
        return Ranked(splits, score[chosen], window, first, first + extent)


def windowed(combine: np.ufunc, values: NDArray[Real], length: int) -> NDArray[Real]:
    """The `length` values from each one on, combined [n - length + 1].

    Args:
        combine: np.maximum or np.add. A sum has few roundings and no cancellation, unlike a difference of
            two cumulative sums.
        values: [n].
        length: 1 to n.
    """
    block, size = values, 1
    found, done = values[:0], 0
    while True:
        # Each of `block` is of `size` values, a power of two; each of `found` of `done`, the digits so far.
        if length & size:
            found = combine(found[: len(block) - done], block[done:]) if done else block
            done += size
        if done == length:
            return found
        block, size = combine(block[:-size], block[size:]), 2 * size


def _largest(values: Float, splits: Index, number: int, least: Float) -> tuple[Index, Index]:
    """Positions of the largest values of each segment, ascending, and where those of a segment are [Q + 1].

    Args:
        values: [n].
        splits: segment q is splits[q]:splits[q+1] [Q + 1].
        number: how many of a segment at most; of equal values the earlier.
        least: what `_limits` says for these [Q].
    """
    found = np.flatnonzero(values >= np.repeat(least, np.diff(splits)))
    begins = np.searchsorted(found, splits)
    segment = np.repeat(np.arange(len(least)), np.diff(begins))
    # Of those equal to the least one only as many as are still free, the first of them.
    equal = values[found] == least[segment]
    seen = np.append(0, np.cumsum(equal))
    larger = np.diff(begins) - np.diff(seen[begins])
    kept = ~equal | (seen[1:] - seen[begins[segment]] <= number - larger[segment])
    return found[kept], np.append(0, np.cumsum(kept))[begins]


def _limits(values: Float, splits: Index, number: int) -> Float:
    """The `number`-th largest value of each segment, or where there is none the lowest finite number [Q]."""
    sizes = np.diff(splits)
    least = np.full(len(sizes), np.finfo(np.float64).min)
    if number == 1:
        some = np.flatnonzero(sizes)
        least[some] = np.maximum(least[some], np.maximum.reduceat(values, splits[some]))
        return least
    long = np.flatnonzero(sizes > number)
    # Segments of similar length side by side in one grid, of which at most half is empty.
    widths = 2 ** np.ceil(np.log2(sizes[long])).astype(np.int64)
    for width in np.unique(widths):
        some, column = long[widths == width], np.arange(width)
        grid = values[np.minimum(splits[some][:, None] + column, len(values) - 1)]
        grid[column >= sizes[some][:, None]] = -np.inf
        least[some] = np.maximum(least[some], np.partition(grid, width - number)[:, width - number])
    return least


def _copies(before: Index, counts: Index, question: Index, first: Index) -> tuple[Index, Index]:
    """Tokens that an earlier window has too, and the same in the first window that has them [D], [D].

    Args:
        before: context tokens before each window [N].
        counts: context tokens of each window [N].
        question: of each window, ascending from 0 [N].
        first: the first context token of each window [N].
    """
    if question[-1] + 1 == len(question):
        none = np.zeros(0, dtype=np.int64)
        return none, none
    ends = before + counts
    known = np.zeros_like(counts)
    known[1:] = np.where(np.diff(question) == 0, np.clip(ends[:-1] - before[1:], 0, counts[1:]), 0)
    window = np.repeat(np.arange(len(counts)), known)
    within = np.arange(len(window)) - np.repeat(np.cumsum(known) - known, known)
    position, scale = before[window] + within, int(ends.max()) + 1
    owner = np.searchsorted(question * scale + ends, question[window] * scale + position, side="right")
    return first[window] + within, first[owner] + position - before[owner]


def _edges(chars: NDArray[np.int32], borders: Index, copies: Index, originals: Index) -> tuple[Bool, Bool]:
    """Tokens that may start a span and tokens that may end one [S], given their characters [S, 2].

    None that covers nothing; of several that begin at the same character the first, and of several that stop
    at the same character the last. `borders` are the first tokens of the questions.
    """
    usable = chars[:, 1] > chars[:, 0]
    usable[copies] = False
    tokens = np.flatnonzero(usable)
    can_start, can_end = usable.copy(), usable.copy()
    for can, characters, one in ((can_start, chars[:, 0][usable], 1), (can_end, chars[:, 1][usable], 0)):
        same = np.flatnonzero(characters[1:] == characters[:-1])
        pair = tokens[same], tokens[same + 1]
        within = np.equal(*(np.searchsorted(borders, token, side="right") for token in pair))
        can[pair[one][within]] = False
        can[copies] = can[originals]
    return can_start, can_end


def _spread(scores: Logits, allowed: Bool, taken: Bool) -> Logits:
    """The scores in the cells that are taken; -inf in the others, and for one not allowed or not finite."""
    cells = np.full(len(taken), -np.inf, dtype=scores.dtype)
    cells[taken] = np.where(allowed & np.isfinite(scores), scores, -np.inf)
    return cells
