"""DeBERTa's disentangled attention, exact and fast; the installed library stays untouched.

The score of query i and key j is q_i·k_j + q_i·P(i-j) + k_j·R(i-j), with P and R the projected embeddings of
the distance i-j (He et al. 2021, https://arxiv.org/abs/2006.03654, equation 4). The library gathers both
position terms from products with every bucket. Here the embeddings are laid out by distance, so a row of
q·P holds its distances side by side and the score matrix is a strided view of the product: nothing is
gathered and nothing is repeated over the batch. `qa.attention_blocks` does it on a CPU; elsewhere the
position terms become the additive mask of torch's fused attention.

The trap: a layer's signature is the library's, so what all layers share travels as its `relative_pos`. Only
`FastEncoder` makes such a `_Batch`; whoever calls a layer in the library's way gets the library's code.
"""

from __future__ import annotations

import math
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedConfig
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.deberta import modeling_deberta as v1
from transformers.models.deberta_v2 import modeling_deberta_v2 as v2

from qa.attention_blocks import States, attend_in_blocks
from qa.attention_plan import ALONE_FROM, Plan, plan_attention
from qa.attention_scratch import skewed
from qa.errors import UserError
from qa.fast_linear import FastLinear, covers
from qa.float32 import Float32Attention

_KEEP_HIDDEN_STATES: ContextVar[bool] = ContextVar("keep_hidden_states", default=True)


def why_not_fast(config: PreTrainedConfig) -> str | None:
    """Why this configuration needs the library's own attention; None where the fast one applies."""
    if config.model_type not in ("deberta", "deberta-v2"):
        return (
            f"the architecture is {config.model_type}; deberta and deberta-v2 (which v3 uses too) are covered"
        )
    if getattr(config, "talking_head", False):
        return "talking_head is on, which mixes the heads' scores"
    if not getattr(config, "relative_attention", False):
        return "relative_attention is off, so there are no position terms"
    unknown = set(config.pos_att_type or ()) - {"c2p", "p2c", "p2p"}
    if unknown:
        return f"pos_att_type holds {', '.join(sorted(unknown))}; known are c2p, p2c and p2p"
    return None


def install_fast_attention(model: nn.Module) -> None:
    """Make every DeBERTa encoder inside `model` compute the same, faster; its linear layers too.

    Weights, state dict and configuration stay as they are, and so do calls that ask for attentions: those run
    the library's code. Installing twice changes nothing.

    Raises:
        UserError: the model holds no DeBERTa encoder, or one whose configuration is not covered.
    """
    config = getattr(model, "config", None)
    reason = "it has no configuration" if config is None else why_not_fast(config)
    if reason is None and not any(
        isinstance(part, v2.DebertaV2Encoder | v1.DebertaEncoder) for part in model.modules()
    ):
        reason = "no DeBERTa encoder was found in it"
    if reason is not None:
        raise UserError(f"attention: fast does not apply to this model ({reason}); use auto or eager")
    _change_classes(model, _FAST)


def remove_fast_attention(model: nn.Module) -> None:
    """Undo `install_fast_attention`: every module is of the library's class again."""
    _change_classes(model, {fast: plain for plain, fast in _FAST.items()})


def _change_classes(model: nn.Module, new: dict[type[nn.Module], type[nn.Module]]) -> None:
    for module in model.modules():
        if type(module) in new:
            module.__class__ = new[type(module)]


@dataclass(frozen=True, slots=True)
class _Batch:
    """What all layers share in one call: B examples of T tokens.

    Attributes:
        mask: [B, T], true for real tokens.
        plan: how to cut it on a CPU; None elsewhere.
        first: first row of the relative embeddings in use.
        rows: how many are in use from there.
        order: [2T - 1], for the distances T-1, T-2 … -(T-1) the row, counted from `first`.
    """

    mask: torch.Tensor
    plan: Plan | None
    first: int
    rows: int
    order: torch.Tensor

    def rows_of(self, embeddings: torch.Tensor) -> torch.Tensor:
        """The relative embeddings in use [rows, D]."""
        return embeddings.narrow(0, self.first, self.rows)

    def falling(self, projected: torch.Tensor) -> torch.Tensor:
        """Projections of `rows_of` as a table [2T - 1, D] by falling distance."""
        return projected.index_select(0, self.order)

    def rising(self, projected: torch.Tensor) -> torch.Tensor:
        """The same by rising distance."""
        return projected.index_select(0, self.order.flip(0))


def _describe(
    mask: torch.Tensor,
    states: torch.Tensor,
    attention: v1.DisentangledSelfAttention | v2.DisentangledSelfAttention,
) -> _Batch:
    mask, plan = mask.bool(), None
    if mask.device.type == "cpu":
        alone_from = ALONE_FROM if covers(states) else None
        plan = plan_attention(mask, attention.num_attention_heads, alone_from=alone_from)
    farthest: int = attention.max_relative_positions
    # Version 1 has neither of these two: every distance up to the farthest has its row.
    span, buckets = getattr(attention, "pos_ebd_size", farthest), getattr(attention, "position_buckets", -1)
    first, rows, order = rows_by_distance(mask.shape[1], span, buckets, farthest)
    return _Batch(mask, plan, first, rows, order.to(mask.device))


