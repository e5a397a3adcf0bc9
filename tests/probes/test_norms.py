"""Norms against alpha * f written out in full, whose sum is what the model's output projection gives."""

import copy
import dataclasses
from contextlib import ExitStack

import numpy as np
import pytest
import torch
from torch import nn

import tiny
from probes.attend import attend
from probes.attention import AttentionProbe
from probes.encoders import describe
from probes.norms import norm_weighted, value_norms
from probing import (
    CONTEXT,
    QUESTION,
    assert_close,
    capture,
    every_implementation,
    every_kind,
    small_attention,
)
from qa.errors import UserError


def written_out(reader, question, context):
    """One window, its alpha * f [L, H, T, T, D], and their part of each output projection [L, T, D]."""
    layers, hidden, given, vectors = describe(reader.encoder.model).layers, [], [], []

    def keep_hidden(_, arguments, named):
        hidden.append(named.get("hidden_states", arguments[0] if arguments else None))

    with ExitStack() as hooks:
        for layer in {layer.attention: layer for layer in layers}.values():
            before = layer.attention.register_forward_pre_hook(keep_hidden, with_kwargs=True)
            after = layer.output.register_forward_hook(lambda *seen: given.append(seen[-1][0].double()))
            hooks.callback(before.remove)
            hooks.callback(after.remove)
        window = attend(reader, question, context, dtype=torch.float32).window()
    with torch.no_grad():
        for layer, states, maps in zip(layers, hidden, window.probabilities, strict=True):
            _, _, value = layer.states(states)
            by_head = layer.output.weight.double().split(layer.head_size, dim=1)  # H of [D, d]
            f = torch.stack([value[0, head].double() @ part.T for head, part in enumerate(by_head)])
            vectors.append(torch.from_numpy(maps).double()[..., None] * f[:, None])
        biases = torch.stack([layer.output.bias.double() for layer in layers])
    return window, torch.stack(vectors), torch.stack(given) - biases[:, None]


@every_implementation
def test_weights_are_the_lengths_of_what_adds_up_to_the_models_output(architecture, attention, reader_of):
    window, vectors, given = written_out(reader_of(architecture, attention), "Who sat?", tiny.SENTENCES[0])
    assert_close(vectors.sum((1, 3)), given.float(), 1e-5)  # so these are the model's own alpha and f
    lengths = vectors.norm(dim=-1).float()
    assert lengths.max() > 0.1
    weighted = norm_weighted(window)
    assert weighted.norms is None
    assert_close(torch.from_numpy(weighted.probabilities), lengths, 1e-5)
    shares = torch.from_numpy(norm_weighted(window, normalised=True).probabilities)
    assert_close(shares, lengths / lengths.sum(-1, keepdim=True), 1e-5)


@every_implementation
def test_in_a_batch_as_alone_and_0_where_masked(architecture, attention, encoder_of, inputs_of):
    model = encoder_of(architecture, attention).model
    inputs = {name: tensor.clone() for name, tensor in inputs_of(architecture).items()}
    inputs["attention_mask"][0, 3:6] = 0
    captures = capture(model, inputs, norms=True)
    for number, one in enumerate(captures):
        n = one.probabilities.shape[-1]
        (alone,) = capture(
            model, {name: tensor[number : number + 1, :n] for name, tensor in inputs.items()}, norms=True
        )
        assert (one.norms.shape, one.norms.dtype) == ((2, 2, n), torch.float32)
        assert_close(one.norms, alone.norms, 1e-4)
        mask = inputs["attention_mask"][number, :n].bool()
        assert (one.norms[..., mask] > 0).all()
        assert (one.norms[..., ~mask] == 0).all()


@every_kind
def test_chosen_layers_and_heads_in_the_order_chosen(architecture, attention, encoder_of, inputs_of):
    model, inputs = encoder_of(architecture, attention).model, inputs_of(architecture)
    for every, some in zip(
        capture(model, inputs, norms=True), capture(model, inputs, [1, 0], heads=[1], norms=True), strict=True
    ):
        assert torch.equal(some.norms, every.norms[[1, 0]][:, [1]])
    assert capture(model, inputs)[0].norms is None


@every_implementation
def test_the_answer_does_not_change_by_a_bit(architecture, attention, encoder_of, inputs_of):
    model, inputs = encoder_of(architecture, attention).model, inputs_of(architecture)
    with torch.inference_mode():
        before = model(**inputs)
        with AttentionProbe(model, norms=True):
            during = model(**inputs)
    assert torch.equal(before.start_logits, during.start_logits)
    assert torch.equal(before.end_logits, during.end_logits)


