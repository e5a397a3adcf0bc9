"""The memory that one side's work takes, measured in a process of its own.

On a CPU it is the highest resident memory while the work runs, less the resident memory when everything was
loaded (weights, data). The kernel keeps that mark to the byte, and Linux lets a process set it back
(`clear_refs`, see proc(5)); elsewhere there is nothing as good, and nothing is reported. On CUDA it is what
torch allocated.

The trap: `getrusage`'s maximum will not do. It cannot be set back, so loading counts, and a child process
begins with its parent's, which here has both sides in memory.
"""

from __future__ import annotations

import gc
import multiprocessing
import re
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import torch

from benchmarks.comparison import Case, Side
from qa.errors import UserError

PROCESS = Path("/proc/self")
HIGHEST = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)


def peak_mb(case: Case, side: Side) -> float | None:
    """Memory that two rounds of the hardest work take, in MB of 10^6 bytes; None where it cannot be measured.

    That is so on some systems, and for work that other processes do.

    Two, because the first leaves behind what the second must live beside (gradients, the optimizer's state).

    Raises:
        UserError: the process was killed, most likely for want of memory; or what `prepare` raises.
    """
    if not case.own_process:
        return None
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as executor:
        try:
            return executor.submit(measure_here, case, side).result()
        except BrokenProcessPool as error:
            raise UserError(
                f"{case.name}: the process that measures the memory of {side!r} was killed, most likely for "
                "want of memory; name other benchmarks, or run it on a larger machine"
            ) from error


def measure_here(case: Case, side: Side) -> float | None:
    """The same in this process, which should be new: memory that is free but not returned hides some."""
    work = case.prepare_hardest(side)
    gc.collect()
    if case.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        if not _forget_highest():
            return None
        before = _highest()
    work()
    work()
    after = torch.cuda.max_memory_allocated() if case.device == "cuda" else _highest()
    return (after - before) / 1e6


def _forget_highest() -> bool:
    """Make the present resident memory the highest so far; whether this system can."""
    try:
        (PROCESS / "clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _highest() -> int:
    """Highest resident memory so far, in bytes."""
    found = HIGHEST.search((PROCESS / "status").read_text())
    if found is None:
        raise AssertionError("the kernel reports no VmHWM")
    return int(found[1]) * 1024
