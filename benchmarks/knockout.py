"""Every head knocked out in turn: `probes.knockout` against one forward a head.

Both sides have the same model with the same attention, so the difference is in the method alone. The gain has
two parts. Lower layers are not computed again, which saves half of the arithmetic whatever the context. And
heads are read in batches, which saves what a small forward spends on anything but arithmetic: most of it for
a sentence, little for a page on a CPU.

The trap: one forward a head must find the scores of the same span, so it, too, fixes the span beforehand.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.comparison import Case, Options, Side, Work
from benchmarks.data import checkpoint, find_dataset, find_model, name_of
from benchmarks.models import POCKET
from probes.encoders import describe
from probes.knockout import Knockout, knock_out_each
from probes.span_target import SpanTarget
from qa.evaluation import Reading
from qa.model import load_encoder
from qa.reader import Read, Reader
from qa.spans import Float
from qa.squad import load_questions

SENTENCE = ("What is my favorite color?", "My favorite color is red.")


def cases(options: Options) -> list[Case]:
    """A sentence, and a context of the usual length."""
    return [
        KnockingOut.of("knockout", options, words=None, rounds=10),
        KnockingOut.of("knockout-long", options, words=150, rounds=3),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class KnockingOut(Case):
    """The effect of each head on the answer to one question.

    Attributes:
        dataset: hub name, SQuAD JSON file or pocket.
        model: which to look into; None: a stand-in.
        scratch: where the stand-in is made.
        words: about how many the context has, the nearest of the data set; None: `SENTENCE`.
    """

    dataset: str
    model: str | None
    scratch: Path
    words: int | None

    @staticmethod
    def of(name: str, options: Options, *, words: int | None, rounds: int) -> KnockingOut:
        """The case for these options."""
        dataset = find_dataset(options, "validation")
        about = f"about {words} words of {name_of(dataset, 'validation')}"
        return KnockingOut(
            name=name,
            what=f"effect of every head on the answer, {'a sentence' if words is None else about}",
            against="one forward a head, the same attention",
            rounds=rounds,
            warm_up=1,
            compared="changes of start and end scores",
            dataset=dataset,
            model=find_model(options, POCKET),
            scratch=options.scratch,
            words=words,
        )

    def prepare(self, side: Side) -> Work:
        """The reader and the question."""
        reader, pair = material(self)
        return InBatches(reader, pair) if side == "ours" else OneByOne(reader, pair)

    def difference(self, ours: InBatches, theirs: OneByOne) -> float:
        """The largest of all heads, in logits."""
        pairs = zip(ours()[:2], theirs()[:2], strict=True)
        return max(float(np.abs(own - other).max()) for own, other in pairs)


class Found(NamedTuple):
    """What each side finds, by layer and head: changes of two scores, and texts [L, H]."""

    start: Float
    end: Float
    texts: list[list[str]]


@lru_cache(maxsize=1)
def material(case: KnockingOut) -> tuple[Reader, tuple[str, str]]:
    """The reader, and a question with its context."""
    questions = load_questions(case.dataset, "validation")
    name = checkpoint(case.model, shape=POCKET, questions=questions, scratch=case.scratch)
    reader = Reader(load_encoder(name), Reading(), None)
    if case.words is None:
        return reader, SENTENCE
    wanted = case.words
    nearest = min(questions.questions, key=lambda one: abs(len(one.context.split()) - wanted))
    return reader, (nearest.question, nearest.context)


@dataclass(frozen=True, slots=True)
class InBatches:
    """As `probes` does it."""

    reader: Reader
    pair: tuple[str, str]

    def __call__(self) -> Found:
        """All heads in one call."""
        effects = knock_out_each(self.reader, *self.pair)
        texts = [[answer.text for answer in row] for row in effects.answers]
        return Found(effects.start, effects.end, texts)


@dataclass(frozen=True, slots=True)
class OneByOne:
    """A whole forward for each head, with a hook, and its answer."""

    reader: Reader
    pair: tuple[str, str]

    def __call__(self) -> Found:
        """All heads, one after another."""
        model, windows = self.reader.encoder.model, self.reader.windows([self.pair])
        before = self.reader.read(windows)
        span = SpanTarget.of(windows, before.answers[0].n_best[0])
        parts, reads = describe(model), []
        for head in np.ndindex(len(parts.layers), parts.heads):
            with Knockout(model, [head]):
                reads.append(self.reader.read(windows))
        found = np.array([_scores(span, read) for read in reads]) - _scores(span, before)
        start, end = found.T.reshape(2, len(parts.layers), parts.heads)
        texts = np.array([read.answers[0].text for read in reads], dtype=np.object_)
        return Found(start, end, texts.reshape(start.shape).tolist())


def _scores(span: SpanTarget, read: Read) -> Any:
    """Start and end score [2]."""
    return np.concatenate(span.scores(read.start[None], read.end[None]))
