"""The terms are those of the model's own scores, and without one of them the attention is as it would be."""

import copy

import numpy as np
import pytest
import torch

import debertas
import tiny
from probes.attend import attend
from probes.encoders import describe
from probes.terms import TERMS, read_terms
from probing import CONTEXT, QUESTION, READING, assert_close
from qa.batches import pad_windows
from qa.disentangled import install_fast_attention
from qa.errors import UserError
from qa.evaluation import Reading
from qa.model import Encoder
from qa.reader import Reader

KINDS = [("deberta", "eager"), ("deberta-v2", "fast"), ("deberta-v3", "fast"), ("deberta-v3", "eager")]
LONG = Reading(max_length=384, stride=12, max_question_length=24, n_best=5, batch_size=4)

every_deberta = pytest.mark.parametrize(("architecture", "attention"), KINDS)


def reader_of_model(model, *, fast=False, reading=READING):
    model = copy.deepcopy(model)
    if fast:
        install_fast_attention(model)
    return Reader(Encoder(model, tiny.unigram(), ()), reading, None)


def check_the_sum(model, reader, context, *, layers=None, heads=None):
    """The terms in the first window against what the library gives to its softmax."""
    found = read_terms(reader, QUESTION, context, window=0, layers=layers, heads=heads)
    inputs = pad_windows(reader.windows([(QUESTION, context)]), [0], reader.encoder.tokenizer)
    expected = debertas.library_scores(model, **inputs)[:, 0]
    expected = expected if layers is None else expected[layers]
    expected = expected if heads is None else expected[:, heads]
    assert 1 < expected.std() < 5
    assert_close(torch.from_numpy(sum(found.scores.values())), expected, 1e-5)
    return found


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "eager"])
@pytest.mark.parametrize("buckets", [256, -1])
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "separate"])
def test_they_sum_to_the_scores_at_the_geometry_of_v3_base(shared, buckets, fast):
    model = debertas.v2(**debertas.BASE, share_att_key=shared, position_buckets=buckets)
    found = check_the_sum(model, reader_of_model(model, fast=fast, reading=LONG), CONTEXT * 4)
    assert found.attention.probabilities.shape == (1, 12, 384, 384)
    assert list(found.scores) == ["c2c", "c2p", "p2c"]
    assert all(scores.dtype == np.float32 for scores in found.scores.values())
    assert min(scores.std() for scores in found.scores.values()) > 0.5


def test_they_sum_to_the_scores_of_v1_at_its_geometry():
    model = debertas.v1(**debertas.BASE)
    check_the_sum(model, reader_of_model(model, reading=LONG), CONTEXT * 4)


@pytest.mark.parametrize("make", [debertas.v1, debertas.v2])
@pytest.mark.parametrize(
    "options",
    [
        {"pos_att_type": ["c2p"]},
        {"pos_att_type": ["p2c"], "share_att_key": False},
        {"pos_att_type": ["c2p", "p2p", "p2c"]},
        {"max_relative_positions": 7, "position_buckets": -1},
        {"relative_attention": False},
        {"pos_att_type": None},
    ],
    ids=str,
)
def test_models_without_a_term_or_with_few_distances(make, options):
    model = make(num_hidden_layers=2, **options)
    kinds = (model.config.pos_att_type or []) if model.config.relative_attention else []
    found = check_the_sum(model, reader_of_model(model), CONTEXT, layers=[1, 0], heads=[2, 0])
    assert list(found.scores) == [term for term in TERMS if term in ("c2c", *kinds)]
    for term in set(TERMS) - set(found.scores):
        for ask in (found.without, found.centred):
            with pytest.raises(UserError, match=f"^term: '{term}'; this model has c2c"):
                ask(term)


@every_deberta
def test_leaving_none_out_is_the_attention_as_captured(architecture, attention, reader_of):
    reader = reader_of(architecture, attention)
    found = read_terms(reader, QUESTION, CONTEXT, window=1)
    expected = attend(reader, QUESTION, CONTEXT, windows=[1], dtype=torch.float32).window(1)
    assert found.without() is found.attention
    np.testing.assert_array_equal(found.attention.probabilities, expected.probabilities)
    np.testing.assert_array_equal(found.attention.norms, expected.norms)
    assert found.attention.tokens == expected.tokens
    total = torch.from_numpy(sum(found.scores.values()))
    assert_close(total.softmax(-1), torch.from_numpy(expected.probabilities), 1e-6)


def zero(*tensors):
    with torch.no_grad():
        for tensor in tensors:
            tensor.zero_()


def zero_by_hand(model, layer, *, part):
    """Set what gives the query, the key, P or R of one layer to 0."""
    attention = describe(model).layers[layer].attention
    if not describe(model).layers[layer].is_fused:
        projection = attention.get_submodule(
            {"query": "query_proj", "key": "key_proj", "P": "pos_key_proj", "R": "pos_query_proj"}[part]
        )
        zero(projection.weight, projection.bias)
    elif part in ("query", "key"):
        heads = attention.in_proj.weight.view(debertas.H, 3, debertas.D_HEAD, -1)
        zero(heads[:, ("query", "key").index(part)], *([attention.q_bias] if part == "query" else []))
    elif part == "P":
        zero(attention.pos_proj.weight)
    else:
        zero(attention.pos_q_proj.weight, attention.pos_q_proj.bias)


# What is 0 in a score where the query, the key, P or R is.
TERMS_WITH = {"query": ("c2c", "c2p"), "key": ("c2c", "p2c"), "P": ("c2p",), "R": ("p2c",)}
TWO_LAYERS = {
    "v1": debertas.v1(num_hidden_layers=2),
    "v2": debertas.v2(num_hidden_layers=2, share_att_key=False),
    "v2-fast": debertas.v2(num_hidden_layers=2, share_att_key=False, position_buckets=-1),
}


