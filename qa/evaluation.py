"""Score a model on a question set: windows -> logits -> answers -> exact match, F1 and loss.

One path serves the evaluations during training, the final one and `python -m qa evaluate`, always in float32
whatever precision the training uses, so that a score does not depend on who asks. The trap: the no-answer
threshold must not be tuned on the questions it is then reported on; see `choose_thresholds`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from qa.batches import Labels, pad_windows
from qa.errors import UserError
from qa.intervals import paragraph_interval
from qa.metrics import Scores, score
from qa.model import Encoder
from qa.spans import Answer, decode
from qa.squad import Question, QuestionSet
from qa.thresholds import best_threshold, cross_fitted_thresholds
from qa.window_cache import kept_windows
from qa.windows import Progress, WindowSet, answer_labels, make_windows

Logits = NDArray[np.float32]
# One value of this process -> the values of all processes, by rank.
Gather = Callable[[list[Any]], list[Any]]

CROSS_FITTED = (
    "for each question tuned on the other four of five folds of paragraphs; "
    "the threshold stored is tuned on all validation questions and is for new questions"
)
UNTUNED = (
    "0.5, because one paragraph cannot be split; the threshold stored is tuned on it and is for new questions"
)


@dataclass(frozen=True, slots=True)
class Reading:
    """How questions are turned into windows and windows into answers.

    Attributes:
        max_length: tokens in a window at most.
        stride: tokens by which windows overlap.
        max_question_length: tokens of a question at most.
        max_answer_length: tokens of an answer at most.
        n_best: spans kept for each question.
        batch_size: windows in one forward pass.
        padded: pad every window to max_length instead of to the batch's longest.
    """

    max_length: int = 384
    stride: int = 128
    max_question_length: int = 64
    max_answer_length: int = 30
    n_best: int = 20
    batch_size: int = 32
    padded: bool = False


@dataclass(frozen=True, slots=True)
class Prepared:
    """A question set with its windows and labels, made once and evaluated many times."""

    questions: QuestionSet
    windows: WindowSet
    labels: Labels

    @staticmethod
    def of(
        questions: QuestionSet,
        tokenizer: PreTrainedTokenizerBase,
        reading: Reading,
        *,
        kept: Path | None = None,
        progress: Progress | None = None,
    ) -> Prepared:
        """Cut the questions into windows and find the gold answers in them.

        Args:
            questions: with or without answers.
            tokenizer: a fast one.
            reading: the lengths.
            kept: a folder that keeps windows by content; None: they are cut anew.
            progress: called with (questions done, questions in all) while they are cut.
        """
        lengths = (reading.max_length, reading.stride, reading.max_question_length)
        cut = partial(
            make_windows,
            questions.questions,
            tokenizer,
            max_length=reading.max_length,
            stride=reading.stride,
            max_question_length=reading.max_question_length,
            progress=progress,
        )
        windows = cut() if kept is None else kept_windows(kept, questions, tokenizer, lengths, make=cut)
        return Prepared(questions, windows, answer_labels(windows, questions.questions))


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        questions: what was asked.
        answers: one for each question, the threshold applied.
        scores: exact match and F1, per question and together.
        eval_loss: mean over windows of the mean cross-entropy of start and end, in nats.
        threshold: no-answer threshold for new questions; None where nothing is ever refused.
        threshold_from: where the thresholds behind the reported scores come from, in words.
    """

    questions: QuestionSet
    answers: tuple[Answer, ...]
    scores: Scores
    eval_loss: float
    threshold: float | None
    threshold_from: str

    def metrics(self) -> dict[str, Any]:
        """What `metrics.json` holds of it: scores in percent with 95 % intervals, and the loss."""
        found = {**scores_with_intervals(self.scores, self.questions), "eval_loss": self.eval_loss}
        found["no_answer_threshold"] = self.threshold
        found["no_answer_threshold_from"] = self.threshold_from
        return found

    def rows(self) -> Iterator[dict[str, Any]]:
        """What `predictions.jsonl` holds: one row for each question, in order."""
        for index, (question, answer) in enumerate(zip(self.questions.questions, self.answers, strict=True)):
            yield {
                "id": question.id,
                "prediction": answer.text,
                "start": answer.start,
                "end": answer.end,
                "probability": answer.probability,
                "no_answer_probability": answer.no_answer_probability,
                "exact_match": float(self.scores.exact_matches[index]),
                "f1": float(self.scores.f1s[index]),
                "window": answer.window,
                "windows": answer.windows,
                "n_best": [
                    {
                        "text": span.text,
                        "start": span.start,
                        "end": span.end,
                        "probability": span.probability,
                        "score": span.score,
                        "window": span.window,
                    }
                    for span in answer.n_best
                ],
            }


