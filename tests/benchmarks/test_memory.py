"""Memory of work that takes a known amount, in a new process."""

import sys
from pathlib import Path

import pytest

from benchmark_cases import BYTES, Hungry, Killed, case
from benchmarks import memory
from qa.errors import UserError

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process forget its peak")


@linux
def test_the_peak_of_the_work_counts_and_what_was_loaded_does_not():
    found = memory.peak_mb(case(Hungry), "ours")
    # The second call: what the first left behind, and as much again.
    assert found == pytest.approx(2 * BYTES / 1e6, rel=0.05)


@linux
def test_work_that_takes_nothing():
    assert memory.peak_mb(case(Hungry), "theirs") < 0.05 * BYTES / 1e6


def test_a_killed_process_is_one_line():
    with pytest.raises(UserError, match=r"fake: the process .* of 'ours' was killed"):
        memory.peak_mb(case(Killed), "ours")


def test_where_the_kernel_has_no_such_mark_nothing_is_reported(monkeypatch):
    monkeypatch.setattr(memory, "PROCESS", Path("no such folder"))
    assert memory.measure_here(case(Hungry), "ours") is None
