"""Buffers that attention in blocks uses in turn, and the views that it reads them through."""

from __future__ import annotations

import math

import torch


class Scratch:
    """Buffers that one thread's blocks use in turn: fresh memory is cold, and often not yet mapped."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, torch.dtype], torch.Tensor] = {}
        self._views: dict[tuple[str, torch.dtype, tuple[int, ...]], torch.Tensor] = {}

    def take(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Uninitialised, of this shape; taken again under the same name, it is the same memory."""
        view = self._views.get((name, dtype, shape))
        if view is None:
            count, buffer = math.prod(shape), self._buffers.get((name, dtype))
            if buffer is None or len(buffer) < count:
                buffer = self._buffers[name, dtype] = torch.empty(count, dtype=dtype)
            view = self._views[name, dtype, shape] = buffer[:count].view(shape)
        return view

    def take_skewed(self, shape: tuple[int, int, int, int], dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
        """Products [h, G * R, n + R - 1] to be filled, and the skewed view [h, G, R, n] of them.

        Args:
            shape: of the view.
            dtype: of both.
        """
        h, examples, rows, keys = shape
        products = self.take("position", (h, examples * rows, keys + rows - 1), dtype)
        at = ("skewed position", dtype, shape)
        if at not in self._views:
            self._views[at] = skewed(products.unflatten(1, (examples, rows)), keys)
        return products, self._views[at]

    def like(self, name: str, other: torch.Tensor) -> torch.Tensor:
        """Uninitialised, of the shape and type of `other`."""
        return self.take(name, other.shape, other.dtype)

    def product(self, name: str, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """Matrix product [m, i, k] of [m, i, j] and [m, j, k]."""
        product = self.take(name, (left.shape[0], left.shape[1], right.shape[2]), left.dtype)
        torch.bmm(left, right, out=product)
        return product

    def product_wide(self, name: str, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """The same, in float32 at least."""
        product, wide = self.product(name, left, right), wide_dtype(left)
        return product if product.dtype == wide else self.take(name, product.shape, wide).copy_(product)


def skewed(products: torch.Tensor, keys: int) -> torch.Tensor:
    """A view [..., R, keys] of [..., R, keys + R - 1]: each row begins one column before the last one's."""
    rows, columns = products.shape[-2:]
    if rows == 1:
        return products
    flat = products.flatten(-2)[..., rows - 1 : rows - 1 + rows * (columns - 1)]
    shorter: torch.Tensor = flat.unflatten(-1, (rows, columns - 1))
    return shorter[..., :keys]


def wide_dtype(x: torch.Tensor) -> torch.dtype:
    """Float32, or that of `x` if it is wider."""
    return torch.promote_types(x.dtype, torch.float32)
