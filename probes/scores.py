"""Attention scores and probabilities from the queries and keys of one call, a few heads at a time.

A score is q·k / sqrt(d). DeBERTa has three terms, content-to-content q·k, content-to-position q·P(i-j) and
position-to-content k·R(i-j) (He et al. 2021, https://arxiv.org/abs/2006.03654, equation 4), all divided by
sqrt(d * terms). P and R are what the model's own projections gave in this call. The trap: which rows of the
relative embeddings are projected depends on who does it. The library projects all of them in v2 and v3, and
in v1 as many as this length can need; our fast attention those that the distances do need.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

from probes.calls import Call, visible
from probes.encoders import Layer, Parts
from qa.attention_scratch import skewed
from qa.disentangled import rows_by_distance

# Rows at a time in products with distances: few rows need few distances besides those in the scores.
TILE = 128


@dataclass(frozen=True, slots=True)
class Scorer:
    """Scores of one call, in float32 at least.

    Attributes:
        query: [B, H, T, d].
        key: likewise.
        scale: 1 / sqrt(d * terms).
        pos_key: P, the projected embeddings of relative positions [H, R, d]; None without this term.
        pos_query: R, likewise.
        rows: the row of P and R for each distance T-1, T-2 … -(T-1) [2T - 1]; None without either.
        mask: what is added to the scores, or true for keys to be seen [B or 1, 1, T or 1, T]; None: all are.
    """

    query: torch.Tensor
    key: torch.Tensor
    scale: float
    pos_key: torch.Tensor | None
    pos_query: torch.Tensor | None
    rows: torch.Tensor | None
    mask: torch.Tensor | None

    @staticmethod
    def of(call: Call, parts: Parts) -> Scorer:
        """The scorer of a call; not for MPNet, which always shows its probabilities. Without gradients."""
        layer = parts.layers[call.layer]
        assert call.query is not None
        assert call.key is not None
        query, key = layer.queries(_wide(call.query)), layer.keys(_wide(call.key))
        kinds = getattr(layer.attention, "pos_att_type", ())
        pos_key = _positions(layer, call.pos_key) if "c2p" in kinds else None
        pos_query = _positions(layer, call.pos_query) if "p2c" in kinds else None
        projected = pos_query if pos_key is None else pos_key
        mask = call.mask
        if mask is None or parts.architecture.multiplied_mask or not mask.is_floating_point():
            mask = visible(call, multiplied_mask=parts.architecture.multiplied_mask)
        return Scorer(
            query=query,
            key=key,
            scale=1 / math.sqrt(layer.head_size * _divisor(layer, kinds)),
            pos_key=pos_key,
            pos_query=pos_query,
            rows=None if projected is None else _rows(layer.attention, query.shape[2], projected),
            mask=mask,
        )

    def terms(self, example: int, heads: list[int] | slice, tokens: int) -> list[torch.Tensor | None]:
        """Content-to-content, content-to-position and position-to-content scores [h, n, n].

        Of some heads of one example, between its first n tokens; they sum to `scores`. None for a term that
        the model does not have.
        """
        query, key = (states[example, heads, :tokens] for states in (self.query, self.key))
        content = torch.bmm(query * self.scale, key.transpose(1, 2))
        to_position, from_position = (
            None if table is None else torch.zeros_like(content) for table in (self.pos_key, self.pos_query)
        )
        self._add_positions((query, key), heads, to_position, from_position)
        return [content, to_position, from_position]

    def scores(self, example: int, heads: list[int] | slice, tokens: int) -> torch.Tensor:
        """Scores [h, n, n] before any mask, of some heads of one example, between its first n tokens."""
        query, key = (states[example, heads, :tokens] for states in (self.query, self.key))
        scores = torch.bmm(query * self.scale, key.transpose(1, 2))
        self._add_positions((query, key), heads, scores, scores)
        return scores

    def _add_positions(
        self,
        states: tuple[torch.Tensor, torch.Tensor],
        heads: list[int] | slice,
        to_position: torch.Tensor | None,
        from_position: torch.Tensor | None,
    ) -> None:
        """Add to two matrices of scores [h, n, n] what queries and keys [h, n, d] make of the distances."""
        if self.rows is None:
            return
        (query, key), n, farthest = states, states[0].shape[1], len(self.rows) // 2
        rows = self.rows[farthest - n + 1 : farthest + n]  # distances n-1 … -(n-1)
        if self.pos_key is not None and to_position is not None:
            _add_by_distance(to_position, query * self.scale, self.pos_key[heads].index_select(1, rows))
        if self.pos_query is not None and from_position is not None:
            table = self.pos_query[heads].index_select(1, rows.flip(0))
            _add_by_distance(from_position.transpose(1, 2), key * self.scale, table)

    def probabilities(self, example: int, heads: list[int] | slice, tokens: int) -> torch.Tensor:
        """Attention probabilities [h, n, n] before dropout; hidden keys have exactly 0."""
        return self.softmax(self.scores(example, heads, tokens), example)

    def softmax(self, scores: torch.Tensor, example: int) -> torch.Tensor:
        """Probabilities [h, n, n] of scores between the first n tokens of an example; the scores are lost."""
        mask = self.mask_of(example, scores.shape[-1])
        if mask is not None and mask.dtype != torch.bool:
            scores.add_(mask)
        elif mask is not None and not mask.all():
            scores.masked_fill_(~mask, torch.finfo(scores.dtype).min)
        return F.softmax(scores, dim=-1)

    def mask_of(self, example: int, tokens: int) -> torch.Tensor | None:
        """The mask between the first n tokens of an example [1, n or 1, n]; None: all keys are seen."""
        if self.mask is None:
            return None
        return self.mask[example if len(self.mask) > 1 else 0, :, :tokens, :tokens]


def _divisor(layer: Layer, kinds: Sequence[str]) -> int:
    """The number of terms that the library divides by.

    It goes by the names in the configuration alone, whether or not there are relative positions; DeBERTa v1
    counts them all, "p2p" too, which adds nothing to the scores, v2 and v3 the two that do.
    """
    return 1 + (len(kinds) if layer.is_fused else ("c2p" in kinds) + ("p2c" in kinds))


def _wide(states: torch.Tensor) -> torch.Tensor:
    return states.detach().to(torch.promote_types(states.dtype, torch.float32))


def _add_by_distance(scores: torch.Tensor, states: torch.Tensor, table: torch.Tensor) -> None:
    """Add to the scores [h, n, n] of row i and column j the product of state i [h, n, d] with their distance.

    The table [h, 2n - 1, d] has the distances in order, that of row n - 1 and column 0 first: falling i - j
    for queries; rising for keys, whose scores come transposed.
    """
    n = states.shape[1]
    for first in range(0, n, TILE):
        last = min(first + TILE, n)
        window = table[:, n - last : 2 * n - 1 - first]
        scores[:, first:last] += skewed(torch.bmm(states[:, first:last], window.transpose(1, 2)), n)


def _positions(layer: Layer, projected: torch.Tensor | None) -> torch.Tensor | None:
    """[H, R, d] of [..., R, H * d]."""
    if projected is None:
        return None
    return _wide(projected).reshape(-1, layer.heads, layer.head_size).transpose(0, 1)


def _rows(attention: Any, T: int, projected: torch.Tensor) -> torch.Tensor:
    """The rows of projections [H, R, d] for each distance T-1 … -(T-1) [2T - 1]."""
    farthest = attention.max_relative_positions
    span = getattr(attention, "pos_ebd_size", min(T, farthest))  # DeBERTa v1 has neither this
    buckets = getattr(attention, "position_buckets", -1)  # nor this
    first, _, rows = rows_by_distance(T, span, buckets, farthest)
    if projected.shape[1] == 2 * span:
        rows = rows + first
    assert projected.shape[1] > int(rows[0])
    return rows.to(projected.device)
