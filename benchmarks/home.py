"""The list of experiments, visited again: the dashboard's index against reading every file each time.

A thousand experiments, of which one is running and has moved on since the last visit. Both sides find the
same rows; the index looks at every file and opens what changed, the other reads and checks everything with
the same readers. The trap: the first visit to a folder has nothing to go by, so it costs the index as much as
the other side. `home-first` says so.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.comparison import Case, Options, Side, Work
from dashboard.data.experiments import Index
from qa.config import Settings, settings_text
from qa.errors import UserError
from qa.experiment import Experiment, list_experiments

COUNT = 1000
# Rows of the predictions, which nobody should read for a list; experiments share them as hard links.
ROWS = tuple(100 + 521 * number for number in range(20))
MOVING = "experiment-0000"


def cases(options: Options) -> list[Case]:
    """A visit to a folder that was visited before, and the first one."""
    again = Visiting(
        name="home",
        what=f"list {COUNT:,} experiments again, one of which has moved on",
        against="read and check all their files each time",
        rounds=10,
        compared="rows that differ",
        scratch=options.scratch,
        first=False,
    )
    first = Visiting(
        name="home-first",
        what=f"list {COUNT:,} experiments for the first time",
        against="read and check all their files",
        rounds=3,
        warm_up=1,
        compared="rows that differ",
        scratch=options.scratch,
        first=True,
    )
    return [again, first]


class Row(NamedTuple):
    """What a list shows of an experiment."""

    name: str
    state: str
    exact_match: float | None
    f1: float | None
    curve: tuple[float, ...]
    model: str | None
    problems: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Visiting(Case):
    """One look at all experiments.

    Attributes:
        scratch: where they are made.
        first: whether nothing is known of them.
    """

    scratch: Path
    first: bool

    def prepare(self, side: Side) -> Work:
        """The folder, and for a visit that is not the first an index that knows it."""
        root = experiments(self.scratch)
        if side == "theirs":
            return Reading(root)
        if self.first:
            return lambda: Looking(root, Index(root))()
        looking = Looking(root, Index(root))
        looking()
        return looking

    def difference(self, ours: Work, theirs: Work) -> float:
        """How many rows are not the same."""
        pairs: Any = zip(ours(), theirs(), strict=True)  # type: ignore[call-overload]
        return float(sum(own != other for own, other in pairs))


@lru_cache(maxsize=1)
def experiments(scratch: Path) -> Path:
    """A folder of `COUNT` experiments, made once."""
    root = scratch / "experiments"
    if not root.exists():
        make_experiments(root, count=COUNT, rows=ROWS)
    return root


def make_experiments(root: Path, *, count: int, rows: Sequence[int]) -> None:
    """Finished experiments, and a first one that runs.

    Args:
        root: where; must not exist.
        count: how many.
        rows: of the files of predictions, which the experiments share as hard links.
    """
    pool = root.parent / f"{root.name}-predictions"
    pool.mkdir(parents=True)
    for number, size in enumerate(rows):
        (pool / str(number)).write_text("".join(_predictions(size, seed=number)))
    for number in range(count):
        folder = root / f"experiment-{number:04}"
        folder.mkdir(parents=True)
        for name, text in _files(number).items():
            (folder / name).write_text(text)
        os.link(pool / str(number % len(rows)), folder / "predictions.jsonl")
    move_on(root)


def move_on(root: Path) -> None:
    """The first experiment takes a step."""
    file = root / MOVING / "status.json"
    status = json.loads(file.read_text())
    # In the place of the old one, as `qa.run` writes.
    new = file.with_suffix(".new")
    now = {"updated": datetime.now(UTC).isoformat(), "pid": os.getpid()}
    new.write_text(json.dumps(status | now | {"state": "running", "step": status["step"] + 1}))
    shutil.move(new, file)


def _predictions(size: int, *, seed: int) -> list[str]:
    draw = random.Random(seed)
    hits = [float(draw.random() < 0.5) for _ in range(size)]
    answers = (
        {"id": str(row), "prediction": "x", "exact_match": hit, "f1": hit} for row, hit in enumerate(hits)
    )
    return [json.dumps(answer) + "\n" for answer in answers]


def _files(number: int) -> dict[str, str]:
    """What an experiment holds besides its predictions; every one differs from every other."""
    draw = random.Random(number)
    low, f1, high = sorted(draw.uniform(50, 90) for _ in range(3))
    model = "pocket" if number % 2 else "microsoft/deberta-v3-base"
    status = {
        "state": "finished",
        "step": 60,
        "total_steps": 120,
        "epoch": 3.0,
        "message": "",
        "seconds": 600.0,
    }
    data = {"name": "validation.json", "version": "1.1", "questions": 200, "sha256": "5" * 64}
    history = [{"step": step, "epoch": step / 40, "f1": f1 - 6 / step} for step in range(20, 140, 20)]
    scores = {"exact_match": low, "f1": f1, "eval_loss": 1.5, "count": 200, "f1_interval": [low, high]}
    return {
        "config.yaml": settings_text(Settings(model_name=model, seed=number, group=f"group-{number // 5}")),
        "status.json": json.dumps(status | {"updated": "2026-01-01T00:00:00+00:00"}),
        "environment.json": json.dumps({"data": {"validation": data}}),
        "history.jsonl": "".join(json.dumps(row) + "\n" for row in history),
        "metrics.json": json.dumps(scores),
    }


@dataclass(frozen=True, slots=True)
class Looking:
    """As the dashboard does it."""

    root: Path
    index: Index

    def __call__(self) -> list[Row]:
        """A visit, after the running experiment has moved on."""
        move_on(self.root)
        return [
            Row(
                one.name,
                one.state,
                one.exact_match,
                one.f1,
                one.curve,
                None if one.settings is None else one.settings.model_name,
                len(one.problems),
            )
            for one in self.index.visit()
        ]


@dataclass(frozen=True, slots=True)
class Reading:
    """Every file of every experiment, each once."""

    root: Path

    def __call__(self) -> list[Row]:
        """A visit, after the running experiment has moved on."""
        move_on(self.root)
        return [_read(experiment) for experiment in list_experiments(self.root)]


def _read(experiment: Experiment) -> Row:
    problems: list[UserError] = []

    def read(reader: Callable[[], Any]) -> Any:
        try:
            return reader()
        except UserError as error:
            problems.append(error)
            return None

    settings, history = read(experiment.settings), read(experiment.history) or []
    read(experiment.environment)
    state = experiment.state()
    metrics = (read(experiment.metrics) if state == "finished" else None) or {}
    curve = tuple(row["f1"] for row in history if "f1" in row)
    model = None if settings is None else settings.model_name
    return Row(
        experiment.name, state, metrics.get("exact_match"), metrics.get("f1"), curve, model, len(problems)
    )