def scores_with_intervals(scores: Scores, questions: QuestionSet) -> dict[str, Any]:
    """The scores in percent under their JSON names, with 95 % intervals that resample paragraphs."""
    paragraphs = [question.paragraph for question in questions.questions]
    found: dict[str, Any] = dict(scores.as_dict())
    for name, values in (("exact_match", scores.exact_matches), ("f1", scores.f1s)):
        interval = paragraph_interval(values, paragraphs)
        found[f"{name}_interval"] = None if interval is None else [100 * bound for bound in interval]
    return found


def evaluate(
    encoder: Encoder,
    prepared: Prepared,
    reading: Reading,
    *,
    threshold: float | str | None = "tune",
    progress: Progress | None = None,
    gather: Gather | None = None,
) -> Evaluation:
    """Answer every question and score the answers.

    Args:
        encoder: model and tokenizer.
        prepared: the questions, cut with the same `reading`.
        reading: lengths and batch size.
        threshold: a no-answer probability, None to answer always, or "tune" (v2.0 only; see
            `choose_thresholds`).
        progress: called with (windows done, windows in all).
        gather: in a run of several processes, collects a value of each in all of them.
    """
    start, end = predict(encoder, prepared.windows, reading, progress=progress, gather=gather)
    if not (np.isfinite(start).all() and np.isfinite(end).all()):
        raise UserError(
            "the model's scores are not finite: its weights broke in training; lower learning_rate or set "
            "precision: fp32 and start again under another name"
        )
    raw = decode(
        prepared.windows, start, end, max_answer_length=reading.max_answer_length, n_best=reading.n_best
    )
    loss = evaluation_loss(prepared.windows, prepared.labels, start, end)
    return conclude(prepared.questions, raw, eval_loss=loss, threshold=threshold)


def conclude(
    questions: QuestionSet, raw: Sequence[Answer], *, eval_loss: float, threshold: float | str | None
) -> Evaluation:
    """Apply the no-answer threshold to decoded answers and score them."""
    stored: float | None
    each: Sequence[float | None]
    if threshold == "tune" and questions.version == "2.0":
        stored, each, words = choose_thresholds(questions.questions, raw)
    else:
        stored = None if isinstance(threshold, str) else threshold
        # The v1.1 script knows no refusal: there the best span is always the answer.
        used = stored if questions.version == "2.0" else None
        each = [used] * len(raw)
        words = "none: every question is answered" if used is None else "given"
    answers = [answer.with_threshold(own) for answer, own in zip(raw, each, strict=True)]
    predictions = {
        question.id: answer.text for question, answer in zip(questions.questions, answers, strict=True)
    }
    scores = score(questions.questions, predictions, version=questions.version)
    return Evaluation(questions, tuple(answers), scores, eval_loss, stored, words)


