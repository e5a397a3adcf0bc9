"""The questions and the checkpoint that comparisons read: real ones where they are, stand-ins where not.

The trap: a figure means little without its data, so whoever asks for data gets its name for the report too.
"""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.comparison import Options
from benchmarks.models import Shape, save_stand_in
from qa.pocket import POCKET_MODEL
from qa.squad import QuestionSet

OFFICIAL = {"train": "train-v1.1.json", "validation": "dev-v1.1.json"}


def find_dataset(options: Options, split: str) -> str:
    """What `qa.squad.load_questions` takes: the one given, else the official file of SQUAD_DIR, else pocket.

    Args:
        options: of the run.
        split: "train" or "validation".
    """
    if options.dataset is not None:
        return options.dataset
    folder = os.environ.get("SQUAD_DIR")
    return str(Path(folder) / OFFICIAL[split]) if folder else "pocket"


def name_of(source: str, split: str) -> str:
    """The data in words."""
    return f"pocket's {split} questions" if source == "pocket" else Path(source).name


def find_model(options: Options, shape: Shape) -> str | None:
    """What `qa.model.load_encoder` takes: the one given, else pocket if it is there; None: a stand-in."""
    if options.model is not None:
        return options.model
    return "pocket" if shape.name == "pocket" and (POCKET_MODEL / "config.json").is_file() else None


def checkpoint(model: str | None, *, shape: Shape, questions: QuestionSet, scratch: Path) -> str:
    """The model to load: the one named, or a stand-in for these questions, made once in `scratch`."""
    if model is not None:
        return model
    folder = scratch / f"{shape.name} for {questions.name.replace(os.sep, ' ')}"
    if not folder.exists():
        texts = dict.fromkeys(question.context for question in questions.questions)
        save_stand_in(folder, shape, [*texts, *(question.question for question in questions.questions)])
    return str(folder)
