"""Where each architecture keeps the parts of its self-attention: one row of a table for each.

Every encoder here has blocks with a self-attention, whose context vector [B, T, H * d] is the input of a
linear output projection; head h is the slice h * d to (h + 1) * d of that vector. The traps: ALBERT calls one
block as every layer, so that a layer is a module and the number of its call; and DeBERTa v1 has one
projection, whose rows hold query, key and value of one head after another, with biases of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from qa.errors import UserError

# Implementations of attention that ask for a query and a key module, so that there is something to see.
IMPLEMENTATIONS = ("eager", "sdpa")


@dataclass(frozen=True, slots=True)
class Layer:
    """The parts of one layer's self-attention; D is the width, H heads of size d.

    Attributes:
        block: the transformer block around it.
        attention: the module whose forward is the self-attention.
        call: how many layers below are the same module, and so which of its calls in a forward is this layer.
        query: linear projection [..., D] -> [..., H * d].
        key: likewise.
        value: likewise; DeBERTa v1 has one module for all three, see `states`.
        output: linear projection whose input is the context vector [B, T, H * d].
        heads: H.
        head_size: d.
    """

    block: nn.Module
    attention: nn.Module
    call: int
    query: nn.Module
    key: nn.Module
    value: nn.Module
    output: nn.Linear
    heads: int
    head_size: int

    @property
    def is_fused(self) -> bool:
        """Whether one projection gives query, key and value."""
        return self.query is self.key

    def states(self, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Query, key and value [B, H, T, d] each, biases included, of hidden states [B, T, D]."""
        query = self.query(hidden)
        key, value = (query, query) if self.is_fused else (self.key(hidden), self.value(hidden))
        return self.queries(query), self.keys(key), self.values(value)

    def queries(self, projected: torch.Tensor) -> torch.Tensor:
        """Query [B, H, T, d], bias included, of what the module `query` gave [B, T, H * d or 3 * H * d]."""
        query = self._third(projected, 0)
        return query + self._bias("q_bias") if self.is_fused else query

    def keys(self, projected: torch.Tensor) -> torch.Tensor:
        """Key likewise, of what the module `key` gave."""
        return self._third(projected, 1)

    def values(self, projected: torch.Tensor) -> torch.Tensor:
        """Value likewise, of what the module `value` gave."""
        value = self._third(projected, 2)
        return value + self._bias("v_bias") if self.is_fused else value

    def _third(self, projected: torch.Tensor, place: int) -> torch.Tensor:
        by_head = self.by_head(projected)
        return by_head.chunk(3, dim=-1)[place] if self.is_fused else by_head

    def _bias(self, name: str) -> torch.Tensor:
        return self.attention.get_parameter(name).view(self.heads, 1, -1)

    def by_head(self, states: torch.Tensor) -> torch.Tensor:
        """View [B, H, T, d] of [B, T, H * d]; of three projections in one, [B, H, T, 3 * d]."""
        view: torch.Tensor = states.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        return view


@dataclass(frozen=True, slots=True)
class Architecture:
    """One row of the table; paths are from the module named in brackets.

    Attributes:
        name: for people.
        blocks: gives the blocks in the order in which a forward calls them [base model].
        attention: path of the self-attention [block].
        projections: names of query, key and value [attention].
        output: path of the output projection [block].
        probabilities: the dropout that the attention probabilities enter, where the library's own forward
            calls it as a module: what it is given is what the model uses [attention]. None where attention
            is a function, which shows nothing on the way.
        positions: names of the projections of relative positions to keys and queries; a model that shares
            its projections has neither and calls those of key and query a second time [attention].
        multiplied_mask: whether a mask is true (or 1) for keys to be seen, of whatever type. Otherwise only a
            boolean mask is, and a mask of numbers is added to the scores.
        adds_input: whether what the self-attention returns has its input added already.
        convolution: path of a module that some models call after their first block, with the hidden states
            that entered the block, those that left it, and the mask [base model].
    """

    name: str
    blocks: Callable[[nn.Module], list[nn.Module]]
    attention: str
    projections: tuple[str, str, str]
    output: str
    probabilities: str | None = None
    positions: tuple[str, ...] = ()
    multiplied_mask: bool = False
    adds_input: bool = False
    convolution: str | None = None


@dataclass(frozen=True, slots=True)
class Parts:
    """The self-attention of one model.

    Attributes:
        architecture: the row of the table.
        base: the module that runs all layers once in a forward.
        layers: L layers, in the order of computation.
        heads: H, of every layer.
        head_size: d.
        convolution: see `Architecture`; None where this model has none.
    """

    architecture: Architecture
    base: nn.Module
    layers: tuple[Layer, ...]
    heads: int
    head_size: int
    convolution: nn.Module | None