@pytest.mark.parametrize("part", TERMS_WITH)
@pytest.mark.parametrize("kind", TWO_LAYERS)
def test_without_a_term_is_a_model_in_which_it_is_zero(kind, part):
    changed = copy.deepcopy(TWO_LAYERS[kind])
    zero_by_hand(changed, 1, part=part)
    own, other = (
        read_terms(
            reader_of_model(model, fast=kind.endswith("fast")), QUESTION, CONTEXT, layers=[1], window=2
        )
        for model in (TWO_LAYERS[kind], changed)
    )
    for term in TERMS:
        if term in TERMS_WITH[part]:
            assert (other.scores[term] == 0).all()
        else:
            np.testing.assert_array_equal(other.scores[term], own.scores[term])
    without = own.without(*TERMS_WITH[part])
    expected = other.attention.probabilities
    np.testing.assert_allclose(without.probabilities, expected, rtol=0, atol=1e-6)
    assert np.abs(own.attention.probabilities - expected).max() > 0.05
    assert without.tokens == own.attention.tokens


def test_without_content_against_the_librarys_position_terms():
    model, nothing = TWO_LAYERS["v2"], copy.deepcopy(TWO_LAYERS["v2"])
    for part in ("P", "R"):
        zero_by_hand(nothing, 0, part=part)
    reader = reader_of_model(model)
    inputs = pad_windows(reader.windows([(QUESTION, CONTEXT)]), [1], reader.encoder.tokenizer)
    everything, content = (debertas.library_scores(one, **inputs)[0, 0] for one in (model, nothing))
    found = read_terms(reader, QUESTION, CONTEXT, window=1, layers=[0])
    without = torch.from_numpy(found.without("c2c").probabilities[0])
    assert_close(without, (everything - content).softmax(-1), 1e-6)


def test_shared_projections_of_embeddings_that_are_zero_by_hand():
    model = debertas.v2()
    norm, attention = model.base_model.encoder.LayerNorm, describe(model).layers[0].attention
    zero(norm.weight, norm.bias, attention.key_proj.bias, attention.query_proj.bias)
    for fast in (True, False):
        found = read_terms(reader_of_model(model, fast=fast), QUESTION, CONTEXT, window=0)
        assert np.abs(found.scores["c2c"]).max() > 1
        assert (found.scores["c2p"] == 0).all()
        assert (found.scores["p2c"] == 0).all()
        without = found.without("c2p", "p2c").probabilities
        np.testing.assert_allclose(without, found.attention.probabilities, rtol=0, atol=1e-7)


@every_deberta
def test_without_all_of_them_every_token_gets_the_same(architecture, attention, reader_of):
    found = read_terms(reader_of(architecture, attention), QUESTION, CONTEXT, window=0)
    probabilities = found.without(*TERMS).probabilities
    np.testing.assert_allclose(probabilities, 1 / probabilities.shape[-1], rtol=1e-6)


@every_deberta
def test_centred_terms_are_what_the_softmax_sees(architecture, attention, reader_of):
    found = read_terms(reader_of(architecture, attention), QUESTION, CONTEXT, window=0, layers=[1])
    for term in TERMS:
        assert np.abs(found.centred(term).mean(-1)).max() < 1e-6
    total = torch.from_numpy(sum(found.centred(term) for term in TERMS))
    assert_close(total.softmax(-1), torch.from_numpy(found.attention.probabilities), 1e-6)


def test_the_window_is_that_of_the_answer_if_none_is_named(reader_of, monkeypatch):
    reader = reader_of("deberta-v3", "fast")
    answer = reader.answer(QUESTION, CONTEXT)
    found = read_terms(reader, QUESTION, CONTEXT, layers=[1], heads=[1])
    monkeypatch.delattr(Reader, "read")  # an answer that is known is not asked for again
    other = read_terms(reader, QUESTION, CONTEXT, layers=[1], heads=[1], answer=answer)
    for one in (found.attention, other.attention):
        assert set(one.windows.tolist()) == {answer.window}
        assert one.answer == (answer.start, answer.end)
        assert (one.layers, one.heads) == ((1,), (1,))
    np.testing.assert_array_equal(found.scores["p2c"], other.scores["p2c"])


@every_deberta
def test_the_model_is_left_as_it_was(architecture, attention, reader_of):
    model = reader_of(architecture, attention).encoder.model
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    read_terms(reader_of(architecture, attention), QUESTION, CONTEXT)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(before[name], parameter) for name, parameter in model.named_parameters())


def test_what_cannot_be_is_refused(reader_of, monkeypatch):
    reader = reader_of("deberta-v3", "fast")
    for architecture, name in (("bert", "BERT"), ("mpnet", "MPNet")):
        with pytest.raises(UserError, match=f"^model: {name} has no terms of content and position; they are"):
            read_terms(reader_of(architecture), QUESTION, CONTEXT)
    with pytest.raises(UserError, match=r"^windows: \[99\]; this context has \d+"):
        read_terms(reader, QUESTION, CONTEXT, window=99)
    with pytest.raises(UserError, match=r"^layers: \[2\]; this model has 2"):
        read_terms(reader, QUESTION, CONTEXT, layers=[2])
    with pytest.raises(UserError, match=r"^question: it is empty"):
        read_terms(reader, " ", CONTEXT)
    monkeypatch.setattr("probes.maps.MOST_BYTES", 100_000)
    with pytest.raises(
        UserError, match=r"^attention: 3 terms of 4 heads would take 0\.\d GB.*; choose fewer"
    ):
        read_terms(reader, QUESTION, CONTEXT)
    assert read_terms(reader, QUESTION, CONTEXT, layers=[0], heads=[0]).attention.layers == (0,)