@lru_cache(maxsize=1024)
@torch.inference_mode(mode=False)  # what is kept must serve training too
def rows_by_distance(T: int, span: int, buckets: int, farthest: int) -> tuple[int, int, torch.Tensor]:
    """First row, number of rows and order of the relative embeddings between T tokens (see `_Batch`).

    Args:
        T: tokens.
        span: half of the rows there are (the library's `pos_ebd_size`).
        buckets: `position_buckets`; without them, -1, every distance has its row.
        farthest: `max_relative_positions`; distances from there on share a row.
    """
    distances = torch.arange(T - 1, -T, -1)
    if buckets > 0 and farthest > 0:
        distances = v2.make_log_bucket_position(distances, buckets, farthest).long()
    rows = torch.clamp(distances + span, 0, 2 * span - 1)
    first, last = int(rows[-1]), int(rows[0])
    return first, last - first + 1, rows - first


class FastSelfAttention(nn.Module):
    """What the fast attentions of all versions share; only a `FastEncoder` reaches the fast path."""

    num_attention_heads: int
    dropout: nn.Dropout

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor,
        output_attentions: bool = False,  # noqa: FBT001, FBT002  # the library's signature
        query_states: torch.Tensor | None = None,
        relative_pos: torch.Tensor | _Batch | None = None,
        rel_embeddings: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Context [B, T, D] of hidden states [B, T, D]; anything but a `_Batch` goes to the library."""
        if not isinstance(relative_pos, _Batch):
            plain: Any = super()
            result: tuple[torch.Tensor, torch.Tensor | None] = plain.forward(
                hidden_states, attention_mask, output_attentions, query_states, relative_pos, rel_embeddings
            )
            return result
        assert rel_embeddings is not None
        states = self._states(hidden_states, rel_embeddings, relative_pos)
        dropout = self.dropout.p if self.training else 0.0
        if relative_pos.plan is None:
            return _attend_fused(states, relative_pos.mask, self.num_attention_heads, dropout), None
        return attend_in_blocks(states, relative_pos.plan, dropout), None

    def _states(self, hidden_states: torch.Tensor, embeddings: torch.Tensor, batch: _Batch) -> States:
        raise NotImplementedError


class _AttentionV2(FastSelfAttention, v2.DisentangledSelfAttention):
    """Drop-in for the attention of versions 2 and 3."""

    def _states(self, hidden_states: torch.Tensor, embeddings: torch.Tensor, batch: _Batch) -> States:
        query, key, value = (
            project(hidden_states) for project in (self.query_proj, self.key_proj, self.value_proj)
        )
        embeddings = batch.rows_of(self.pos_dropout(embeddings))
        pos_key = pos_query = None
        if "c2p" in self.pos_att_type:
            project = self.key_proj if self.share_att_key else self.pos_key_proj
            pos_key = batch.falling(project(embeddings))
        if "p2c" in self.pos_att_type:
            project = self.query_proj if self.share_att_key else self.pos_query_proj
            pos_query = batch.rising(project(embeddings))
        terms = (pos_key is not None) + (pos_query is not None)
        scale = 1 / math.sqrt(self.attention_head_size * (1 + terms))
        return _scaled(query, key, value, pos_key, pos_query, scale=scale)


class _AttentionV1(FastSelfAttention, v1.DisentangledSelfAttention):
    """Drop-in for the attention of version 1: one projection, biases beside it, and "p2p" in the divisor."""

    def _states(self, hidden_states: torch.Tensor, embeddings: torch.Tensor, batch: _Batch) -> States:
        projected = self.in_proj(hidden_states).unflatten(-1, (self.num_attention_heads, -1))
        query, key, value = (states.flatten(-2) for states in projected.chunk(3, dim=-1))
        # Under autocast the biases are wider than the projection; the library's products narrow the sums too.
        query, value = (
            (states + bias).to(states.dtype) for states, bias in ((query, self.q_bias), (value, self.v_bias))
        )
        embeddings = batch.rows_of(self.pos_dropout(embeddings))
        pos_key = batch.falling(self.pos_proj(embeddings)) if "c2p" in self.pos_att_type else None
        pos_query = batch.rising(self.pos_q_proj(embeddings)) if "p2c" in self.pos_att_type else None
        scale = 1 / math.sqrt(self.attention_head_size * (1 + len(self.pos_att_type)))
        return _scaled(query, key, value, pos_key, pos_query, scale=scale)


class _Float32AttentionV1(_AttentionV1, Float32Attention):
    """The same in the place of one whose slow path is kept in float32."""


def _scaled(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    pos_key: torch.Tensor | None,
    pos_query: torch.Tensor | None,
    *,
    scale: float,
) -> States:
    """Queries stay as they are: every score has a key or a row of `pos_key` as its other factor."""
    return States(query, key * scale, value, None if pos_key is None else pos_key * scale, pos_query)


class FastEncoder(nn.Module):
    """What the fast encoders share: each describes the batch once and keeps only what was asked for."""

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor,
        output_hidden_states: bool = True,  # noqa: FBT001, FBT002  # the library's signature
        output_attentions: bool = False,  # noqa: FBT001, FBT002
        query_states: torch.Tensor | None = None,
        relative_pos: torch.Tensor | None = None,
        return_dict: bool = True,  # noqa: FBT001, FBT002
    ) -> Any:
        """As the library's; attentions, other queries and masks of pairs run the library's code."""
        special = query_states is not None or relative_pos is not None or attention_mask.dim() != 2
        if output_attentions or special:
            plain: Any = super()
            return plain.forward(
                hidden_states,
                attention_mask,
                output_hidden_states,
                output_attentions,
                query_states,
                relative_pos,
                return_dict,
            )
        layers: Any = self.layer
        convolution: Any = getattr(self, "conv", None)  # version 1 has none
        batch = _describe(attention_mask, hidden_states, layers[0].attention.self)
        library: Any = self
        rel_embeddings = library.get_rel_embedding()
        states, kept = hidden_states, [hidden_states]
        keep_all = output_hidden_states and _KEEP_HIDDEN_STATES.get()
        for index, layer in enumerate(layers):
            states, _ = layer(states, attention_mask, relative_pos=batch, rel_embeddings=rel_embeddings)
            if index == 0 and convolution is not None:
                states = convolution(hidden_states, states, attention_mask)
            kept = [*kept, states] if keep_all else [states]
        all_states = tuple(kept) if output_hidden_states else None
        if not return_dict:
            return (states,) if all_states is None else (states, all_states)
        return BaseModelOutput(last_hidden_state=states, hidden_states=all_states)


class _EncoderV2(FastEncoder, v2.DebertaV2Encoder):
    """Drop-in for the encoder of versions 2 and 3."""


class _EncoderV1(FastEncoder, v1.DebertaEncoder):
    """Drop-in for the encoder of version 1."""


class _FastModel(nn.Module):
    """Tells the encoder of a model whether anybody asked for hidden states."""

    def forward(self, *args: Any, output_hidden_states: bool | None = None, **kwargs: Any) -> Any:
        """As the library's."""
        model: Any = self
        asked = model.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        token = _KEEP_HIDDEN_STATES.set(bool(asked) or model.z_steps > 1)
        try:
            plain: Any = super()
            return plain.forward(*args, output_hidden_states=output_hidden_states, **kwargs)
        finally:
            _KEEP_HIDDEN_STATES.reset(token)


