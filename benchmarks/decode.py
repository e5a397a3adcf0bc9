"""Answers from the scores of all windows: `qa.spans.decode` against the usual loop.

The loop takes, for each window of a question, the best starts and the best ends, keeps the pairs that are
spans of the context, and sorts them (`benchmarks.decode_loops`). All get the same windows and scores: random
ones, with one span in every window standing out, as it does in a trained model's.

The trap: the loop sees only spans of which both ends are among the best, and `decode` all but those that
begin or end inside a character (see `qa.spans`). On scores without such peaks, or with a tokenizer that cuts
characters into pieces, a few answers differ for that reason, and of 20 best spans the last often do; the
report counts them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.comparison import Case, Options, Side, Work
from benchmarks.data import checkpoint, find_dataset, find_model, name_of
from benchmarks.decode_loops import (
    BareLoop,
    DatasetLoop,
    Logits,
    bare_features_of,
    examples_of,
    features_of,
    padded,
)
from benchmarks.models import POCKET
from qa.model import load_encoder
from qa.spans import Answer, decode
from qa.squad import Question, load_questions
from qa.windows import WindowSet, make_windows

# Tokens on each side of a peak that it raises, and over how many of them by a factor e less.
REACH, DECAY = 12, 4


def cases(options: Options) -> list[Case]:
    """The answers against both loops, and the n-best spans against the one that gives them."""
    data = name_of(find_dataset(options, "validation"), "validation")
    example = "the loop of Hugging Face's example over rows of a Dataset, 20 starts and 20 ends"
    answers = f"answers to {data} from the scores of all windows"
    ranked = f"the 20 best spans for each question of {data} from the scores of all windows"
    return [
        Answering.of("decode", options, what=answers, against=example),
        BareAnswering.of("decode-bare", options, what=answers, against="that loop with all prepared for it"),
        Ranking.of("decode-n-best", options, what=ranked, against=example),
    ]


@dataclass(frozen=True, slots=True)
class Material:
    """What all sides decode.

    Attributes:
        questions: as asked.
        windows: of these.
        start: a start score for every token.
        end: an end score for every token.
    """

    questions: tuple[Question, ...]
    windows: WindowSet
    start: Logits
    end: Logits


@dataclass(frozen=True, slots=True, kw_only=True)
class Answering(Case):
    """The answers to a validation set, against `DatasetLoop`.

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
    rounds: int = 5
    warm_up: int = 1
    compared: str = "questions with another text"

    @classmethod
    def of(cls, name: str, options: Options, *, what: str, against: str) -> Answering:
        """The case for these options."""
        return cls(
            name=name,
            what=what,
            against=against,
            dataset=find_dataset(options, "validation"),
            model=find_model(options, POCKET),
            scratch=options.scratch,
        )

    def prepare(self, side: Side) -> Work:
        """Windows and scores; for the loop in the form in which it reads them."""
        found = material(self)
        return self.ours(found) if side == "ours" else self.theirs(found)

    def ours(self, found: Material) -> Work:
        """The text of each answer."""
        return lambda: [answer.text for answer in self.decoded(found)]

    def decoded(self, found: Material) -> list[Answer]:
        """The answers."""
        return decode(
            found.windows,
            found.start,
            found.end,
            max_answer_length=self.max_answer_length,
            n_best=self.n_best,
        )

    def theirs(self, found: Material) -> Work:
        """The loop over rows."""
        return DatasetLoop(
            examples_of(found.questions),
            features_of(found.windows, found.questions),
            padded(found.windows, found.start),
            padded(found.windows, found.end),
            self.max_answer_length,
            self.n_best,
        )

    def difference(self, ours: Any, theirs: Any) -> float:
        """Questions for which the texts differ."""
        others = (spans[0]["text"] if spans else "" for spans in theirs().values())
        return float(sum(own != other for own, other in zip(ours(), others, strict=True)))


@dataclass(frozen=True, slots=True, kw_only=True)
class BareAnswering(Answering):
    """The same against `BareLoop`."""

    def theirs(self, found: Material) -> Work:
        """The loop over lists."""
        features = bare_features_of(found.windows, found.start, found.end)
        return BareLoop(found.windows.contexts, features, self.max_answer_length, self.n_best)

    def difference(self, ours: Any, theirs: Any) -> float:
        """Questions for which the texts differ."""
        return float(sum(own != other for own, other in zip(ours(), theirs(), strict=True)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking(Answering):
    """The best spans for each question, against `DatasetLoop`, which always makes them."""

    compared: str = "questions with another list"

    def ours(self, found: Material) -> Work:
        """The spans, each with its text and probability."""
        return lambda: [answer.n_best[:] for answer in self.decoded(found)]

    def difference(self, ours: Any, theirs: Any) -> float:
        """Questions for which the lists of texts differ."""
        own = [[span.text for span in spans] for spans in ours()]
        others = ([span["text"] for span in spans] for spans in theirs().values())
        return float(sum(mine != other for mine, other in zip(own, others, strict=True)))


def material(case: Answering) -> Material:
    """The questions of a case with their windows, and a start and an end score for every token."""
    return _material(case.dataset, case.model, case.scratch)


@lru_cache(maxsize=1)
def _material(dataset: str, model: str | None, scratch: Path) -> Material:
    questions = load_questions(dataset, "validation")
    name = checkpoint(model, shape=POCKET, questions=questions, scratch=scratch)
    tokenizer = load_encoder(name).tokenizer
    windows = make_windows(questions.questions, tokenizer, max_length=384, stride=128)
    return Material(questions.questions, windows, *peaked_logits(windows, seed=0))


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
