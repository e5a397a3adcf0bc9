"""Heads that are off do nothing, whoever says so: zeroed weights, paper, or one head at a time.

And nothing is left behind: no hook, nothing in another thread, nothing after an error.
"""

import copy
import math
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from transformers import BertConfig, BertForQuestionAnswering

from probes.encoders import describe
from probes.knockout import Knockout, knock_out, knock_out_each
from probing import CONTEXT, PAIRS, QUESTION, READING, every_implementation, every_kind
from qa.errors import UserError
from qa.reader import Reader
from qa.spans import decode
from texts import awkward

EVERY = [(layer, head) for layer in range(2) for head in range(2)]
every_how = pytest.mark.parametrize("how", ["zero", "mean"])


@torch.inference_mode()
def logits(model, inputs):
    output = model(**inputs)
    return torch.stack([output.start_logits, output.end_logits])


def hooks(model):
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


@every_implementation
def test_no_head_is_the_identity_to_the_bit(architecture, attention, reader_of, inputs_of):
    reader, inputs = reader_of(architecture, attention), inputs_of(architecture)
    model = reader.encoder.model
    before = logits(model, inputs)
    for how in ("zero", "mean"):
        with Knockout(model, [], how=how):
            assert torch.equal(logits(model, inputs), before)
        effects = knock_out(reader, QUESTION, CONTEXT, sets=[[], EVERY, []], how=how)
        for change in (effects.start, effects.end, effects.probability, effects.no_answer_probability):
            assert change[0] == change[2] == 0 != change[1]
        assert effects.answers[0].text == effects.answer.text
        assert effects.changed.tolist()[::2] == [False, False]


def hand_weighted():
    """One layer of two heads, each two numbers wide; token 1 is (1, -1, 1, -1), token 2 (1, 1, -1, -1).

    Each token attends to all alike, values are hidden states, and what the heads find is added to a bias.
    Token vectors and sums with mean 0 and deviation 1 pass the normalisations as they are.
    """
    sizes = {"hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 4}
    model = BertForQuestionAnswering(BertConfig(vocab_size=3, **sizes, layer_norm_eps=1e-12)).eval()
    layer = describe(model).layers[0]
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.fill_(1.0 if name.endswith("LayerNorm.weight") else 0.0)
        words = model.get_input_embeddings().weight
        words[1], words[2] = torch.tensor([[1.0, -1, 1, -1], [1, 1, -1, -1]])
        layer.value.weight.copy_(torch.eye(4))
        layer.output.weight.copy_(torch.eye(4))
        layer.output.bias.copy_(torch.tensor([2.0, 2, -2, -2]))
        model.qa_outputs.weight.copy_(torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0]]))
    return model


@every_how
def test_the_values_of_a_hand_weighted_layer(how):
    """Both tokens get the mean of the two, (1, 0, 0, -1); as both get the same, mean changes nothing."""
    model, inputs = hand_weighted(), {"input_ids": torch.tensor([[1, 2]])}
    # Of token 1, (1, -1, 1, -1) + (1, 0, 0, -1) + (2, 2, -2, -2) = (4, 1, -1, -4), by its deviation √8.5.
    # Of token 2, (1, 1, -1, -1) + (1, 0, 0, -1) + (2, 2, -2, -2) = (4, 3, -3, -4), by √12.5.
    whole = [[4 / math.sqrt(8.5), 4 / math.sqrt(12.5)], [1 / math.sqrt(8.5), 3 / math.sqrt(12.5)]]
    # Without any head (3, 1, -1, -3), by √5, and (3, 3, -3, -3), by 3.
    none = [[3 / math.sqrt(5), 1.0], [1 / math.sqrt(5), 1.0]]
    # Without the second head (4, 1, -1, -3) and (4, 3, -3, -3), less 1/4, by √(107/16) and √(171/16).
    first = [
        [3.75 / math.sqrt(107 / 16), 3.75 / math.sqrt(171 / 16)],
        [0.75 / math.sqrt(107 / 16), 2.75 / math.sqrt(171 / 16)],
    ]
    for heads, zero in (([], whole), ([(0, 0), (0, 1)], none), ([(0, 1)], first)):
        with Knockout(model, heads, how=how):
            found = logits(model, inputs)[:, 0]
        expected = torch.tensor(whole if how == "mean" else zero)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@every_implementation
