"""One comparison: ours and an alternative, in turn in one process, and what is reported of it.

A shared processor is faster at one moment than at the next, so the two take turns, each goes first every
other round, and the ratio is taken within a round. The trap: where the rounds of one side do different work
(training batches of different length), the median round is not the typical one, so such a case compares
the sums instead.
"""

from __future__ import annotations

import os
import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch

from qa.errors import UserError
from qa.hardware import describe_device

Side = Literal["ours", "theirs"]
Say = Callable[[str], None]
# One side, ready to run: a call does the work of one round.
Work = Callable[[], object]


class UnavailableError(UserError):
    """This machine lacks what a case needs; it is left out unless it was asked for by name."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a user may choose, for all comparisons alike.

    Attributes:
        scratch: an empty folder for the time of the run.
        dataset: a SQuAD JSON file, hub name or `pocket`; None: the comparison's own choice.
        model: a hub name, folder or `pocket`; None: the comparison's own choice.
    """

    scratch: Path
    dataset: str | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Case(ABC):
    """What is compared. Light: nothing is loaded before `prepare`, and it can be sent to another process.

    Attributes:
        name: as in the report, unique.
        what: the work, in words.
        against: the alternative, in words.
        rounds: how often each side is timed.
        warm_up: rounds before those.
        unit: what the work consists of, in the plural, to report a rate; None: one thing, report its time.
        alike: whether every round does the same work.
        compared: what `difference` is the difference of, in words.
        device: where it runs, "cpu" or "cuda".
        quantity: what is measured of a round: "seconds", or "bytes", which the work returns.
        own_process: whether the work's memory is that of the process it runs in, and so can be measured.
    """

    name: str
    what: str
    against: str
    rounds: int
    warm_up: int = 2
    unit: str | None = None
    alike: bool = True
    compared: str
    device: str = "cpu"
    quantity: str = "seconds"
    own_process: bool = True

    @abstractmethod
    def prepare(self, side: Side) -> Work:
        """Load everything the side needs, identical on both sides where that is possible."""

    @abstractmethod
    def difference(self, ours: Any, theirs: Any) -> float | None:
        """The largest difference of the results of the two prepared sides; None where none can be taken."""

    def prepare_hardest(self, side: Side) -> Work:
        """The work to measure memory with: whatever of it needs most."""
        return self.prepare(side)

    def items(self) -> float:
        """How many of `unit` one round does."""
        return 1.0


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds (or bytes) of each round of the two sides, in order."""

    ours: tuple[float, ...]
    theirs: tuple[float, ...]

    @property
    def ratios(self) -> tuple[float, ...]:
        """Theirs over ours for each round; above 1, ours is faster."""
        return tuple(theirs / ours for ours, theirs in zip(self.ours, self.theirs, strict=True))


@dataclass(frozen=True, slots=True)
class Result:
    """What one case gave.

    Attributes:
        case: what was compared.
        ours: seconds (or bytes, `case.quantity`) an item: the median over rounds, or the mean where rounds do
            different work.
        theirs: the same of the alternative.
        ratio: theirs over ours: the median of the rounds' ratios, or the ratio of the means.
        spread: lowest and highest ratio of a round.
        max_difference: of the results (`case.compared` says of what); None where none can be taken.
        ours_peak_mb: memory the work takes, in MB of 10^6 bytes (`benchmarks.memory`).
        theirs_peak_mb: the same of the alternative.
        machine: processor or GPU, cores and versions.
    """

    case: Case
    ours: float
    theirs: float
    ratio: float
    spread: tuple[float, float]
    max_difference: float | None
    ours_peak_mb: float | None
    theirs_peak_mb: float | None
    machine: str

    def as_dict(self) -> dict[str, Any]:
        """The values under their JSON names."""
        return {
            "ours": self.ours,
            "theirs": self.theirs,
            "ratio": self.ratio,
            "max_difference": self.max_difference,
            "ours_peak_mb": self.ours_peak_mb,
            "theirs_peak_mb": self.theirs_peak_mb,
            "spread": list(self.spread),
            "machine": self.machine,
        }


def compare(
    case: Case, *, peak: Callable[[Case, Side], float | None], rounds: int | None = None, say: Say = print
) -> Result:
    """Run one case.

    Args:
        case: what to compare.
        peak: measures the memory of a side (`benchmarks.memory.peak_mb`).
        rounds: how often each side is timed; None: as often as the case says.
        say: is told about progress.

    Raises:
        UserError: data or a model cannot be loaded.
    """
    say(f"{case.name}: preparing")
    ours, theirs = case.prepare("ours"), case.prepare("theirs")
    # First of all: some work changes the weights.
    difference = case.difference(ours, theirs)
    times = time_in_turn(ours, theirs, case=case, rounds=rounds or case.rounds, say=say)
    del ours, theirs
    say(f"{case.name}: measuring memory")
    result = conclude(case, times, difference=difference, peaks=(peak(case, "ours"), peak(case, "theirs")))
    say(f"{case.name}: {result.ratio:.2f} times {'as fast' if case.quantity == 'seconds' else 'less'}")
    return result


def time_in_turn(ours: Work, theirs: Work, *, case: Case, rounds: int, say: Say) -> Times:
    """Seconds of both sides, in turn, after the warm-up."""
    for _ in range(case.warm_up):
        ours()
        theirs()
    rows: list[tuple[float, float]] = []
    for number in range(rounds):
        if number % 2 == 0:
            own, other = _measured(ours, case), _measured(theirs, case)
        else:
            other, own = _measured(theirs, case), _measured(ours, case)
        rows.append((own, other))
        unit = "s" if case.quantity == "seconds" else case.quantity
        say(f"{case.name}: round {number + 1} of {rounds}, ours {own:.3g} {unit}, theirs {other:.3g} {unit}")
    return Times(*zip(*rows, strict=True))


def _measured(work: Work, case: Case) -> float:
    began = time.perf_counter()
    result = work()
    if case.device == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - began
    return seconds if case.quantity == "seconds" else float(str(result))


def conclude(
    case: Case, times: Times, *, difference: float | None, peaks: tuple[float | None, float | None]
) -> Result:
    """The figures that are reported."""
    middle = statistics.median if case.alike else statistics.fmean
    ours, theirs = middle(times.ours), middle(times.theirs)
    return Result(
        case=case,
        ours=ours / case.items(),
        theirs=theirs / case.items(),
        ratio=statistics.median(times.ratios) if case.alike else theirs / ours,
        spread=(min(times.ratios), max(times.ratios)),
        max_difference=difference,
        ours_peak_mb=peaks[0],
        theirs_peak_mb=peaks[1],
        machine=describe_machine(case.device),
    )


def describe_machine(device: str) -> str:
    """What a figure depends on besides the code."""
    versions = ", ".join(f"{library} {version(library)}" for library in ("torch", "transformers"))
    return f"{describe_device(device)}, {os.cpu_count()} cores, {versions}"
