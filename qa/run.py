"""The experiment folder, for writing: one run at a time, and no reader ever sees half a file.

A `Run` holds the folder's lock and keeps a heartbeat in `status.json`. Every file is written to a temporary
name and renamed. The trap: a process can be killed between any two lines, so the order of writing is part of
the design: a checkpoint's manifest comes after its files, `metrics.json` after `predictions.jsonl`, and the
state `finished` last of all.
"""

from __future__ import annotations

import gzip
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from qa import files
from qa.config import Settings, settings_text
from qa.errors import UserError
from qa.experiment import Experiment, check_name, dataset_file
from qa.squad import QuestionSet

HEARTBEAT_SECONDS = 5.0
LOCK = ".lock"
OWNER = "experiment.json"


class Run:
    """A folder being written: use `open_run`."""

    def __init__(self, experiment: Experiment, lock: FileLock) -> None:
        self.experiment = experiment
        self.path = experiment.path
        self._lock = lock
        self._status: dict[str, Any] = {}
        # Re-entrant: a signal handler may end the run while this very thread is writing its status.
        self._guard = threading.RLock()
        self._ended = threading.Event()
        self._pulse = threading.Thread(target=self._beat, daemon=True)
        self._seconds_before = 0.0
        self._began = time.monotonic()

    def begin(self, settings: Settings, environment: dict[str, Any]) -> None:
        """Write settings and environment and say `running`; the heartbeat starts.

        Raises:
            UserError: `best_model_path` belongs to somebody else, or the folder cannot be written.
        """
        if settings.best_model_path is not None:
            _take_model_folder(Path(settings.best_model_path), self.path)
        files.write_text(self.path / "config.yaml", settings_text(settings))
        files.write_json(self.path / "environment.json", environment)
        earlier = self._earlier_status()
        self._seconds_before = float(earlier.get("seconds") or 0.0)
        self._began = time.monotonic()
        self._status = {
            "state": "running",
            "step": 0,
            "total_steps": None,
            "epoch": 0.0,
            "started": earlier.get("started") or _now(),
            "updated": _now(),
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "message": "starting",
            "best_step": earlier.get("best_step"),
            "best_f1": earlier.get("best_f1"),
            "seconds": self._seconds_before,
        }
        self.update()
        self._pulse.start()

    def _earlier_status(self) -> dict[str, Any]:
        try:
            earlier = self.experiment.status()
        except files.BrokenFileError:
            return {}
        if earlier.get("best_step") not in self.experiment.checkpoints():
            # A best score without its checkpoint is nothing to go on from.
            earlier.update(best_step=None, best_f1=None)
        return earlier

    def update(self, **values: Any) -> None:
        """Change entries of `status.json`."""
        with self._guard:
            self._status.update(values, updated=_now(), seconds=self.seconds())
            files.write_json(self.path / "status.json", self._status)

    def seconds(self) -> float:
        """Time spent on the experiment, the runs before this one included."""
        return round(self._seconds_before + time.monotonic() - self._began, 1)

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT_SECONDS):
            # A disk that is full for a moment must not end the heartbeat.
            with suppress(UserError):
                self.update()

    def close(self) -> None:
        """Stop the heartbeat and let go of the folder, which goes too if it holds nothing."""
        self._ended.set()
        if self._pulse.is_alive():
            self._pulse.join()
        with suppress(OSError):
            if [item.name for item in self.path.iterdir()] == [LOCK]:
                # Before the lock is let go: no second run can have begun here.
                files.remove(self.path)
        self._lock.release()

    def append_history(self, row: dict[str, Any]) -> None:
        """Add a row to `history.jsonl`."""
        files.append_row(self.path / "history.jsonl", row)

    def rewind_history(self, step: int) -> None:
        """Keep the rows up to `step`: what came after it is about to happen again."""
        if (self.path / "history.jsonl").exists():
            kept = [row for row in self.experiment.history() if row["step"] <= step]
            files.write_rows(self.path / "history.jsonl", kept)

    def seal_checkpoint(self, folder: Path, keep: Iterable[int]) -> None:
        """Write the manifest that makes a checkpoint whole; then drop all others but those of `keep`."""
        files.remove(folder / "manifest.json")
        with files.explained(folder):
            # Before the manifest, or a power cut could leave it with files that are not on the disk.
            files.flush(folder)
        inside = sorted(item for item in folder.rglob("*") if item.is_file())
        sizes = {item.relative_to(folder).as_posix(): item.stat().st_size for item in inside}
        files.write_json(folder / "manifest.json", {"files": sizes})
        self.prune_checkpoints([*keep, int(folder.name.removeprefix("checkpoint-"))])

    def prune_checkpoints(self, keep: Iterable[int] = ()) -> None:
        """Remove checkpoints of other steps than `keep`, and what is left of half-written ones."""
        kept = {f"checkpoint-{step}" for step in keep}
        for folder in list((self.path / "checkpoints").glob("*checkpoint-*")):
            if folder.is_dir() and folder.name not in kept:
                with files.explained(folder):
                    # Without its manifest it no longer counts, whatever moment the removal is cut off at.
                    files.remove(folder / "manifest.json")
                    files.remove(folder)

    def publish_model(self, save: Callable[[Path], None], folder: Path) -> None:
        """Let `save` write the best model to a temporary folder, which then becomes `folder`.

        Raises:
            UserError: `folder` belongs to somebody else, or the disk is full.
        """
        claim_model_folder(folder, self.path)
        files.remove_leftovers(
            item for item in folder.parent.glob(".*") if item.name.startswith(f".{folder.name}.")
        )
        with files.replacing(folder) as temporary:
            temporary.mkdir()
            save(temporary)
            if not _is_own(folder, self.path):
                _write_owner(temporary, self.path)

    def stop(self) -> None:
        """Say `stopped`: the run ended early because somebody asked, and can go on."""
        self.update(state="stopped", message="stopped on request; go on with --resume")

    def fail(self, error: BaseException) -> None:
        """Say `failed` with the reason, or `stopped` for Ctrl-C, unless the run has said how it ended."""
        if self._status.get("state") != "running":
            return
        # A full disk may be the very reason, and the reason is what the user must see.
        with suppress(UserError):
            if isinstance(error, KeyboardInterrupt):
                self.stop()
                return
            text = str(error).strip() or type(error).__name__
            self.update(state="failed", message=text.splitlines()[0][:500])

    def finish(self, metrics: dict[str, Any], rows: Iterable[dict[str, Any]]) -> None:
        """Write predictions and metrics and say `finished`."""
        files.write_rows(self.path / "predictions.jsonl", rows)
        files.write_json(self.path / "metrics.json", metrics)
        self.update(state="finished", message="")