def test_zero_is_what_zeroed_weights_give(architecture, attention, encoder_of, inputs_of):
    model, inputs = encoder_of(architecture, attention).model, inputs_of(architecture)
    for heads in ([(0, 1)], [(1, 0)], [(0, 0), (1, 1)], EVERY):
        if architecture == "albert":  # whose layers share their weights
            heads = [(layer, head) for _, head in heads for layer in range(2)]
        changed = copy.deepcopy(model)
        for number, head in heads:
            layer = describe(changed).layers[number]
            with torch.no_grad():
                layer.output.weight[:, head * layer.head_size : (head + 1) * layer.head_size] = 0
        with Knockout(model, heads):
            found = logits(model, inputs)
        torch.testing.assert_close(found, logits(changed, inputs), rtol=0, atol=1e-5)
        assert (found - logits(model, inputs)).abs().max() > 0.05


def test_a_layer_of_albert_alone(encoder_of, inputs_of):
    model, inputs = encoder_of("albert").model, inputs_of("albert")
    calls = []

    def zero_in_the_second(module, arguments):
        calls.append(module)
        if len(calls) == 2:
            context = arguments[0].clone()
            context[..., :16] = 0
            return (context,)
        return None

    handle = describe(model).layers[0].output.register_forward_pre_hook(zero_in_the_second)
    expected = logits(model, inputs)
    handle.remove()
    with Knockout(model, [(1, 0)]):
        for _ in range(2):  # the count begins anew
            torch.testing.assert_close(logits(model, inputs), expected, rtol=0, atol=1e-6)


@every_kind
def test_a_mean_is_over_the_tokens_that_are_not_masked(architecture, attention, encoder_of, inputs_of):
    model, inputs = encoder_of(architecture, attention).model, inputs_of(architecture)
    lengths = inputs["attention_mask"].sum(1).tolist()
    assert len(set(lengths)) > 1
    heads = [(0, 0), (1, 1)]
    with Knockout(model, heads, how="mean"):
        together = logits(model, inputs)
        for example, n in enumerate(lengths):
            alone = logits(model, {name: tensor[example, None, :n] for name, tensor in inputs.items()})
            torch.testing.assert_close(together[:, example, :n], alone[:, 0], rtol=0, atol=1e-5)
    assert (together - logits(model, inputs)).abs().max() > 0.02


def one_at_a_time(reader, pair, heads, how):
    """Start and end score of the best span before, its probability and that of none, and the answer."""
    windows = reader.windows([pair])
    answer = reader.read(windows).answers[0]
    with Knockout(reader.encoder.model, heads, how=how):
        read = reader.read(windows)
    every = decode(windows, read.start, read.end, n_best=10**6)[0]
    span = answer.n_best[0]
    after = next(one for one in every.n_best if (one.start, one.end) == (span.start, span.end))
    chars = windows[answer.window].chars
    begin = windows.splits[answer.window] + windows.context_start[answer.window]
    start = read.start[begin + np.flatnonzero((chars[:, 0] == span.start) & (chars[:, 1] > span.start))[0]]
    end = read.end[begin + np.flatnonzero((chars[:, 1] == span.end) & (chars[:, 0] < span.end))[-1]]
    return np.array([start, end, after.probability, every.no_answer_probability]), read.answers[0]


