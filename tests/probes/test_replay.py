"""Upper layers again give what a whole forward gives, and nothing is computed twice that need not be.

With more layers than the tiny models have, and with what only some configurations have.
"""

import pytest
import torch
from transformers import (
    AlbertConfig,
    AlbertForQuestionAnswering,
    BertConfig,
    BertForQuestionAnswering,
    DebertaV2Config,
    DebertaV2ForQuestionAnswering,
)

from probes.encoders import describe
from probes.replay import Replay
from qa.disentangled import install_fast_attention
from qa.evaluation import full_precision

SIZES = {"vocab_size": 50, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48}
INPUTS = {"input_ids": torch.arange(5, 25)[None], "attention_mask": torch.ones(1, 20, dtype=torch.long)}
TOKENS = torch.tensor([0, *range(8, 19)])


def seeded(kind, config):
    torch.manual_seed(0)
    return kind(config).eval()


def deberta(*, fast, layers=4, **more):
    config = DebertaV2Config(
        **SIZES,
        num_hidden_layers=layers,
        relative_attention=True,
        pos_att_type=["c2p", "p2c"],
        position_buckets=8,
        max_position_embeddings=64,
        type_vocab_size=0,
        initializer_range=0.2,
        **more,
    )
    model = seeded(DebertaV2ForQuestionAnswering, config)
    if fast:
        install_fast_attention(model)
    return model


def bert(attention="sdpa"):
    config = BertConfig(
        **SIZES,
        num_hidden_layers=4,
        initializer_range=0.2,
        attn_implementation=attention,
        chunk_size_feed_forward=4,
    )
    return seeded(BertForQuestionAnswering, config)


def albert():
    config = AlbertConfig(
        **SIZES,
        embedding_size=8,
        num_hidden_layers=2,
        num_hidden_groups=2,
        inner_group_num=2,
        initializer_range=0.3,
    )
    return seeded(AlbertForQuestionAnswering, config)


MODELS = {
    "deberta-fast": lambda: deberta(fast=True),
    "deberta-eager": lambda: deberta(fast=False),
    "convolution-fast": lambda: deberta(fast=True, conv_kernel_size=3, conv_act="gelu"),
    "convolution-eager": lambda: deberta(fast=False, conv_kernel_size=3, conv_act="gelu"),
    "convolution-after-the-only-layer": lambda: deberta(fast=True, layers=1, conv_kernel_size=3),
    "bert": bert,
    "albert-groups": albert,
}


def shifted(variants, layer):
    """Adds the number of the variant, as tenths, to what enters the projection of one layer."""
    steps = torch.arange(variants)[:, None, None] / 10
    return lambda number, context: context + steps if number == layer else context


def whole_forward(model, layer, step):
    """The usual way: a hook in a forward of its own."""
    calls, output = [], describe(model).layers[layer].output

    def shift(module, arguments):
        calls.append(module)
        wanted = len(calls) - 1 == describe(model).layers[layer].call
        return (arguments[0] + step,) if wanted else None

    handle = output.register_forward_pre_hook(shift)
    try:
        found = model(**INPUTS)
    finally:
        handle.remove()
    return torch.cat([found.start_logits, found.end_logits])[:, TOKENS]


@pytest.mark.parametrize("name", MODELS)
def test_every_layer_again_is_a_whole_forward(name):
    model = MODELS[name]()
    parts = describe(model)
    assert (parts.convolution is not None) == name.startswith("convolution")
    with full_precision(model), Replay(model, INPUTS, tokens=TOKENS) as replay:
        clean = model(**INPUTS)
        assert torch.equal(replay.scores, torch.cat([clean.start_logits, clean.end_logits]))
        for layer in range(len(parts.layers)):
            for variants in (1, 3):
                found = replay.read(layer, variants, shifted(variants, layer))
                assert found.shape == (variants, 2, len(TOKENS))
                for number, one in enumerate(found):
                    expected = whole_forward(model, layer, number / 10)
                    torch.testing.assert_close(one, expected, rtol=0, atol=1e-5)
            assert (found[2] - found[0]).abs().max() > 0.01


@pytest.mark.parametrize("name", ["deberta-fast", "deberta-eager", "bert"])
def test_what_is_computed_for_how_many_variants_and_tokens(name):
    """Lower layers not again, one attention for all where they leave the run, few tokens at the top."""
    model, seen = MODELS[name](), []
    for number, layer in enumerate(describe(model).layers):
        for what, module in (("attention", layer.value), ("output", layer.output)):
            at = (number, what)
            module.register_forward_hook(lambda _, given, out, at=at: seen.append((*at, *out.shape[:2])))
    T, n = 20, len(TOKENS)
    with full_precision(model), Replay(model, INPUTS, tokens=TOKENS) as replay:
        assert seen == [(number, what, 1, T) for number in range(4) for what in ("attention", "output")]
        seen.clear()
        replay.read(2, 5, shifted(5, 2))
    assert seen == [(2, "attention", 1, T), (2, "output", 5, T), (3, "attention", 5, T), (3, "output", 5, n)]


def test_calls_of_others_are_left_alone():
    model = bert()
    with full_precision(model), Replay(model, INPUTS, tokens=TOKENS) as replay:
        read = replay.read(0, 2, shifted(2, 0))
        again = model(**INPUTS)
        assert torch.equal(again.start_logits[0], replay.scores[0])
        assert torch.equal(replay.read(0, 2, shifted(2, 0)), read)


def test_fused_attention_as_on_a_gpu(monkeypatch):
    monkeypatch.setattr("qa.disentangled.plan_attention", lambda *_, **__: None)
    model = deberta(fast=True)
    with full_precision(model), Replay(model, INPUTS, tokens=TOKENS) as replay:
        for number, one in enumerate(replay.read(1, 3, shifted(3, 1))):
            expected = whole_forward(model, 1, number / 10)
            torch.testing.assert_close(one, expected, rtol=0, atol=1e-5)
