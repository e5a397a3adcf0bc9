"""Evaluations on other data that the page starts: `python -m qa evaluate`, each a process of its own.

A process outlives the page and the server; what was started is noted in a hidden folder beside the
experiments, so that every session sees the same. The trap: the result's folder is named by the data's
fingerprint, which nobody knows before the data are read, so the end is told by the process and its log.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil

from dashboard.data.processes import start_apart
from qa import files
from qa.errors import UserError
from qa.experiment import Experiment, check_name
from qa.printing import cut, visible
from qa.progress import SECONDS

FOLDER = ".evaluating"
WRITTEN = "written to "  # what the command says when it is done
TAIL_BYTES = 8000
LONGEST_LINE = 300
_PROGRESS = re.compile(r"windows:[^\r\n]*?\| *(\d+)/(\d+)")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """An evaluation that was started.

    Attributes:
        name: of the experiment.
        data: what it is evaluated on, in words.
        since: when it was started.
        alive: whether its process runs.
        progress: windows done and in all; None while it loads.
        failure: why it ended without a result; None while it runs and when it succeeded.
        note: the file that says all this.
        pid: number of its process.
    """

    name: str
    data: str
    since: datetime
    alive: bool
    progress: tuple[int, int] | None
    failure: str | None
    note: Path
    pid: int


def start(experiment: Experiment, source: str, *, data: str) -> None:
    """Evaluate an experiment's model on other data.

    Args:
        experiment: with a model.
        source: what `python -m qa evaluate --dataset` takes: a file, a hub name, a fingerprint, pocket.
        data: what to call it.

    Raises:
        UserError: it has no model, the same runs already, or the folder of experiments cannot be written.
    """
    experiment.model_folder()
    root = experiment.path.parent
    note = _note(root, experiment.name, source)
    if any(one.note == note and one.alive for one in started(root)):
        raise UserError(f"{experiment.name} is being evaluated on {data} already; wait for its result")
    command = [sys.executable, *_work(experiment.name), "--dataset", source]
    since = datetime.now(UTC)
    pid = start_apart(command, root=root, log=note.with_suffix(".log"), environment={SECONDS: "1"})
    values = {"name": experiment.name, "data": data, "pid": pid, "since": since.isoformat()}
    files.write_json(note, values)


def started(root: Path) -> list[Evaluation]:
    """Evaluations that run or have failed; notes of those that succeeded are removed."""
    found = []
    for note in sorted((root / FOLDER).glob("[!.]*.json")):
        one = _read(note)
        if one is None:
            forget(note)
        else:
            found.append(one)
    return found


def stop(one: Evaluation) -> None:
    """End an evaluation; the experiment is left as if it had never begun.

    Raises:
        UserError: its process cannot be told for certain.
    """
    work = _work(one.name)
    try:
        process = psutil.Process(one.pid)
        # The number may be another process's by now, or one of another machine with the same folder.
        ours = process.cmdline()[1 : 1 + len(work)] == work
        if ours:
            process.terminate()
    except psutil.NoSuchProcess:
        return
    except psutil.Error:
        ours = False
    if not ours:
        raise UserError(
            f"process {one.pid} is not the evaluation of {one.name}; nothing was stopped. If it runs on "
            "another machine, stop it there"
        )
    forget(one.note)


def forget(note: Path) -> None:
    """Remove the note of an evaluation and its log."""
    files.remove(note.with_suffix(".log"))
    files.remove(note)


def _work(name: str) -> list[str]:
    """What Python is started with to evaluate an experiment."""
    return ["-m", "qa", "evaluate", name]


def _read(note: Path) -> Evaluation | None:
    """The evaluation of a note; None if it succeeded, or the note is broken."""
    try:
        values = files.read_object(note)
        files.check_types(
            note, values, {"name": (str,), "data": (str,), "pid": (int,), "since": (str,)}, needed=True
        )
        since = datetime.fromisoformat(values["since"])
        name, pid = check_name(values["name"]), values["pid"]
        alive = 0 < pid < 2**31 and files.process_lives(pid, seen=since.timestamp())
    except (UserError, ValueError, OverflowError):
        return None
    # After the process was looked at: a log without a result is then a failure for certain.
    lines = _lines(note.with_suffix(".log"))
    if not alive and any(line.startswith(WRITTEN) for line in lines):
        return None
    failure = None if alive else next(iter(lines[-1:]), "it ended without a word; start it again")
    return Evaluation(
        name, values["data"], since.astimezone(UTC), alive, _progress(lines), failure, note, pid
    )


def _lines(log: Path) -> list[str]:
    """The last lines, those of a progress bar as well, fit to be shown."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    return [cut(visible(line), LONGEST_LINE) for line in re.split(r"[\r\n]+", text) if line.strip()]


def _progress(lines: list[str]) -> tuple[int, int] | None:
    found = [match for line in lines if (match := _PROGRESS.search(line)) is not None]
    return (int(found[-1][1]), int(found[-1][2])) if found else None


def _note(root: Path, name: str, source: str) -> Path:
    # The source may be any path, which is no name of a file.
    return root / FOLDER / f"{name}.{hashlib.sha256(source.encode()).hexdigest()[:12]}.json"
