"""The probe captures what the eager model says it attends to.

Every architecture and every implementation of attention; padding, gaps in the mask, chosen layers and heads,
several forwards, embeddings in place of ids.
"""

import pytest
import torch
from transformers import (
    AlbertConfig,
    AlbertForQuestionAnswering,
    DebertaV2Config,
    DebertaV2ForQuestionAnswering,
)

from probes.attention import AttentionProbe
from probing import assert_close, capture, every_implementation, every_kind
from qa.disentangled import install_fast_attention
from qa.errors import UserError
from qa.model import longest_input


@every_implementation
def test_float32_is_what_the_eager_model_returns(architecture, attention, encoder_of, inputs_of, expected_of):
    inputs = inputs_of(architecture)
    captures = capture(encoder_of(architecture, attention).model, inputs, dtype=torch.float32)
    assert len(captures) == len(inputs["input_ids"]) > 5
    for one, ids, expected in zip(captures, inputs["input_ids"], expected_of(architecture), strict=True):
        assert one.probabilities.dtype == torch.float32
        assert_close(one.probabilities, expected, 1e-6)
        assert_close(one.probabilities.sum(-1), torch.ones(expected.shape[:-1]), 1e-6)
        assert torch.equal(one.ids, ids[: expected.shape[-1]])
    assert len({one.probabilities.shape for one in captures}) >= 3  # padding was cropped


@every_implementation
def test_float16_is_within_half_a_thousandth(architecture, attention, encoder_of, inputs_of, expected_of):
    captures = capture(encoder_of(architecture, attention).model, inputs_of(architecture))
    for one, expected in zip(captures, expected_of(architecture), strict=True):
        assert one.probabilities.dtype == torch.float16
        assert one.probabilities.device.type == "cpu"
        assert_close(one.probabilities, expected, 5e-4)


@every_kind
def test_the_longest_input_and_the_shortest(architecture, attention, encoder_of):
    encoder, eager = encoder_of(architecture, attention), encoder_of(architecture, "eager").model
    for T in (1, 2, longest_input(eager)):
        ids = torch.arange(T)[None] % 50 + 5
        with torch.inference_mode():
            expected = torch.cat(eager(ids, output_attentions=True).attentions)
        (one,) = capture(encoder.model, {"input_ids": ids}, dtype=torch.float32)
        assert_close(one.probabilities, expected, 1e-6)


@every_implementation
def test_the_answer_does_not_change_by_a_bit(architecture, attention, encoder_of, inputs_of):
    model, inputs = encoder_of(architecture, attention).model, inputs_of(architecture)
    with torch.inference_mode():
        before = model(**inputs)
        with AttentionProbe(model, [1]), AttentionProbe(model):
            during = model(**inputs)
    assert torch.equal(before.start_logits, during.start_logits)
    assert torch.equal(before.end_logits, during.end_logits)


@every_implementation
def test_chosen_layers_and_heads_in_the_order_chosen(
    architecture, attention, encoder_of, inputs_of, expected_of
):
    model, inputs = encoder_of(architecture, attention).model, inputs_of(architecture)
    for layers, heads in (([1], None), (None, [1]), ([1, 0], [1, 0]), ([0], [0])):
        captures = capture(model, inputs, layers, heads=heads, dtype=torch.float32)
        for one, expected in zip(captures, expected_of(architecture), strict=True):
            expected = expected[[0, 1] if layers is None else layers]
            expected = expected[:, [0, 1] if heads is None else heads]
            assert_close(one.probabilities, expected, 1e-6)


@pytest.mark.parametrize("heads", [5, 12])
@pytest.mark.parametrize("attention", ["fast", "eager"])
def test_many_heads_in_several_blocks(heads, attention, monkeypatch):
    torch.manual_seed(0)
    config = DebertaV2Config(
        vocab_size=50,
        hidden_size=heads * 8,
        num_hidden_layers=1,
        num_attention_heads=heads,
        intermediate_size=16,
        relative_attention=True,
        pos_att_type=["c2p", "p2c"],
        position_buckets=32,
        max_position_embeddings=256,
        share_att_key=True,
        norm_rel_ebd="layer_norm",
        position_biased_input=False,
        type_vocab_size=0,
        # At 0.3 both are 5e-6 from what float64 gives, and 2e-6 from each other.
        initializer_range=0.15,
    )
    model = DebertaV2ForQuestionAnswering(config).eval()
    ids = torch.randint(5, 50, (2, 200))
    with torch.inference_mode():
        (expected,) = model(ids, output_attentions=True).attentions
    if attention == "fast":
        install_fast_attention(model)
    monkeypatch.setattr("probes.attention.BLOCK_BYTES", 3 * 4 * 200 * 200)
    captures = capture(model, {"input_ids": ids}, dtype=torch.float32)
    for one, maps in zip(captures, expected, strict=True):
        assert_close(one.probabilities[0], maps, 1e-6)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_albert_with_groups_of_several_blocks(attention):
    torch.manual_seed(0)
    config = AlbertConfig(
        vocab_size=50,
        embedding_size=8,
        hidden_size=32,
        num_hidden_layers=3,
        num_hidden_groups=2,
        inner_group_num=2,
        num_attention_heads=2,
        intermediate_size=16,
        initializer_range=0.3,
        attn_implementation="eager",
    )
    eager = AlbertForQuestionAnswering(config).eval()
    ids = torch.arange(20)[None] + 5
    with torch.inference_mode():
        expected = torch.cat(eager(ids, output_attentions=True).attentions)
    assert len(expected) == 6
    model = AlbertForQuestionAnswering(config).eval()
    model.load_state_dict(eager.state_dict())
    model.set_attn_implementation(attention)
    (one,) = capture(model, {"input_ids": ids}, dtype=torch.float32)
    assert_close(one.probabilities, expected, 1e-6)
    (one,) = capture(model, {"input_ids": ids}, [4, 1], dtype=torch.float32)
    assert_close(one.probabilities, expected[[4, 1]], 1e-6)


