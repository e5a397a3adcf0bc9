"""What the gold answer loses without each head: measured by switching it off, and estimated by one gradient.

Both are about the same number, the log-probability of the gold answer among all spans of all windows and "no
answer" (which is the gold answer of a question without one). The estimate is its derivative with respect to a
gate on the head's context vector, at the gate's value 1: what is lost to first order when the gate closes
(Michel et al. 2019, https://arxiv.org/abs/1905.10650, who take its size). The trap: the probability depends
on every token of every window, so the derivative goes through all of them, weighted with the probability of
each span; the gold span's scores alone would miss what the other spans gain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from probes.ablation import Head, Variants, check_how, gone_heads, known_heads
from probes.embedded import differentiable
from probes.encoders import Parts, describe
from probes.hooks import register
from probes.knockout import BATCH_BYTES, copies_of
from probes.span_target import SpanTarget
from probes.targets import Asked
from qa.batches import pad_windows
from qa.errors import UserError
from qa.evaluation import Logits
from qa.metrics import score_answer
from qa.reader import Reader
from qa.span_scores import SpanScores, TokenScores
from qa.spans import Answer, decode
from qa.squad import Question, Version
from qa.windows import gold_span

Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Gold:
    """A question that was read, and what its gold answer is.

    Attributes:
        question: with its answers.
        version: of its data set, which decides how answers are scored.
        asked: the question as the model read it.
        span: the first gold answer that a window holds whole; None where the question has no answer.
    """

    question: Question
    version: Version
    asked: Asked
    span: SpanTarget | None

    @staticmethod
    def of(reader: Reader, question: Question, version: Version) -> Gold | None:
        """Read a question; None if it has gold answers but no window holds one, or one too long to give."""
        start, end = gold_span(question)
        place = (start, end) if end else None
        if question.answers and place is None:
            return None
        try:
            asked = Asked.of(reader, question.question, question.context, gold=place)
            span = None if place is None else asked.span("gold")
        except UserError:
            return None
        if span is not None and span.last - span.first >= reader.reading.max_answer_length:
            return None
        return Gold(question, version, asked, span)

    def log_probability(self, start: Logits, end: Logits, answers: Sequence[Answer]) -> Float:
        """Of the gold answer, N times [N]; arguments as `SpanTarget.probability`."""
        if self.span is None:
            probability = np.array([answer.no_answer_probability for answer in answers])
        else:
            probability = self.span.probability(start, end, answers)
        log: Float = np.log(np.maximum(probability, np.finfo(np.float64).tiny))
        return log

    def scores(self, answers: Iterable[Answer]) -> Float:
        """Exact match and F1 of answers, in percent [N, 2]."""
        golds = self.question.answers
        found = [score_answer(answer.text, golds, version=self.version) for answer in answers]
        return 100 * np.array(found, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Knocked:
    """What a question's answer is with each of N sets of heads switched off.

    Attributes:
        log_probability: of the gold answer, unchanged [] and changed [N].
        scores: exact match and F1 in percent, unchanged first [1 + N, 2].
    """

    log_probability: Float
    scores: Float


def knock_out_sets(gold: Gold, sets: Sequence[Iterable[Head]], *, how: str = "zero") -> Knocked:
    """The gold answer and the scores without each of N sets of heads.

    Raises:
        UserError: a head that is not there, or another `how`.
    """
    check_how(how)
    reader, windows = gold.asked.reader, gold.asked.windows
    parts = describe(reader.encoder.model)
    chosen = [known_heads(heads, parts) for heads in sets]
    variants = Variants(parts, gone_heads(chosen, parts), how, BATCH_BYTES)
    start, end = variants.scores(reader, windows, None)
    length = reader.reading.max_answer_length
    copies = copies_of(windows, len(start))
    answers = decode(copies, start.ravel(), end.ravel(), max_answer_length=length, n_best=1)
    return Knocked(
        gold.log_probability(start, end, answers),
        gold.scores(answer.with_threshold(reader.threshold) for answer in answers),
    )


def knock_out_singles(gold: Gold, *, how: str = "zero") -> dict[str, Float]:
    """What is lost without each head, by measure [L, H]; above 0 the head helps."""
    parts = describe(gold.asked.reader.encoder.model)
    L, H = len(parts.layers), parts.heads
    singles = [[(layer, head)] for layer in range(L) for head in range(H)]
    found = knock_out_sets(gold, singles, how=how)
    exact_match, f1 = (found.scores[0] - found.scores[1:]).T.reshape(2, L, H)
    lost = (found.log_probability[0] - found.log_probability[1:]).reshape(L, H)
    return {"knockout": lost, "knockout_f1": f1, "knockout_exact_match": exact_match}


def estimate_singles(gold: Gold, *, how: str = "zero") -> Float:
    """The log-probability lost without each head, to first order [L, H]."""
    check_how(how)
    reader, windows = gold.asked.reader, gold.asked.windows
    weights = log_probability_gradient(gold)
    parts = describe(reader.encoder.model)
    with differentiable(reader.encoder.model) as model:
        gates = torch.ones(len(parts.layers), parts.heads, device=model.device, requires_grad=True)
        total = torch.zeros_like(gates)
        with _Gates(parts, gates, how):
            for number in range(len(windows)):
                inputs = pad_windows(windows, [number], reader.encoder.tokenizer)
                output = model(**{name: tensor.to(model.device) for name, tensor in inputs.items()})
                scores = torch.cat([output.start_logits, output.end_logits])  # [2, T]
                here = weights[:, windows.splits[number] : windows.splits[number + 1]]
                along = torch.from_numpy(here).to(scores)
                total += torch.autograd.grad((scores * along).sum(), gates)[0]
    return total.double().cpu().numpy()


def log_probability_gradient(gold: Gold) -> Float:
    """Derivative of the gold answer's log-probability with respect to all start and end scores [2, S]."""
    read, windows = gold.asked.read, gold.asked.windows
    tokens = TokenScores.of(
        windows,
        slice(0, len(windows)),
        read.start,
        read.end,
        max_answer_length=gold.asked.reader.reading.max_answer_length,
    )
    spans = SpanScores.of(tokens)
    cells = np.flatnonzero(np.isfinite(spans.best))
    scores, window = tokens.spans(cells)  # [n, length]
    _, position = tokens.place(cells)
    first = tokens.token[window] + position[:, None] - tokens.before[window]
    cls = windows.splits[:-1] + windows.cls
    no_answer = read.start[cls].astype(np.float64) + read.end[cls]
    total = np.logaddexp(spans.log_total[0], no_answer.min())
    row, extent = np.nonzero(np.isfinite(scores))
    probability = np.exp(scores[row, extent] - total)
    gradient = np.zeros((2, len(windows.ids)))
    np.subtract.at(gradient[0], first[row, extent], probability)
    np.subtract.at(gradient[1], first[row, extent] + extent, probability)
    lowest = cls[int(no_answer.argmin())]
    gradient[:, lowest] -= np.exp(no_answer.min() - total)
    ends = (lowest, lowest) if gold.span is None else _best_place(gold.span, read.start, read.end)
    gradient[[0, 1], ends] += 1
    return gradient


