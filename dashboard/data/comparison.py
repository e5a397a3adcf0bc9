"""What Compare shows: read and computed once for all sessions, as long as the files stay as they are.

Every key holds the inode, time and size of the files behind it. So a file that is replaced is read again, and
one that many experiments share (as hard links) is read once. The trap: Streamlit hashes large arrays from a
sample of their cells, so arrays are never a key; they go by the keys of the files they came from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import streamlit as st

from dashboard.data.experiments import stamp
from qa.comparison import Comparison, Score, compare_with, scores_of
from qa.curves import By, Curve, curve, windows_a_step
from qa.differing import settings_of
from qa.errors import UserError
from qa.experiment import Experiment, dataset_file
from qa.scored import METRICS, Answers, ScoredSet, read_answers, scored_sets, shared_sets
from qa.slices import Slice, Slicing, slice_scores, slicings
from qa.squad import Question

MOST = 24  # experiments on the page at once
_SMALL_FILES = ("config.yaml", "status.json", "environment.json", "metrics.json", "history.jsonl")
Key = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Candidate:
    """An experiment that was chosen, by its small files.

    Attributes:
        experiment: the folder.
        state: as `Experiment.state`.
        problems: what is wrong with it, a line each.
        sets: the data sets it was scored on, by fingerprint.
        settings: those that mean something (`qa.differing`).
        group: of runs that differ in the seed; None for a run of its own.
        has_model: whether it can be evaluated on other data.
    """

    experiment: Experiment
    state: str
    problems: tuple[str, ...]
    sets: dict[str, ScoredSet]
    settings: dict[str, Any]
    group: str | None
    has_model: bool

    @property
    def name(self) -> str:
        """The experiment's name."""
        return self.experiment.name


@dataclass(frozen=True, slots=True, eq=False)
class Board:
    """Experiments on one data set, ready to be paired.

    Attributes:
        sha: fingerprint of the questions.
        data: what the data are called.
        questions: N of them.
        answers: of each experiment, the reference first.
        key: what it was read from, for caches.
        unreadable: why an experiment with scores on these data is not among them, by name.
        own: whether these are the first experiment's own validation data.
    """

    sha: str
    data: str
    questions: tuple[Question, ...]
    answers: tuple[Answers, ...]
    key: Key
    unreadable: dict[str, str]
    own: bool

    @property
    def names(self) -> tuple[str, ...]:
        """Of the experiments, the reference first."""
        return tuple(answers.name for answers in self.answers)


def candidate(experiment: Experiment) -> Candidate:
    """What the small files of an experiment say."""
    small = [experiment.path / name for name in _SMALL_FILES]
    small += sorted((experiment.path / "evaluations").glob("[!.]*/metrics.json"))
    # Of answers and model it is only said whether they are there.
    there = tuple(
        (experiment.path / name).exists() for name in ("predictions.jsonl", "best_model/config.json")
    )
    known = _candidate(str(experiment.path), (*((file.name, stamp(file)) for file in small), there))
    # Whether a run is alive is in no file.
    return replace(known, state=experiment.state()) if known.state in ("running", "interrupted") else known


@st.cache_data(max_entries=2000, show_spinner=False)
def _candidate(path: str, stamps: Key) -> Candidate:
    experiment = Experiment(Path(path))
    settings = settings_of(experiment)
    try:
        experiment.model_folder()
        has_model = True
    except UserError:
        has_model = False
    group = settings.get("group")
    return Candidate(
        experiment,
        experiment.state(),
        tuple(problem.replace(f"{experiment.path}/", "") for problem in experiment.problems()),
        scored_sets(experiment),
        settings,
        group if isinstance(group, str) else None,
        has_model,
    )


def common_data(candidates: Sequence[Candidate]) -> dict[str, str]:
    """Names of the data sets on which the reference can be paired, by fingerprint, most shared first.

    All of its own if nobody shares one.

    Args:
        candidates: the reference first.
    """
    sets = [one.sets for one in candidates]
    shared = shared_sets(sets) if sets else {}
    if shared:
        return {sha: found[0].name for sha, found in shared.items()}
    return {sha: found.name for sha, found in (sets[0] if sets else {}).items()}