def claim_model_folder(folder: Path, experiment: Path) -> None:
    """Refuse a folder for the best model that belongs to another experiment, or to somebody else.

    Args:
        folder: where the best model is to go; it need not exist.
        experiment: the experiment's folder; it need not exist.

    Raises:
        UserError: it lies inside an experiment, or holds files without naming this one as its owner.
    """
    if _is_own(folder, experiment):
        return
    with files.explained(folder):
        _refuse_inside(folder, experiment)
        if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
            return
    owner = _owner(folder)
    if owner is None:
        raise UserError(f"best_model_path: {folder} exists and is no experiment's; choose another folder")
    if owner != str(experiment.resolve()):
        raise UserError(
            f"best_model_path: {folder} belongs to the experiment {Path(owner).name!r} ({owner}); "
            "choose another folder, or remove this one"
        )


def _refuse_inside(folder: Path, experiment: Path) -> None:
    place = folder.resolve()
    for outer in (place, *place.parents):
        if outer == experiment.resolve() or (outer / "status.json").is_file():
            raise UserError(
                f"best_model_path: {folder} lies in the folder of the experiment {outer.name!r}; choose a "
                "folder elsewhere, or null for best_model inside this experiment"
            )


def _is_own(folder: Path, experiment: Path) -> bool:
    # The last part is not resolved: the user may have moved the model and left a link to it.
    return folder.parent.resolve() / folder.name == experiment.resolve() / "best_model"


def _take_model_folder(folder: Path, experiment: Path) -> None:
    """Claim the folder now: at the end of the training another run might have filled it."""
    claim_model_folder(folder, experiment)
    if not _is_own(folder, experiment) and _owner(folder) is None:
        _write_owner(folder, experiment)


def _owner(folder: Path) -> str | None:
    """The experiment a model folder says it belongs to."""
    try:
        owner = files.read_object(folder / OWNER).get("experiment")
    except files.BrokenFileError:
        return None
    return owner if isinstance(owner, str) else None


def _write_owner(folder: Path, experiment: Path) -> None:
    files.write_json(folder / OWNER, {"experiment": str(experiment.resolve())})


@contextmanager
def open_run(root: Path, name: str) -> Iterator[Run]:
    """The folder of that name for writing, made if need be, locked against a second run.

    If the block ends with an exception, the status says `failed` with its message; a new folder in which
    nothing has begun disappears again.

    Raises:
        UserError: a bad name, a folder that cannot be written, one with other files in it, or another run at
            work there.
    """
    path = root / check_name(name)
    lock = _locked(path)
    run = Run(Experiment(path), lock)
    try:
        with files.explained(path):
            files.remove_leftovers(path.rglob(".*"))
        yield run
    except BaseException as error:
        run.fail(error)
        raise
    finally:
        run.close()


def _locked(path: Path) -> FileLock:
    try:
        path.mkdir(parents=True, exist_ok=True)
        _refuse_foreign(path)
        lock = FileLock(path / LOCK)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UserError(
            f"experiment {path.name!r} is being written by another process; wait for it or choose "
            "another name"
        ) from error
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror or error}); choose another folder with "
            "--experiments-dir"
        ) from error
    return lock


def _refuse_foreign(path: Path) -> None:
    """Somebody else's folder must not become an experiment: the run would replace and prune files in it."""
    inside = sorted(item.name for item in path.iterdir())
    if inside and LOCK not in inside and Experiment(path).state() == "broken":
        raise UserError(
            f"{path} holds other files ({', '.join(inside[:3])}{', ...' if len(inside) > 3 else ''}) and no "
            "experiment; choose another name"
        )


def keep_dataset(root: Path, questions: QuestionSet) -> str:
    """Keep a copy of a validation set beside the experiments, once; returns its fingerprint."""
    sha = questions.sha256()
    file = dataset_file(root, sha)
    files.remove_leftovers(file.parent.glob(".*"))
    if not file.exists():
        rows = [{"version": questions.version, "name": questions.name}, *map(asdict, questions.questions)]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        with files.replacing(file) as temporary:
            # No time stamp inside: the same questions give the same file.
            temporary.write_bytes(gzip.compress(lines.encode(), mtime=0))
    return sha


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
