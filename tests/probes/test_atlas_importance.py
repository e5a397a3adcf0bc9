"""What a head is needed for: by heads that do all or nothing, one head at a time, and small steps."""

import numpy as np
import pytest
import torch

import atlases
from probes.atlas_importance import (
    Gold,
    estimate_singles,
    knock_out_sets,
    knock_out_singles,
    log_probability_gradient,
)
from probes.encoders import describe
from probes.knockout import Knockout
from probing import CONTEXT, QUESTION, every_kind
from qa.spans import decode
from qa.squad import Question
from qa.windows import gold_span

ANSWER = "first book"


def ask(answer=ANSWER, question=QUESTION, context=CONTEXT):
    answers = () if answer is None else (answer,)
    return Question("q", "", "p", question, context, answers, tuple(context.index(a) for a in answers))


def by_decoding(reader, question, heads=(), how="zero"):
    """Log-probability of the gold answer, from the list of all spans, with heads off in whole forwards."""
    windows = reader.windows([(question.question, question.context)])
    with Knockout(reader.encoder.model, heads, how=how):
        read = reader.read(windows)
    (answer,) = decode(windows, read.start, read.end, n_best=10**6)
    if not question.answers:
        return np.log(answer.no_answer_probability)
    start, end = gold_span(question)
    (own,) = [span.probability for span in answer.n_best if (span.start, span.end) == (start, end)]
    return np.log(own)


@pytest.mark.parametrize("answer", [ANSWER, None])
@pytest.mark.parametrize("how", ["zero", "mean"])
@every_kind
def test_what_is_lost_is_what_one_head_at_a_time_loses(architecture, attention, how, answer, reader_of):
    reader, question = reader_of(architecture, attention), ask(answer)
    gold = Gold.of(reader, question, "2.0")
    assert len(gold.asked.windows) > 1
    found = knock_out_singles(gold, how=how)
    for layer in range(2):
        for head in range(2):
            after = by_decoding(reader, question, [(layer, head)], how)
            expected = by_decoding(reader, question) - after
            assert found["knockout"][layer, head] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("answer", [ANSWER, None])
@every_kind
def test_the_gradient_is_that_of_small_steps(architecture, attention, answer, reader_of):
    reader, question = reader_of(architecture, attention), ask(answer)
    gold = Gold.of(reader, question, "2.0")
    windows, read = gold.asked.windows, gold.asked.read
    gradient = log_probability_gradient(gold)

    def log_probability(start, end):
        answers = decode(windows, start, end, n_best=1)
        return gold.log_probability(start[None], end[None], answers)[0]

    for place in np.argsort(-np.abs(gradient), axis=1)[:, :3].T.ravel():
        for side in (0, 1):
            values = []
            for step in (-0.01, 0.01):
                scores = [read.start.copy(), read.end.copy()]
                scores[side][place] += step
                values.append(log_probability(*scores))
            assert gradient[side, place] == pytest.approx((values[1] - values[0]) / 0.02, abs=5e-3)
    np.testing.assert_allclose(gradient.sum(1), 0, rtol=0, atol=1e-9)


@pytest.mark.parametrize("how", ["zero", "mean"])
@every_kind
def test_the_estimate_is_the_slope_of_a_gate(architecture, attention, how, reader_of):
    reader, question = reader_of(architecture, attention), ask()
    gold = Gold.of(reader, question, "2.0")
    estimate = estimate_singles(gold, how=how)
    model = reader.encoder.model
    layers = describe(model).layers
    size = layers[0].head_size
    for layer, head in ((0, 1), (1, 0)):
        part = slice(head * size, (head + 1) * size)
        values = []
        for gate in (0.98, 1.02):

            def scaled(_module, arguments, gate=gate, part=part):
                context = arguments[0].clone()
                mean = context[..., part].mean(1, keepdim=True) if how == "mean" else 0
                context[..., part] = mean + gate * (context[..., part] - mean)
                return (context,)

            handle = layers[layer].output.register_forward_pre_hook(scaled)
            reader_one = type(reader)(
                reader.encoder, type(reader.reading)(**{**_fields(reader.reading), "batch_size": 1}), None
            )
            values.append(by_decoding(reader_one, question))
            handle.remove()
        slope = (values[1] - values[0]) / 0.04
        assert estimate[layer, head] == pytest.approx(slope, abs=2e-2 * max(1, abs(slope)))
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())


def _fields(reading):
    return {name: getattr(reading, name) for name in reading.__slots__}


def test_albert_has_gates_for_each_of_its_layers(reader_of):
    reader = reader_of("albert")
    gold = Gold.of(reader, ask(), "2.0")
    estimate, found = estimate_singles(gold), knock_out_singles(gold)["knockout"]
    assert len(set(estimate.ravel().round(6))) == 4
    assert np.corrcoef(estimate.ravel(), found.ravel())[0, 1] > 0.5


@pytest.mark.parametrize("carrier", range(4))
def test_the_one_head_that_carries_the_answer_has_the_largest_importance(carrier):
    reader = atlases.reader(atlases.carrying(carrier))
    for question in atlases.questions().questions:
        gold = Gold.of(reader, question, "1.1")
        found = knock_out_singles(gold)
        if carrier == 0:  # the head that looks at the token before, and so at "is"
            assert gold.asked.answer.text == question.answers[0]
            assert found["knockout"].argmax() == estimate_singles(gold).argmax() == 0
            assert found["knockout_f1"].tolist() == [[100, 0, 0, 0]]
            assert found["knockout_exact_match"].tolist() == [[100, 0, 0, 0]]
            assert found["knockout"][0, 0] > 20 * np.abs(found["knockout"][0, 1:]).max()


def test_a_head_multiplied_by_zero_has_importance_zero(encoder_of, reader_of):
    import copy

    reader = reader_of("deberta-v3")
    model = copy.deepcopy(reader.encoder.model)
    layer = describe(model).layers[1]
    with torch.no_grad():
        layer.output.weight[:, : layer.head_size] = 0
    changed = type(reader)(type(reader.encoder)(model, reader.encoder.tokenizer, ()), reader.reading, None)
    gold = Gold.of(changed, ask(), "2.0")
    found, estimate = knock_out_singles(gold), estimate_singles(gold)
    assert abs(found["knockout"][1, 0]) < 1e-5 < 1e-2 < np.abs(found["knockout"][1, 1])
    assert found["knockout_f1"][1, 0] == found["knockout_exact_match"][1, 0] == estimate[1, 0] == 0


def test_sets_of_heads_and_their_scores(reader_of):
    reader = reader_of("bert")
    gold = Gold.of(reader, ask(), "2.0")
    everything = [(layer, head) for layer in range(2) for head in range(2)]
    found = knock_out_sets(gold, [[], everything])
    assert found.log_probability.shape == (3,)
    assert found.scores.shape == (3, 2)
    assert found.log_probability[1] == found.log_probability[0] != found.log_probability[2]
    assert found.log_probability[2] == pytest.approx(by_decoding(reader, ask(), everything), abs=1e-4)


def test_what_has_no_gold_answer_to_lose_is_none(reader_of):
    reader = reader_of("bert")
    misplaced = Question("q", "", "p", QUESTION, CONTEXT, ("nowhere",), (-1,))
    assert Gold.of(reader, misplaced, "1.1") is None
    long = ask(CONTEXT[:400])
    assert Gold.of(reader, long, "1.1") is None
    assert Gold.of(reader, ask(None), "2.0").span is None
