"""When a run evaluates, when it stops, and which of its evaluations was the best.

Everything here is a function of the settings and of the evaluations so far, with no state of its own, so a
resumed run cannot lose it (the usual early-stopping callback forgets its patience on resume).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qa.config import Settings


@dataclass(frozen=True, slots=True)
class Schedule:
    """Steps of a run.

    Attributes:
        steps_per_epoch: optimizer steps in one pass over the windows.
        total_steps: optimizer steps in all.
        evaluate_at: steps after which the model is evaluated and saved; the last step is one of them.
        log_every: steps between two rows of the history.
    """

    steps_per_epoch: int
    total_steps: int
    evaluate_at: frozenset[int]
    log_every: int

    @staticmethod
    def of(settings: Settings, windows: int, processes: int) -> Schedule:
        """The schedule for this many training windows."""
        batches = math.ceil(windows / (settings.batch_size * processes))
        per_epoch = max(1, math.ceil(batches / settings.gradient_accumulation_steps))
        # 2.2 * 50 is a little more than 110 in floating point.
        total = max(1, math.ceil(settings.epochs * per_epoch - 1e-9))
        part = per_epoch / settings.evaluations_per_epoch
        every = [max(1, round(part * count)) for count in range(1, math.ceil(total / part) + 1)]
        evaluate_at = frozenset([*(step for step in every if step < total), total])
        return Schedule(per_epoch, total, evaluate_at, max(1, min(50, math.ceil(part / 10))))


def evaluations(log: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The evaluations among the rows of a trainer's log, in order."""
    return [row for row in log if "eval_f1" in row]


def best_evaluation(log: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The evaluation with the highest F1, the earliest of equals; None before the first."""
    return max(evaluations(log), key=lambda row: float(row["eval_f1"]), default=None)


def out_of_patience(log: Sequence[Mapping[str, Any]], patience: int) -> bool:
    """Whether the last `patience` epochs brought no better F1."""
    best = best_evaluation(log)
    # Epochs are fractions summed in floating point; a thousandth of an epoch is no patience.
    return best is not None and float(evaluations(log)[-1]["epoch"] - best["epoch"]) >= patience - 1e-3
