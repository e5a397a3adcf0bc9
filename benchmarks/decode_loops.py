"""What decoding is measured against: the loop over pairs of a start and an end, as people run it and bare.

`DatasetLoop` has the method of the post-processing that comes with Hugging Face's question-answering example
and that courses repeat: rows of a `datasets.Dataset` turned into Python lists, the best starts and the best
ends of each window, a dict for each pair that is a span, the best of them sorted out, and a softmax over
these.
`BareLoop` is the same loop with all that can be prepared prepared, and without probabilities for JSON.

The trap: a loop is easily made slow. The example reads each row three times, and this one once; it shows a
progress bar, and this one does not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
from numpy.typing import NDArray

from qa.squad import Question
from qa.windows import WindowSet

Logits = NDArray[np.float32]

# What the Trainer fills the scores of the shorter windows up with.
PADDING = -100.0


@dataclass(frozen=True, slots=True)
class DatasetLoop:
    """Decoding as the example does it.

    Attributes:
        examples: a row for each question, with the columns of SQuAD.
        features: a row for each window: what the model reads, `offset_mapping` and `example_id`.
        start: scores [N, T], padded.
        end: likewise.
        max_answer_length: longest span, in tokens.
        n_best: starts, ends and spans that are kept.
    """

    examples: datasets.Dataset
    features: datasets.Dataset
    start: Logits
    end: Logits
    max_answer_length: int
    n_best: int

    def __call__(self) -> dict[str, list[dict[str, Any]]]:
        """The best spans of each question by its id."""
        numbers: dict[str, list[int]] = defaultdict(list)
        for number, name in enumerate(self.features["example_id"]):
            numbers[name].append(number)
        return {
            example["id"]: self._best(example["context"], numbers[example["id"]]) for example in self.examples
        }

    def _best(self, context: str, numbers: list[int]) -> list[dict[str, Any]]:
        """The best spans of one question, given its windows."""
        spans = [span for number in numbers for span in self._spans(number)]
        best = sorted(spans, key=lambda span: span["score"], reverse=True)[: self.n_best]
        for span in best:
            first, last = span.pop("offsets")
            span["text"] = context[first:last]
        add_probabilities(best)
        return [
            {name: float(value) if isinstance(value, np.floating) else value for name, value in span.items()}
            for span in best
        ]

    def _spans(self, number: int) -> Iterator[dict[str, Any]]:
        """The spans of one window of which both ends are among the best."""
        row = self.features[number]
        start_logits, end_logits = self.start[number], self.end[number]
        offsets, widest = row["offset_mapping"], row.get("token_is_max_context")
        starts, ends = (best_indices(scores, self.n_best) for scores in (start_logits, end_logits))
        for start in starts:
            for end in ends:
                if start >= len(offsets) or end >= len(offsets):
                    continue
                if offsets[start] is None or offsets[end] is None:
                    continue
                if end < start or end - start + 1 > self.max_answer_length:
                    continue
                if widest is not None and not widest.get(str(start), False):
                    continue
                yield {
                    "offsets": (offsets[start][0], offsets[end][1]),
                    "score": start_logits[start] + end_logits[end],
                    "start_logit": start_logits[start],
                    "end_logit": end_logits[end],
                }


def examples_of(questions: Sequence[Question]) -> datasets.Dataset:
    """The questions as the hub's SQuAD has them."""
    return datasets.Dataset.from_list(
        [
            {
                "id": question.id,
                "title": question.title,
                "context": question.context,
                "question": question.question,
                "answers": {"text": list(question.answers), "answer_start": list(question.starts)},
            }
            for question in questions
        ]
    )


def features_of(windows: WindowSet, questions: Sequence[Question]) -> datasets.Dataset:
    """The windows as the example's tokenising step leaves them."""
    return datasets.Dataset.from_list(
        [
            {
                "input_ids": window.ids.tolist(),
                "token_type_ids": window.types.tolist(),
                "attention_mask": [1] * len(window.ids),
                "offset_mapping": offsets,
                "example_id": questions[window.question].id,
            }
            for window, offsets in zip(windows, offsets_of(windows), strict=True)
        ]
    )


def offsets_of(windows: WindowSet) -> Iterator[list[tuple[int, int] | None]]:
    """First character and end of each token of a window; None for those that can be no end of an answer.

    That is: outside of the context, and, so that both sides have the same candidates, of blanks only.
    """
    for window in windows:
        offsets: list[tuple[int, int] | None] = [None] * len(window.ids)
        offsets[window.context] = [
            (first, last) if first < last else None for first, last in window.chars.tolist()
        ]
        yield offsets


def padded(windows: WindowSet, scores: Logits) -> Logits:
    """Flat scores as the Trainer gives them [N, T]."""
    rows = np.full((len(windows), int(windows.lengths.max())), PADDING, dtype=np.float32)
    rows[np.arange(rows.shape[1]) < windows.lengths[:, None]] = scores
    return rows


@dataclass(frozen=True, slots=True)
class Feature:
    """One window as the bare loop knows it: T tokens.

    Attributes:
        offsets: as `offsets_of` gives them (T).
        start: scores [T].
        end: scores [T].
    """

    offsets: list[tuple[int, int] | None]
    start: Logits
    end: Logits


def bare_features_of(windows: WindowSet, start: Logits, end: Logits) -> list[list[Feature]]:
    """The windows of each question."""
    features: list[list[Feature]] = [[] for _ in windows.contexts]
    for number, offsets in enumerate(offsets_of(windows)):
        tokens = slice(int(windows.splits[number]), int(windows.splits[number + 1]))
        features[windows.question[number]].append(Feature(offsets, start[tokens], end[tokens]))
    return features


@dataclass(frozen=True, slots=True)
class BareLoop:
    """The loop with everything at hand: no rows to read, no dicts to finish."""

    contexts: tuple[str, ...]
    features: list[list[Feature]]
    max_answer_length: int
    n_best: int

    def __call__(self) -> list[str]:
        """The text for each question."""
        texts = []
        for context, features in zip(self.contexts, self.features, strict=True):
            candidates = [span for feature in features for span in self._spans(feature, context)]
            candidates.sort(key=lambda span: span["score"], reverse=True)
            best = candidates[: self.n_best]
            add_probabilities(best)
            texts.append(str(best[0]["text"]) if best else "")
        return texts

    def _spans(self, feature: Feature, context: str) -> Iterator[dict[str, Any]]:
        starts, ends = (best_indices(scores, self.n_best) for scores in (feature.start, feature.end))
        for start in starts:
            for end in ends:
                first, last = feature.offsets[start], feature.offsets[end]
                if first is None or last is None:
                    continue
                if end < start or end - start + 1 > self.max_answer_length:
                    continue
                yield {
                    "text": context[first[0] : last[1]],
                    "start": first[0],
                    "end": last[1],
                    "score": feature.start[start] + feature.end[end],
                }


def best_indices(scores: Logits, number: int) -> list[int]:
    """Positions of the `number` highest scores, highest first."""
    positions: list[int] = np.argsort(scores)[: -number - 1 : -1].tolist()
    return positions


def add_probabilities(spans: list[dict[str, Any]]) -> None:
    """A softmax over the scores of these spans."""
    scores = np.array([span["score"] for span in spans])
    if len(scores):
        powers = np.exp(scores - scores.max())
        for span, probability in zip(spans, powers / powers.sum(), strict=True):
            span["probability"] = probability
