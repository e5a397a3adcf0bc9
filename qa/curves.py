"""Learning curves from `history.jsonl`: what was logged, by step, epoch or training time.

The trap: the history has no clock. Training time is the windows between two rows over the speed logged with
the later one; evaluations and saving are not in it, so it compares training, not a whole evening.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

By = Literal["step", "epoch", "time"]
Curve = tuple[tuple[float, float], ...]


def windows_a_step(settings: Mapping[str, Any], environment: Mapping[str, Any]) -> float:
    """Training windows in one step, over all processes.

    Args:
        settings: batch_size and gradient_accumulation_steps.
        environment: content of `environment.json`; its `processes` counts, 1 if it is missing.
    """
    processes = environment.get("processes")
    size = settings.get("batch_size", 1) * settings.get("gradient_accumulation_steps", 1)
    return float(size * (processes if type(processes) is int and processes > 0 else 1))


def curve(rows: Sequence[Mapping[str, Any]], metric: str, *, by: By, windows: float) -> Curve:
    """The values of one metric, in order of place; rows without it are left out.

    Args:
        rows: of the history, in order.
        metric: name in the rows.
        by: what the places are: steps, epochs or minutes of training.
        windows: in one step (`windows_a_step`).
    """
    places = _places(rows, by, windows)
    return tuple(
        (float(place), float(row[metric]))
        for place, row in zip(places, rows, strict=True)
        if _is_number(row.get(metric)) and np.isfinite(place)
    )


def _places(rows: Sequence[Mapping[str, Any]], by: By, windows: float) -> NDArray[np.float64]:
    if by != "time":
        return np.array([row[by] if _is_number(row.get(by)) else np.nan for row in rows], dtype=np.float64)
    steps = np.array([row["step"] for row in rows], dtype=np.float64)
    speeds = np.array([_speed(row) for row in rows], dtype=np.float64)
    known = np.flatnonzero(np.isfinite(speeds))
    if not len(known):
        return np.full(len(rows), np.nan)
    # A row without a speed is timed with the next one that has it, the last ones with the last.
    after = known[np.minimum(np.searchsorted(known, np.arange(len(rows))), len(known) - 1)]
    seconds = np.diff(steps, prepend=0.0) * windows / speeds[after]
    return np.cumsum(seconds) / 60


def _speed(row: Mapping[str, Any]) -> float:
    speed = row.get("examples_per_second")
    number = float(speed) if isinstance(speed, int | float) and _is_number(speed) else np.nan
    return number if number > 0 else np.nan


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))