def _blocks_at(path: str) -> Callable[[nn.Module], list[nn.Module]]:
    return lambda base: list(base.get_submodule(path).children())


def _albert_blocks(base: nn.Module) -> list[nn.Module]:
    """The blocks of a group are called one after another, as often as the group has layers."""
    config: Any = base.config
    groups = [list(group.get_submodule("albert_layers").children()) for group in _groups(base)]
    layers_of_group = config.num_hidden_layers / config.num_hidden_groups
    return [
        block for layer in range(config.num_hidden_layers) for block in groups[int(layer / layers_of_group)]
    ]


def _groups(base: nn.Module) -> list[nn.Module]:
    return list(base.get_submodule("encoder.albert_layer_groups").children())


def _like_bert(name: str) -> Architecture:
    return Architecture(
        name,
        blocks=_blocks_at("encoder.layer"),
        attention="attention.self",
        projections=("query", "key", "value"),
        output="attention.output.dense",
    )


# By the model_type of the configuration.
ARCHITECTURES = {
    "deberta": Architecture(
        "DeBERTa v1",
        blocks=_blocks_at("encoder.layer"),
        attention="attention.self",
        projections=("in_proj", "in_proj", "in_proj"),
        output="attention.output.dense",
        probabilities="dropout",
        positions=("pos_proj", "pos_q_proj"),
        multiplied_mask=True,
    ),
    "deberta-v2": Architecture(
        "DeBERTa v2 and v3",
        blocks=_blocks_at("encoder.layer"),
        attention="attention.self",
        projections=("query_proj", "key_proj", "value_proj"),
        output="attention.output.dense",
        probabilities="dropout",
        positions=("pos_key_proj", "pos_query_proj"),
        multiplied_mask=True,
        convolution="encoder.conv",
    ),
    "bert": _like_bert("BERT"),
    "roberta": _like_bert("RoBERTa"),
    "electra": _like_bert("ELECTRA"),
    "distilbert": Architecture(
        "DistilBERT",
        blocks=_blocks_at("transformer.layer"),
        attention="attention",
        projections=("q_lin", "k_lin", "v_lin"),
        output="attention.out_lin",
    ),
    "albert": Architecture(
        "ALBERT",
        blocks=_albert_blocks,
        attention="attention",
        projections=("query", "key", "value"),
        output="attention.dense",
        adds_input=True,
    ),
    "mpnet": Architecture(
        "MPNet",
        blocks=_blocks_at("encoder.layer"),
        attention="attention.attn",
        projections=("q", "k", "v"),
        output="attention.attn.o",
        probabilities="dropout",
    ),
}


def describe(model: nn.Module) -> Parts:
    """Where `model`, with whatever head it has, keeps the parts of its self-attention.

    Raises:
        UserError: an architecture that is not in the table, or one of its variants that works otherwise.
    """
    config = getattr(model, "config", None)
    kind = getattr(config, "model_type", type(model).__name__)
    architecture = ARCHITECTURES.get(kind)
    if config is None or architecture is None:
        names = ", ".join(row.name for row in ARCHITECTURES.values())
        raise UserError(f"model: cannot look inside {kind!r}; supported are {names}: use one of them")
    if reason := _why_not(config):
        raise UserError(f"model: cannot look inside this {architecture.name} ({reason})")
    base = getattr(model, "base_model", model)
    calls: dict[nn.Module, int] = {}
    layers = []
    for block in architecture.blocks(base):
        attention = block.get_submodule(architecture.attention)
        layers.append(_layer(block, attention, architecture, calls.get(attention, 0), config))
        calls[attention] = layers[-1].call + 1
    modules: dict[str | None, nn.Module] = dict(base.named_modules())
    convolution = modules.get(architecture.convolution)
    return Parts(architecture, base, tuple(layers), layers[0].heads, layers[0].head_size, convolution)


def _why_not(config: Any) -> str | None:
    if getattr(config, "is_decoder", False):
        return "it is set up as a decoder; load it as an encoder"
    if getattr(config, "talking_head", False):
        return "talking_head mixes the heads, so that none has probabilities of its own; use another model"
    implementation = getattr(config, "_attn_implementation", None) or "eager"
    if implementation not in IMPLEMENTATIONS:
        return f"its attention runs as {implementation}; load it with eager or sdpa"
    return None


def _layer(
    block: nn.Module, attention: nn.Module, architecture: Architecture, call: int, config: Any
) -> Layer:
    output = block.get_submodule(architecture.output)
    assert isinstance(output, nn.Linear)
    heads = int(config.num_attention_heads)
    query, key, value = (attention.get_submodule(name) for name in architecture.projections)
    return Layer(
        block=block,
        attention=attention,
        call=call,
        query=query,
        key=key,
        value=value,
        output=output,
        heads=heads,
        head_size=output.in_features // heads,
    )
