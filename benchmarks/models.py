"""Encoders with random weights in the shapes of real ones: speed does not depend on what they have learnt.

The trap: at the usual scale of random weights all attention scores are nearly equal, and a wrong position
term would hardly show in a difference of outputs. So the weights are larger here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModel,
    AutoModelForQuestionAnswering,
    BertConfig,
    BertTokenizer,
    DebertaV2Config,
    PreTrainedModel,
)

from qa.model import quiet_library

SCALE = 0.05


@dataclass(frozen=True, slots=True)
class Shape:
    """What decides how much work an encoder is.

    Attributes:
        name: in words.
        layers: how many.
        width: of the hidden states.
        heads: in each layer.
        buckets: of distances, on each side.
        vocabulary: rows of the token embeddings.
        lifted: with absolute positions, token types and position projections of its own, as a lifted BERT
            has; else as DeBERTa v3.
    """

    name: str
    layers: int
    width: int
    heads: int
    buckets: int
    vocabulary: int
    lifted: bool

    def __str__(self) -> str:
        """In words."""
        return f"{self.name} ({self.layers} × {self.width}, {self.heads} heads)"

    def deberta(self) -> DebertaV2Config:
        """The configuration of a DeBERTa of this shape."""
        # Not among the configuration's annotated fields, though the architecture reads them.
        relative: dict[str, Any] = {
            "position_buckets": self.buckets,
            "share_att_key": not self.lifted,
            "norm_rel_ebd": "layer_norm",
        }
        return DebertaV2Config(
            **self._common(),
            **relative,
            relative_attention=True,
            pos_att_type=["p2c", "c2p"],
            max_relative_positions=-1,
            position_biased_input=self.lifted,
            type_vocab_size=2 if self.lifted else 0,
        )

    def bert(self) -> BertConfig:
        """The configuration of a BERT of the same size."""
        return BertConfig(**self._common(), type_vocab_size=2)

    def _common(self) -> dict[str, Any]:
        return {
            "vocab_size": self.vocabulary,
            "hidden_size": self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "intermediate_size": 4 * self.width,
            "max_position_embeddings": 512,
            "initializer_range": SCALE,
            "hidden_dropout_prob": 0.1,
            "attention_probs_dropout_prob": 0.1,
        }


POCKET = Shape("pocket", layers=6, width=384, heads=12, buckets=64, vocabulary=30522, lifted=True)
V3_BASE = Shape(
    "DeBERTa-v3-base", layers=12, width=768, heads=12, buckets=256, vocabulary=128100, lifted=False
)


def random_encoder(config: DebertaV2Config | BertConfig, attention: str) -> PreTrainedModel:
    """An encoder with the same random weights at every call; `attention` is the library's name for it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: PreTrainedModel = AutoModel.from_config(config, attn_implementation=attention)
    return model


def save_stand_in(folder: Path, shape: Shape, texts: Iterable[str]) -> None:
    """A checkpoint of this shape with random weights, and a WordPiece tokenizer made for `texts`."""
    tokenizer = BertTokenizer().train_new_from_iterator(texts, shape.vocabulary, show_progress=False)
    with torch.random.fork_rng(devices=[]), quiet_library():
        torch.manual_seed(0)
        AutoModelForQuestionAnswering.from_config(shape.deberta()).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
