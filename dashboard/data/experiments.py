"""An index of the experiments folder: a small summary of each experiment, kept up to date by looking.

A visit looks at every file's time, size and inode and opens only those that changed, so the second visit to a
thousand experiments costs some milliseconds. What is kept of a file is small and checked; the rows of
`predictions.jsonl` are never read here. The trap: whether a run is alive is not in any file, so the state of
one that says `running` is decided at each visit.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import streamlit as st

from qa.config import Settings
from qa.errors import UserError
from qa.experiment import Experiment, is_alive, list_experiments
from qa.printing import cut, visible

CURVE_POINTS = 24
LONGEST_TEXT = 300
LARGEST = 2**53  # whole numbers beyond are not exact in the browser

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Summary:
    """What a list of experiments shows of one; None where it is not known.

    Attributes:
        name: of the experiment.
        state: running, finished, stopped, failed, interrupted or broken.
        problems: what is wrong with the folder, a line each.
        message: what the run last said.
        exact_match: in percent.
        exact_match_interval: 95 %, in percent.
        f1: in percent.
        f1_interval: 95 %, in percent.
        count: questions it was scored on.
        curve: F1 of its evaluations so far, thinned to `CURVE_POINTS`.
        best_f1: of the evaluations so far.
        data: name of the validation data.
        data_sha: their fingerprint.
        settings: as it was run with.
        has_model: whether there is a model to ask.
        imported: whether its model or predictions come from elsewhere.
        step: training steps done.
        total_steps: training steps in all.
        epoch: passes over the data so far.
        speed: training windows a second.
        seconds: spent on it.
        started: when.
        updated: when it last wrote its status.
    """

    name: str
    state: str
    problems: tuple[str, ...]
    message: str
    exact_match: float | None
    exact_match_interval: Interval | None
    f1: float | None
    f1_interval: Interval | None
    count: int | None
    curve: tuple[float, ...]
    best_f1: float | None
    data: str | None
    data_sha: str | None
    settings: Settings | None
    has_model: bool
    imported: bool
    step: int | None
    total_steps: int | None
    epoch: float | None
    speed: float | None
    seconds: float | None
    started: datetime | None
    updated: datetime | None

    @property
    def seconds_left(self) -> float | None:
        """How long it will run if it goes on as it did, evaluations included."""
        if not self.step or not self.total_steps or not self.seconds or self.total_steps < self.step:
            return None
        return self.seconds / self.step * (self.total_steps - self.step)

    @property
    def ended_early(self) -> bool:
        """Whether it is neither finished nor running."""
        return self.state in ("stopped", "interrupted", "failed") and self.settings is not None

    @property
    def can_resume(self) -> bool:
        """Whether it ended early and can go on, as an import cannot."""
        return self.ended_early and not self.imported


class _Curve(NamedTuple):
    """What is kept of a history."""

    f1: tuple[float, ...]
    speed: float | None


class _Origin(NamedTuple):
    """What is kept of the environment: which validation data, and whether it is an import."""

    data: str | None
    data_sha: str | None
    imported: bool


class _Part(NamedTuple):
    """What is kept of a file: what it looked like, and its content or what is wrong with it."""

    signature: tuple[int, int, int] | None  # None: it is not there
    content: Any
    problem: str | None


_Parts = dict[str, _Part]


class Index:
    """Summaries of the experiments in a folder; safe to share between threads.

    Attributes:
        root: the folder of experiments.
        opened: files opened so far.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.opened = 0
        self._parts: dict[str, _Parts] = {}
        self._lock = threading.Lock()

    def visit(self) -> tuple[Summary, ...]:
        """All experiments, by name; what is no longer there is forgotten.

        Raises:
            UserError: the folder of experiments cannot be read.
        """
        with self._lock:
            there = list_experiments(self.root)
            self._parts = {one.name: self._look(one) for one in there}
            return tuple(_summary(one, self._parts[one.name]) for one in there)

    def look(self, names: Iterable[str]) -> tuple[Summary, ...]:
        """Only these, for a part of the page that is drawn every few seconds; those gone are left out."""
        with self._lock:
            there = [one for name in names if (one := Experiment(self.root / name)).path.is_dir()]
            self._parts |= {one.name: self._look(one) for one in there}
            return tuple(_summary(one, self._parts[one.name]) for one in there)

    def _look(self, experiment: Experiment) -> _Parts:
        known = self._parts.get(experiment.name, {})
        return {name: self._part(experiment, name, known.get(name)) for name in READERS}

    def _part(self, experiment: Experiment, name: str, known: _Part | None) -> _Part:
        # Before reading: a file that changes meanwhile is read again next time.
        signature = stamp(experiment.path / name)
        if known is not None and known.signature == signature:
            return known
        self.opened += signature is not None
        try:
            return _Part(signature, READERS[name](experiment), None)
        except UserError as error:
            return _Part(signature, None, _problem(experiment, str(error)))