@every_implementation
def test_masked_keys_are_exactly_0(architecture, attention, encoder_of, inputs_of):
    inputs = {name: tensor.clone() for name, tensor in inputs_of(architecture).items()}
    inputs["attention_mask"][0, 3:6] = 0
    inputs["attention_mask"][1, 0] = 0
    with torch.inference_mode():
        eager = encoder_of(architecture, "eager").model(**inputs, output_attentions=True)
    captures = capture(encoder_of(architecture, attention).model, inputs, dtype=torch.float32)
    for number, (one, mask) in enumerate(zip(captures, inputs["attention_mask"].bool(), strict=True)):
        n = one.probabilities.shape[-1]
        assert n == mask.nonzero().max() + 1
        mask = mask[:n]
        assert (one.probabilities[..., ~mask] == 0).all()
        assert (one.probabilities[:, :, ~mask] == 0).all()
        expected = torch.stack([layer[number, :, :n, :n] for layer in eager.attentions])
        assert_close(one.probabilities[:, :, mask], expected[:, :, mask], 1e-6)


@every_kind
def test_an_example_without_any_token(architecture, attention, encoder_of, inputs_of):
    inputs = {name: tensor.clone()[:2] for name, tensor in inputs_of(architecture).items()}
    inputs["attention_mask"][1] = 0
    captures = capture(encoder_of(architecture, attention).model, inputs)
    assert captures[1].probabilities.shape == (2, 2, 0, 0)


@every_kind
def test_embeddings_in_place_of_ids_and_a_call_of_the_base_model(
    architecture, attention, encoder_of, inputs_of, expected_of
):
    model, inputs = encoder_of(architecture, attention).model, dict(inputs_of(architecture))
    embeddings = model.get_input_embeddings()(inputs.pop("input_ids"))
    for called in (model, model.base_model):
        with AttentionProbe(model, dtype=torch.float32) as probe:
            called(inputs_embeds=embeddings, **inputs)
        for one, expected in zip(probe.captures, expected_of(architecture), strict=True):
            assert one.ids is None
            assert_close(one.probabilities, expected, 1e-6)


@every_kind
def test_several_forwards_and_taking_what_there_is(
    architecture, attention, encoder_of, inputs_of, expected_of
):
    model, inputs = encoder_of(architecture, attention).model, inputs_of(architecture)
    expected = expected_of(architecture)
    with torch.inference_mode(), AttentionProbe(model, dtype=torch.float32) as probe:
        for example in (2, 0):
            model(**{name: tensor[example : example + 1] for name, tensor in inputs.items()})
        first = probe.take()
        assert probe.captures == []
        model(**inputs)
    assert len(first) == 2
    assert_close(first[0].probabilities, expected[2], 1e-6)
    assert_close(first[1].probabilities, expected[0], 1e-6)
    assert len(probe.captures) == len(expected)


def test_captures_can_be_used_outside_of_inference_mode(encoder_of, inputs_of):
    model = encoder_of("bert").model
    (one,) = capture(
        model, {name: tensor[:1] for name, tensor in inputs_of("bert").items()}, dtype=torch.float32
    )
    weights = torch.ones(one.probabilities.shape, requires_grad=True)
    (one.probabilities * weights).sum().backward()
    assert torch.equal(weights.grad, one.probabilities)
    one.probabilities.zero_()


@every_kind
def test_captures_hold_no_gradients(architecture, attention, encoder_of, inputs_of):
    model = encoder_of(architecture, attention).model
    with AttentionProbe(model) as probe:
        loss = model(**inputs_of(architecture)).start_logits.sum()
    assert not any(one.probabilities.requires_grad for one in probe.captures)
    gradient = torch.autograd.grad(loss, model.qa_outputs.weight)
    assert gradient[0].isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": [2]}, r"^layers: \[2\]; this model has 2: give different numbers from 0 to 1$"),
        ({"layers": [-1]}, r"^layers: \[-1\]; this model has 2"),
        ({"layers": []}, r"^layers: \[\]; "),
        ({"layers": [0, 0]}, r"^layers: \[0, 0\]; "),
        ({"layers": ["0"]}, r"^layers: \['0'\]; "),
        ({"heads": [0, 7]}, r"^heads: \[0, 7\]; this model has 2"),
        ({"dtype": torch.float64}, r"^dtype: torch.float64; choose torch.float16 or torch.float32$"),
    ],
)
def test_what_is_not_there_is_refused(options, message, encoder_of):
    with pytest.raises(UserError, match=message):
        AttentionProbe(encoder_of("bert").model, options.pop("layers", None), **options)
