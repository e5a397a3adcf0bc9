"""Putting the fast attention into a model and taking it out again leaves everything else alone."""

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from transformers import (
    BertConfig,
    BertForQuestionAnswering,
    DebertaConfig,
    DebertaV2Config,
    DebertaV2ForQuestionAnswering,
)
from transformers.models.deberta_v2 import modeling_deberta_v2 as library

import tiny_models
from qa.disentangled import FastEncoder, install_fast_attention, remove_fast_attention, why_not_fast
from qa.errors import UserError
from qa.model import load_encoder, save_encoder


@pytest.fixture(params=["deberta", "deberta-v2", "deberta-v3"])
def folder(request, tmp_path):
    return tiny_models.save(tmp_path / "model", request.param)


@pytest.fixture
def eager(folder):
    return load_encoder(str(folder), "eager")


@pytest.fixture
def fast(folder):
    return load_encoder(str(folder), "fast")


def kinds(model):
    return [type(module) for module in model.modules()]


IDS = torch.arange(5, 25).view(2, 10)


def test_taken_out_again(eager):
    before = kinds(eager.model)
    state = {name: weight.clone() for name, weight in eager.model.state_dict().items()}
    for install in (install_fast_attention, install_fast_attention, remove_fast_attention):
        install(eager.model)
        assert eager.model.state_dict().keys() == state.keys()
    assert kinds(eager.model) == before
    for name, weight in eager.model.state_dict().items():
        assert torch.equal(weight, state[name])
    remove_fast_attention(eager.model)
    assert kinds(eager.model) == before


def test_library_is_untouched(fast):
    assert fast.model is not None
    assert library.DebertaV2Encoder.forward.__module__ == library.__name__
    fresh = DebertaV2ForQuestionAnswering(DebertaV2Config(hidden_size=8, num_attention_heads=2))
    assert not any(isinstance(module, FastEncoder) for module in fresh.modules())


def test_attentions_are_the_librarys(eager, fast):
    expected = eager.model(IDS, output_attentions=True)
    found = fast.model(IDS, output_attentions=True)
    assert len(found.attentions) == eager.model.config.num_hidden_layers
    for ours, theirs in zip(found.attentions, expected.attentions, strict=True):
        assert torch.equal(ours, theirs)


def test_hidden_states_only_for_who_asks(eager, fast):
    assert fast.model(IDS).hidden_states is None
    expected = eager.model(IDS, output_hidden_states=True).hidden_states
    found = fast.model(IDS, output_hidden_states=True).hidden_states
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    fast.model.config.output_hidden_states = True
    assert len(fast.model(IDS).hidden_states) == len(expected)


def test_tuples(eager, fast):
    for asked in (False, True):
        options = {"return_dict": False, "output_hidden_states": asked}
        expected, found = eager.model(IDS, **options), fast.model(IDS, **options)
        assert len(found) == len(expected)
        torch.testing.assert_close(found[0], expected[0], atol=1e-5, rtol=0)


def test_hidden_states_are_not_kept(fast):
    """The encoder's own output holds the last only, so that earlier ones can be freed."""
    kept = []
    encoder = next(module for module in fast.model.modules() if isinstance(module, FastEncoder))
    hook = encoder.register_forward_hook(lambda _module, _inputs, output: kept.append(output.hidden_states))
    fast.model(IDS)
    fast.model(IDS, output_hidden_states=True)
    hook.remove()
    assert [len(states) for states in kept] == [1, fast.model.config.num_hidden_layers + 1]


def test_mask_of_pairs_goes_to_the_library(eager, fast):
    """A mask [B, T, T] says for each query which keys it sees."""
    mask = torch.tril(torch.ones(2, 10, 10, dtype=torch.long))
    states = torch.randn(2, 10, eager.model.config.hidden_size, generator=torch.Generator().manual_seed(0))
    outputs = []
    for encoder in (eager, fast):
        inner = encoder.model.deberta.encoder
        outputs.append(inner(states, mask).last_hidden_state)
    assert torch.equal(*outputs)


def test_saved_as_if_nothing_had_happened(fast, eager, tmp_path):
    save_encoder(fast, tmp_path / "fast")
    save_encoder(eager, tmp_path / "eager")
    for file in (tmp_path / "eager").iterdir():
        assert file.read_bytes() == (tmp_path / "fast" / file.name).read_bytes(), file.name


def test_a_copy_of_a_model_is_fast_too(fast):
    twin = copy.deepcopy(fast.model)
    assert kinds(twin) == kinds(fast.model)
    assert torch.equal(twin(IDS).start_logits, fast.model(IDS).start_logits)


def test_eight_threads_on_one_model(eager, fast):
    batches = [
        torch.randint(5, 30, (3, 40 + size), generator=torch.Generator().manual_seed(size))
        for size in range(8)
    ]

    def answer(ids):
        with torch.inference_mode():
            return fast.model(ids).start_logits

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(answer, batches * 2))
    for ids, logits in zip(batches * 2, found, strict=True):
        torch.testing.assert_close(logits, eager.model(ids).start_logits, atol=1e-5, rtol=0)


def test_what_is_refused():
    bert = BertForQuestionAnswering(
        BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2)
    )
    with pytest.raises(UserError, match="deberta and deberta-v2"):
        install_fast_attention(bert)
    with pytest.raises(UserError, match="no configuration"):
        install_fast_attention(torch.nn.Linear(2, 2))
    bert.config = DebertaV2Config(relative_attention=True, pos_att_type=["c2p"])
    with pytest.raises(UserError, match="no DeBERTa encoder"):
        install_fast_attention(bert)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"relative_attention": False}, "relative_attention is off"),
        ({"pos_att_type": ["c2p", "c2q"]}, "c2q"),
        ({}, None),
        ({"pos_att_type": "c2p|p2c"}, None),
        ({"pos_att_type": None}, None),
    ],
)
@pytest.mark.parametrize("version", [DebertaConfig, DebertaV2Config])
def test_reasons(changes, reason, version):
    config = version(**{"relative_attention": True, "pos_att_type": ["c2p", "p2c"]} | changes)
    found = why_not_fast(config)
    assert found is None if reason is None else reason in found


def test_heads_that_talk_to_each_other_are_refused():
    config = DebertaConfig(relative_attention=True, pos_att_type=["c2p"], talking_head=True)
    assert "talking_head" in str(why_not_fast(config))
