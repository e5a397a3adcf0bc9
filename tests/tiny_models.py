"""Tiny random encoders of every supported architecture, saved as a hub checkpoint would be.

Two layers, two heads, width 32: a forward pass takes a millisecond, and every line of the architecture runs.
The trap: weights at the usual scale (0.02) give scores that hardly differ, and a test on those passes
whatever the code does; so the weights here are larger, and every token gets a score of its own.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AlbertConfig,
    AlbertTokenizer,
    AutoModelForQuestionAnswering,
    BertConfig,
    DebertaConfig,
    DebertaTokenizer,
    DebertaV2Config,
    DistilBertConfig,
    DistilBertTokenizer,
    ElectraConfig,
    MPNetConfig,
    MPNetTokenizer,
    PreTrainedConfig,
    RobertaConfig,
    TokenizersBackend,
)

import tiny

LAYERS, HEADS, WIDTH, POSITIONS = 2, 2, 32, 130
SCALE = 0.2


def save(folder: Path, architecture: str = "deberta-v2", *, seed: int = 0) -> Path:
    """Write a checkpoint of `architecture` (one of ARCHITECTURES) into `folder`, and give the folder back."""
    make_tokenizer, make_config = _ARCHITECTURES[architecture]
    tokenizer = make_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForQuestionAnswering.from_config(make_config(tokenizer))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _deberta_tokenizer() -> DebertaTokenizer:
    return DebertaTokenizer().train_new_from_iterator(tiny.SENTENCES * 3, vocab_size=400, show_progress=False)


def _distilbert_tokenizer() -> DistilBertTokenizer:
    return DistilBertTokenizer(tiny.wordpiece().get_vocab())


def _mpnet_tokenizer() -> MPNetTokenizer:
    """WordPiece with RoBERTa's special tokens; their order makes padding 1, as in the real vocabulary."""
    specials = ["<s>", "<pad>", "</s>", "[UNK]", "<mask>"]
    vocabulary = tiny.wordpiece().get_vocab()
    ordinary = [piece for piece in sorted(vocabulary, key=vocabulary.__getitem__) if piece[0] != "["]
    return MPNetTokenizer({piece: id_ for id_, piece in enumerate([*specials, *ordinary])})


def _albert_tokenizer() -> AlbertTokenizer:
    """Unigram in lower case."""
    specials = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]
    words = sorted({f"▁{word.lower()}" for word in tiny.WORDS})
    characters = sorted({character.lower() for character in tiny.CHARACTERS})
    scores = {"▁": -3.0} | dict.fromkeys(characters, -5.0) | dict.fromkeys(words, -6.0)
    return AlbertTokenizer([*((special, 0.0) for special in specials), *scores.items()])


def _shape(tokenizer: TokenizersBackend) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": 2 * WIDTH,
        "max_position_embeddings": POSITIONS,
        "initializer_range": SCALE,
    }


def _deberta(tokenizer: TokenizersBackend) -> PreTrainedConfig:
    """As the real DeBERTa v1: relative positions only, and no token types in spite of the tokenizer's."""
    return DebertaConfig(
        **_shape(tokenizer),
        relative_attention=True,
        pos_att_type=["c2p", "p2c"],
        max_relative_positions=-1,
        position_biased_input=False,
        type_vocab_size=0,
    )


def _deberta_v2(tokenizer: TokenizersBackend) -> PreTrainedConfig:
    """As a lifted BERT: absolute positions and token types besides the relative positions."""
    return DebertaV2Config(
        **_shape(tokenizer),
        relative_attention=True,
        pos_att_type=["c2p", "p2c"],
        max_relative_positions=-1,
        position_buckets=16,
        share_att_key=False,
        norm_rel_ebd="layer_norm",
        position_biased_input=True,
        type_vocab_size=2,
    )


def _deberta_v3(tokenizer: TokenizersBackend) -> PreTrainedConfig:
    return DebertaV2Config(
        **_shape(tokenizer),
        relative_attention=True,
        pos_att_type=["p2c", "c2p"],
        max_relative_positions=-1,
        position_buckets=16,
        share_att_key=True,
        norm_rel_ebd="layer_norm",
        position_biased_input=False,
        type_vocab_size=0,
    )


def _distilbert(tokenizer: TokenizersBackend) -> PreTrainedConfig:
    return DistilBertConfig(
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        dim=WIDTH,
        n_layers=LAYERS,
        n_heads=HEADS,
        hidden_dim=2 * WIDTH,
        max_position_embeddings=POSITIONS,
        initializer_range=SCALE,
    )


def _small_embeddings(config: type[PreTrainedConfig]) -> Callable[[TokenizersBackend], PreTrainedConfig]:
    return lambda tokenizer: config(**_shape(tokenizer), embedding_size=WIDTH // 2)


def _plain(config: type[PreTrainedConfig], **more: Any) -> Callable[[TokenizersBackend], PreTrainedConfig]:
    return lambda tokenizer: config(**_shape(tokenizer), **more)


_ARCHITECTURES: dict[
    str, tuple[Callable[[], TokenizersBackend], Callable[[TokenizersBackend], PreTrainedConfig]]
] = {
    "deberta": (_deberta_tokenizer, _deberta),
    "deberta-v2": (tiny.unigram, _deberta_v2),
    "deberta-v3": (tiny.unigram, _deberta_v3),
    "bert": (tiny.wordpiece, _plain(BertConfig)),
    "roberta": (tiny.byte_bpe, _plain(RobertaConfig, type_vocab_size=1)),
    "electra": (tiny.wordpiece, _small_embeddings(ElectraConfig)),
    "distilbert": (_distilbert_tokenizer, _distilbert),
    "albert": (_albert_tokenizer, _small_embeddings(AlbertConfig)),
    "mpnet": (_mpnet_tokenizer, _plain(MPNetConfig)),
}
ARCHITECTURES = tuple(_ARCHITECTURES)


def fingerprint(model: torch.nn.Module) -> str:
    """SHA-256 of the weights."""
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        digest.update(f"{key} {tuple(value.shape)}".encode())
        digest.update(value.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()
