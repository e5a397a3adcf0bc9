"""How much each of DeBERTa's three terms has to say in each head, and at which distance.

A softmax sees only how the scores of a row differ, so each term is taken less its mean over the keys that the
row sees. Its size at a distance is the mean of what then remains, without the sign, over all pairs of tokens
at that distance; its share is its size among the sizes of all terms. So a term that is constant along the
rows, however large, has the share 0, shares are never negative, and they sum to 1. The mean with the sign
says which distances a term favours.

The trap: two terms that cancel each other have large shares and no effect, and a term may tell apart only
keys that get no attention anyway. So the shares come with how far the attention itself moves when the term is
left out (`TermShares.moved`). Matrices are summed up a few heads at a time: nothing large is kept, whatever
the number of windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from probes.attend import chosen_windows, read_again
from probes.attention import as_slice, blocks_of_heads, chosen_numbers, plain_tensors
from probes.calls import Call, Watch
from probes.encoders import Parts
from probes.maps import Float
from probes.scores import Scorer
from probes.terms import TERMS, describe_deberta, terms_of
from qa.attention_scratch import skewed
from qa.reader import Reader
from qa.windows import Progress

Counts = NDArray[np.int64]
Sums = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TermShares:
    """What three terms (in the order of `probes.terms.TERMS`) contribute in each layer and head.

    All is NaN for a term that the model does not have, and at a distance that no pair of tokens has. Special
    tokens count as any other; padding does not.

    Attributes:
        layers: the number of each layer in the model [L].
        heads: the number of each head [H].
        distances: query minus key, rising from the lowest; above 0 the key is to the left [D].
        pairs: how many pairs of tokens have that distance [D].
        means: mean of the centred scores of each term [L, H, 3, D].
        sizes: mean of their absolute values [L, H, 3, D].
        moved: how much of the attention goes elsewhere when the term is left out, as `Terms.without` does:
            total variation distance (half the sum of a row's absolute differences), from 0 to 1, mean over
            rows [L, H, 3].
    """

    layers: tuple[int, ...]
    heads: tuple[int, ...]
    distances: Counts
    pairs: Counts
    means: Float
    sizes: Float
    moved: Float

    def by_distance(self) -> Float:
        """The share of each term at each distance [L, H, 3, D]; NaN where no term tells keys apart."""
        return _shares(self.sizes)

    def overall(self) -> Float:
        """The share of each term over all distances, each pair of tokens counting the same [L, H, 3]."""
        there = self.pairs > 0
        return _shares(self.sizes[..., there] @ self.pairs[there].astype(np.float32))


def read_term_shares(
    reader: Reader,
    question: str,
    context: str,
    *,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    windows: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> TermShares:
    """The shares over windows of one context; what its windows share counts in each.

    Args:
        reader: of a DeBERTa.
        question: any text that is not blank.
        context: likewise, of any length.
        layers: numbers of layers, counted from 0; None: all.
        heads: numbers of heads, counted from 0; None: all.
        windows: ordinals of windows; None: all.
        progress: called with (windows done, windows in all).

    Raises:
        UserError: the model is no DeBERTa; blank text, or a layer, head or window that is not there.
    """
    probe = TermSharesProbe(reader.encoder.model, layers, heads=heads)
    asked = reader.windows([(question, context)])
    with probe:
        read_again(reader, asked, chosen_windows(windows, len(asked)), progress=progress)
    return probe.shares()


class TermSharesProbe:
    """Sum up the terms of every example of every forward inside a `with` block.

    Only forwards of the thread that entered the block count, and only those that ended well.
    """

    def __init__(
        self, model: nn.Module, layers: Sequence[int] | None = None, *, heads: Sequence[int] | None = None
    ) -> None:
        """Choose what to sum up.

        Args:
            model: a DeBERTa, with any head.
            layers: numbers of layers, counted from 0; None: all.
            heads: numbers of heads, counted from 0, the same in each layer; None: all.

        Raises:
            UserError: the model is no DeBERTa, or a layer or head is not there.
        """
        parts = describe_deberta(model)
        self.layers = chosen_numbers("layers", layers, len(parts.layers))
        self.heads = chosen_numbers("heads", heads, parts.heads)
        self._missing = [term not in terms_of(parts) for term in TERMS]
        self._recorder = _Recorder(parts, self.layers, self.heads)
        self._watch = Watch(parts, self.layers, self._recorder)

    def __enter__(self) -> Self:
        self._watch.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watch.__exit__(kind, error, trace)
        self._recorder.begin(None)  # drops what a forward that raised had summed up

    def shares(self) -> TermShares:
        """The shares over all that was read so far; without any distance if that is nothing."""
        sums = self._recorder.sums
        there = np.flatnonzero(sums.pairs)
        near = slice(there[0], there[-1] + 1) if len(there) else slice(0)
        with np.errstate(invalid="ignore"):
            means, sizes = (sums.scores / sums.pairs).astype(np.float32)
            moved = (sums.moved / sums.rows).astype(np.float32)
        for values in (means, sizes, moved):
            values[:, :, self._missing] = np.nan
        reach = len(sums.pairs) // 2
        return TermShares(
            layers=self.layers,
            heads=self.heads,
            distances=np.arange(-reach, reach + 1)[near],
            pairs=sums.pairs.astype(np.int64)[near],
            means=means[..., near],
            sizes=sizes[..., near],
            moved=moved,
        )


@dataclass(slots=True)
class _Sums:
    """What is added up, for the distances -(T-1) … T-1 of the longest input so far.

    Attributes:
        pairs: of tokens [2T - 1].
        rows: of tokens that attend.
        scores: centred, and their absolute values [2, L, H, 3, 2T - 1].
        moved: attention, as `TermShares.moved` but summed over rows [L, H, 3].
    """

    pairs: Sums
    rows: int
    scores: Sums
    moved: Sums

    @staticmethod
    def none(L: int, H: int, T: int) -> _Sums:
        """Of nothing yet."""
        scores = np.zeros((2, L, H, len(TERMS), 2 * T - 1))
        return _Sums(np.zeros(2 * T - 1), 0, scores, np.zeros((L, H, len(TERMS))))

    def add(self, other: _Sums) -> None:
        """Add what another one has."""
        reach = max(len(self.pairs), len(other.pairs)) // 2
        self.pairs = _reaching(reach, self.pairs) + _reaching(reach, other.pairs)
        self.scores = _reaching(reach, self.scores) + _reaching(reach, other.scores)
        self.rows += other.rows
        self.moved += other.moved


class _Recorder:
    """A watcher that adds up the terms of every call."""

    def __init__(self, parts: Parts, layers: tuple[int, ...], heads: tuple[int, ...]) -> None:
        self.sums = _Sums.none(len(layers), len(heads), 1)
        self._parts = parts
        self._layers = layers
        self._heads = heads
        self._forward: _Sums | None = None

    def begin(self, ids: torch.Tensor | None) -> None:
        self._forward = None

    def attended(self, call: Call) -> None:
        B, T = call.hidden.shape[:2]
        if self._forward is None:
            self._forward = _Sums.none(len(self._layers), len(self._heads), T)
        with plain_tensors(call.hidden.device):
            scorer = Scorer.of(call, self._parts)
            for example in range(B):
                self._add_example(self._forward, scorer, example, call.layer)

    def end(self) -> None:
        forward, self._forward = self._forward, None
        if forward is None:
            raise RuntimeError(f"the attention of layers {list(self._layers)} was never called")
        self.sums.add(forward)

    def _add_example(self, sums: _Sums, scorer: Scorer, example: int, layer: int) -> None:
        place, seen = self._layers.index(layer), _seen(scorer, example)
        n, reach = len(seen), len(sums.pairs) // 2
        if n == 0:
            return
        near = slice(reach - n + 1, reach + n)  # the distances between n tokens
        if place == 0:
            sums.pairs[near] += _by_distance(seen[None].float()).cpu().numpy()[0]
            sums.rows += int(seen.any(-1).sum())
        for first, last in blocks_of_heads(len(self._heads), n):
            scores, moved = _add_up(scorer, example, as_slice(self._heads[first:last]), seen)
            sums.scores[:, place, first:last, :, near] += scores.cpu().numpy()
            sums.moved[place, first:last] += moved.cpu().numpy()


def _seen(scorer: Scorer, example: int) -> torch.Tensor:
    """Which of an example's n tokens up to its last real one attend to which [n, n]; padding to none."""
    T = scorer.query.shape[2]
    mask = scorer.mask_of(example, T)
    if mask is None:
        return torch.ones(T, T, dtype=torch.bool, device=scorer.query.device)
    seen = mask[0].expand(T, T)
    real = seen.any(0)
    n = int(real.nonzero().max()) + 1 if real.any() else 0
    return seen[:n, :n] & real[:n, None]


def _add_up(
    scorer: Scorer, example: int, heads: list[int] | slice, seen: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """What h heads of one example of n tokens add to `_Sums`: scores [2, h, 3, 2n - 1] and moved [h, 3]."""
    terms = scorer.terms(example, heads, len(seen))
    there = [term for term in terms if term is not None]
    (h, n, _), rows = there[0].shape, seen.any(-1)
    scores = torch.zeros(2, h, len(terms), 2 * n - 1, device=seen.device)
    moved = torch.zeros(h, len(terms), device=seen.device)
    used = scorer.softmax(torch.stack(there).sum(0), example)
    for number, term in enumerate(terms):
        if term is None:
            continue
        centred = _centred(term, seen)
        scores[0, :, number] = _by_distance(centred)
        scores[1, :, number] = _by_distance(centred.abs_())
        rest = torch.zeros_like(term)
        for other in there:
            if other is not term:
                rest += other
        elsewhere = (used - scorer.softmax(rest, example)).abs_().sum(-1) / 2
        moved[:, number] = (elsewhere * rows).sum(-1)
    return scores, moved


def _centred(scores: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """Scores [h, n, n] less their row's mean over the keys that are seen; 0 for those that are not."""
    counts = seen.sum(-1, keepdim=True).clamp(min=1)
    means = (scores * seen).sum(-1, keepdim=True) / counts
    return (scores - means) * seen


def _by_distance(matrices: torch.Tensor) -> torch.Tensor:
    """Sums [h, 2n - 1] over the cells [h, n, n] of each distance, row less column, from -(n-1) to n-1."""
    h, n, _ = matrices.shape
    spread = matrices.new_zeros(h, n, 2 * n - 1)
    skewed(spread, n).copy_(matrices)
    return spread.sum(1).flip(-1)


def _reaching(reach: int, sums: Sums) -> Sums:
    """The same with zeros for the distances that are missing, up to `reach` on both sides."""
    more = reach - sums.shape[-1] // 2
    return np.pad(sums, [(0, 0)] * (sums.ndim - 1) + [(more, more)])


def _shares(sizes: Float) -> Float:
    """Each term's part of all, over the axis of terms; NaN for those that are missing."""
    with np.errstate(invalid="ignore"):
        shares: Float = sizes / np.nansum(sizes, axis=2, keepdims=True)
    return shares
