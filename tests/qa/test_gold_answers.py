"""Training on every gold answer of a question: against one label at a time, and against plain counting."""

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

import small_runs
import tiny
from qa.batches import Collator, TrainingWindows
from qa.model import load_encoder
from qa.squad import Question
from qa.training import job, train_experiment
from qa.training.estimate import measure
from qa.training.loss import answer_loss
from qa.windows import UNUSED, all_answer_labels, answer_labels, make_windows

LENGTHS = {"max_length": 24, "stride": 5, "max_question_length": 8}
LONG = " ".join(tiny.SENTENCES)


def asked(context, *golds):
    return Question("id", "", "/0", "Who?", context, golds, tuple(map(context.find, golds)))


QUESTIONS = [
    asked(LONG, "Denver", "in Denver", "Denver"),
    asked("The cat sat."),  # without an answer
    asked("The cat sat.", "cat", "The cat"),
    asked("The cat sat.", "dog", "sat"),  # the first is not in the context
    asked(LONG, "Denver"),
]


@pytest.fixture(scope="module")
def encoder(model):
    return load_encoder(str(model))


@pytest.fixture(scope="module")
def tokenizer(encoder):
    return encoder.tokenizer


def test_each_answer_is_labelled_as_if_it_were_the_only_one(tokenizer):
    windows = make_windows(QUESTIONS, tokenizer, **LENGTHS)
    every = all_answer_labels(windows, QUESTIONS)
    assert len({windows.question[index] for index in range(len(windows))}) == len(QUESTIONS)
    assert len(windows) > len(QUESTIONS), "some window does not hold the answer"
    for index, window in enumerate(windows):
        question = QUESTIONS[window.question]
        placed = [
            (text, start) for text, start in zip(question.answers, question.starts, strict=True) if start >= 0
        ]
        alone = [
            answer_labels(windows, [*QUESTIONS[: window.question], one, *QUESTIONS[window.question + 1 :]])
            for one in (replace(question, answers=(text,), starts=(start,)) for text, start in placed)
        ] or [answer_labels(windows, QUESTIONS)]
        for side in range(2):
            expected = [int(labels[side][index]) for labels in alone]
            assert every[side][index].tolist() == expected + [UNUSED] * (3 - len(expected))
    for side, first in zip(every, answer_labels(windows, QUESTIONS), strict=True):
        np.testing.assert_array_equal(side[:, 0], first)


def test_no_questions_and_no_answers(tokenizer):
    assert all_answer_labels(make_windows([], tokenizer, **LENGTHS), [])[0].shape == (0, 1)
    windows = make_windows(QUESTIONS[1:2], tokenizer, **LENGTHS)
    assert [side.tolist() for side in all_answer_labels(windows, QUESTIONS[1:2])] == [[[0]], [[0]]]


def test_the_loss_is_the_cross_entropy_with_the_share_of_people(encoder, tokenizer):
    windows = make_windows(QUESTIONS, tokenizer, **LENGTHS)
    labels = all_answer_labels(windows, QUESTIONS)
    batch = Collator(TrainingWindows(windows, labels), tokenizer, length=None)(list(range(len(windows))))
    loss, outputs = answer_loss(encoder.model, batch)

    expected = []
    for logits, positions in ((outputs.start_logits, labels[0]), (outputs.end_logits, labels[1])):
        for row, tokens in zip(logits.tolist(), positions.tolist(), strict=True):
            total = math.fsum(math.exp(value) for value in row)
            people = Counter(token for token in tokens if token != UNUSED)
            share = {token: count / people.total() for token, count in people.items()}
            expected.append(
                -math.fsum(part * math.log(math.exp(row[at]) / total) for at, part in share.items())
            )
    assert loss.item() == pytest.approx(math.fsum(expected) / len(expected), rel=1e-5)


def test_of_one_answer_each_it_is_the_model_s_own_loss(encoder, tokenizer):
    windows = make_windows(QUESTIONS, tokenizer, **LENGTHS)
    data = TrainingWindows(windows, answer_labels(windows, QUESTIONS))
    batch = Collator(data, tokenizer, length=None)(list(range(len(windows))))
    own, _ = answer_loss(encoder.model, batch)
    positions = {key: value[:, None] for key, value in batch.items() if key.endswith("positions")}
    ours, _ = answer_loss(encoder.model, {**batch, **positions})
    assert ours.item() == pytest.approx(own.item(), rel=1e-6)


@pytest.mark.parametrize("changes", [{}, {"gradient_accumulation_steps": 2, "batch_size": 4}])
def test_where_every_question_has_one_answer_nothing_changes(model, tmp_path, changes):
    histories = []
    for golds in ("first", "all"):
        chosen = small_runs.settings(model, epochs=1, limit_train=16, gold_answers=golds, **changes)
        histories.append(train_experiment(chosen, root=tmp_path, name=golds).history())
    losses = [[row["loss"] for row in history] for history in histories]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert histories[1][-1]["f1"] == pytest.approx(histories[0][-1]["f1"])


def test_validation_is_against_the_first_answer_however_it_is_trained(model):
    prepared = job.prepare(small_runs.settings(model, gold_answers="all"))
    assert [labels.ndim for labels in prepared.training.labels] == [2, 2]
    assert [labels.ndim for labels in prepared.validation.labels] == [1, 1]
    assert min(measure(prepared)) > 0