def choose_thresholds(
    questions: Sequence[Question], answers: Sequence[Answer]
) -> tuple[float, list[float], str]:
    """A threshold tuned on all questions, and for each question one tuned without its fold.

    Reporting a score with a threshold tuned on the same questions flatters it. Five folds of paragraphs:
    the questions of each fold are refused or answered by a threshold tuned on the other four.

    Returns:
        The threshold for new questions, the one each of these questions is judged by, and that in words.
    """
    answered = score(
        questions, {q.id: a.text for q, a in zip(questions, answers, strict=True)}, version="2.0"
    )
    refused = score(questions, {q.id: "" for q in questions}, version="2.0")
    probabilities = np.array([answer.no_answer_probability for answer in answers])
    overall, _ = best_threshold(probabilities, answered=answered.f1s, refused=refused.f1s)
    paragraphs = [question.paragraph for question in questions]
    if len(set(paragraphs)) < 2:
        # One paragraph cannot be tuned on itself; even odds is the only threshold without a look at it.
        return overall, [0.5] * len(questions), UNTUNED
    each = cross_fitted_thresholds(
        probabilities, answered=answered.f1s, refused=refused.f1s, groups=paragraphs
    )
    return overall, [float(value) for value in each], CROSS_FITTED


def predict(
    encoder: Encoder,
    windows: WindowSet,
    reading: Reading,
    *,
    progress: Progress | None = None,
    gather: Gather | None = None,
) -> tuple[Logits, Logits]:
    """Start and end logits of every token, flat as the windows are [S], [S].

    Windows are read longest first: a batch wastes little padding, and memory runs out at once or never.
    """
    order = np.argsort(-windows.lengths, kind="stable")
    batches = [order[at : at + reading.batch_size] for at in range(0, len(order), reading.batch_size)]
    if gather is None:
        computed = _forward(encoder, windows, batches, reading, progress)
    else:
        rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
        own = _forward(encoder, windows, batches[rank::world], reading, progress)
        computed = [part for parts in gather(own) for part in parts]
    start, end = np.empty(len(windows.ids), np.float32), np.empty(len(windows.ids), np.float32)
    for batch, logits in computed:
        for row, index in enumerate(batch):
            begin, stop = windows.splits[index], windows.splits[index + 1]
            start[begin:stop], end[begin:stop] = logits[:, row, : stop - begin]
    return start, end


def _forward(
    encoder: Encoder,
    windows: WindowSet,
    batches: list[NDArray[np.int64]],
    reading: Reading,
    progress: Progress | None,
) -> list[tuple[NDArray[np.int64], Logits]]:
    """Each batch with its start and end logits [2, B, T]."""
    computed = []
    done, total = 0, sum(map(len, batches))
    with full_precision(encoder.model) as model:
        for batch in batches:
            length = reading.max_length if reading.padded else None
            inputs = pad_windows(windows, batch, encoder.tokenizer, length=length)
            output = model(**{key: value.to(encoder.device) for key, value in inputs.items()})
            logits = torch.stack([output.start_logits, output.end_logits]).float().cpu().numpy()
            computed.append((batch, logits))
            done += len(batch)
            if progress is not None:
                progress(done, total)
    return computed


@contextmanager
def full_precision(model: PreTrainedModel) -> Iterator[PreTrainedModel]:
    """The model in evaluation mode, without gradients and without a trainer's autocast."""
    training = model.training
    # A trainer for mixed precision replaces `forward` on the instance; the class still has the plain one.
    wrapped = model.__dict__.pop("forward", None)
    model.eval()
    try:
        with torch.inference_mode(), torch.autocast(model.device.type, enabled=False):
            yield model
    finally:
        model.train(training)
        if wrapped is not None:
            model.forward = wrapped


def evaluation_loss(windows: WindowSet, labels: Labels, start: Logits, end: Logits) -> float:
    """Mean over windows of the mean cross-entropy of the start and end labels, in nats.

    A softmax runs over the window's own tokens, so the value does not depend on padding.
    """
    total = 0.0
    for logits, positions in ((start, labels[0]), (end, labels[1])):
        values = logits.astype(np.float64)
        peak = np.maximum.reduceat(values, windows.splits[:-1])
        sums = np.add.reduceat(np.exp(values - np.repeat(peak, windows.lengths)), windows.splits[:-1])
        total += float(np.mean(peak + np.log(sums) - values[windows.splits[:-1] + positions]))
    return total / 2
