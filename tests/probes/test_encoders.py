"""The parts of the self-attention are where the table says, for every architecture."""

from types import SimpleNamespace

import pytest
import torch
from transformers import AlbertConfig, AlbertForQuestionAnswering, BertConfig, BertForQuestionAnswering

import tiny_models
from probes.attention import AttentionProbe
from probes.encoders import ARCHITECTURES, describe
from qa.errors import UserError


@pytest.mark.parametrize("architecture", tiny_models.ARCHITECTURES)
def test_a_head_is_a_slice_of_the_input_of_the_output_projection(architecture, encoder_of, inputs_of):
    model, inputs = encoder_of(architecture).model, inputs_of(architecture)
    parts = describe(model)
    d = tiny_models.WIDTH // tiny_models.HEADS
    assert (len(parts.layers), parts.heads, parts.head_size) == (tiny_models.LAYERS, tiny_models.HEADS, d)
    hidden, context = [], []
    for number, layer in enumerate(parts.layers):
        assert (layer.heads, layer.head_size) == (tiny_models.HEADS, d)
        assert layer.call == (number if architecture == "albert" else 0)

    def keep_hidden(_, arguments, named):
        hidden.append(named.get("hidden_states", arguments[0] if arguments else None))

    handles = [
        handle
        for layer in {layer.attention: layer for layer in parts.layers}.values()
        for handle in (
            layer.attention.register_forward_pre_hook(keep_hidden, with_kwargs=True),
            layer.output.register_forward_pre_hook(lambda _, arguments: context.append(arguments[0])),
        )
    ]
    try:
        with torch.inference_mode(), AttentionProbe(model, dtype=torch.float32) as probe:
            model(**inputs)
    finally:
        for handle in handles:
            handle.remove()
    assert len(context) == len(hidden) == len(parts.layers)
    with torch.inference_mode():
        for number, layer in enumerate(parts.layers):
            _, _, value = layer.states(hidden[number])
            for example, one in enumerate(probe.captures):
                n = one.probabilities.shape[-1]
                for head in range(layer.heads):
                    expected = one.probabilities[number, head] @ value[example, head, :n]
                    found = context[number][example, :n, head * d : (head + 1) * d]
                    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("architecture", ["bert", "distilbert", "electra", "roberta", "albert"])
def test_queries_and_keys_are_those_that_make_the_probabilities(
    architecture, encoder_of, expected_of, inputs_of
):
    model, inputs = encoder_of(architecture).model, inputs_of(architecture)
    layer = describe(model).layers[0]
    hidden = []
    handle = layer.query.register_forward_pre_hook(lambda _, arguments: hidden.append(arguments[0]))
    with torch.no_grad():
        model(**inputs)
    handle.remove()
    query, key, _ = layer.states(hidden[0])
    expected = expected_of(architecture)[0][0]
    n = expected.shape[-1]
    scores = query[0, :, :n] @ key[0, :, :n].mT / layer.head_size**0.5
    torch.testing.assert_close(scores.softmax(-1), expected, rtol=0, atol=1e-6)


def test_deberta_v1_has_query_key_and_value_of_each_head_in_one_projection(encoder_of):
    layer = describe(encoder_of("deberta").model).layers[0]
    attention, d = layer.attention, layer.head_size
    hidden = torch.randn(2, 3, tiny_models.WIDTH)
    together = attention.in_proj(hidden)
    for head in range(layer.heads):
        first = 3 * d * head
        query, key, value = (together[..., first + part * d : first + (part + 1) * d] for part in range(3))
        here = slice(head * d, (head + 1) * d)
        expected = (query + attention.q_bias[here], key, value + attention.v_bias[here])
        for states, wanted in zip(layer.states(hidden), expected, strict=True):
            assert torch.equal(states[:, head], wanted)


def test_albert_layers_are_calls_of_shared_blocks():
    sizes = {"vocab_size": 9, "embedding_size": 8, "hidden_size": 16, "intermediate_size": 8}
    config = AlbertConfig(
        num_hidden_layers=4, num_hidden_groups=2, inner_group_num=2, num_attention_heads=4, **sizes
    )
    parts = describe(AlbertForQuestionAnswering(config))
    called = []
    for layer in parts.layers[:2] + parts.layers[4:6]:
        layer.attention.register_forward_hook(lambda module, *_: called.append(module))
    with torch.inference_mode():
        parts.base(torch.tensor([[1, 2]]))
    assert called == [layer.attention for layer in parts.layers]
    assert [layer.call for layer in parts.layers] == [0, 0, 1, 1, 0, 0, 1, 1]


def small_bert(**options):
    sizes = {"vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    return BertForQuestionAnswering(BertConfig(**sizes, intermediate_size=8, **options))


def test_a_base_model_is_described_like_one_with_a_head():
    model = small_bert()
    assert describe(model) == describe(model.base_model)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            torch.nn.Linear(2, 2),
            "^model: cannot look inside 'Linear'; supported are DeBERTa v1, .*MPNet: use one",
        ),
        (small_bert(is_decoder=True), r"^model: cannot look inside this BERT \(it is set up as a decoder"),
    ],
)
def test_what_is_not_in_the_table_is_refused(model, message):
    with pytest.raises(UserError, match=message):
        describe(model)


def test_other_architectures_and_implementations_are_refused():
    model = small_bert()
    model.config = SimpleNamespace(model_type="xlnet")
    with pytest.raises(UserError, match="cannot look inside 'xlnet'") as refused:
        describe(model)
    assert all(row.name in str(refused.value) for row in ARCHITECTURES.values())
    model.config = SimpleNamespace(model_type="bert", _attn_implementation="flash_attention_2")
    with pytest.raises(UserError, match=r"runs as flash_attention_2; load it with eager or sdpa"):
        describe(model)
    model.config = SimpleNamespace(model_type="deberta", talking_head=True)
    with pytest.raises(UserError, match="talking_head mixes the heads"):
        describe(model)
