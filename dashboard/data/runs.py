"""Runs that the page starts, stops and resumes: processes of their own that outlive page and server.

What was started is noted in a hidden folder beside the experiments (settings, log, process number), because
the experiment's own folder appears only when everything that can be refused has been checked. So another
session, or a server started later, shows the same. The trap: a process number is given out again, so a run
is stopped only if its process holds the lock of that experiment's folder.
"""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil

from dashboard.data.experiments import Summary
from dashboard.data.processes import start_apart
from qa import files
from qa.config import Settings, read_settings
from qa.errors import UserError
from qa.experiment import Experiment, check_name, seed_name
from qa.pocket import POCKET_SETTINGS
from qa.printing import cut, visible
from qa.run import LOCK

PROJECT = Path(__file__).resolve().parents[2]
SCRIPT = PROJECT / "run_experiment.py"
# By label on the page: files with settings to begin from.
TEMPLATES = {"Bundled (pocket)": POCKET_SETTINGS, "DeBERTa v3 base on SQuAD": PROJECT / "config.yaml"}
FOLDER = ".started"
STOP = "stop"  # ending of the note that a run was asked to stop
TAIL_BYTES = 8000
LONGEST_LINE = 500


@dataclass(frozen=True, slots=True)
class Start:
    """A run that was started and has not begun to write its experiment.

    Attributes:
        name: of the experiment, or of the group of several seeds.
        since: when it was started.
        alive: whether its process runs; if not, it was refused and the log says why.
        log: the last lines it wrote.
    """

    name: str
    since: datetime
    alive: bool
    log: tuple[str, ...]


def check_settings(text: str, *, root: Path, name: str) -> Settings:
    """The settings in a text, which is kept for the run of that name.

    Raises:
        UserError: a name that is not allowed or taken, or the first thing that is wrong with the text.
    """
    _refuse_taken(root, check_name(name))
    file = _file(root, name, "yaml")
    files.write_text(file, text)
    try:
        return read_settings(file)
    except UserError as error:
        files.remove(file)
        raise UserError(str(error).removeprefix(f"{file}: ")) from error


def start(text: str, *, root: Path, name: str, seeds: Sequence[int] = ()) -> None:
    """Start an experiment with settings in YAML, or one for each seed, after one another.

    Args:
        text: the settings.
        root: the folder of experiments.
        name: of the experiment; of the group if there are seeds.
        seeds: of the experiments of a group; none for the seed of the settings.

    Raises:
        UserError: as `check_settings`, a seed that is not allowed, the experiment of every seed exists, or
            the folder of experiments cannot be written.
    """
    for seed in seeds:
        Settings().changed(seed=seed)
    names = [seed_name(name, seed) for seed in seeds]
    if names and all((root / own).exists() for own in names):
        raise UserError(f"experiment {names[0]!r} exists already; choose another name or other seeds")
    check_settings(text, root=root, name=name)
    options = ["--config", str(_file(root, name, "yaml").resolve())]
    if seeds:
        options += ["--seeds", *map(str, seeds)]
    _launch(root, name, options, writes=names or [name])


def resume(experiment: Experiment) -> None:
    """Go on with an experiment that ended early.

    Raises:
        UserError: it runs or is finished, or was started a moment ago.
    """
    root, name = experiment.path.parent, experiment.name
    state = experiment.state()
    if state not in ("stopped", "failed", "interrupted"):
        raise UserError(f"{name} is {state}; only a stopped, failed or interrupted experiment can go on")
    _refuse_starting(root, name)
    _launch(root, name, ["--resume"], writes=[name])


def stop(experiment: Experiment) -> None:
    """Ask a run to save and stop, as Ctrl-C would; once, as the second time would stop it without saving.

    Raises:
        UserError: it does not run, or not on this machine, or its process cannot be told for certain.
    """
    status = experiment.status()
    name, state = experiment.name, experiment.state()
    if state != "running":
        raise UserError(f"{name} is {state}: there is nothing to stop")
    if status.get("host") != socket.gethostname():
        raise UserError(f"{name} runs on {status.get('host')}; stop it there with Ctrl-C")
    process = _process(experiment, status.get("pid"))
    if process is None:
        raise UserError(
            f"{name}: process {status.get('pid')} is not the run that writes it; nothing was stopped. If it "
            "is gone, the experiment is shown as interrupted within a minute and can be resumed"
        )
    if stopping(experiment):
        return
    # Before the signal, so that nobody sends a second one in between.
    values = {"pid": process.pid, "asked": datetime.now(UTC).timestamp()}
    files.write_json(_file(experiment.path.parent, name, STOP), values)
    with contextlib.suppress(psutil.NoSuchProcess):
        process.terminate()


