"""Training as `run_experiment.py` does it against the usual recipe of the library's run_qa example.

Ours are this project's defaults: windows of like length together, padded to the longest, fast attention,
bfloat16 where the processor multiplies it. The usual recipe: random order, every window padded to 384, eager
attention, float32. Both train the same weights on the same windows with fused AdamW, the default of both.

The trap: the length of our batches varies, so the steps must be a fair sample of an epoch. They are the
first of its order, which is random, among questions taken evenly from the whole file.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import set_seed

from benchmarks.comparison import Case, Options, Side, Work
from benchmarks.data import checkpoint, find_dataset, find_model, name_of
from benchmarks.models import POCKET, V3_BASE, Shape
from qa.batches import Collator, TrainingOrder, TrainingWindows
from qa.config import Settings
from qa.errors import UserError
from qa.evaluation import Prepared, full_precision
from qa.hardware import choose_precision
from qa.model import Encoder, load_encoder
from qa.reader import reading_of
from qa.squad import load_questions
from qa.training.estimate import AUTOCAST


def cases(options: Options) -> list[Case]:
    """The small model on the processor, and one of v3-base's size on CUDA."""
    return [
        Training.of("training", options, shape=POCKET, device="cpu"),
        Training.of("training-cuda", options, shape=V3_BASE, device="cuda"),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Training(Case):
    """Optimisation steps, a few in each round.

    Attributes:
        dataset: hub name, SQuAD JSON file or pocket.
        model: hub name, folder or pocket; None: a stand-in of this shape.
        shape: of the stand-in.
        scratch: where the stand-in is made.
        questions: how many questions are made windows of.
        steps: in a round.
        batch_size: windows in a step.
        max_length: tokens in a window at most.
        stride: tokens by which windows overlap.
    """

    dataset: str
    model: str | None
    shape: Shape
    scratch: Path
    questions: int = 8000
    steps: int = 5
    batch_size: int = 16
    max_length: int = 384
    stride: int = 128

    @staticmethod
    def of(name: str, options: Options, *, shape: Shape, device: str, **sizes: Any) -> Training:
        """The case for these options; `sizes` are other values of the last five attributes."""
        dataset, model = find_dataset(options, "train"), find_model(options, shape)
        read = name_of(dataset, "train")
        return Training(
            name=name,
            what=f"training {model or f'{shape}, random weights,'} on {read}",
            against="the run_qa recipe: padded to 384, random order, eager attention, float32",
            rounds=10,
            warm_up=1,
            unit="questions",
            alike=False,
            compared="loss of one batch in float32",
            device=device,
            dataset=dataset,
            model=model,
            shape=shape,
            scratch=options.scratch,
            **sizes,
        )

    def settings(self, side: Side) -> Settings:
        """The recipe: this project's defaults, or what differs in run_qa's."""
        common: dict[str, Any] = {
            "batch_size": self.batch_size,
            "max_length": self.max_length,
            "stride": self.stride,
        }
        if side == "ours":
            return Settings(**common)
        return Settings(
            **common, padding="max_length", group_by_length=False, attention="eager", precision="fp32"
        )

    def prepare(self, side: Side) -> Work:
        """The same weights on both sides, and the recipe's batches."""
        return Trainee(self, self.settings(side))

    def prepare_hardest(self, side: Side) -> Work:
        """The longest batch, again and again, a step a round."""
        trainee = Trainee(self, self.settings(side))
        longest = np.argsort(-trainee.data.windows.lengths, kind="stable")[: self.batch_size]
        trainee.batches, trainee.steps = itertools.repeat(longest.tolist()), 1
        return trainee

    def difference(self, ours: Trainee, theirs: Trainee) -> float:
        """Of the losses of one batch, before any step; padded alike, as the loss depends on padding."""
        batch = ours.batch(next(ours.epochs()))
        return abs(ours.loss(batch) - theirs.loss(batch))

    def items(self) -> float:
        """Questions that the windows of a round come from, on average."""
        _, prepared = material(self)
        return self.steps * self.batch_size * len(prepared.questions.questions) / len(prepared.windows)


@lru_cache(maxsize=1)
def material(case: Training) -> tuple[str, Prepared]:
    """The checkpoint to load, and the windows with their labels; the same for both sides."""
    questions = load_questions(case.dataset, "train").limited(case.questions)
    name = checkpoint(case.model, shape=case.shape, questions=questions, scratch=case.scratch)
    prepared = Prepared.of(questions, load_encoder(name).tokenizer, reading_of(case.settings("ours")))
    if len(prepared.windows) < case.batch_size:
        raise UserError(
            f"dataset: {case.dataset} gives {len(prepared.windows)} windows, fewer than the "
            f"{case.batch_size} of one step; give a larger SQuAD file"
        )
    return name, prepared


class Trainee:
    """A model, its optimizer and the batches it is trained on."""

    def __init__(self, case: Training, settings: Settings) -> None:
        name, prepared = material(case)
        # A head that the checkpoint lacks must be the same on both sides.
        set_seed(settings.seed)
        self.encoder: Encoder = load_encoder(name, settings.attention, device=case.device)
        self.encoder.model.train()
        self.data = TrainingWindows(prepared.windows, prepared.labels)
        self.settings = settings
        self.steps = case.steps
        self.batches = self.epochs()
        length = settings.max_length if settings.padding == "max_length" else None
        self._collate = Collator(self.data, self.encoder.tokenizer, length=length)
        self._dtype = AUTOCAST.get(choose_precision(settings.precision, case.device))
        self._optimizer = torch.optim.AdamW(
            self.encoder.model.parameters(), lr=settings.learning_rate, fused=True
        )

    def epochs(self) -> Iterator[list[int]]:
        """The whole batches of one epoch after another."""
        size = self.settings.batch_size
        order = TrainingOrder(
            self.data.windows.lengths, size, seed=self.settings.seed, group=self.settings.group_by_length
        )
        for epoch in itertools.count():
            order.set_epoch(epoch)
            positions = list(order)
            for begin in range(0, len(positions) - size + 1, size):
                yield positions[begin : begin + size]

    def __call__(self) -> None:
        """The steps of one round."""
        for _ in range(self.steps):
            self._step(self.batch(next(self.batches)))

    def loss(self, batch: dict[str, torch.Tensor]) -> float:
        """Loss of a batch in float32, without dropout."""
        with full_precision(self.encoder.model) as model:
            return float(model(**batch).loss)

    def batch(self, positions: list[int]) -> dict[str, torch.Tensor]:
        """The inputs and labels of these windows, padded as the recipe says."""
        return {key: value.to(self.encoder.device) for key, value in self._collate(positions).items()}

    def _step(self, batch: dict[str, torch.Tensor]) -> None:
        model = self.encoder.model
        with torch.autocast(self.encoder.device.type, self._dtype, enabled=self._dtype is not None):
            loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), self.settings.max_gradient_norm)
        self._optimizer.step()
        model.zero_grad()
