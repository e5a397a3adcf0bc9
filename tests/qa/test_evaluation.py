"""Scores and losses against the slow and obvious way of computing them."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

import tiny
import tiny_models
from qa.errors import UserError
from qa.evaluation import (
    CROSS_FITTED,
    UNTUNED,
    Prepared,
    Reading,
    conclude,
    evaluate,
    evaluation_loss,
    full_precision,
    predict,
)
from qa.intervals import paragraph_interval
from qa.metrics import score_answer
from qa.model import Encoder, load_encoder
from qa.spans import Answer, Candidate
from qa.squad import Question, QuestionSet

READING = Reading(max_length=64, stride=12, max_question_length=30, n_best=4, batch_size=4)


def ask(number: int, context: str, answer: str | None, *, paragraph: str | None = None) -> Question:
    answers = () if answer is None else (answer,)
    starts = tuple(context.index(text) for text in answers)
    words = f"Who wrote the {'book ' * (number % 3)}?"
    return Question(f"q{number}", "title", paragraph or str(number), words, context, answers, starts)


def question_set(version: str = "2.0") -> QuestionSet:
    """Contexts of one to six sentences, so of one window to many."""
    contexts = [" ".join(tiny.SENTENCES[:count]) for count in (1, 6, 2, 4)]
    golds = ("Denver", "blue", None if version == "2.0" else "mat", "river rose in 1745")
    questions = tuple(ask(number, *pair) for number, pair in enumerate(zip(contexts, golds, strict=True)))
    return QuestionSet("some", version, questions, ())


@pytest.fixture(scope="module", params=["deberta-v2", "bert", "roberta"])
def encoder(request, tmp_path_factory) -> Encoder:
    folder: Path = tiny_models.save(tmp_path_factory.mktemp("model"), request.param)
    return load_encoder(str(folder))


@pytest.fixture(scope="module")
def prepared(encoder) -> Prepared:
    return Prepared.of(question_set(), encoder.tokenizer, READING)


def one_window(encoder: Encoder, prepared: Prepared, index: int) -> dict[str, torch.Tensor]:
    """The inputs of one window, without any padding."""
    window = prepared.windows[index]
    inputs = {"input_ids": window.ids, "token_type_ids": window.types, "attention_mask": window.ids * 0 + 1}
    wanted = encoder.tokenizer.model_input_names
    return {
        key: torch.tensor(value[None], dtype=torch.long) for key, value in inputs.items() if key in wanted
    }


def test_predicts_as_one_window_after_the_other(encoder, prepared):
    assert len(prepared.windows) > 2 * READING.batch_size
    start, end = predict(encoder, prepared.windows, READING)
    for index, (begin, stop) in enumerate(itertools.pairwise(prepared.windows.splits)):
        with torch.inference_mode():
            output = encoder.model(**one_window(encoder, prepared, index))
        np.testing.assert_allclose(start[begin:stop], output.start_logits[0], atol=1e-5)
        np.testing.assert_allclose(end[begin:stop], output.end_logits[0], atol=1e-5)


@pytest.mark.parametrize(
    "changes", [{"batch_size": 1}, {"batch_size": 2}, {"batch_size": 999}, {"padded": True}]
)
def test_prediction_does_not_depend_on_batches_and_padding(encoder, prepared, changes):
    expected = predict(encoder, prepared.windows, READING)
    settings = {field: getattr(READING, field) for field in Reading.__slots__}
    found = predict(encoder, prepared.windows, Reading(**{**settings, **changes}))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_several_processes_predict_what_one_does(encoder, prepared, monkeypatch):
    expected = predict(encoder, prepared.windows, READING)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 3)
    parts: dict[int, list] = {}

    def rank(number: int):
        def gather(own: list) -> list:
            parts[number] = own
            return [parts.get(each, own) for each in range(3)]

        monkeypatch.setattr(torch.distributed, "get_rank", lambda: number)
        return predict(encoder, prepared.windows, READING, gather=gather)

    *_, found = [rank(number) for number in (2, 1, 0)]
    np.testing.assert_array_equal(found, expected)
    # Each window was read by one process.
    read = [index for part in parts.values() for batch, _ in part for index in batch]
    assert sorted(read) == list(range(len(prepared.windows)))


def test_progress_counts_windows(encoder, prepared):
    seen = []
    predict(encoder, prepared.windows, READING, progress=lambda *done: seen.append(done))
    total = len(prepared.windows)
    assert seen[-1] == (total, total)
    assert [done for done, _ in seen] == [min(total, 4 * (1 + batch)) for batch in range(len(seen))]


@pytest.mark.parametrize("version", ["1.1", "2.0"])
def test_loss_is_the_model_s_own_averaged_over_windows(encoder, version):
    prepared = Prepared.of(question_set(version), encoder.tokenizer, READING)
    starts, ends = (torch.tensor(positions, dtype=torch.long) for positions in prepared.labels)
    assert starts.any()
    assert not starts.all()
    losses = []
    for index in range(len(prepared.windows)):
        labels = {"start_positions": starts[None, index], "end_positions": ends[None, index]}
        with torch.inference_mode():
            losses.append(encoder.model(**one_window(encoder, prepared, index), **labels).loss.item())
    logits = predict(encoder, prepared.windows, READING)
    found = evaluation_loss(prepared.windows, prepared.labels, *logits)
    assert found == pytest.approx(np.mean(losses), abs=1e-5)


def test_loss_of_huge_logits_is_finite(encoder, prepared):
    logits = [1e4 * values for values in predict(encoder, prepared.windows, READING)]
    assert np.isfinite(evaluation_loss(prepared.windows, prepared.labels, *logits))


def test_full_precision_undoes_a_trainer_s_autocast_for_a_while(encoder, prepared):
    model = encoder.model
    expected = predict(encoder, prepared.windows, READING)
    plain = model.forward

    def patched(*args, **kwargs):
        with torch.autocast("cpu", torch.bfloat16):
            return plain(*args, **kwargs)

    model.forward = patched
    model.train()
    try:
        with torch.autocast("cpu", torch.bfloat16):
            found = predict(encoder, prepared.windows, READING)
        assert model.forward is patched
        assert model.training
    finally:
        del model.forward
        model.eval()
    # Dropout or bfloat16 would be off by far more than the order of sums.
    np.testing.assert_allclose(found, expected, atol=1e-5)


def fail_within(model: torch.nn.Module) -> None:
    with full_precision(model):
        assert not model.training
        assert "forward" not in vars(model)
        assert torch.is_inference_mode_enabled()
        raise ZeroDivisionError


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("is_patched", [True, False])
def test_full_precision_leaves_a_model_as_it_was_even_after_an_error(encoder, training, is_patched):
    model = encoder.model.train(training)
    if is_patched:
        model.forward = patched = lambda: None
    try:
        with pytest.raises(ZeroDivisionError):
            fail_within(model)
        assert model.training == training
        assert vars(model).get("forward") is (patched if is_patched else None)
        assert not torch.is_inference_mode_enabled()
    finally:
        vars(model).pop("forward", None)
        model.eval()


def test_evaluation_is_what_its_answers_score(encoder, prepared):
    found = evaluate(encoder, prepared, READING, threshold=0.5)
    questions = prepared.questions.questions
    each = [
        score_answer(answer.text, q.answers, version="2.0")
        for answer, q in zip(found.answers, questions, strict=True)
    ]
    metrics = found.metrics()
    assert metrics["exact_match"] == pytest.approx(100 * np.mean([exact for exact, _ in each]))
    assert metrics["f1"] == pytest.approx(100 * np.mean([f1 for _, f1 in each]))
    assert metrics["count"] == metrics["HasAns_count"] + metrics["NoAns_count"] == 4
    logits = predict(encoder, prepared.windows, READING)
    assert metrics["eval_loss"] == evaluation_loss(prepared.windows, prepared.labels, *logits)
    bounds = paragraph_interval([f1 for _, f1 in each], [q.paragraph for q in questions])
    assert metrics["f1_interval"] == [100 * bound for bound in bounds]
    for row, question, scores in zip(found.rows(), questions, each, strict=True):
        assert (row["id"], row["exact_match"], row["f1"]) == (question.id, *scores)
        for span in row["n_best"]:
            assert span["text"] == question.context[span["start"] : span["end"]]


@pytest.mark.parametrize("threshold", ["tune", None, 0.0])
def test_version_1_is_never_tuned_and_never_refuses(encoder, threshold):
    prepared = Prepared.of(question_set("1.1"), encoder.tokenizer, READING)
    found = evaluate(encoder, prepared, READING, threshold=threshold)
    assert found.threshold == (None if threshold == "tune" else threshold)
    assert found.metrics()["no_answer_threshold_from"] == "none: every question is answered"
    assert all(answer.text for answer in found.answers)
    assert "NoAns_f1" not in found.metrics()


def test_a_broken_model_is_not_scored(encoder, prepared):
    head = encoder.model.qa_outputs
    kept = head.bias.detach().clone()
    head.bias.data[1] = float("nan")
    try:
        with pytest.raises(UserError, match=r"not finite: .*; lower learning_rate"):
            evaluate(encoder, prepared, READING)
    finally:
        head.bias.data.copy_(kept)


CONTEXT = "The river rose in 1745."


def decoded(no_answer: float, text: str = "river") -> Answer:
    """An answer as decoding gives it, with this probability of having none."""
    start = CONTEXT.index(text)
    span = Candidate(text, start, start + len(text), 1 - no_answer, 1.0, 0)
    return Answer(text, span.start, span.end, span.probability, no_answer, 0.0, 0, 1, (span,))


def judged(
    probabilities: list[float], has_answer: list[bool], *, paragraphs: int
) -> tuple[QuestionSet, list[Answer]]:
    """A question for each probability; those with an answer have the right one."""
    questions = [
        ask(number, CONTEXT, "river" if answerable else None, paragraph=f"p{number % paragraphs}")
        for number, answerable in enumerate(has_answer)
    ]
    return QuestionSet("some", "2.0", tuple(questions), ()), [decoded(value) for value in probabilities]


def test_threshold_separates_what_can_be_separated():
    probabilities = [0.1, 0.2, 0.3, 0.7, 0.8, 0.9] * 5
    questions, raw = judged(probabilities, [value < 0.5 for value in probabilities], paragraphs=10)
    found = conclude(questions, raw, eval_loss=1.0, threshold="tune")
    assert found.threshold == pytest.approx(0.5)
    assert found.threshold_from == CROSS_FITTED
    assert found.scores.exact_match == 100
    for answer, value in zip(found.answers, probabilities, strict=True):
        assert answer.text == ("river" if value < 0.5 else "")
        assert answer.probability == pytest.approx(max(value, 1 - value))


def test_no_question_is_judged_by_a_threshold_tuned_on_its_own_paragraph():
    draw = np.random.default_rng(0)
    probabilities = draw.random(40).round(3).tolist()
    has_answer = (draw.random(40) < 0.5).tolist()
    questions, raw = judged(probabilities, has_answer, paragraphs=8)
    found = conclude(questions, raw, eval_loss=1.0, threshold="tune")
    for paragraph in range(8):
        own = [number for number in range(40) if number % 8 == paragraph]
        changed = [value != (number in own) for number, value in enumerate(has_answer)]
        other = conclude(
            judged(probabilities, changed, paragraphs=8)[0], raw, eval_loss=1.0, threshold="tune"
        )
        # Its gold answers turned round, the paragraph's questions are still refused or answered as before.
        assert [found.answers[number] for number in own] == [other.answers[number] for number in own]


def test_one_paragraph_is_judged_at_even_odds():
    probabilities = [0.1, 0.6, 0.65, 0.9]
    questions, raw = judged(probabilities, [True, True, True, False], paragraphs=1)
    found = conclude(questions, raw, eval_loss=1.0, threshold="tune")
    assert found.threshold_from == UNTUNED
    assert [bool(answer.text) for answer in found.answers] == [True, False, False, False]
    assert 0.65 <= found.threshold < 0.9
    assert found.scores.exact_match == 50


@pytest.mark.parametrize(("threshold", "answered"), [(None, 4), (1.0, 4), (0.65, 3), (0.3, 1), (0.0, 0)])
def test_a_threshold_given_is_kept(threshold, answered):
    questions, raw = judged([0.1, 0.6, 0.65, 0.9], [True, True, True, False], paragraphs=2)
    found = conclude(questions, raw, eval_loss=1.0, threshold=threshold)
    assert sum(bool(answer.text) for answer in found.answers) == answered
    assert found.threshold == threshold
    words = "none: every question is answered" if threshold is None else "given"
    assert found.metrics()["no_answer_threshold_from"] == words


def test_the_interval_of_one_paragraph_is_left_out():
    questions, raw = judged([0.1, 0.2], [True, True], paragraphs=1)
    assert conclude(questions, raw, eval_loss=1.0, threshold=None).metrics()["f1_interval"] is None