def stopping(experiment: Experiment) -> bool:
    """Whether the process that writes the experiment has been asked to stop, from any session."""
    note = _file(experiment.path.parent, experiment.name, STOP)
    try:
        values = files.read_object(note)
        files.check_types(note, values, {"pid": (int,), "asked": (int, float)}, needed=True)
        pid, asked = values["pid"], values["asked"]
        # A run that was resumed since may have been given the same number.
        same = pid == experiment.status().get("pid")
        return same and 0 < pid < 2**31 and files.process_lives(pid, seen=asked)
    except UserError:
        return False


def _process(experiment: Experiment, pid: object) -> psutil.Process | None:
    """The process of that number, if it holds the experiment's lock."""
    if type(pid) is not int or pid <= 0:
        return None
    try:
        process = psutil.Process(pid)
        lock = (experiment.path / LOCK).resolve()
        held = any(Path(opened.path) == lock for opened in process.open_files())
    except (psutil.Error, OSError, OverflowError):
        return None
    return process if held else None


def starting(root: Path) -> tuple[Start, ...]:
    """What was started and has not begun; notes of runs that have begun are removed."""
    found = []
    for note in sorted((root / FOLDER).glob("[!.]*.json")):
        start = _read(root, note)
        if start is None:
            files.remove(note)
        else:
            found.append(start)
    return tuple(found)


def forget(root: Path, name: str) -> None:
    """Remove the note of a run that did not begin, and its log."""
    for ending in ("json", "log", "yaml"):
        files.remove(_file(root, check_name(name), ending))


def log_of(one: Summary, root: Path) -> tuple[str, ...]:
    """The last lines of the run that wrote an experiment, if the page started it; else empty."""
    log = _log_tail(root, one.name)
    if log or one.settings is None or one.settings.group is None:
        return log
    # All seeds of a group are one run, with one log. Any text may be the name of a group.
    group, seed = one.settings.group, one.settings.seed
    with contextlib.suppress(UserError):
        return _log_tail(root, group) if seed_name(group, seed) == one.name else ()
    return ()


def _log_tail(root: Path, name: str, *, lines: int = 12) -> tuple[str, ...]:
    try:
        with _file(root, check_name(name), "log").open("rb") as log:
            log.seek(max(0, log.seek(0, 2) - TAIL_BYTES))
            text = log.read().decode("utf-8", errors="replace")
    except OSError:
        return ()
    # A progress bar goes back to the start of its line; what stands there last is what was seen.
    seen = [line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n")]
    shown = [cut(visible(line), LONGEST_LINE) for line in seen if line.strip()]
    return tuple(shown[-lines:])


def _read(root: Path, note: Path) -> Start | None:
    """The start of a note; None if the run has begun, or the note is broken."""
    try:
        values = files.read_object(note)
        files.check_types(note, values, {"pid": (int,), "since": (str,), "writes": (list,)}, needed=True)
        since = datetime.fromisoformat(values["since"])
        seen = since.timestamp()
        name = check_name(note.stem)
        written = [Experiment(root / check_name(str(own))) for own in values["writes"]]
    except (UserError, ValueError, OverflowError):
        return None
    if any(_has_begun(experiment, values["pid"], since) for experiment in written):
        return None
    pid = values["pid"]
    alive = 0 < pid < 2**31 and files.process_lives(pid, seen=seen)
    return Start(name, since.astimezone(UTC), alive, _log_tail(root, name))


def _has_begun(experiment: Experiment, pid: int, since: datetime) -> bool:
    """Whether this process, or one started later, has written the experiment's status."""
    try:
        status = experiment.status()
        updated = datetime.fromisoformat(str(status.get("updated"))).astimezone(UTC)
    except (UserError, ValueError, OverflowError):
        return False
    return status.get("pid") == pid or updated > since.astimezone(UTC)


def _launch(root: Path, name: str, options: list[str], *, writes: Sequence[str]) -> None:
    log = _file(root, name, "log")
    command = [sys.executable, str(SCRIPT), "--name", name, *options]
    # Before the process: what it writes later than this has begun.
    since = datetime.now(UTC)
    pid = start_apart(command, root=root, log=log)
    values = {"pid": pid, "since": since.isoformat(), "writes": [*writes]}
    files.write_json(_file(root, name, "json"), values)


def _refuse_taken(root: Path, name: str) -> None:
    _refuse_starting(root, name)
    if (root / name).exists():
        raise UserError(f"experiment {name!r} exists already; choose another name")


def _refuse_starting(root: Path, name: str) -> None:
    if any(one.name == name and one.alive for one in starting(root)):
        raise UserError(f"{name!r} was started a moment ago; wait until it has begun")


def _file(root: Path, name: str, ending: str) -> Path:
    return root / FOLDER / f"{name}.{ending}"
