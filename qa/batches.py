"""Windows -> padded tensors, and the order in which training visits them.

The order is a function of (seed, epoch) alone, so that a run resumed in the middle of an epoch sees exactly
the batches it would have seen: the library's samplers draw it from the global random state, which is not what
it was at the epoch's start by then.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, Sampler
from transformers import PreTrainedTokenizerBase

from qa.windows import WindowSet

# Where answers start and where they end: [N], or [N, A] with several gold answers to a window.
Labels = tuple[NDArray[np.int32], NDArray[np.int32]]

# Batches that are sorted by length together: many enough that batches are even, few enough to stay random.
BATCHES_PER_GROUP = 50


def pad_windows(
    windows: WindowSet,
    indices: Sequence[int] | NDArray[np.int64],
    tokenizer: PreTrainedTokenizerBase,
    *,
    length: int | None = None,
) -> dict[str, torch.Tensor]:
    """The model's inputs for B windows, padded on the right to `length` or to the longest of them [B, T].

    Only what this architecture's forward accepts: not every encoder has token types.
    """
    counts = windows.lengths[np.asarray(indices)]
    width = int(counts.max()) if length is None else length
    ids = np.full((len(indices), width), tokenizer.pad_token_id, dtype=np.int64)
    types = np.full_like(ids, tokenizer.pad_token_type_id)
    for row, index in enumerate(indices):
        window = windows[int(index)]
        ids[row, : counts[row]] = window.ids
        types[row, : counts[row]] = window.types
    mask = np.arange(width) < counts[:, None]
    tensors = {"input_ids": ids, "token_type_ids": types, "attention_mask": mask.astype(np.int64)}
    wanted = tokenizer.model_input_names
    return {key: torch.from_numpy(value) for key, value in tensors.items() if key in wanted}


class TrainingWindows(Dataset[int]):
    """Windows by position; the collator turns positions into tensors, so nothing is stored twice."""

    def __init__(self, windows: WindowSet, labels: Labels) -> None:
        self.windows = windows
        self.labels = labels

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> int:
        return index


class Collator:
    """Positions of windows -> a training batch with `start_positions` and `end_positions`, [B] or [B, A]."""

    def __init__(
        self, data: TrainingWindows, tokenizer: PreTrainedTokenizerBase, *, length: int | None
    ) -> None:
        self.data = data
        self.tokenizer = tokenizer
        self.length = length

    def __call__(self, indices: list[int]) -> dict[str, torch.Tensor]:
        """The batch, padded to the fixed length if there is one."""
        batch = pad_windows(self.data.windows, indices, self.tokenizer, length=self.length)
        for key, labels in zip(("start_positions", "end_positions"), self.data.labels, strict=True):
            batch[key] = torch.from_numpy(labels[indices].astype(np.int64))
        return batch


class TrainingOrder(Sampler[int]):
    """A random order for each epoch, with windows of like length next to each other if `group`."""

    def __init__(self, lengths: NDArray[np.int64], batch_size: int, *, seed: int, group: bool) -> None:
        self.lengths = lengths
        self.batch_size = batch_size
        self.seed = seed
        self.group = group
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration gives."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        """Positions of all windows, each once."""
        generator = np.random.default_rng([self.seed, self.epoch])
        order = generator.permutation(len(self.lengths))
        if not self.group:
            return iter(order.tolist())
        size = self.batch_size * BATCHES_PER_GROUP
        batches: list[NDArray[np.int64]] = []
        for begin in range(0, len(order), size):
            part = order[begin : begin + size]
            part = part[np.argsort(-self.lengths[part], kind="stable")]
            batches += [part[at : at + self.batch_size] for at in range(0, len(part), self.batch_size)]
        # Only full batches change places, or every batch after a short one would mix two lengths.
        full = [batch for batch in batches if len(batch) == self.batch_size]
        short = [batch for batch in batches if len(batch) < self.batch_size]
        shuffled = [full[position] for position in generator.permutation(len(full))]
        return iter([position for batch in shuffled + short for position in batch.tolist()])
