"""The window as a function of hidden states: its own give its own scores, and nothing else is changed."""

import threading

import numpy as np
import pytest
import torch

import paper
from probes.embedded import BASELINES, Embedded, differentiable
from probes.maps import CLS, SEP
from probes.targets import Asked
from probing import CONTEXT, QUESTION, every_implementation
from qa.batches import pad_windows
from qa.errors import UserError

WINDOW = 1


@pytest.fixture
def asked_of(reader_of):
    return lambda architecture, attention="auto": Asked.of(
        reader_of(architecture, attention), QUESTION, CONTEXT
    )


def hooks(model):
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


@every_implementation
@pytest.mark.parametrize("layer", [None, 0, 1])
def test_its_own_hidden_states_give_its_own_scores(architecture, attention, layer, asked_of):
    asked = asked_of(architecture, attention)
    model = asked.reader.encoder.model
    before = hooks(model)
    with torch.no_grad():
        embedded = Embedded(asked, WINDOW, layer=layer)
        tokens = slice(*asked.windows.splits[WINDOW : WINDOW + 2].tolist())
        expected = torch.from_numpy(np.stack([asked.read.start[tokens], asked.read.end[tokens]]))
        torch.testing.assert_close(embedded.scores[0], expected, rtol=1e-4, atol=1e-4)
        with embedded:
            both = embedded.read(torch.cat([embedded.own, embedded.base, embedded.own]))
    torch.testing.assert_close(both[:2], embedded.scores, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(both[2], both[0], rtol=1e-4, atol=1e-4)
    assert (both[0] - both[1]).abs().max() > 0.01
    assert hooks(model) == before


@pytest.mark.parametrize("architecture", ["bert", "roberta", "deberta-v2", "mpnet", "electra"])
@pytest.mark.parametrize("baseline", ["mask", "pad"])
def test_a_baseline_is_what_another_word_at_every_place_would_give(architecture, baseline, asked_of):
    """The embeddings of the same window with the ids exchanged, and the positions left as they were."""
    asked = asked_of(architecture)
    tokenizer, model = asked.reader.encoder.tokenizer, asked.reader.encoder.model
    embedded = Embedded(asked, WINDOW, baseline=baseline)
    inputs = pad_windows(asked.windows, [WINDOW], tokenizer)
    ids = inputs["input_ids"].clone()
    is_text = torch.from_numpy(~np.isin(embedded.layout.regions, (CLS, SEP)))
    ids[0, is_text] = tokenizer.mask_token_id if baseline == "mask" else tokenizer.pad_token_id
    vectors = model.get_input_embeddings()(ids)
    handle = model.get_input_embeddings().register_forward_hook(lambda *_: vectors)
    with torch.no_grad(), handle:
        output = model(**inputs)
    scores = torch.stack([output.start_logits, output.end_logits], 1)[0]
    torch.testing.assert_close(embedded.scores[1], scores, rtol=1e-4, atol=1e-4)


def test_zeros_are_the_whole_embedding_and_special_tokens_stay(asked_of):
    embedded = Embedded(asked_of("bert"), WINDOW, baseline="zero")
    special = torch.from_numpy(np.isin(embedded.layout.regions, (CLS, SEP)))
    assert (embedded.base[0, ~special] == 0).all()
    assert torch.equal(embedded.base[0, special], embedded.own[0, special])
    assert special.sum() == 3
    assert torch.equal(embedded.content, ~special)


@pytest.mark.parametrize("architecture", ["bert", "deberta-v2", "electra", "albert"])
def test_the_model_reads_the_token_types_of_the_tokenizer(architecture, asked_of):
    """Not those of a window put together by hand, in which the first [SEP] may get the context's type."""
    asked = asked_of(architecture)
    reader, seen = asked.reader, []
    one = Asked.of(reader, "Who?", "My favorite color is red.")
    encoded = reader.encoder.tokenizer("Who?", "My favorite color is red.")
    handle = reader.encoder.model.register_forward_pre_hook(
        lambda module, arguments, named: seen.append(named), with_kwargs=True
    )
    with handle, torch.no_grad():
        embedded = Embedded(one, 0)
        with embedded:
            embedded.read(embedded.own.expand(3, -1, -1))
    assert [len(named["input_ids"]) for named in seen] == [1, 1, 3]
    for named in seen:
        for name in ("input_ids", "token_type_ids", "attention_mask"):
            assert named[name].tolist() == [encoded[name]] * len(named[name])
    first_sep = encoded["input_ids"].index(reader.encoder.tokenizer.sep_token_id)
    assert encoded["token_type_ids"][first_sep : first_sep + 2] == [0, 1]


def test_other_threads_see_nothing(asked_of):
    asked = asked_of("bert")
    model, found = asked.reader.encoder.model, []
    inputs = pad_windows(asked.windows, [0], asked.reader.encoder.tokenizer)

    def ask():
        with torch.no_grad():
            found.append(model(**inputs).start_logits)

    with torch.no_grad():
        expected = model(**inputs).start_logits
        embedded = Embedded(asked, 0)
        with embedded:
            embedded._given = embedded.base
            thread = threading.Thread(target=ask)
            thread.start()
            thread.join()
    assert torch.equal(found[0], expected)


def test_after_an_error_nothing_stays(asked_of):
    asked = asked_of("bert")
    model = asked.reader.encoder.model
    before = hooks(model)
    embedded = Embedded(asked, 0)
    with pytest.raises(RuntimeError), embedded:
        embedded.read(torch.zeros(1, 3, 5))
    assert hooks(model) == before
    with torch.no_grad(), embedded:
        embedded.read(embedded.own)


def test_weights_are_frozen_as_long_as_anybody_is_inside(reader_of):
    model = reader_of("roberta").encoder.model
    weights = list(model.parameters())
    weights[0].requires_grad_(False)
    model.train()
    with differentiable(model), differentiable(model):
        assert not any(weight.requires_grad for weight in weights)
        assert torch.is_grad_enabled()
        assert not model.training
    assert [weight.requires_grad for weight in weights] == [False] + [True] * (len(weights) - 1)
    assert model.training
    with pytest.raises(ValueError, match="x"), differentiable(model):
        raise ValueError("x")
    assert weights[1].requires_grad
    weights[0].requires_grad_(True)
    model.eval()


def test_batches_stay_within_the_memory_that_is_given(asked_of, monkeypatch):
    embedded = Embedded(asked_of("bert"), 0)
    monkeypatch.setattr("probes.embedded.bytes_of_layer", lambda parts, T: 10 * T)
    T = len(embedded.layout.tokens)
    assert embedded.batch(50 * T, gradients=False) == 5
    assert embedded.batch(50 * T, gradients=True) == 2  # of two layers, all of whose states are kept
    assert embedded.batch(1, gradients=True) == 1


def test_what_cannot_be_asked(asked_of, monkeypatch):
    asked = asked_of("bert")
    with pytest.raises(UserError, match=f"baseline: 'noise'; choose {', '.join(BASELINES)}"):
        Embedded(asked, 0, baseline="noise")
    with pytest.raises(UserError, match="layer: 2; this model has layers 0 to 1"):
        Embedded(asked, 0, layer=2)
    reader = paper.reader()
    reader.encoder.tokenizer.mask_token = None
    with pytest.raises(UserError, match="this tokenizer has no such token; use zero"):
        Embedded(Asked.of(reader, paper.QUESTION, paper.CONTEXT), 0)
