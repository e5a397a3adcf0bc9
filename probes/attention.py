"""Capture attention probabilities while a model answers, whatever implementation of attention runs.

Where the library computes probabilities openly, they are taken where they enter dropout; elsewhere (fused
kernels, our fast DeBERTa) they are computed again from the queries and keys of that very forward, a few heads
at a time, and go straight into the storage, so that nothing large exists in float32. The model computes what
it always does, to the bit. The trap: 144 maps of 384 tokens are 42 MB in float16, for every window: choose
layers and heads, or take what was captured after each batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import torch
from torch import nn

from probes.calls import Call, Watch, visible
from probes.encoders import Architecture, Parts, describe
from probes.norms import value_norms
from probes.scores import Scorer
from qa.disentangled import FastSelfAttention
from qa.errors import UserError

DTYPES = (torch.float16, torch.float32)

# Scores computed at a time, in bytes: few enough to stay in a processor's cache, and for the usual lengths
# more than one head, because torch shares the heads of a product out among the cores.
BLOCK_BYTES = 5 << 18


@dataclass(frozen=True, slots=True)
class Capture:
    """What one example of one forward attended to.

    Attributes:
        ids: its n token ids, on the CPU [n]; None where the model was given embeddings.
        probabilities: [L, H, n, n] on the CPU, of the layers and heads the probe was asked for, in that
            order. Padding on the right is cropped. In float32 the rows of real tokens sum to 1. A masked key
            is exactly 0, and so is the row of a masked token among the n.
        norms: `probes.norms.value_norms` of the same layers and heads, float32 on the CPU [L, H, n]; 0 for
            a masked token. None where they were not asked for.
    """

    ids: torch.Tensor | None
    probabilities: torch.Tensor
    norms: torch.Tensor | None


class AttentionProbe:
    """Capture the attention of every forward inside a `with` block.

    `captures` has one entry for each example of each forward that ended well, in order. Only forwards of the
    thread that entered the block count. Probes may be nested, and several threads may each have one on the
    same model. When the block ends, however it ends, the model is as it was. With dropout active the
    probabilities are those before it; hidden states, and so the attention, are then random as usual.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[int] | None = None,
        *,
        heads: Sequence[int] | None = None,
        dtype: torch.dtype = torch.float16,
        norms: bool = False,
    ) -> None:
        """Choose what to capture.

        Args:
            model: a model of one of `probes.encoders.ARCHITECTURES`, with any head.
            layers: numbers of layers, counted from 0; None: all.
            heads: numbers of heads, counted from 0, the same in each layer; None: all.
            dtype: of the probabilities stored: torch.float16 (within 5e-4) or torch.float32.
            norms: whether to capture the lengths of the values too.

        Raises:
            UserError: an architecture that is not covered, or a layer, head or dtype that is not there.
        """
        self._parts = describe(model)
        self.layers = chosen_numbers("layers", layers, len(self._parts.layers))
        self.heads = chosen_numbers("heads", heads, self._parts.heads)
        if dtype not in DTYPES:
            raise UserError(f"dtype: {dtype}; choose torch.float16 or torch.float32")
        self._recorder = _Recorder(self._parts, self.layers, self.heads, dtype)
        self._watch = Watch(
            self._parts,
            self.layers,
            self._recorder,
            states=_hides_probabilities(self._parts),
            values=norms,
        )

    @property
    def captures(self) -> list[Capture]:
        """What was captured and not taken."""
        return self._recorder.captures

    def take(self) -> list[Capture]:
        """What was captured since the block began or since the last call, which is then forgotten here."""
        taken, self._recorder.captures = self._recorder.captures, []
        return taken

    def __enter__(self) -> Self:
        self._watch.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watch.__exit__(kind, error, trace)
        self._recorder.begin(None)  # drops what a forward that raised had stored