def test_each_forward_has_the_norms_of_its_weights(encoder_of, inputs_of):
    model, inputs = copy.deepcopy(encoder_of("bert").model), inputs_of("bert")
    with torch.no_grad(), AttentionProbe(model, [0], norms=True) as probe:
        model(**inputs)
        first = probe.take()
        describe(model).layers[0].output.weight.mul_(2)
        model(**inputs)
    for before, after in zip(first, probe.take(), strict=True):
        assert_close(after.norms, 2 * before.norms, 1e-5)


def test_a_short_vector_keeps_its_digits(encoder_of):
    # The projection makes values ten times as long, except along one direction: ten thousand times shorter.
    layer = describe(encoder_of("bert").model).layers[0]
    H, d = layer.heads, layer.head_size
    turn, _ = torch.linalg.qr(torch.randn(d, d, generator=torch.Generator().manual_seed(0)))
    output = nn.Linear(H * d, H * d)
    output.weight = nn.Parameter((turn * torch.tensor([10.0] * (d - 1) + [1e-3]) @ turn.T).repeat(H, H))
    value = turn[:, -1].repeat(H)
    expected = (output.weight.double()[:, :d] @ value.double()[:d]).norm().item()
    assert 5e-4 < expected < 1e-2
    norms = value_norms(dataclasses.replace(layer, output=output), value[None, None])
    assert norms.flatten().tolist() == pytest.approx([expected] * H, rel=0.01)


def by_hand(normalised):
    """Nine tenths of the attention go to a token whose vector is next to nothing."""
    maps = np.array([[[[0.9, 0.1], [0.5, 0.5]]]], dtype=np.float32)
    one = small_attention(maps, np.array([[[0.1, 1.9]]], dtype=np.float32), tokens=[4, 6])
    return norm_weighted(one, normalised=normalised).probabilities[0, 0]


def test_by_hand():
    np.testing.assert_allclose(by_hand(normalised=False), [[0.09, 0.19], [0.05, 0.95]], rtol=1e-6)
    np.testing.assert_allclose(by_hand(normalised=True), [[9 / 28, 19 / 28], [0.05, 0.95]], rtol=1e-6)


@pytest.fixture(scope="module")
def attended(reader_of):
    return attend(reader_of("deberta-v3"), QUESTION, CONTEXT)


def test_float16_probabilities_are_weighted_in_float32(attended, reader_of):
    wide = attend(reader_of("deberta-v3"), QUESTION, CONTEXT, dtype=torch.float32)
    for half, full in zip(attended.windows, wide.windows, strict=True):
        np.testing.assert_array_equal(half.norms, full.norms)
        weighted, expected = norm_weighted(half).probabilities, norm_weighted(full).probabilities
        assert weighted.dtype == np.float32
        np.testing.assert_allclose(weighted, expected, rtol=1e-3, atol=1e-6)
        shares = norm_weighted(half, normalised=True).probabilities
        np.testing.assert_allclose(shares.sum(-1), 1, rtol=0, atol=1e-6)


def test_a_word_gets_the_sum_and_gives_the_mean(attended):
    weighted = norm_weighted(attended.window())
    words = weighted.by("word")
    for a, b in [(1, 2), (5, 8), (8, 5), (9, 9)]:
        block = weighted.probabilities[:, :, weighted.words == a][..., weighted.words == b]
        np.testing.assert_allclose(words.probabilities[:, :, a, b], block.sum(-1).mean(-1), rtol=1e-5)


def test_windows_are_weighted_and_then_joined(attended):
    every = attended.each(norm_weighted)
    assert every.answer == attended.answer
    joined = every.joined()
    row = int(np.flatnonzero(joined.regions == 4)[0])
    own = int(np.flatnonzero(attended.window().regions == 4)[0])
    np.testing.assert_array_equal(
        joined.probabilities[:, :, row, joined.seen[row]], every.window().probabilities[:, :, own]
    )


def test_norms_are_selected_with_the_layers_and_heads(attended):
    some = attended.window().select(layers=[1], heads=[1])
    np.testing.assert_array_equal(some.norms, attended.window().norms[1:, 1:])


def test_without_norms_it_is_refused(attended):
    for one in (attended.joined(), norm_weighted(attended.window())):
        with pytest.raises(UserError, match=r"^attention: the lengths of its values are not known; capture"):
            norm_weighted(one)


def test_too_much_is_refused(attended, monkeypatch):
    monkeypatch.setattr("probes.maps.MOST_BYTES", 2 * attended.window().probabilities.nbytes - 1)
    with pytest.raises(UserError, match=r"^attention: 2 layers weighted would take 0\.0 GB, and at most"):
        norm_weighted(attended.window())
