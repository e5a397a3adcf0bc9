"""Modules that compute in float32 even under autocast, where less would change answers or raise.

They take the place of the library's by a change of class or with the same weights, so a checkpoint that is
saved with them is the library's.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.models.deberta.modeling_deberta import DisentangledSelfAttention


class Float32Head(torch.nn.Linear):
    """The start and end scores in full precision even under autocast: in bfloat16 neighbouring scores tie."""

    @staticmethod
    def like(linear: torch.nn.Linear) -> Float32Head:
        """A head with the weights of `linear`."""
        head = Float32Head(linear.in_features, linear.out_features, bias=linear.bias is not None)
        head.load_state_dict(linear.state_dict())
        return head

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Scores [B, T, 2] of hidden states [B, T, D]."""
        with torch.autocast(input.device.type, enabled=False):
            return torch.nn.functional.linear(input.to(self.weight.dtype), self.weight, self.bias)


class Float32Attention(DisentangledSelfAttention):
    """DeBERTa v1's attention, in full precision even under autocast.

    Its float32 biases turn the queries, but not the scores, back into float32, and the lowest float32, with
    which it masks, is no bfloat16: the library's forward raises.
    """

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the library's."""
        weight = self.in_proj.weight
        with torch.autocast(weight.device.type, enabled=False):
            return super().forward(
                *(_as(weight.dtype, value) for value in args),
                **{key: _as(weight.dtype, value) for key, value in kwargs.items()},
            )


def keep_attention_in_float32(model: torch.nn.Module) -> None:
    """Give every DeBERTa v1 attention in the model the class above."""
    for module in model.modules():
        if type(module) is DisentangledSelfAttention:
            module.__class__ = Float32Attention


def _as(dtype: torch.dtype, value: Any) -> Any:
    is_float = isinstance(value, torch.Tensor) and value.is_floating_point()
    return value.to(dtype) if is_float else value
