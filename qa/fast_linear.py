"""Linear layers in float32 through oneDNN; torch leaves them to its BLAS, on x86 mostly MKL.

MKL keeps its widest instructions for one maker's processors. oneDNN asks the processor what it can do, and on
an AMD core with AVX-512 the same product takes less than half the time. Half-precision products go through
oneDNN anyway, so only float32 is changed here.

The trap: torch has the operator for its compiler and gives it no derivative, and a row that is a slice of a
wider one makes it fall back to code a thousand times slower. Both are taken care of here.
"""

from __future__ import annotations

import platform
from typing import Any

import torch
from torch import nn

# Rows from which the product outweighs the setting up of the operator.
FEWEST_ROWS = 16
# Elsewhere torch's own choice is untested against this one.
COVERED = platform.machine().lower() in {"x86_64", "amd64"} and torch.backends.mkldnn.is_available()


class FastLinear(nn.Linear):
    """Drop-in for `nn.Linear`, by a change of class; whatever is not float32 on a CPU runs torch's code."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """As the library's, to the rounding of float32: [..., out_features] of [..., in_features]."""
        if not _applies(input, self.weight):
            return super().forward(input)
        rows = input.reshape(-1, self.in_features).contiguous()
        wanted = torch.is_grad_enabled() and any(
            x is not None and x.requires_grad for x in (rows, self.weight, self.bias)
        )
        product: torch.Tensor = (
            _Linear.apply(rows, self.weight, self.bias)  # type: ignore[no-untyped-call]
            if wanted
            else product_with(rows, self.weight, self.bias)
        )
        return product.view(*input.shape[:-1], self.out_features)


def covers(x: torch.Tensor) -> bool:
    """Whether products of tensors like this one go through oneDNN."""
    return bool(
        COVERED
        and torch.backends.mkldnn.enabled
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
    )


def product_with(left: torch.Tensor, right: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """[M, N] of [M, K] and [N, K], each dense or the transpose of something dense; without a derivative."""
    product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(left, right, bias, "none", [], "")
    return product


def _applies(input: torch.Tensor, weight: torch.Tensor) -> bool:
    enough = input.numel() >= FEWEST_ROWS * input.shape[-1] > 0
    return enough and covers(input) and covers(weight) and weight.is_contiguous()


class _Linear(torch.autograd.Function):
    """All three products of a linear layer in the same way."""

    @staticmethod
    def forward(
        ctx: Any, rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        ctx.save_for_backward(rows, weight)
        return product_with(rows, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d_product: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (rows, weight), d_product = ctx.saved_tensors, d_product.contiguous()
        of_rows, of_weight, of_bias = ctx.needs_input_grad
        return (
            product_with(d_product, weight.t()) if of_rows else None,
            product_with(d_product.t(), rows.t()) if of_weight else None,
            d_product.sum(0) if of_bias else None,
        )


def install_fast_linear(model: nn.Module) -> None:
    """Make the linear layers of `model` such ones; weights and state dict stay as they are."""
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = FastLinear
