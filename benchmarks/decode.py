"""Answers from the scores of all windows: `qa.spans.decode` against the usual loop.

The loop takes, for each window of a question, the best starts and the best ends, keeps the pairs that are
spans of the context, and sorts them. Both get the same windows and scores: random ones, with one span in
every window standing out, as it does in a trained model's.

The trap: the loop sees only spans of which both ends are among the best, and decoding by bands sees all but
those that begin or end inside a character (see `qa.spans`). On scores without such peaks, or with a tokenizer
that cuts characters into pieces, a few answers differ for that reason; the report counts them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.comparison import Case, Options, Side, Work
from benchmarks.data import checkpoint, find_dataset, find_model, name_of
from benchmarks.models import POCKET
from qa.model import load_encoder
from qa.spans import decode
from qa.squad import load_questions
from qa.windows import WindowSet, make_windows

Logits = NDArray[np.float32]

# Tokens on each side of a peak that it raises, and over how many of them by a factor e less.
REACH, DECAY = 12, 4


def cases(options: Options) -> list[Case]:
    """One case: every window of a validation set."""
    return [Decoding.of("decode", options)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding(Case):
    """All answers of a validation set.

    Attributes:
        dataset: hub name, SQuAD JSON file or pocket.
        model: whose tokenizer cuts the windows; None: that of a stand-in.
        scratch: where the stand-in is made.
        max_answer_length: longest span, in tokens.
        n_best: starts, ends and spans that are kept.
    """

    dataset: str
    model: str | None
    scratch: Path
    max_answer_length: int = 30
    n_best: int = 20

    @staticmethod
    def of(name: str, options: Options) -> Decoding:
        """The case for these options."""
        dataset = find_dataset(options, "validation")
        return Decoding(
            name=name,
            what=f"answers to {name_of(dataset, 'validation')} from the scores of all windows",
            against="the usual loop over windows, 20 starts and 20 ends",
            rounds=5,
            warm_up=1,
            compared="questions with another text",
            dataset=dataset,
            model=find_model(options, POCKET),
            scratch=options.scratch,
        )

    def prepare(self, side: Side) -> Work:
        """Windows and scores; for the loop also as the lists that it walks."""
        windows, start, end = material(self)
        if side == "ours":
            return Bands(windows, start, end, self.max_answer_length, self.n_best)
        return Loop(windows.contexts, features_of(windows, start, end), self.max_answer_length, self.n_best)

    def difference(self, ours: Bands, theirs: Loop) -> float:
        """Questions for which the texts differ."""
        return float(sum(own != other for own, other in zip(ours(), theirs(), strict=True)))


@lru_cache(maxsize=1)
def material(case: Decoding) -> tuple[WindowSet, Logits, Logits]:
    """The windows with a start and an end score for every token."""
    questions = load_questions(case.dataset, "validation")
    name = checkpoint(case.model, shape=POCKET, questions=questions, scratch=case.scratch)
    tokenizer = load_encoder(name).tokenizer
    windows = make_windows(questions.questions, tokenizer, max_length=384, stride=128)
    return windows, *peaked_logits(windows, seed=0)


def peaked_logits(windows: WindowSet, *, seed: int) -> tuple[Logits, Logits]:
    """Random start and end scores [S], [S]; in each window those of one span of up to 8 tokens stand out.

    Tokens near its ends stand out a little: in a trained model's scores of SQuAD 138 of the loop's 400 pairs
    in a window are spans, and so it is here, which decides how long the loop takes.
    """
    draw = np.random.default_rng(seed)
    start, end = draw.standard_normal((2, len(windows.ids)), dtype=np.float32)
    counts = (windows.context_end - windows.context_start).astype(np.int64)
    some = np.flatnonzero(counts)
    first = draw.integers(0, counts[some])
    last = np.minimum(first + draw.integers(0, 8, len(some)), counts[some] - 1)
    context = (windows.splits[:-1] + windows.context_start)[some]
    for scores, peak in ((start, first), (end, last)):
        height = draw.uniform(4, 10, len(some))
        for step in range(-REACH, REACH + 1):
            inside = (peak + step >= 0) & (peak + step < counts[some])
            raised = height * np.exp(-abs(step) / DECAY)
            scores[(context + peak + step)[inside]] += raised[inside].astype(np.float32)
    return start, end


@dataclass(frozen=True, slots=True)
class Bands:
    """Decoding as `qa` does it."""

    windows: WindowSet
    start: Logits
    end: Logits
    max_answer_length: int
    n_best: int

    def __call__(self) -> list[str]:
        """The text for each question."""
        answers = decode(
            self.windows, self.start, self.end, max_answer_length=self.max_answer_length, n_best=self.n_best
        )
        return [answer.text for answer in answers]


@dataclass(frozen=True, slots=True)
class Feature:
    """One window as the loop knows it: T tokens.

    Attributes:
        offsets: first character and end of each token of the context, None for other tokens and for those
            that cover nothing but blanks (T).
        start: scores [T].
        end: scores [T].
    """

    offsets: list[tuple[int, int] | None]
    start: Logits
    end: Logits


def features_of(windows: WindowSet, start: Logits, end: Logits) -> list[list[Feature]]:
    """The windows of each question."""
    features: list[list[Feature]] = [[] for _ in windows.contexts]
    for number, window in enumerate(windows):
        tokens = slice(int(windows.splits[number]), int(windows.splits[number + 1]))
        offsets: list[tuple[int, int] | None] = [None] * len(window.ids)
        offsets[window.context] = [
            (first, last) if first < last else None for first, last in window.chars.tolist()
        ]
        features[window.question].append(Feature(offsets, start[tokens], end[tokens]))
    return features


@dataclass(frozen=True, slots=True)
class Loop:
    """Decoding as examples and courses do it, one pair of a start and an end after another."""

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
            _add_probabilities(best)
            texts.append(str(best[0]["text"]) if best else "")
        return texts

    def _spans(self, feature: Feature, context: str) -> Iterator[dict[str, Any]]:
        starts = np.argsort(feature.start)[: -self.n_best - 1 : -1].tolist()
        ends = np.argsort(feature.end)[: -self.n_best - 1 : -1].tolist()
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


def _add_probabilities(spans: list[dict[str, Any]]) -> None:
    scores = np.array([span["score"] for span in spans])
    if len(scores):
        powers = np.exp(scores - scores.max())
        for span, probability in zip(spans, powers / powers.sum(), strict=True):
            span["probability"] = probability
