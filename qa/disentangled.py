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
from transformers.models.deberta_v2 import modeling_deberta_v2 as library

from qa.attention_blocks import States, attend_in_blocks, skewed
from qa.attention_plan import Plan, plan_attention
from qa.errors import UserError

_KEEP_HIDDEN_STATES: ContextVar[bool] = ContextVar("keep_hidden_states", default=True)


def why_not_fast(config: PreTrainedConfig) -> str | None:
    """Why this configuration needs the library's own attention; None where the fast one applies."""
    if config.model_type != "deberta-v2":
        return f"the architecture is {config.model_type}, and only deberta-v2 (which v3 uses too) is covered"
    if not getattr(config, "relative_attention", False):
        return "relative_attention is off, so there are no position terms"
    unknown = set(config.pos_att_type or ()) - {"c2p", "p2c", "p2p"}
    if unknown:
        return f"pos_att_type holds {', '.join(sorted(unknown))}; known are c2p, p2c and p2p"
    return None


def install_fast_attention(model: nn.Module) -> None:
    """Make every DeBERTa encoder inside `model` compute the same, faster.

    Weights, state dict and configuration stay as they are, and so do calls that ask for attentions: those run
    the library's code. Installing twice changes nothing.

    Raises:
        UserError: the model holds no DeBERTa-v2 encoder, or one whose configuration is not covered.
    """
    config = getattr(model, "config", None)
    reason = "it has no configuration" if config is None else why_not_fast(config)
    if reason is None and not any(isinstance(part, library.DebertaV2Encoder) for part in model.modules()):
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


def _describe(mask: torch.Tensor, attention: library.DisentangledSelfAttention) -> _Batch:
    mask = mask.bool()
    plan = plan_attention(mask, attention.num_attention_heads) if mask.device.type == "cpu" else None
    first, rows, order = rows_by_distance(
        mask.shape[1], attention.pos_ebd_size, attention.position_buckets, attention.max_relative_positions
    )
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
        distances = library.make_log_bucket_position(distances, buckets, farthest).long()
    rows = torch.clamp(distances + span, 0, 2 * span - 1)
    first, last = int(rows[-1]), int(rows[0])
    return first, last - first + 1, rows - first


class FastSelfAttention(library.DisentangledSelfAttention):
    """Drop-in for the library's attention; only a `FastEncoder` reaches the fast path."""

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
        query, key, value = (
            project(hidden_states) for project in (self.query_proj, self.key_proj, self.value_proj)
        )
        pos_key, pos_query = self._position_tables(rel_embeddings, relative_pos)
        terms = (pos_key is not None) + (pos_query is not None)
        scale = 1 / math.sqrt(self.attention_head_size * (1 + terms))
        if pos_key is not None:
            pos_key = pos_key * scale
        dropout = self.dropout.p if self.training else 0.0
        states = States(query, key * scale, value, pos_key, pos_query)
        if relative_pos.plan is None:
            return _attend_fused(states, relative_pos.mask, self.num_attention_heads, dropout), None
        return attend_in_blocks(states, relative_pos.plan, dropout), None

    def _position_tables(
        self, embeddings: torch.Tensor, batch: _Batch
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Projections [2T - 1, D]: those for keys by falling, those for queries by rising distance."""
        embeddings = self.pos_dropout(embeddings).narrow(0, batch.first, batch.rows)
        pos_key = pos_query = None
        if "c2p" in self.pos_att_type:
            project = self.key_proj if self.share_att_key else self.pos_key_proj
            pos_key = project(embeddings).index_select(0, batch.order)
        if "p2c" in self.pos_att_type:
            project = self.query_proj if self.share_att_key else self.pos_query_proj
            pos_query = project(embeddings).index_select(0, batch.order.flip(0))
        return pos_key, pos_query


class FastEncoder(library.DebertaV2Encoder):
    """Drop-in for the library's encoder: describes the batch once and keeps only what was asked for."""

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
        batch = _describe(attention_mask, layers[0].attention.self)
        rel_embeddings = self._relative_embeddings()
        states, kept = hidden_states, [hidden_states]
        keep_all = output_hidden_states and _KEEP_HIDDEN_STATES.get()
        for index, layer in enumerate(layers):
            states, _ = layer(states, attention_mask, relative_pos=batch, rel_embeddings=rel_embeddings)
            if index == 0 and self.conv is not None:
                states = self.conv(hidden_states, states, attention_mask)
            kept = [*kept, states] if keep_all else [states]
        all_states = tuple(kept) if output_hidden_states else None
        if not return_dict:
            return (states,) if all_states is None else (states, all_states)
        return BaseModelOutput(last_hidden_state=states, hidden_states=all_states)

    def _relative_embeddings(self) -> torch.Tensor:
        embeddings: torch.Tensor = self.get_rel_embedding()  # type: ignore[no-untyped-call]  # the library's
        return embeddings


class DebertaV2Model(library.DebertaV2Model):
    """The library's model, telling its encoder whether anybody asked for hidden states.

    It bears the library's name because saving writes the name of the class into the checkpoint.
    """

    def forward(self, *args: Any, output_hidden_states: bool | None = None, **kwargs: Any) -> Any:
        """As the library's."""
        asked = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        token = _KEEP_HIDDEN_STATES.set(bool(asked) or self.z_steps > 1)
        try:
            return super().forward(*args, output_hidden_states=output_hidden_states, **kwargs)
        finally:
            _KEEP_HIDDEN_STATES.reset(token)


_FAST: dict[type[nn.Module], type[nn.Module]] = {
    library.DisentangledSelfAttention: FastSelfAttention,
    library.DebertaV2Encoder: FastEncoder,
    library.DebertaV2Model: DebertaV2Model,
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