@every_how
@every_implementation
def test_the_batch_is_one_head_at_a_time(architecture, attention, how, reader_of):
    reader = reader_of(architecture, attention)
    for pair in PAIRS:
        before, answer = one_at_a_time(reader, pair, [], how)
        effects = knock_out_each(reader, *pair, how=how)
        assert (effects.span.start, effects.span.end) == (answer.start, answer.end)
        assert effects.answer.text == effects.span.text == answer.text
        assert effects.answer.windows == answer.windows
        for layer, head in EVERY:
            after, other = one_at_a_time(reader, pair, [(layer, head)], how)
            here = (layer, head)
            assert effects.heads[here] == (here,)
            found = [effects.start, effects.end, effects.probability, effects.no_answer_probability]
            np.testing.assert_allclose([each[here] for each in found], after - before, rtol=0, atol=1e-5)
            one = effects.answers[here]
            assert (one.text, one.start, one.end) == (other.text, other.start, other.end)
            assert one.probability == pytest.approx(other.probability, abs=1e-5)
            assert effects.changed[here] == (other.text != answer.text)
    assert answer.windows < reader.answer(*PAIRS[0]).windows


@every_how
@every_kind
def test_sets_of_heads_of_several_layers(architecture, attention, how, reader_of):
    reader = reader_of(architecture, attention)
    sets = [[(1, 1)], EVERY, [(1, 0), (0, 1)], [(1, 0), (1, 1), (1, 0)]]
    effects = knock_out(reader, QUESTION, CONTEXT, sets=sets, how=how)
    assert effects.heads.tolist() == [((1, 1),), tuple(EVERY), ((0, 1), (1, 0)), ((1, 0), (1, 1))]
    before, _ = one_at_a_time(reader, PAIRS[0], [], how)
    for place, heads in enumerate(sets):
        after, _ = one_at_a_time(reader, PAIRS[0], heads, how)
        found = [effects.start, effects.end, effects.probability, effects.no_answer_probability]
        np.testing.assert_allclose([each[place] for each in found], after - before, rtol=0, atol=1e-5)


@every_kind
def test_chosen_layers_and_heads(architecture, attention, reader_of):
    reader = reader_of(architecture, attention)
    whole = knock_out_each(reader, QUESTION, CONTEXT)
    some = knock_out_each(reader, QUESTION, CONTEXT, layers=[1], heads=[1, 0])
    assert some.heads.shape == some.answers.shape == some.changed.shape == (1, 2)
    np.testing.assert_allclose(some.start, whole.start[[1]][:, [1, 0]], rtol=0, atol=1e-6)
    assert [one.text for one in some.answers[0]] == [one.text for one in whole.answers[1, ::-1]]


@pytest.mark.parametrize("attention", ["fast", "eager"])
def test_batches_stay_within_the_memory_that_is_given(attention, reader_of, monkeypatch):
    reader, seen = reader_of("deberta-v3", attention), []
    monkeypatch.setattr("probes.ablation.bytes_of_layer", lambda parts, T: 10 * T)
    whole = knock_out_each(reader, QUESTION, CONTEXT)
    last = describe(reader.encoder.model).layers[1].output

    handle = last.register_forward_pre_hook(lambda _, arguments: seen.append(len(arguments[0])))
    longest = int(reader.windows([(QUESTION, CONTEXT)]).lengths.max())
    try:
        for size in (1, 2):
            seen.clear()
            effects = knock_out_each(reader, QUESTION, CONTEXT, batch_bytes=size * 10 * longest)
            assert max(seen) == size
            np.testing.assert_allclose(effects.start, whole.start, rtol=0, atol=1e-5)
            np.testing.assert_allclose(effects.probability, whole.probability, rtol=0, atol=1e-5)
        assert knock_out_each(reader, QUESTION, CONTEXT, batch_bytes=1).start.shape == (2, 2)
    finally:
        handle.remove()


