"""What a layer's self-attention computes with, call by call, seen by forward hooks.

A `Watch` holds the hooks: none changes what the model computes, and on leaving each is gone. It sees only the
thread that entered it. The traps: one ALBERT module is many layers, told apart by the order of calls; and
DeBERTa with shared projections calls query and key a second time, for positions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

import torch
from torch import nn

from probes.encoders import Parts
from probes.hooks import Hook, register


@dataclass(slots=True)
class Call:
    """One call of one layer's self-attention: B examples of T tokens, H heads of size d.

    Attributes:
        layer: its number.
        hidden: the hidden states it is given [B, T, D].
        mask: as the layer was given it; see `visible`.
        query: what the query projection gave [B, T, H * d].
        key: likewise.
        value: likewise. With DeBERTa v1 all three are of the one projection [B, T, 3 * H * d].
        pos_key: embeddings of relative positions, projected as keys [..., rows, H * d]; None without them.
        pos_query: likewise as queries.
        probabilities: [B, H, T, T] before dropout, where the implementation shows them.
    """

    layer: int
    hidden: torch.Tensor
    mask: torch.Tensor | None
    query: torch.Tensor | None = None
    key: torch.Tensor | None = None
    value: torch.Tensor | None = None
    pos_key: torch.Tensor | None = None
    pos_query: torch.Tensor | None = None
    probabilities: torch.Tensor | None = None


class Watcher(Protocol):
    """Who is told what happens."""

    def begin(self, ids: torch.Tensor | None) -> None:
        """A forward begins, with token ids [B, T] unless it was given embeddings."""

    def attended(self, call: Call) -> None:
        """A layer's self-attention has been computed."""

    def end(self) -> None:
        """The forward is over; not called where it raised."""


class Watch:
    """Hooks on a model for as long as the `with` block lasts.

    A forward is one of the model or of its base model; layers that are called alone are not seen.
    """

    def __init__(
        self,
        parts: Parts,
        layers: Sequence[int],
        watcher: Watcher,
        *,
        states: bool = True,
        values: bool = False,
    ) -> None:
        """Choose what to watch.

        Args:
            parts: of the model.
            layers: numbers of the layers.
            watcher: is told of each of their calls.
            states: whether calls are to have queries, keys and positions, which take memory until the call
                is over.
            values: whether calls are to have values.
        """
        self._parts = parts
        self._states = states
        self._values = values
        self._watcher = watcher
        self._numbers = {
            (layer.attention, layer.call): number
            for number, layer in enumerate(parts.layers)
            if number in set(layers)
        }
        self._counts: dict[nn.Module, int] | None = None  # calls in this forward; None between forwards
        self._call: Call | None = None
        self._remove: Callable[[], None] | None = None

    def __enter__(self) -> Self:
        self._remove = register(*self._hooks())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._remove is not None:
            self._remove()
        self._remove = self._counts = self._call = None

    def _hooks(self) -> tuple[list[tuple[nn.Module, Hook]], list[tuple[nn.Module, Hook]]]:
        """What to call before and after which modules."""
        row = self._parts.architecture
        before: list[tuple[nn.Module, Hook]] = [(self._parts.base, self._begin)]
        after: list[tuple[nn.Module, Hook]] = [(self._parts.base, self._end)]
        for module in {module: None for module, _ in self._numbers}:
            layer = next(layer for layer in self._parts.layers if layer.attention is module)
            before.append((module, self._enter_call))
            after.append((module, self._leave_call))
            if row.probabilities is not None:
                before.append((module.get_submodule(row.probabilities), self._see_probabilities))
            if self._values:
                after.append((layer.value, self._see("value")))
            if not self._states:
                continue
            after.append((layer.query, self._see("query", again="pos_query")))
            after.append((layer.key, self._see("key", again="pos_key")))
            for path, name in zip(row.positions, ("pos_key", "pos_query"), strict=False):
                if isinstance(projection := getattr(module, path, None), nn.Module):
                    after.append((projection, self._see_positions(name)))
        return before, after

    def _begin(self, module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        self._counts, self._call = {}, None
        self._watcher.begin(named.get("input_ids", arguments[0] if arguments else None))

    def _end(self, *_: Any) -> None:
        self._counts = None
        self._watcher.end()

    def _enter_call(self, module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        if self._counts is None:
            return
        count = self._counts.get(module, 0)
        self._counts[module] = count + 1
        number = self._numbers.get((module, count))
        hidden = named["hidden_states"] if "hidden_states" in named else arguments[0]
        mask = named.get("attention_mask", arguments[1] if len(arguments) > 1 else None)
        self._call = None if number is None else Call(number, hidden, mask)

    def _leave_call(self, *_: Any) -> None:
        call, self._call = self._call, None
        if call is not None:
            self._watcher.attended(call)

    def _see(self, name: str, again: str | None = None) -> Callable[..., None]:
        """A hook that keeps a module's output in the call, under another name if it is called again."""

        def act(module: nn.Module, arguments: tuple[Any, ...], output: torch.Tensor) -> None:
            call = self._call
            if call is None:
                return
            if again is not None and getattr(call, name) is not None:
                setattr(call, again, output)
            else:
                setattr(call, name, output)

        return act

    def _see_positions(self, name: str) -> Callable[..., None]:
        """A hook that keeps a copy: DeBERTa v1 divides its position queries in place once it has them."""

        def act(module: nn.Module, arguments: tuple[Any, ...], output: torch.Tensor) -> None:
            if self._call is not None:
                setattr(self._call, name, output.detach().clone())

        return act

    def _see_probabilities(
        self, module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]
    ) -> None:
        if self._call is not None:
            self._call.probabilities = arguments[0]


def visible(call: Call, *, multiplied_mask: bool) -> torch.Tensor | None:
    """Which keys are seen, [B or 1, 1, T or 1, T]; None if all are."""
    mask = call.mask
    if mask is None:
        return None
    mask = mask.reshape(mask.shape[0], *(1,) * (4 - mask.dim()), *mask.shape[1:])
    if multiplied_mask or not mask.is_floating_point():
        return mask.bool()
    # What the library adds to hide a key is the lowest number there is.
    return mask > torch.finfo(mask.dtype).min / 2
