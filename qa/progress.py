"""A progress bar for commands; it appears only for work of some length, and on standard error only."""

from __future__ import annotations

import os
import sys
from typing import Any

from tqdm import tqdm

SECONDS = "PROGRESS_SECONDS"  # between lines in a log, for a program that follows it


class Bar:
    """A bar whose `at` is what everything that reports progress calls."""

    def __init__(self, unit: str) -> None:
        self._bar: tqdm[Any] = tqdm(
            unit=unit,
            delay=2,
            dynamic_ncols=True,
            leave=False,
            # In a log file every refresh is a line.
            mininterval=0.1 if sys.stderr.isatty() else float(os.environ.get(SECONDS, "20")),
        )

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()

    def at(self, done: int, total: int) -> None:
        """Move to `done` of `total`."""
        self._bar.total = total
        self._bar.update(done - self._bar.n)
