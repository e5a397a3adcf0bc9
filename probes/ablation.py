"""Switch sets of heads off: the context vectors without them, and the scores of a question's windows then.

A head is switched off at its slice of the context vector, before the output projection: whatever a head does
goes through there, and nothing else does. *Zero* puts 0 in the place of the slice; *mean* puts its mean over
the tokens of the window there, so that the head still says what it says on average, but the same to every
token. The trap: mean leaves a head as it is that says the same to every token anyway (one that only looks at
[SEP], say), while zero takes away what the layers above are used to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from probes.encoders import Parts
from probes.replay import Change, Replay
from qa.batches import pad_windows
from qa.disentangled import FastSelfAttention
from qa.errors import UserError
from qa.evaluation import Logits, full_precision
from qa.reader import Reader
from qa.windows import Progress, WindowSet

# The numbers of a layer and of a head in it.
Head = tuple[int, int]
Bool = NDArray[np.bool_]

HOWS = ("zero", "mean")


def check_how(how: str) -> None:
    """Refuse another way than those of HOWS.

    Raises:
        UserError: naming them.
    """
    if how not in HOWS:
        raise UserError(f"how: {how!r}; choose {' or '.join(HOWS)}")


def known_heads(heads: Iterable[Head], parts: Parts) -> tuple[Head, ...]:
    """The pairs (layer, head) in order, each once.

    Raises:
        UserError: one that the model does not have.
    """
    L, H, pairs = len(parts.layers), parts.heads, list(heads)
    there = {(layer, head) for layer in range(L) for head in range(H)}
    for pair in pairs:
        if not isinstance(pair, tuple) or pair not in there:
            raise UserError(
                f"heads: {pair!r}; this model has layers 0 to {L - 1} with heads 0 to {H - 1}: give pairs "
                "(layer, head) of these"
            )
    return tuple(sorted({(int(layer), int(head)) for layer, head in pairs}))


def gone_heads(sets: Sequence[Iterable[Head]], parts: Parts) -> Bool:
    """Which heads each of N sets holds [N, L, H]."""
    gone = np.zeros((len(sets), len(parts.layers), parts.heads), dtype=np.bool_)
    for place, heads in enumerate(sets):
        for pair in heads:
            gone[place][pair] = True
    return gone


def ablated(
    context: torch.Tensor, gone: torch.Tensor, *, how: str, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Context vectors without the heads that are gone, [B, T, H * d].

    Args:
        context: one for each example [B, T, H * d]; or one for all, B being 1.
        gone: true for heads to be without, for each example [B, H]; or for all alike [1, H].
        how: "zero" or "mean".
        mask: true (or 1) for tokens that count in the mean [B, T], or for those that any query may see
            [B, ..., T, T]; None: all.
    """
    if not gone.any():
        return context
    slices = gone.repeat_interleave(context.shape[-1] // gone.shape[-1], dim=1)[:, None].to(context.device)
    if how == "zero":
        return torch.where(slices, 0, context)
    if mask is None:
        return torch.where(slices, context.mean(1, keepdim=True), context)
    real = mask.bool().flatten(1, -2).any(1) if mask.dim() > 2 else mask.bool()  # [B, T]
    sums = torch.where(real[:, :, None], context, 0).sum(1, keepdim=True)
    return torch.where(slices, sums / real.sum(1).clamp(min=1)[:, None, None], context)


@dataclass(frozen=True, slots=True)
class Variants:
    """N sets of heads, and how to read with each of them off.

    Attributes:
        parts: of the model.
        gone: the heads of each set [N, L, H].
        how: "zero" or "mean".
        batch_bytes: what the activations of one batch may take, about; a batch has one set at least.
    """

    parts: Parts
    gone: Bool
    how: str
    batch_bytes: int

    def scores(self, reader: Reader, windows: WindowSet, progress: Progress | None) -> tuple[Logits, Logits]:
        """Start and end scores [1 + N, S] each, the unchanged ones first.

        Only tokens that decoding looks at have a variant's own; the others keep the unchanged ones.
        """
        scores = np.empty((2, 1 + len(self.gone), len(windows.ids)), np.float32)
        done, total = 0, len(windows) * int(self.gone.any((1, 2)).sum())
        with full_precision(reader.encoder.model) as model:
            for number, window in enumerate(windows):
                inputs = pad_windows(windows, [number], reader.encoder.tokenizer)
                inputs = {name: tensor.to(model.device) for name, tensor in inputs.items()}
                tokens = np.array([window.cls, *range(window.context.start, window.context.stop)])
                here = scores[:, :, windows.splits[number] : windows.splits[number + 1]]
                with Replay(model, inputs, tokens=torch.from_numpy(tokens).to(model.device)) as replay:
                    here[:] = replay.scores[:, None].cpu()
                    for first, sets in self._batches(len(window.ids)):
                        read = replay.read(first, len(sets), self._change(sets))
                        here[:, 1 + sets[:, None], tokens] = read.transpose(0, 1).cpu()
                        done += len(sets)
                        if progress is not None:
                            progress(done, total)
        return scores[0], scores[1]

    def _batches(self, T: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """A layer, and sets of which it is the lowest."""
        size = max(1, self.batch_bytes // bytes_of_layer(self.parts, T))
        changed: Bool = np.any(self.gone, axis=2)  # [N, L]
        for first in range(changed.shape[1]):
            sets = np.flatnonzero(changed[:, first] & ~changed[:, :first].any(1))
            for begin in range(0, len(sets), size):
                yield first, sets[begin : begin + size]

    def _change(self, sets: NDArray[np.int64]) -> Change:
        gone = torch.from_numpy(self.gone[sets])
        return lambda number, context: ablated(context, gone[:, number], how=self.how)


def bytes_of_layer(parts: Parts, T: int) -> int:
    """What the activations of one layer take at most at a time, roughly, for one window of T tokens."""
    layer = parts.layers[0]
    linear = [module for module in layer.block.modules() if isinstance(module, nn.Linear)]
    widest = max(module.out_features for module in linear)
    maps = 1 if isinstance(layer.attention, FastSelfAttention) else 6
    return 4 * T * (8 * layer.output.out_features + 3 * widest + maps * layer.heads * T)