def test_refusals_are_the_readers(reader_of):
    encoder = reader_of("bert").encoder
    open_minded = knock_out_each(Reader(encoder, READING, None), QUESTION, CONTEXT)
    probabilities = [one.no_answer_probability for one in open_minded.answers.ravel()]
    threshold = float(np.median([open_minded.answer.no_answer_probability, *probabilities]))
    effects = knock_out_each(Reader(encoder, READING, threshold), QUESTION, CONTEXT)
    assert effects.answer == open_minded.answer.with_threshold(threshold)
    refused = [one.text == "" for one in effects.answers.ravel()]
    assert refused == [value > threshold for value in probabilities]
    assert set(refused) == {True, False}
    assert effects.changed.ravel().tolist() == [
        one.text != effects.answer.text for one in effects.answers.ravel()
    ]
    assert effects.span.text == open_minded.span.text
    np.testing.assert_array_equal(effects.start, open_minded.start)


def test_progress(reader_of):
    seen, reader = [], reader_of("bert")
    windows = len(reader.windows([(QUESTION, CONTEXT)]))
    knock_out(reader, QUESTION, CONTEXT, sets=[[(0, 0)], [], [(1, 1)]], progress=lambda *at: seen.append(at))
    assert seen == [(done, 2 * windows) for done in range(1, 2 * windows + 1)]


@every_implementation
def test_leaves_the_model_as_it_was(architecture, attention, reader_of, inputs_of):
    reader, inputs = reader_of(architecture, attention), inputs_of(architecture)
    model = reader.encoder.model
    before, expected = hooks(model), logits(model, inputs)
    knock_out_each(reader, QUESTION, CONTEXT)
    assert hooks(model) == before
    assert not model.training
    with Knockout(model, [(0, 0)]):
        outer = logits(model, inputs)
        with Knockout(model, [(1, 1)]):
            both = logits(model, inputs)
        assert torch.equal(logits(model, inputs), outer)
    with Knockout(model, [(0, 0), (1, 1)]):
        assert torch.equal(logits(model, inputs), both)
    assert hooks(model) == before
    assert torch.equal(logits(model, inputs), expected)


@every_kind
def test_a_forward_that_raises(architecture, attention, reader_of, inputs_of):
    reader, inputs = reader_of(architecture, attention), inputs_of(architecture)
    model = reader.encoder.model
    before, expected = hooks(model), logits(model, inputs)
    calls = []

    def fail(*_):
        calls.append(1)
        if len(calls) == 3:
            raise ZeroDivisionError

    for attempt in (
        lambda: knock_out_each(reader, QUESTION, CONTEXT),
        lambda: [logits(model, inputs) for _ in range(3)],
    ):
        calls.clear()
        handle = describe(model).layers[1].attention.register_forward_hook(fail)
        with pytest.raises(ZeroDivisionError), Knockout(model, [(0, 0)]):
            attempt()
        handle.remove()
        assert hooks(model) == before
        assert torch.equal(logits(model, inputs), expected)


def test_inside_of_another_knockout_heads_are_off_already(reader_of):
    reader = reader_of("deberta-v3")
    outside, _ = one_at_a_time(reader, PAIRS[0], [], "zero")
    with Knockout(reader.encoder.model, [(0, 1)]):
        effects = knock_out(reader, QUESTION, CONTEXT, sets=[[(1, 0)], [(0, 1)]])
        before, _ = one_at_a_time(reader, PAIRS[0], [], "zero")
        after, _ = one_at_a_time(reader, PAIRS[0], [(1, 0)], "zero")
    assert not np.allclose(before, outside)
    found = [effects.start[0], effects.end[0], effects.probability[0], effects.no_answer_probability[0]]
    np.testing.assert_allclose(found, after - before, rtol=0, atol=1e-5)
    assert effects.start[1] == pytest.approx(0, abs=1e-6)


def test_a_shared_layer_called_alone_is_no_particular_layer(reader_of):
    reader = reader_of("albert")
    with (
        pytest.raises(UserError, match=r"^heads: a module that is the layers \[0, 1\] was called outside of"),
        Knockout(reader.encoder.model, [(0, 1)]),
    ):
        knock_out_each(reader, QUESTION, CONTEXT)