@st.cache_resource(max_entries=8, show_spinner=False)
def index_of(root: str) -> Index:
    """The index of a folder, one for all sessions.

    Args:
        root: the folder's absolute path.
    """
    return Index(Path(root))


def stamp(path: Path) -> tuple[int, int, int] | None:
    """What changes whenever the file does, or what keeps it from being read; None where there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        return (error.errno or 0, 0, 0)
    return (found.st_mtime_ns, found.st_size, found.st_ino)


def _curve(experiment: Experiment) -> _Curve:
    rows = experiment.history()
    scores = [f1 for row in rows if (f1 := _number(row.get("f1"))) is not None]
    speeds = [speed for row in rows if (speed := _number(row.get("examples_per_second"))) is not None]
    return _Curve(_thinned(scores), speeds[-1] if speeds else None)


def _thinned(values: list[float]) -> tuple[float, ...]:
    """At most `CURVE_POINTS` of the values, evenly, the first and the last among them."""
    if len(values) <= CURVE_POINTS:
        return tuple(values)
    step = (len(values) - 1) / (CURVE_POINTS - 1)
    return tuple(values[round(step * point)] for point in range(CURVE_POINTS))


def _origin(experiment: Experiment) -> _Origin:
    environment = experiment.environment()
    data = environment["data"].get("validation", {})
    return _Origin(_text(data.get("name")), _text(data.get("sha256")), "imported" in environment)


# Each says what is wrong in the words of `Experiment`.
READERS: dict[str, Callable[[Experiment], Any]] = {
    "config.yaml": Experiment.settings,
    "status.json": Experiment.status,
    "environment.json": _origin,
    "history.jsonl": _curve,
    "metrics.json": Experiment.metrics,
}


def _summary(experiment: Experiment, parts: _Parts) -> Summary:
    settings: Settings | None = parts["config.yaml"].content
    status: Mapping[str, Any] = parts["status.json"].content or {}
    metrics: Mapping[str, Any] = parts["metrics.json"].content or {}
    curve: _Curve = parts["history.jsonl"].content or _Curve((), None)
    origin: _Origin = parts["environment.json"].content or _Origin(None, None, imported=False)
    state = _state(status)
    finished = state == "finished"
    return Summary(
        name=experiment.name,
        state=state,
        problems=_problems(experiment, parts, finished=finished),
        message=_text(status.get("message")) or "",
        exact_match=_number(metrics.get("exact_match")) if finished else None,
        exact_match_interval=_interval(metrics.get("exact_match_interval")) if finished else None,
        f1=_number(metrics.get("f1")) if finished else None,
        f1_interval=_interval(metrics.get("f1_interval")) if finished else None,
        count=_whole(metrics.get("count")) if finished else None,
        curve=curve.f1,
        best_f1=_number(status.get("best_f1")),
        data=origin.data,
        data_sha=origin.data_sha,
        settings=settings,
        has_model=_has_model(experiment, settings),
        imported=origin.imported,
        step=_whole(status.get("step")),
        total_steps=_whole(status.get("total_steps")),
        epoch=_number(status.get("epoch")),
        speed=curve.speed,
        seconds=_number(status.get("seconds")),
        started=_moment(status.get("started")),
        updated=_moment(status.get("updated")),
    )


def _state(status: Mapping[str, Any]) -> str:
    if not status:
        return "broken"
    return "interrupted" if status["state"] == "running" and not is_alive(dict(status)) else status["state"]


def _problems(experiment: Experiment, parts: _Parts, *, finished: bool) -> tuple[str, ...]:
    """As `Experiment.problems`, from what is known already."""
    asked = ["config.yaml", "status.json", "environment.json"]
    if parts["history.jsonl"].signature is not None:
        asked.append("history.jsonl")
    if finished:
        asked.append("metrics.json")
    found = [problem for name in asked if (problem := parts[name].problem) is not None]
    predictions = experiment.path / "predictions.jsonl"
    if finished and stamp(predictions) is None:
        found.append(_problem(experiment, f"{predictions}: is missing"))
    return tuple(found)


def _problem(experiment: Experiment, message: str) -> str:
    """The message with names of files instead of paths: the folder is said beside it."""
    return _short(message.replace(f"{experiment.path}/", ""))


def _has_model(experiment: Experiment, settings: Settings | None) -> bool:
    if settings is None:
        return False
    folder = Path(settings.best_model_path or experiment.path / "best_model")
    return stamp(folder / "config.json") is not None


def _number(value: Any) -> float | None:
    """A finite number, None for anything else a foreign program may have written."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _whole(value: Any) -> int | None:
    number = _number(value)
    return None if number is None or not 0 <= number <= LARGEST else int(number)


def _interval(value: Any) -> Interval | None:
    if not isinstance(value, list) or len(value) != 2:
        return None
    low, high = map(_number, value)
    return None if low is None or high is None else (low, high)


def _text(value: Any) -> str | None:
    return _short(value) if isinstance(value, str) and value else None


def _short(text: str) -> str:
    return cut(visible(text), LONGEST_TEXT)


def _moment(value: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(str(value)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