def _best_place(span: SpanTarget, start: Logits, end: Logits) -> tuple[int, int]:
    """The first and last token of the span where its score is best, flat as the windows are."""
    firsts, lasts = span.places.T
    best = int((start[firsts].astype(np.float64) + end[lasts]).argmax())
    return int(firsts[best]), int(lasts[best])


class _Gates:
    """Multiply what heads add by gates, inside a `with` block; with "mean", what differs from its mean."""

    def __init__(self, parts: Parts, gates: torch.Tensor, how: str) -> None:
        self._parts, self._gates, self._how = parts, gates, how
        self._calls: dict[nn.Module, int] = {}
        self._remove: Callable[[], None] | None = None

    def __enter__(self) -> Self:
        outputs = {layer.output: self._project for layer in self._parts.layers}
        self._remove = register([(self._parts.base, self._begin), *outputs.items()])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._remove is not None:
            self._remove()
        self._remove = None

    def _begin(self, *_: Any) -> None:
        self._calls = {}

    def _project(
        self, module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        # ALBERT's layers share one projection, and are told apart by the order of calls.
        numbers = [number for number, layer in enumerate(self._parts.layers) if layer.output is module]
        call = self._calls.get(module, 0)
        self._calls[module] = call + 1
        gate = self._gates[numbers[call]].repeat_interleave(self._parts.head_size)
        context = arguments[0]
        rest = context.mean(1, keepdim=True) if self._how == "mean" else 0
        return (rest + gate * (context - rest), *arguments[1:]), named
