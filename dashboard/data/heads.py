"""The atlas files of an experiment, read once: which can be used, and which cannot and why.

The trap: a file may be of an older version, of a model that has been trained again since, or cut short. It is
named with its reason then, and nothing of it is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import pandas as pd
import streamlit as st

from dashboard.data.validation import Known, is_of, validation
from probes.analyses import checkpoint_fingerprint
from probes.atlas_details import QuestionValues, by_answerability, read_pruning, read_questions
from probes.atlas_difference import Difference, find_differences, read_difference
from probes.atlas_files import Atlas, find_atlases, read_atlas
from probes.atlas_snapshots import Training, read_training
from qa.comparison import Comparison, compare
from qa.errors import UserError
from qa.experiment import Experiment

KEPT = 32
Read = TypeVar("Read")


@dataclass(frozen=True, slots=True)
class Atlases:
    """What there is.

    Attributes:
        usable: newest first.
        problems: why others are not, a line each.
    """

    usable: tuple[Atlas, ...]
    problems: tuple[str, ...]


def atlases(experiment: Experiment) -> Atlases:
    """Every atlas in the experiment's folder."""
    model = _fingerprint(experiment)
    usable, problems = [], []
    for path in find_atlases(experiment):
        try:
            usable.append(_atlas(str(path), path.stat().st_mtime_ns, model))
        except UserError as error:
            problems.append(str(error))
    return Atlases(tuple(usable), tuple(problems))


def _fingerprint(experiment: Experiment) -> str | None:
    """Of the experiment's model as it is now; None where it has none: then its files stand for themselves."""
    try:
        folder = experiment.model_folder()
        states = tuple((item.name, item.stat().st_mtime_ns, item.stat().st_size) for item in folder.iterdir())
        return _hashed(str(folder), tuple(sorted(states)))
    except (UserError, OSError):
        return None


@st.cache_data(max_entries=KEPT, show_spinner="Checking the model …")
def _hashed(folder: str, states: tuple[tuple[str, int, int], ...]) -> str:
    return checkpoint_fingerprint(Path(folder))


@st.cache_resource(max_entries=KEPT, show_spinner=False)
def _atlas(path: str, changed: int, model: str | None) -> Atlas:
    return read_atlas(Path(path), model=model)


def questions(atlas: Atlas, measure: str) -> QuestionValues:
    """The values of a measure for every question.

    Raises:
        UserError: their file is gone or cannot be used.
    """
    whole = replace(atlas, only=None, part="")
    found = _questions(str(atlas.path), atlas.path.stat().st_mtime_ns, measure, whole)
    return found if atlas.only is None else found.among(atlas.only)


@st.cache_resource(max_entries=KEPT, show_spinner=False)
def _questions(path: str, changed: int, measure: str, _atlas: Atlas) -> QuestionValues:
    return read_questions(_atlas, measure)


def parts(experiment: Experiment, atlas: Atlas) -> dict[str, Atlas]:
    """See `probes.atlas_details.by_answerability`; empty too where its questions are not known."""
    try:
        # Other data may give the same ids to other questions.
        if not is_of(experiment, atlas.about["data"], atlas.about["questions"]):
            return {}
        known = validation(experiment)
        return _parts(str(atlas.path), atlas.path.stat().st_mtime_ns, atlas, known)
    except UserError:
        return {}


@st.cache_resource(max_entries=KEPT, show_spinner="Averaging over parts of the questions …")
def _parts(path: str, changed: int, _atlas: Atlas, _known: Mapping[str, Known]) -> dict[str, Atlas]:
    return by_answerability(_atlas, (one.question for one in _known.values()))


def pruning(atlas: Atlas) -> pd.DataFrame | None:
    """See `probes.atlas_details.read_pruning`."""
    return read_pruning(atlas)


def training(experiment: Experiment) -> Training | None:
    """See `probes.atlas_snapshots.read_training`."""
    return read_training(experiment)


def differences(experiment: Experiment, other: Experiment) -> tuple[Difference | None, tuple[str, ...]]:
    """The newest comparison of maps with the other experiment's model as it is, and what cannot be used."""
    problems = []
    for path in find_differences(experiment):
        try:
            found = read_difference(path, model=_fingerprint(experiment))
        except UserError as error:
            problems.append(str(error))
            continue
        if found.about.get("other_model") == _fingerprint(other):
            return found, tuple(problems)
    return None, tuple(problems)


def scores(first: Experiment, second: Experiment) -> Comparison | None:
    """The scores of both compared; None where they were scored on different questions."""
    return _or_none(lambda: compare(first, second))


def _or_none(read: Callable[[], Read]) -> Read | None:
    try:
        return read()
    except UserError:
        return None
