"""Several processes of `torchrun` or `accelerate launch` that share the parts of one table.

They meet only in files and at a few barriers, so a process does what it would do alone with fewer parts. The
trap: which parts are whole changes while others work, so who makes a part follows from its number alone.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import torch

# A process waits for the others however long their parts take.
PATIENCE = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Processes:
    """This process among those that share the work.

    Attributes:
        rank: its number, from 0.
        world: how many there are.
    """

    rank: int = 0
    world: int = 1

    @staticmethod
    def joined() -> Processes:
        """As the launcher says; one process where there is none."""
        rank, world = (int(os.environ.get(name, other)) for name, other in (("RANK", 0), ("WORLD_SIZE", 1)))
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
        if world > 1 and not torch.distributed.is_initialized():
            # Only barriers are needed, on whatever device the models are.
            torch.distributed.init_process_group("gloo", timeout=PATIENCE)
        return Processes(rank, world)

    @property
    def is_first(self) -> bool:
        """Whether this is the one that speaks and puts the parts together."""
        return self.rank == 0

    def own(self, numbers: Sequence[int]) -> list[int]:
        """Those of the numbers that are this process's."""
        return [number for number in numbers if number % self.world == self.rank]

    def wait(self) -> None:
        """Until all processes are here."""
        if self.world > 1:
            torch.distributed.barrier()

    def leave(self) -> None:
        """Let go of the others."""
        if self.world > 1:
            torch.distributed.destroy_process_group()