@every_kind
def test_threads_see_only_their_own(architecture, attention, reader_of, inputs_of):
    reader, inputs = reader_of(architecture, attention), inputs_of(architecture)
    model = reader.encoder.model
    alone = knock_out_each(reader, *PAIRS[1])
    expected = []
    for heads in ([], [(0, 0)], [(0, 1)]):
        with Knockout(model, heads):
            expected.append(logits(model, inputs))
    together = threading.Barrier(4)

    def forwards(number, heads):
        together.wait()
        for _ in range(4):
            with Knockout(model, heads):
                assert torch.equal(logits(model, inputs), expected[number])

    def effects():
        together.wait()
        for _ in range(4):
            found = knock_out_each(reader, *PAIRS[1])
            np.testing.assert_allclose(found.start, alone.start, rtol=0, atol=1e-5)

    with ThreadPoolExecutor(4) as workers:
        jobs = [workers.submit(forwards, n, heads) for n, heads in enumerate(([], [(0, 0)], [(0, 1)]))]
        for job in [*jobs, workers.submit(effects)]:
            job.result()
    assert torch.equal(logits(model, inputs), expected[0])


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        ([(2, 0)], r"^heads: \(2, 0\); this model has layers 0 to 1 with heads 0 to 1: give pairs \(layer, "),
        ([(0, 0), (0, -1)], r"^heads: \(0, -1\); "),
        ([(0, 0, 0)], r"^heads: \(0, 0, 0\); "),
        ((0, 1), r"^heads: 0; "),
        ([[0, 1]], r"^heads: \[0, 1\]; "),
    ],
)
def test_heads_that_are_not_there_are_refused(heads, message, reader_of):
    reader = reader_of("bert")
    with pytest.raises(UserError, match=message):
        Knockout(reader.encoder.model, heads)
    with pytest.raises(UserError, match=message):
        knock_out(reader, QUESTION, CONTEXT, sets=[[], heads])


def test_what_cannot_be_is_refused(reader_of):
    reader = reader_of("bert")
    for attempt in (
        lambda: Knockout(reader.encoder.model, [], how="median"),
        lambda: knock_out_each(reader, QUESTION, CONTEXT, how="median"),
    ):
        with pytest.raises(UserError, match=r"^how: 'median'; choose zero or mean$"):
            attempt()
    with pytest.raises(UserError, match=r"^heads: \(5, 0\); this model has layers 0 to 1"):
        knock_out_each(reader, QUESTION, CONTEXT, layers=[5])
    with pytest.raises(UserError, match=r"^context: it is empty"):
        knock_out_each(reader, QUESTION, " ")
    with pytest.raises(UserError, match=r"^context: it has no token that could be an answer"):
        knock_out_each(reader, QUESTION, "\x00\x01")
    with pytest.raises(UserError, match=r"^model: cannot look inside 'Linear'"):
        Knockout(torch.nn.Linear(2, 2), [])


@pytest.mark.parametrize("architecture", ["bert", "roberta", "deberta-v3"])
@settings(max_examples=15)
@given(question=awkward, context=awkward)
def test_whatever_the_text(architecture, reader_of, question, context):
    if not question.strip() or not context.strip():
        return
    reader, context = reader_of(architecture), context * 9
    expected = reader.answer(question, context)
    if not expected.n_best:
        return
    effects = knock_out(reader, question, context, sets=[[], [(0, 0)], EVERY])
    assert effects.answer.probability == pytest.approx(expected.probability, abs=1e-5)
    assert context[effects.span.start : effects.span.end] == effects.span.text
    assert effects.span.text
    for change in (effects.start, effects.end, effects.probability, effects.no_answer_probability):
        assert change[0] == 0
        assert np.isfinite(change).all()
    assert (np.abs(effects.probability) <= 1).all()
