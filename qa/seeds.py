"""Runs of one configuration under several seeds: mean ± standard deviation of each group.

The deviation is that of the runs (n - 1 in the denominator), which says how far one run may lie from the
next; it is not an interval of the mean. The trap: runs scored on different questions vary for that reason,
too, so a group is taken apart by data set.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SeedRun:
    """One run of a group.

    Attributes:
        group: what the runs of one configuration share (`run_experiment.py --seeds`).
        name: of the experiment.
        sha: fingerprint of the questions the scores are on.
        exact_match: in percent.
        f1: in percent.
    """

    group: str
    name: str
    sha: str
    exact_match: float
    f1: float


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean and deviation of one metric over runs.

    Attributes:
        mean: in percent.
        deviation: sample standard deviation in points; None for a single run.
        low: lowest run.
        high: highest run.
    """

    mean: float
    deviation: float | None
    low: float
    high: float

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        """Of one value or more."""
        deviation = statistics.stdev(values) if len(values) > 1 else None
        return Spread(statistics.fmean(values), deviation, min(values), max(values))

    def __str__(self) -> str:
        return f"{self.mean:.2f}" + ("" if self.deviation is None else f" ± {self.deviation:.2f}")


@dataclass(frozen=True, slots=True)
class SeedGroup:
    """The runs of one configuration on the same questions.

    Attributes:
        name: of the group.
        sha: fingerprint of the questions.
        runs: names of the experiments.
        exact_match: over the runs.
        f1: over the runs.
    """

    name: str
    sha: str
    runs: tuple[str, ...]
    exact_match: Spread
    f1: Spread


def seed_groups(runs: Sequence[SeedRun]) -> list[SeedGroup]:
    """The runs by group and data set, in their order."""
    found: dict[tuple[str, str], list[SeedRun]] = {}
    for run in runs:
        found.setdefault((run.group, run.sha), []).append(run)
    return [
        SeedGroup(
            group,
            sha,
            tuple(run.name for run in members),
            Spread.of([run.exact_match for run in members]),
            Spread.of([run.f1 for run in members]),
        )
        for (group, sha), members in found.items()
    ]