# These two bear the library's names because saving writes the name of the class into the checkpoint.
class DebertaV2Model(_FastModel, v2.DebertaV2Model):
    """Drop-in for the model of versions 2 and 3."""


class DebertaModel(_FastModel, v1.DebertaModel):
    """Drop-in for the model of version 1."""


_FAST: dict[type[nn.Module], type[nn.Module]] = {
    v2.DisentangledSelfAttention: _AttentionV2,
    v2.DebertaV2Encoder: _EncoderV2,
    v2.DebertaV2Model: DebertaV2Model,
    v1.DisentangledSelfAttention: _AttentionV1,
    Float32Attention: _Float32AttentionV1,
    v1.DebertaEncoder: _EncoderV1,
    v1.DebertaModel: DebertaModel,
    nn.Linear: FastLinear,
}


def _attend_fused(states: States, real: torch.Tensor, heads: int, dropout: float) -> torch.Tensor:
    """Context [B, T, D] by torch's fused attention; the position terms are its additive mask [B, H, T, T]."""
    q, k, v, pos_key, pos_query = states.by_head(heads)
    T, hidden = q.shape[2], ~real
    # Padded rows must average all values. Masking their scores alike would do, but fused kernels lose the
    # logarithm of T beside such numbers in the backward pass; equal scores are safe.
    q = q.masked_fill(hidden[:, :, None], 0)
    bias = q.new_zeros(1, 1, T, T)
    if pos_key is not None:
        bias = bias + skewed(q @ pos_key.transpose(1, 2)[:, None], T)
    if pos_query is not None:
        bias = bias + skewed(k @ pos_query.transpose(1, 2)[:, None], T).transpose(2, 3)
    bias = bias.masked_fill(hidden[:, None, :], torch.finfo(q.dtype).min)
    bias = bias.masked_fill(hidden[:, :, None], 0).transpose(0, 1)
    q, k, v = (x.transpose(0, 1) for x in (q, k, v))
    context = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout, scale=1.0)
    return context.transpose(1, 2).flatten(2)
