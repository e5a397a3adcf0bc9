"""Everything a run needs before its first step: data, model, windows, schedule.

Whatever can be refused is refused here, before a folder is made. The trap: what is drawn at random before
training (the weights of a new head) must be drawn again identically on resume, so the seed is set right
before the model is made.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import set_seed
from transformers.integrations import integration_utils
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from qa.config import Settings
from qa.errors import UserError
from qa.evaluation import Prepared, Reading
from qa.hardware import choose_device, choose_precision, describe_environment
from qa.model import Encoder, check_max_length, load_encoder, tokenizer_fingerprint
from qa.reader import reading_of
from qa.run import claim_model_folder
from qa.schedule import Schedule
from qa.squad import (
    QuestionSet,
    describe_misplaced,
    hold_out,
    load_questions,
    refuse_misplaced,
)
from qa.windows import all_answer_labels, check_lengths


def world_size() -> int:
    """How many processes this run has."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this is the process that writes and speaks."""
    return int(os.environ.get("RANK", "0")) == 0


def _place(device: str) -> str:
    """The device of this process: with several GPUs each process has one."""
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if device == "cuda" else device


def say(text: str) -> None:
    """Tell the user something, once however many processes there are."""
    if is_first():
        print(text, file=sys.stderr, flush=True)


@dataclass(frozen=True, slots=True)
class Job:
    """A run before its first step.

    Attributes:
        settings: resolved.
        device: cpu, cuda or mps.
        precision: fp32, bf16 or fp16.
        encoder: the model to train.
        training: training questions and their windows.
        validation: validation questions and their windows.
        reading: how validation questions are read.
        schedule: when to evaluate and to stop.
    """

    settings: Settings
    device: str
    precision: str
    encoder: Encoder
    training: Prepared
    validation: Prepared
    reading: Reading
    schedule: Schedule

    @property
    def environment(self) -> dict[str, Any]:
        """What `environment.json` holds."""
        data = {"training": self.training, "validation": self.validation}
        return {
            **describe_environment(self.device, self.precision),
            "seed": self.settings.seed,
            "data": {
                key: {**prepared.questions.describe(), "windows": len(prepared.windows)}
                for key, prepared in data.items()
            },
            "tokenizer_sha256": tokenizer_fingerprint(self.encoder.tokenizer),
        }


def resolved(settings: Settings, folder: Path) -> Settings:
    """Paths made absolute, so that the experiment can be resumed from anywhere.

    Raises:
        UserError: a path that cannot be one, or a model folder that belongs to another experiment.
    """
    changes: dict[str, Any] = {}
    for key in ("model_name", "dataset", "validation_dataset", "best_model_path"):
        value = getattr(settings, key)
        if value is None or (value == "pocket" and key != "best_model_path"):
            continue
        try:
            path = Path(value).expanduser()
            if key == "best_model_path" or path.exists():
                changes[key] = str(path.resolve())
        except (OSError, RuntimeError) as error:
            raise UserError(f"{key}: {value[:80]!r} is no path ({error}); give another") from error
    if settings.best_model_path is not None and is_first():
        claim_model_folder(Path(changes["best_model_path"]), folder)
    return settings.changed(**changes)


def prepare(settings: Settings, *, kept: Path | None = None) -> Job:
    """Load and check everything.

    Args:
        settings: resolved.
        kept: a folder that keeps windows by content (`qa.window_cache`); None: they are cut anew.

    Raises:
        UserError: a setting that cannot work with this data, this model or this machine.
    """
    device = choose_device(settings.device)
    precision = choose_precision(settings.precision, device)
    _check_trackers(settings)
    training, validation = _load_data(settings)
    set_seed(settings.seed)
    encoder = load_encoder(settings.model_name, settings.attention, device=_place(device))
    check_max_length(encoder.model, settings.max_length)
    check_lengths(
        encoder.tokenizer,
        max_length=settings.max_length,
        stride=settings.stride,
        max_question_length=settings.max_question_length,
    )
    reading = reading_of(settings)
    prepared = Prepared.of(training, encoder.tokenizer, reading, kept=kept)
    if prepared.windows.shortened:
        say(
            f"{len(prepared.windows.shortened)} questions are longer than max_question_length "
            f"{settings.max_question_length} and are cut there"
        )
    if settings.gold_answers == "all":
        labels = all_answer_labels(prepared.windows, training.questions)
        prepared = dataclasses.replace(prepared, labels=labels)
    return Job(
        settings=settings,
        device=device,
        precision=precision,
        encoder=encoder,
        training=prepared,
        validation=Prepared.of(validation, encoder.tokenizer, reading, kept=kept),
        reading=reading,
        schedule=Schedule.of(settings, len(prepared.windows), world_size()),
    )


def _check_trackers(settings: Settings) -> None:
    wanted = [settings.report_to] if isinstance(settings.report_to, str) else settings.report_to
    for name in wanted:
        if name not in ("none", "all", *INTEGRATION_TO_CALLBACK):
            known = ", ".join(INTEGRATION_TO_CALLBACK)
            raise UserError(f"report_to: no tracker {name!r}; use none, all or some of {known}")
        available = getattr(integration_utils, f"is_{name}_available", None)
        if available is not None and not available():
            raise UserError(f"report_to: {name} is not installed; install it or set report_to: none")


def _load_data(settings: Settings) -> tuple[QuestionSet, QuestionSet]:
    """Training and validation questions, after hold-out, limits and the check of answers."""
    training = load_questions(settings.dataset, "train")
    if settings.held_out_articles:
        if settings.validation_dataset is not None:
            raise UserError(
                "held_out_articles and validation_dataset are both set; validation comes from one of them, "
                "set the other to 0 or null"
            )
        training, validation = hold_out(training, settings.held_out_articles)
    elif settings.validation_dataset is not None or not Path(settings.dataset).is_file():
        validation = load_questions(settings.validation_dataset or settings.dataset, "validation")
    else:
        raise UserError(
            f"validation_dataset: {settings.dataset} has no validation split; set validation_dataset to a "
            "second file, or held_out_articles to a number of articles to set aside"
        )
    if settings.bad_answers == "refuse":
        refuse_misplaced(training)
    if training.misplaced:
        say(f"{describe_misplaced(training)}; these questions are not trained on")
        bad = set(training.misplaced)
        training = training.subset(question for question in training.questions if question.id not in bad)
    if not training.questions:
        raise UserError(f"{training.name}: no question is left to train on; check its answers")
    return training.limited(settings.limit_train), validation.limited(settings.limit_validation)
