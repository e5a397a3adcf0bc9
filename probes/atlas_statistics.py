"""Means with intervals of any number of values, of which only sums are kept.

Questions on one paragraph are alike, so the interval counts paragraphs: the mean is a ratio of two sums over
paragraphs, of values and of how many there are, and its variance is that of the ratio's linear part (Cochran,
"Sampling Techniques", 1977, section 6.3; the sandwich estimator of clustered data). All of it follows from
five sums, so a data set of any size takes the memory of one paragraph, unlike a bootstrap
(`qa.intervals.paragraph_interval`), with which it agrees but for few paragraphs. The trap: a paragraph must
be added whole, and values that are NaN do not count at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Means:
    """Means of cells of some shape.

    Attributes:
        value: NaN where there is none [...].
        low: lower end of the 95 % interval; NaN for values of fewer than two paragraphs [...].
        high: upper end [...].
        count: values they are of [...].
    """

    value: Float
    low: Float
    high: Float
    count: NDArray[np.int64]


class ClusterMeans:
    """Means of cells, of values that are added paragraph by paragraph."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        """Of nothing yet.

        Args:
            shape: of the cells.
        """
        # Of each paragraph with values in the cell: 1, their sum s and number n, s², s·n, n².
        self._sums = np.zeros((6, *shape))

    def add(self, values: Float) -> None:
        """Add the values of one whole paragraph [Q, ...]; NaN stands for none."""
        there = np.isfinite(values)
        n = there.sum(0)
        s = np.where(there, values, 0.0).sum(0, dtype=np.float64)
        self._sums += np.stack([n > 0, s, n, s * s, s * n, n * n])

    def merge(self, other: ClusterMeans) -> None:
        """Add what another one has been given, of other paragraphs."""
        self._sums += other._sums

    def means(self, *, level: float = 0.95) -> Means:
        """The means so far, with their intervals."""
        clusters, s, n, ss, sn, nn = self._sums
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = s / n
            # Sum over paragraphs of (s - mean n)²; rounding may leave less than 0 of it.
            squares = np.maximum(ss - 2 * mean * sn + mean**2 * nn, 0.0)
            error = np.sqrt(squares * clusters / (clusters - 1)) / n
            reach = student.ppf((1 + level) / 2, clusters - 1) * error
        reach = np.where(clusters > 1, reach, np.nan)
        return Means(mean, mean - reach, mean + reach, n.astype(np.int64))


def by_paragraph(paragraphs: Sequence[str]) -> Iterable[slice]:
    """Runs of equal keys, in order."""
    start = 0
    for place in range(1, len(paragraphs) + 1):
        if place == len(paragraphs) or paragraphs[place] != paragraphs[start]:
            yield slice(start, place)
            start = place
