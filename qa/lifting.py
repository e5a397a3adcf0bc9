"""Carry a BERT checkpoint into the DeBERTa architecture without changing what it computes.

DeBERTa is BERT plus two position terms in every attention score and another scale. With the weights copied,
the position projections at zero and the query projection multiplied by sqrt(3) (DeBERTa divides by
sqrt(3 d), BERT by sqrt(d)), both compute the same function; in fine-tuning the position terms learn from
there. It gives a pretrained DeBERTa where only a BERT is at hand. The trap: `rel_embeddings` must not be zero
as well, or the product of two zeros would never receive a gradient.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoTokenizer,
    BertConfig,
    BertModel,
    DebertaV2Config,
    DebertaV2ForQuestionAnswering,
)

from qa import files
from qa.errors import UserError
from qa.model import Encoder, quiet_library, save_encoder

RENAMED = {
    "attention.self.query.": "attention.self.query_proj.",
    "attention.self.key.": "attention.self.key_proj.",
    "attention.self.value.": "attention.self.value_proj.",
}

# What the two architectures have in common.
KEPT = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "max_position_embeddings",
    "type_vocab_size",
    "initializer_range",
    "layer_norm_eps",
    "pad_token_id",
)


def lift_bert(bert: BertModel, *, position_buckets: int = 64, seed: int = 0) -> DebertaV2ForQuestionAnswering:
    """A DeBERTa (v2 architecture) whose encoder computes what `bert` computes; the head is new and random.

    Args:
        bert: L layers, width D, absolute positions.
        position_buckets: distances below half of this are told apart exactly, those beyond by logarithm.
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
    torch.nn.Module.to(deberta, dtype=bert.dtype)
    state = deberta.state_dict()
    for key, value in bert.state_dict().items():
        if not key.startswith("pooler."):
            state[f"deberta.{_renamed(key)}"] = _rescaled(key, value).clone()
    for key in state:
        if re.search(r"\.pos_(key|query)_proj\.", key):
            state[key] = torch.zeros_like(state[key])
    deberta.load_state_dict(state)
    deberta.eval()
    return deberta


def _renamed(key: str) -> str:
    for old, new in RENAMED.items():
        key = key.replace(old, new)
    return key


def _rescaled(key: str, value: torch.Tensor) -> torch.Tensor:
    return value * math.sqrt(3) if ".attention.self.query." in key else value


def _lifted_config(config: BertConfig, position_buckets: int) -> DebertaV2Config:
    kept = {name: getattr(config, name) for name in KEPT}
    # Not among the configuration's annotated fields, though the architecture reads them.
    relative: dict[str, Any] = {
        "position_buckets": position_buckets,
        "share_att_key": False,
        "norm_rel_ebd": "layer_norm",
    }
    return DebertaV2Config(
        **kept,
        **relative,
        relative_attention=True,
        pos_att_type=["c2p", "p2c"],
        max_relative_positions=-1,
        position_biased_input=True,
    )


def lift_checkpoint(source: Path, target: Path) -> None:
    """Lift the BERT checkpoint in one folder into a DeBERTa checkpoint in another, tokenizer included.

    Args:
        source: a folder with a BERT's config, safetensors weights and tokenizer.
        target: a folder that does not exist yet.

    Raises:
        UserError: the source is no BERT or not a whole one, the target exists or cannot be written.
    """
    if target.exists():
        raise UserError(f"{target}: exists already; give a folder that does not")
    with quiet_library():
        try:
            config = AutoConfig.from_pretrained(source)
            tokenizer = AutoTokenizer.from_pretrained(source)
        except (OSError, ValueError) as error:
            raise UserError(f"{source}: no checkpoint in it; give the folder with config.json") from error
        if not isinstance(config, BertConfig):
            raise UserError(f"{source}: holds a {config.model_type}; only a BERT can be lifted")
        bert = _whole_bert(source)
    # A folder that is there is a finished one: whoever is interrupted finds none.
    with files.replacing(target) as temporary:
        save_encoder(Encoder(lift_bert(bert), tokenizer, ()), temporary)


def _whole_bert(source: Path) -> BertModel:
    """The BERT in a folder; none of its weights may be missing, or the library would draw it at random."""
    try:
        loaded: Any = BertModel.from_pretrained(
            source,
            dtype=torch.float32,
            add_pooling_layer=False,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"{source}: its weights cannot be read ({reason}); give a whole checkpoint"
        ) from error
    bert, info = loaded
    wrong = {*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])}
    if wrong:
        raise UserError(
            f"{source}: the weights do not fit config.json ({len(wrong)} missing or of another shape, "
            f"{min(wrong)} first); give a folder whose files belong together"
        )
    return cast(BertModel, bert)


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m qa.lifting SOURCE TARGET`; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m qa.lifting", description="Carry a BERT checkpoint into the DeBERTa architecture."
    )
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    options = parser.parse_args(arguments)
    try:
        lift_checkpoint(options.source, options.target)
    except UserError as error:
        print(f"lifting: {error}", file=sys.stderr)
        return 2
    print(f"written to {options.target}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
