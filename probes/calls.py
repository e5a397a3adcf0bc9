"""What a layer's self-attention computes with, call by call, seen by forward hooks.

A `Watch` holds the hooks: none changes what the model computes, and on leaving each is gone. It sees only the
thread that entered it, because a page answers several people with one model. The traps: one ALBERT module is
many layers, told apart by the order of calls; DeBERTa with shared projections calls query and key a second
time, for positions; and torch reads its lists of hooks without a lock, so a hook may be called once more
while another thread removes it, then without keyword arguments.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

import torch
from torch import nn

from probes.encoders import Parts

# torch numbers hooks without a lock: two threads could get one number, and one hook take another's place.
_REGISTERING = threading.Lock()


@dataclass(slots=True)
class Call:
    """One call of one layer's self-attention: B examples of T tokens, H heads of size d.

    Attributes:
        layer: its number.
        hidden: the hidden states it is given [B, T, D].
        mask: as the layer was given it; see `visible`.
        query: what the query projection gave [B, T, H * d].
        key: likewise. With DeBERTa v1 both are of the one projection [B, T, 3 * H * d].
        pos_key: embeddings of relative positions, projected as keys [..., rows, H * d]; None without them.
        pos_query: likewise as queries.
        probabilities: [B, H, T, T] before dropout, where the implementation shows them.
    """

    layer: int
    hidden: torch.Tensor
    mask: torch.Tensor | None
    query: torch.Tensor | None = None
    key: torch.Tensor | None = None
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

    def __init__(self, parts: Parts, layers: Sequence[int], watcher: Watcher, *, states: bool = True) -> None:
        """Choose what to watch.

        Args:
            parts: of the model.
            layers: numbers of the layers.
            watcher: is told of each of their calls.
            states: whether calls are to have queries, keys and positions, which take memory until the call
                is over.
        """
        self._parts = parts
        self._states = states
        self._watcher = watcher
        self._numbers = {
            (layer.attention, layer.call): number
            for number, layer in enumerate(parts.layers)
            if number in set(layers)
        }
        self._counts: dict[nn.Module, int] | None = None  # calls in this forward; None between forwards
        self._call: Call | None = None
        self._thread = 0
        self._handles = ExitStack()

    def __enter__(self) -> Self:
        self._thread = threading.get_ident()
        with ExitStack() as handles, _REGISTERING:
            self._register(handles)
            self._handles = handles.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _REGISTERING:
            self._handles.close()
        self._counts = self._call = None

    def _register(self, handles: ExitStack) -> None:
        def before(module: nn.Module, act: Callable[..., None]) -> None:
            hook = module.register_forward_pre_hook(self._mine(act), with_kwargs=True)
            handles.callback(hook.remove)

        def after(module: nn.Module, act: Callable[..., None]) -> None:
            handles.callback(module.register_forward_hook(self._mine(act)).remove)

        row = self._parts.architecture
        before(self._parts.base, self._begin)
        after(self._parts.base, self._end)
        for module in {module: None for module, _ in self._numbers}:
            layer = next(layer for layer in self._parts.layers if layer.attention is module)
            before(module, self._enter_call)
            after(module, self._leave_call)
            if row.probabilities is not None:
                before(module.get_submodule(row.probabilities), self._see_probabilities)
            if not self._states:
                continue
            after(layer.query, self._see("query", again="pos_query"))
            after(layer.key, self._see("key", again="pos_key"))
            for path, name in zip(row.positions, ("pos_key", "pos_query"), strict=False):
                if isinstance(projection := getattr(module, path, None), nn.Module):
                    after(projection, self._see(name))

    def _mine(self, act: Callable[..., None]) -> Callable[..., None]:
        def hook(module: nn.Module, *arguments: Any) -> None:
            if threading.get_ident() == self._thread:
                act(module, *arguments)

        return hook

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
