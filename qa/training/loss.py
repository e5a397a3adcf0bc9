"""What training makes small: the cross-entropy of where the answer starts and ends."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import cross_entropy

from qa.windows import UNUSED


def answer_loss(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, Any]:
    """The loss of a batch, a scalar in nats, and the model's outputs.

    With one gold answer to a window, positions [B], it is the model's own. With several, positions [B, A],
    it is the mean over windows of the mean over their gold answers: the cross-entropy with the share of
    people who began (ended) the answer at each token, so the model learns where people differ.
    """
    if batch["start_positions"].ndim == 1:
        outputs = model(**batch)
        return outputs.loss, outputs
    positions = ("start_positions", "end_positions")
    outputs = model(**{key: value for key, value in batch.items() if key not in positions})
    losses = [
        _mean_loss(logits.float(), batch[key])
        for logits, key in zip((outputs.start_logits, outputs.end_logits), positions, strict=True)
    ]
    return (losses[0] + losses[1]) / 2, outputs


def _mean_loss(logits: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Mean over rows of the mean cross-entropy of their positions [B, A], of logits [B, T]."""
    gold = positions != UNUSED
    expanded = logits[:, None].expand(-1, positions.shape[1], -1)
    each = cross_entropy(expanded.transpose(1, 2), positions, ignore_index=UNUSED, reduction="none")
    return (each.sum(1) / gold.sum(1)).mean()
