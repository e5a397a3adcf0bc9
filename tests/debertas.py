"""DeBERTa models with random weights, biases included, and the scores that the library computes with them.

The trap: the library shows its scores nowhere, so they are taken where its softmax is given them.
"""

from unittest import mock

import torch
from transformers import (
    DebertaConfig,
    DebertaForQuestionAnswering,
    DebertaV2Config,
    DebertaV2ForQuestionAnswering,
)

H, D_HEAD = 3, 4
SMALL = {
    "vocab_size": 200,
    "hidden_size": H * D_HEAD,
    "num_hidden_layers": 1,
    "num_attention_heads": H,
    "intermediate_size": 8,
    "max_position_embeddings": 64,
    "relative_attention": True,
    "pos_att_type": ["c2p", "p2c"],
    "position_biased_input": False,
    "type_vocab_size": 0,
    "initializer_range": 0.4,
}
V3 = {"position_buckets": 8, "share_att_key": True, "norm_rel_ebd": "layer_norm"}
# One layer of deberta-v3-base, with weights whose scores differ as much as those of a trained model.
BASE = {
    "hidden_size": 768,
    "num_attention_heads": 12,
    "intermediate_size": 32,
    "max_position_embeddings": 512,
    "initializer_range": 0.05,
}


def v1(**options):
    """DeBERTa v1, one small layer if nothing else is said."""
    return _random(DebertaForQuestionAnswering, DebertaConfig(**{**SMALL, **options}))


def v2(**options):
    """DeBERTa v2 or v3, which are the same class, with the options of v3 if nothing else is said."""
    return _random(DebertaV2ForQuestionAnswering, DebertaV2Config(**{**SMALL, **V3, **options}))


def _random(kind, config):
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = kind(config).eval()
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(parameter, std=config.initializer_range)
    return model


@torch.inference_mode()
def library_scores(model, **inputs):
    """The scores of each layer, masked, as the eager model gives them to its softmax [L, B, H, T, T]."""
    seen, softmax = [], torch.nn.functional.softmax

    def recording(scores, *arguments, **named):
        seen.append(scores.clone())
        return softmax(scores, *arguments, **named)

    with mock.patch("torch.nn.functional.softmax", recording):
        model(**inputs)
    return torch.stack(seen)
