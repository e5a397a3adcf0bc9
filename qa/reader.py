"""Answer questions with an experiment's model: the object everything else asks.

A `Reader` holds one model and reads any context, however long, in windows. The trap: it must read exactly as
the experiment was evaluated (same lengths, same no-answer threshold), or its answers would not be those of
the table; so both come from the experiment folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from qa.config import Settings
from qa.errors import UserError
from qa.evaluation import Logits, Prepared, Reading, predict
from qa.experiment import Experiment
from qa.hardware import choose_device
from qa.model import Encoder, load_encoder
from qa.spans import Answer, decode
from qa.squad import Question, QuestionSet
from qa.windows import Progress, WindowSet


@dataclass(frozen=True, slots=True)
class Read:
    """What a model made of the windows of Q questions, S tokens in all.

    Attributes:
        windows: what it read.
        start: start logit of every token, flat as the windows are [S].
        end: end logits [S].
        answers: Q answers, the no-answer threshold applied.
    """

    windows: WindowSet
    start: Logits
    end: Logits
    answers: tuple[Answer, ...]


@dataclass(frozen=True, slots=True)
class Reader:
    """A model that answers.

    Attributes:
        encoder: model and tokenizer.
        reading: lengths and batch size.
        threshold: questions with a no-answer probability above it are refused; None: none are.
    """

    encoder: Encoder
    reading: Reading
    threshold: float | None

    @staticmethod
    def of(experiment: Experiment, *, device: str = "auto") -> Reader:
        """The reader of a finished experiment.

        Raises:
            UserError: it has no model, or its files are broken.
        """
        settings = experiment.settings()
        folder = experiment.model_folder()
        threshold = experiment.metrics().get("no_answer_threshold")
        place = torch.device(choose_device(device))
        encoder = load_encoder(str(folder), settings.attention, device=place, check_head=True)
        return Reader(encoder, reading_of(settings), None if threshold is None else float(threshold))

    def answer(self, question: str, context: str, *, progress: Progress | None = None) -> Answer:
        """The answer to one question.

        Args:
            question: any text that is not blank; cut at `max_question_length` tokens.
            context: any text that is not blank, of any length.
            progress: called with (windows done, windows in all).

        Raises:
            UserError: a blank question or context.
        """
        return self.answers([(question, context)], progress=progress)[0]

    def answers(self, pairs: Sequence[tuple[str, str]], *, progress: Progress | None = None) -> list[Answer]:
        """The answers to many (question, context) pairs, read in common batches.

        Raises:
            UserError: a blank question or context.
        """
        if not pairs:
            return []
        return list(self.read(self.windows(pairs), progress=progress).answers)

    def windows(self, pairs: Sequence[tuple[str, str]]) -> WindowSet:
        """The windows in which the contexts of (question, context) pairs are read.

        Raises:
            UserError: a blank question or context.
        """
        questions = [_ask(number, question, context) for number, (question, context) in enumerate(pairs)]
        asked = QuestionSet("asked", "2.0", tuple(questions), ())
        return Prepared.of(asked, self.encoder.tokenizer, self.reading).windows

    def read(self, windows: WindowSet, *, progress: Progress | None = None) -> Read:
        """Run the model on windows made by `windows`, and answer."""
        start, end = predict(self.encoder, windows, self.reading, progress=progress)
        found = decode(
            windows,
            start,
            end,
            max_answer_length=self.reading.max_answer_length,
            n_best=self.reading.n_best,
        )
        return Read(windows, start, end, tuple(answer.with_threshold(self.threshold) for answer in found))


def reading_of(settings: Settings) -> Reading:
    """The reading that a run with these settings is evaluated with."""
    return Reading(
        max_length=settings.max_length,
        stride=settings.stride,
        max_question_length=settings.max_question_length,
        max_answer_length=settings.max_answer_length,
        n_best=settings.n_best,
        batch_size=settings.evaluation_batch_size,
        padded=settings.padding == "max_length",
    )


def _ask(number: int, question: str, context: str) -> Question:
    for name, text in (("question", question), ("context", context)):
        if not text.strip():
            raise UserError(f"{name}: it is empty; give some text")
    return Question(str(number), "", str(number), question, context, (), ())
