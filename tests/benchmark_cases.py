"""Comparisons for the tests: hardly any work, or work whose memory is known.

In a module of its own, because memory is measured in a new process, which must be able to import it.
"""

import os
from dataclasses import dataclass

import numpy as np

from benchmarks.comparison import Case

BYTES = 64_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Counting(Case):
    """Every call is noted; ours gives 1, theirs 3."""

    calls: list

    def prepare(self, side):
        def work():
            self.calls.append(side)
            return 1 if side == "ours" else 3

        return work

    def difference(self, ours, theirs):
        return float(theirs() - ours())


@dataclass(frozen=True, slots=True, kw_only=True)
class Hungry(Case):
    """Loads BYTES; then ours keeps BYTES from the first call on and needs as much for a moment."""

    def prepare(self, side):
        loaded, kept = np.ones(BYTES // 8), []

        def work():
            if side == "ours":
                kept.append(kept[0] if kept else np.ones(BYTES // 8))
                np.add(loaded, kept[0])

        return work

    def difference(self, ours, theirs):
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Killed(Hungry):
    """Dies as a process does that the kernel kills."""

    def prepare(self, side):
        os._exit(9)


def case(kind, **changes):
    """A case of that class."""
    words = {"name": "fake", "what": "work", "against": "other work", "compared": "results"}
    return kind(**words | {"rounds": 3} | changes)
