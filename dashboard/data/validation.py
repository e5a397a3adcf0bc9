"""An experiment's validation questions with what it answered: to search, and to ask one again by its id.

The trap: a data set of thousands of questions takes a second to unpack and check, so it is kept as long as
its files do not change, and only what is looked at is ever sent to a browser.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from dashboard.data.experiments import stamp
from qa.errors import UserError
from qa.experiment import Experiment
from qa.squad import Question

KEPT = 8  # experiments
States = tuple[tuple[int, int, int] | None, ...]


@dataclass(frozen=True, slots=True)
class Known:
    """A validation question.

    Attributes:
        question: with its context and gold answers.
        prediction: what the experiment answered; None where it has no prediction.
        exact_match: of that, 0 or 1.
        f1: likewise, 0 to 1.
        text: everything that is searched, in one case.
    """

    question: Question
    prediction: str | None
    exact_match: float
    f1: float
    text: str


def validation(experiment: Experiment) -> Mapping[str, Known]:
    """The questions by id, in file order.

    Raises:
        UserError: no copy of them is there, or files are broken.
    """
    return _validation(str(experiment.path.resolve()), _states(experiment))


def is_of(experiment: Experiment, data: str, count: int) -> bool:
    """Whether data are its validation questions, or so many of them as `--limit` takes.

    Args:
        experiment: whose validation questions.
        data: the fingerprint.
        count: how many questions the data have.

    Raises:
        UserError: as `validation`.
    """
    return data == _limited(str(experiment.path.resolve()), _states(experiment), count)


def _states(experiment: Experiment) -> States:
    return tuple(stamp(experiment.path / name) for name in ("environment.json", "predictions.jsonl"))


@st.cache_data(max_entries=KEPT, show_spinner=False)
def _limited(path: str, states: States, count: int) -> str:
    return Experiment(Path(path)).validation_questions().limited(count).sha256()


@st.cache_resource(max_entries=KEPT, show_spinner="Reading the validation questions …")
def _validation(path: str, states: States) -> Mapping[str, Known]:
    experiment = Experiment(Path(path))
    questions = experiment.validation_questions().questions
    try:
        rows = {str(row["id"]): row for row in experiment.predictions()}
    except UserError:
        rows = {}
    found = {}
    for question in questions:
        row = rows.get(question.id, {})
        prediction = row.get("prediction")
        found[question.id] = Known(
            question,
            prediction if isinstance(prediction, str) else None,
            float(row.get("exact_match", 0)),
            float(row.get("f1", 0)),
            "\n".join(
                [question.id, question.title, question.question, question.context, *question.answers]
            ).casefold(),
        )
    return found


def search(known: Mapping[str, Known], wanted: str) -> Sequence[Known]:
    """The questions in whose id, title, text, context or gold answers all words occur; wrong ones first."""
    words = wanted.casefold().split()
    found = [one for one in known.values() if all(word in one.text for word in words)]
    return sorted(found, key=lambda one: (one.f1, one.exact_match))