class _Recorder:
    """A watcher that stores the probabilities of every call, and the norms of its values if it has any."""

    def __init__(
        self, parts: Parts, layers: tuple[int, ...], heads: tuple[int, ...], dtype: torch.dtype
    ) -> None:
        self.captures: list[Capture] = []
        self._parts = parts
        self._layers = layers
        self._heads = heads
        self._dtype = dtype
        self._forward = _Forward(None)

    def begin(self, ids: torch.Tensor | None) -> None:
        self._forward = _Forward(ids)

    def attended(self, call: Call) -> None:
        forward = self._forward
        with plain_tensors(call.hidden.device):
            if not forward.seen:
                shape = (len(self._layers), len(self._heads))
                forward.make_room(call, self._parts.architecture, shape, self._dtype)
            block = self._blocks_of(call)
            for example, (store, holes) in enumerate(zip(forward.stores, forward.holes, strict=True)):
                maps = store[self._layers.index(call.layer)]  # [H, n, n]
                for first, last in blocks_of_heads(*maps.shape[:2]):
                    maps[first:last] = block(example, as_slice(self._heads[first:last]), maps.shape[1])
                maps[:, holes] = 0
                maps[:, :, holes] = 0
            if call.value is not None:
                self._store_norms(call, call.value)
        forward.seen.add(call.layer)

    def end(self) -> None:
        forward, self._forward = self._forward, _Forward(None)
        if missing := set(self._layers) - forward.seen:
            raise RuntimeError(f"the attention of layers {sorted(missing)} was never called")
        self.captures += forward.captures()

    def _store_norms(self, call: Call, value: torch.Tensor) -> None:
        norms = value_norms(self._parts.layers[call.layer], value)[:, as_slice(self._heads)].cpu()
        for one, store, holes in zip(norms, self._forward.norms, self._forward.holes, strict=True):
            row = store[self._layers.index(call.layer)]  # [H, n]
            row[:] = one[:, : row.shape[1]]
            row[:, holes] = 0

    def _blocks_of(self, call: Call) -> Callable[[int, list[int] | slice, int], torch.Tensor]:
        """Gives the probabilities [h, n, n] of an example and heads, between its first n tokens."""
        shown = call.probabilities
        if shown is None:
            return Scorer.of(call, self._parts).probabilities
        return lambda example, heads, n: shown[example, heads, :n, :n]


class _Forward:
    """What one forward has given so far.

    Attributes:
        ids: the token ids it was given [B, T].
        seen: layers that are stored.
        stores: [L, H, n, n] for each example.
        norms: [L, H, n] for each example; empty where calls have no values.
        holes: masked positions before the last token of each example.
    """

    def __init__(self, ids: torch.Tensor | None) -> None:
        self.ids = ids
        self.seen: set[int] = set()
        self.stores: list[torch.Tensor] = []
        self.norms: list[torch.Tensor] = []
        self.holes: list[torch.Tensor] = []

    def make_room(
        self, call: Call, architecture: Architecture, shape: tuple[int, int], dtype: torch.dtype
    ) -> None:
        """For every example up to its last token that is not masked."""
        B, T = call.hidden.shape[:2]
        visible_keys = visible(call, multiplied_mask=architecture.multiplied_mask)
        real = torch.ones(1, T, dtype=torch.bool)
        if visible_keys is not None:
            real = visible_keys.any(1).any(1).cpu()
        real = real.expand(B, T)
        lengths = (real * torch.arange(1, T + 1)).amax(1).tolist()
        self.holes = [(~row[:n]).nonzero()[:, 0] for row, n in zip(real, lengths, strict=True)]
        self.stores = [torch.empty(*shape, n, n, dtype=dtype) for n in lengths]
        if call.value is not None:
            self.norms = [torch.empty(*shape, n) for n in lengths]

    def captures(self) -> list[Capture]:
        """One for each example."""
        nothing: Sequence[torch.Tensor | None] = [None] * len(self.stores)
        rows = nothing if self.ids is None else self.ids.detach().cpu()
        return [
            Capture(None if row is None else row[: store.shape[-1]].clone(), store, norms)
            for row, store, norms in zip(rows, self.stores, self.norms or nothing, strict=True)
        ]


@contextmanager
def plain_tensors(device: torch.device) -> Iterator[None]:
    """Around work inside a hook: no gradients, no autocast, and tensors that can be used anywhere later."""
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(device.type, enabled=False):
        yield


def _hides_probabilities(parts: Parts) -> bool:
    fast = any(isinstance(layer.attention, FastSelfAttention) for layer in parts.layers)
    return fast or parts.architecture.probabilities is None


def chosen_numbers(name: str, numbers: Sequence[int] | None, count: int) -> tuple[int, ...]:
    """The numbers, each of 0 … count - 1 and none twice; all of them for None.

    Raises:
        UserError: others, or none at all.
    """
    if numbers is None:
        return tuple(range(count))
    chosen = tuple(numbers)
    known = all(isinstance(number, int) and 0 <= number < count for number in chosen)
    if not chosen or not known or len(set(chosen)) < len(chosen):
        raise UserError(
            f"{name}: {list(chosen)}; this model has {count}: give different numbers from 0 to {count - 1}"
        )
    return chosen


def blocks_of_heads(heads: int, n: int) -> list[tuple[int, int]]:
    """Ranges of heads whose scores between n tokens fit one block."""
    size = max(1, BLOCK_BYTES // max(1, 4 * n * n))
    return [(first, min(first + size, heads)) for first in range(0, heads, size)]


def as_slice(heads: tuple[int, ...]) -> list[int] | slice:
    """A slice where the numbers follow one another, for a view in place of a copy."""
    if heads == tuple(range(heads[0], heads[0] + len(heads))):
        return slice(heads[0], heads[0] + len(heads))
    return list(heads)
