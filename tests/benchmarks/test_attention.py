"""The cases of attention at a tiny size: they run, agree, and would notice an attention that is wrong."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import BertModel, DebertaV2Model

from benchmarks import attention
from benchmarks.comparison import Options, compare
from benchmarks.models import V3_BASE, Shape
from qa.disentangled import FastSelfAttention

LIFTED = Shape("tiny", layers=2, width=32, heads=2, buckets=8, vocabulary=50, lifted=True)
V3 = replace(LIFTED, lifted=False)
CASES = {case.name: case for case in attention.cases(Options(Path("scratch")))}


def small(name, shape=LIFTED, device="cpu"):
    case = CASES[name]
    return attention.Attention.of(
        name, case.passes, shape, batch=2, rounds=1, length=24, peer=case.peer, device=device
    )


def fast_layers(model):
    return sum(isinstance(module, FastSelfAttention) for module in model.modules())


def test_the_cases_of_the_design():
    assert set(CASES) == {
        "attention-forward",
        "attention-backward",
        "attention-bert",
        "attention-base",
        "attention-cuda",
    }
    for name in ("attention-forward", "attention-backward", "attention-bert"):
        shape = CASES[name].shape
        assert (shape.layers, shape.width, shape.heads, shape.buckets) == (6, 384, 12, 64)
        assert (CASES[name].batch, CASES[name].length) == (8, 384)
    assert CASES["attention-base"].shape == CASES["attention-cuda"].shape == V3_BASE
    assert (CASES["attention-base"].batch, CASES["attention-cuda"].batch) == (4, 16)


def test_shapes_are_those_of_the_real_models():
    config = V3_BASE.deberta()
    assert (config.num_hidden_layers, config.hidden_size, config.num_attention_heads) == (12, 768, 12)
    assert (config.share_att_key, config.position_biased_input, config.type_vocab_size) == (True, False, 0)
    assert (config.position_buckets, config.vocab_size, config.intermediate_size) == (256, 128100, 3072)
    lifted = LIFTED.deberta()
    assert (lifted.share_att_key, lifted.position_biased_input, lifted.type_vocab_size) == (False, True, 2)
    assert LIFTED.bert().hidden_size == lifted.hidden_size
    assert str(V3_BASE) == "DeBERTa-v3-base (12 × 768, 12 heads)"


@pytest.mark.parametrize("shape", [LIFTED, V3], ids=["lifted", "v3"])
@pytest.mark.parametrize("name", ["attention-forward", "attention-backward", "attention-base"])
def test_both_sides_agree(name, shape):
    result = compare(small(name, shape), peak=lambda _case, _side: None, say=lambda _: None)
    assert 0 < result.max_difference < 1e-5
    assert min(result.ours, result.theirs, result.ratio) > 0


@pytest.mark.parametrize("name", ["attention-forward", "attention-backward"])
def test_a_wrong_position_term_shows(name):
    case = small(name)
    ours, theirs = case.prepare("ours"), case.prepare("theirs")
    with torch.no_grad():
        ours.model.encoder.layer[0].attention.self.pos_query_proj.weight.zero_()
    assert case.difference(ours, theirs) > 1e-3


def test_each_side_is_what_it_says():
    case = small("attention-forward")
    assert fast_layers(case.prepare("ours").model) == LIFTED.layers
    assert fast_layers(case.prepare("theirs").model) == 0
    peer = small("attention-bert").prepare("theirs").model
    assert isinstance(peer, BertModel)
    assert peer.config._attn_implementation == "sdpa"
    assert small("attention-bert").difference(None, None) is None


def test_training_mode_drops_and_the_gradients_that_are_compared_do_not():
    work = small("attention-backward").prepare("theirs")
    assert isinstance(work.model, DebertaV2Model)
    assert work.model.training
    assert work.model.config.attention_probs_dropout_prob == 0.1
    first, second = work.gradients(), work.gradients()
    assert work.model.training
    assert all(torch.equal(value, second[key]) for key, value in first.items())
    work()
    dropped = work.model.encoder.layer[0].output.dense.weight.grad
    assert not torch.allclose(dropped, first["encoder.layer.0.output.dense.weight"])


def test_a_training_step_changes_the_weights():
    work = small("attention-cuda").prepare("ours")
    before = work.model.embeddings.word_embeddings.weight.clone()
    work()
    assert work.direction.device.type == "cpu"
    assert not torch.equal(work.model.embeddings.word_embeddings.weight, before)
