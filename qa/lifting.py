"""Carry a BERT checkpoint into the DeBERTa architecture without changing what it computes.

DeBERTa is BERT plus two position terms in every attention score and another scale. With the weights copied,
the position projections at zero and the query projection multiplied by sqrt(3) (DeBERTa divides by
sqrt(3 d), BERT by sqrt(d)), both compute the same function; in fine-tuning the position terms learn from
there. It gives a pretrained DeBERTa where only a BERT is at hand. The trap: `rel_embeddings` must not be zero
as well, or the product of two zeros would never receive a gradient.
"""

from __future__ import annotations

import math
import re

import torch
from transformers import BertConfig, BertModel, DebertaV2Config, DebertaV2ForQuestionAnswering

from qa.errors import UserError

RENAMED = {
    "attention.self.query.": "attention.self.query_proj.",
    "attention.self.key.": "attention.self.key_proj.",
    "attention.self.value.": "attention.self.value_proj.",
}


def lift_bert(bert: BertModel, *, position_buckets: int = 64, seed: int = 0) -> DebertaV2ForQuestionAnswering:
    """A DeBERTa (v2 architecture) whose encoder computes what `bert` computes; the head is new and random.

    Args:
        bert: L layers, width D, absolute positions.
        position_buckets: relative distances are told apart exactly below half of this, by logarithm beyond.
        seed: for the relative embeddings and the head.

    Raises:
        UserError: a BERT with relative positions or cross attention, which has no counterpart here.
    """
    config = bert.config
    if config.is_decoder or getattr(config, "position_embedding_type", "absolute") != "absolute":
        raise UserError("lifting: only an encoder with absolute positions can be lifted; choose a plain BERT")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        deberta = DebertaV2ForQuestionAnswering(_lifted_config(config, position_buckets))
    state = deberta.state_dict()
    for key, value in bert.state_dict().items():
        if not key.startswith("pooler."):
            state[f"deberta.{_renamed(key)}"] = _rescaled(key, value).clone()
    for key in state:
        if re.search(r"\.pos_(key|query)_proj\.", key):
            state[key] = torch.zeros_like(state[key])
    deberta.load_state_dict(state)
    return deberta.eval()


def _renamed(key: str) -> str:
    for old, new in RENAMED.items():
        key = key.replace(old, new)
    return key


def _rescaled(key: str, value: torch.Tensor) -> torch.Tensor:
    return value * math.sqrt(3) if ".attention.self.query." in key else value


def _lifted_config(config: BertConfig, position_buckets: int) -> DebertaV2Config:
    return DebertaV2Config(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        intermediate_size=config.intermediate_size,
        hidden_act=config.hidden_act,
        hidden_dropout_prob=config.hidden_dropout_prob,
        attention_probs_dropout_prob=config.attention_probs_dropout_prob,
        max_position_embeddings=config.max_position_embeddings,
        type_vocab_size=config.type_vocab_size,
        initializer_range=config.initializer_range,
        layer_norm_eps=config.layer_norm_eps,
        pad_token_id=config.pad_token_id,
        relative_attention=True,
        pos_att_type=["c2p", "p2c"],
        position_buckets=position_buckets,
        max_relative_positions=-1,
        share_att_key=False,
        norm_rel_ebd="layer_norm",
        position_biased_input=True,
    )