def board(candidates: Sequence[Candidate], sha: str) -> Board:
    """The experiments that were scored on a data set, in order; what cannot be read is said.

    Raises:
        UserError: the questions cannot be read.
    """
    scored = [one.sets[sha] for one in candidates if sha in one.sets]
    copy = stamp(dataset_file(scored[0].experiment.path.parent, sha))
    questions = _questions((sha, copy), scored[0])
    answers: list[Answers] = []
    keys: list[Key] = []
    unreadable = {}
    for one in scored:
        key = (sha, copy, stamp(one.predictions))
        try:
            answers.append(replace(_answers(key, one, questions), name=one.experiment.name))
            keys.append((one.experiment.name, *key))
        except UserError as error:
            unreadable[one.experiment.name] = str(error).replace(f"{one.experiment.path}/", "")
    own = scored[0].folder == scored[0].experiment.path
    return Board(sha, scored[0].name, questions, tuple(answers), tuple(keys), unreadable, own)


@st.cache_resource(max_entries=6, show_spinner="Reading the questions …")
def _questions(key: Key, _scored: ScoredSet) -> tuple[Question, ...]:
    return _scored.questions().questions


@st.cache_resource(max_entries=3 * MOST, show_spinner="Reading the answers …")
def _answers(key: Key, _scored: ScoredSet, _questions: Sequence[Question]) -> Answers:
    return read_answers(_scored, _questions)


def comparisons(board: Board) -> list[Comparison]:
    """Each experiment but the first against the first."""
    return _comparisons(board.key, board)


@st.cache_data(max_entries=64, show_spinner="Resampling paragraphs …")
def _comparisons(key: Key, _board: Board) -> list[Comparison]:
    return compare_with(_board.answers[0], _board.answers[1:], _board.questions)


def scores(board: Board) -> list[tuple[Score, ...]]:
    """Every metric of every experiment, with its own interval."""
    return _scores(board.key, board)


@st.cache_data(max_entries=64, show_spinner="Resampling paragraphs …")
def _scores(key: Key, _board: Board) -> list[tuple[Score, ...]]:
    return scores_of(_board.answers, _board.questions)


def slicings_of(board: Board) -> list[Slicing]:
    """The ways to part the questions; windows are those of the first experiment."""
    return _slicings(board.key, board)


@st.cache_resource(max_entries=16, show_spinner=False)
def _slicings(key: Key, _board: Board) -> list[Slicing]:
    return slicings(_board.questions, _board.answers[0].windows)


def slices(board: Board, slicing: Slicing, metric: str) -> list[Slice]:
    """Every experiment on every group.

    Args:
        board: of the experiments.
        slicing: one of `slicings_of`.
        metric: exact_match or f1.
    """
    return _slices((*board.key, slicing.name, metric), board, slicing, METRICS.index(metric))


@st.cache_data(max_entries=128, show_spinner="Resampling paragraphs …")
def _slices(key: Key, _board: Board, _slicing: Slicing, _metric: int) -> list[Slice]:
    return slice_scores(
        _slicing, _board.answers, _board.questions, metric=lambda answers: answers.scores[_metric]
    )


def history(one: Candidate) -> tuple[dict[str, Any], ...]:
    """Rows of the history; none where there is none or it is broken, which `problems` says."""
    file = one.experiment.path / "history.jsonl"
    return _history((str(file), stamp(file)), one.experiment)


@st.cache_data(max_entries=256, show_spinner=False)
def _history(key: Key, _experiment: Experiment) -> tuple[dict[str, Any], ...]:
    try:
        return tuple(_experiment.history())
    except UserError:
        return ()


def curves(candidates: Sequence[Candidate], metric: str, *, by: By) -> dict[str, Curve]:
    """The curve of each experiment that has logged the metric."""
    found = {}
    for one in candidates:
        windows = windows_a_step(one.settings, _circumstances(one.settings))
        drawn = curve(history(one), metric, by=by, windows=windows)
        if drawn:
            found[one.name] = drawn
    return found


def _circumstances(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {"processes": settings.get("environment.processes")}
