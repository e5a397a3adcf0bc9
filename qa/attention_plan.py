"""How one batch of disentangled attention is cut on a CPU, and the threads that do the parts.

A block is a few heads of a few examples, cut to their longest: small enough that its scores stay in a
processor's cache. Each thread takes a share of the heads through all examples, so that no two threads write
to the same place, and runs torch on one core: one barrier for the whole, not one for each small operation,
which matters most when the processor has other work too.

The trap: `torch.set_num_threads` in a thread also sets what threads started later begin with, so the number
is put back after the workers have started.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from threading import Barrier
from typing import TypeVar

import torch

# Bytes of float32 scores in one block. About four such buffers are in use at a time.
BLOCK_BYTES = 5 << 18
# Tokens from which one head at a time is quicker where oneDNN makes its products (`qa.fast_linear`).
ALONE_FROM = 160
# Scores of a whole batch below which handing them to threads costs more than it saves.
FEW_SCORES = 1 << 20

Part = TypeVar("Part")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Block:
    """Which heads, examples and leading tokens are done together.

    Attributes:
        heads: h of the H.
        examples: G neighbours of the B.
        tokens: n, all that any of them has.
        hidden: [G, 1, n], true for keys that are padding; None where there are none.
    """

    heads: slice
    examples: slice
    tokens: int
    hidden: torch.Tensor | None


@dataclass(frozen=True, slots=True)
class Share:
    """What one thread does: some of the heads, for every real token of every example."""

    heads: slice
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """How one batch is cut; the same for all layers.

    Attributes:
        heads: H.
        shares: they cover every head once.
        padded: examples with padding, each with the positions [P] of it.
        padding: [B, T, 1], true where padding is.
        alone_from: tokens from which a block has one head only; None: as many as fit.
    """

    heads: int
    shares: tuple[Share, ...]
    padded: tuple[tuple[int, torch.Tensor], ...]
    padding: torch.Tensor
    alone_from: int | None


def plan_attention(mask: torch.Tensor, heads: int, *, alone_from: int | None = None) -> Plan:
    """Cut a batch for as many threads as torch has here.

    Args:
        mask: [B, T], true for real tokens.
        heads: H.
        alone_from: see `Plan`.
    """
    ends = (mask * torch.arange(1, mask.shape[1] + 1)).amax(1).tolist()
    threads = min(heads, torch.get_num_threads()) if heads * sum(e * e for e in ends) > FEW_SCORES else 1
    alone = mask.shape[1] + 1 if alone_from is None else alone_from
    shares = tuple(
        Share(part, tuple(_blocks(mask, ends, part, alone))) for part in _cut(slice(0, heads), threads)
    )
    padded = tuple((example, (~row).nonzero()[:, 0]) for example, row in enumerate(mask) if not row.all())
    return Plan(heads, shares, padded, ~mask[:, :, None], alone_from)


def _cut(whole: slice, parts: int) -> list[slice]:
    size = whole.stop - whole.start
    return [
        slice(*edges) for edges in pairwise(whole.start + size * part // parts for part in range(parts + 1))
    ]


def _blocks(mask: torch.Tensor, ends: list[int], heads: slice, alone_from: int) -> Iterator[Block]:
    h = heads.stop - heads.start
    for examples in _groups(ends, h):
        tokens = max(ends[examples])
        hidden = ~mask[examples, None, :tokens]
        size = 4 * (examples.stop - examples.start) * tokens * tokens
        parts = h if tokens >= alone_from else min(h, -(-h * size // BLOCK_BYTES))
        for part in _cut(heads, parts):
            yield Block(part, examples, tokens, hidden if hidden.any() else None)


def _groups(ends: list[int], heads: int) -> Iterator[slice]:
    """Neighbours whose scores fit one block and for which the longest adds at most a quarter of work."""
    first = 0
    for last in range(1, len(ends) + 1):
        if last < len(ends):
            squares = [end * end for end in ends[first : last + 1]]
            together = len(squares) * max(squares)
            if 4 * heads * together <= BLOCK_BYTES and together <= 1.25 * sum(squares):
                continue
        if max(ends[first:last]) > 0:
            yield slice(first, last)
        first = last


def in_threads(work: Callable[[Part], Result], parts: Sequence[Part]) -> list[Result]:
    """`work` of each part, each in a thread of its own with torch on one core; without gradients."""
    if len(parts) == 1:
        with torch.no_grad():
            return [work(parts[0])]
    inference = torch.is_inference_mode_enabled()

    def alone(part: Part) -> Result:
        # Both are settings of a thread, and a tensor made in inference mode can only be written in it.
        with torch.inference_mode(inference), torch.no_grad():
            return work(part)

    return list(_workers(len(parts)).map(alone, parts))


@cache
def _workers(count: int) -> ThreadPoolExecutor:
    cores, started = torch.get_num_threads(), Barrier(count + 1)

    def start() -> None:
        torch.set_num_threads(1)
        started.wait()

    workers = ThreadPoolExecutor(count, thread_name_prefix="attention", initializer=start)
    for _ in range(count):
        workers.submit(int)
    started.wait()
    torch.set_num_threads(cores)
    return workers


os.register_at_fork(after_in_child=_workers.cache_clear)  # a forked process has none of the threads
