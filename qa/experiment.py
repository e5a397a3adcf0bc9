"""The experiment folder, for reading: the only code that knows its files.

Together with `qa.run`, which writes it. `Experiment` takes every folder as it finds it: a missing or broken
file is a problem to show, never a crash. The trap: a process that was killed leaves `running` in
`status.json`; `state` therefore believes it only while the heartbeat is young or the process alive.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import socket
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from qa import files
from qa.config import Settings, read_settings
from qa.errors import UserError
from qa.hints import for_terminal
from qa.squad import Question, QuestionSet

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
FINGERPRINT = re.compile(r"[0-9a-f]{64}")
CHECKPOINT = re.compile(r"checkpoint-(?P<step>0|[1-9][0-9]*)")
STATES = ("running", "finished", "stopped", "failed")
SILENT_SECONDS = 60.0
IMPORT_AGAIN = "it is an import that was cut off: remove {} and import it again"


def experiments_dir(given: str | None = None) -> Path:
    """Where experiments are: what is given, else EXPERIMENTS_DIR, else `experiments` here.

    Raises:
        UserError: the home folder of an unknown user.
    """
    folder = given or os.environ.get("EXPERIMENTS_DIR") or "experiments"
    try:
        return Path(folder).expanduser()
    except RuntimeError as error:
        raise UserError(f"--experiments-dir {folder}: {error} Give another folder") from error


def check_name(name: str) -> str:
    """The name itself, if it is one: it becomes a folder and must not lead out of its parent.

    Raises:
        UserError: any other characters, or too long.
    """
    if not NAME.fullmatch(name):
        raise UserError(
            f"experiment name {name!r} is not allowed; use up to 64 letters, digits, '.', '_' and '-', "
            "beginning with a letter or digit"
        )
    return name


def seed_name(group: str, seed: int) -> str:
    """The name of the experiment of one seed of a group.

    Raises:
        UserError: as `check_name`.
    """
    return check_name(f"{group}-seed-{seed}")


@dataclass(frozen=True, slots=True)
class Experiment:
    """One experiment folder, for reading.

    Attributes:
        path: the folder; its last part is the name.
    """

    path: Path

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    def settings(self) -> Settings:
        """The settings it was run with.

        Raises:
            UserError: `config.yaml` is missing, broken or of a foreign program.
        """
        return read_settings(self.path / "config.yaml")

    def status(self) -> dict[str, Any]:
        """`status.json`: state, step, total_steps, epoch, started, updated, pid, message, best_step, best_f1.

        Raises:
            BrokenFileError: missing, broken or of a foreign program.
        """
        file = self.path / "status.json"
        status = files.read_object(file)
        if status.get("state") not in STATES:
            raise files.BrokenFileError(f"{file}: unknown state {status.get('state')!r}")
        numbers = ("step", "total_steps", "epoch", "best_step", "best_f1", "seconds")
        files.check_types(file, status, dict.fromkeys(numbers, files.NUMBER) | {"message": (str,)})
        return status

    def state(self) -> str:
        """One of STATES, or "interrupted" (killed while it ran) or "broken" (no readable status)."""
        try:
            status = self.status()
        except UserError:
            return "broken"
        return (
            "interrupted" if status["state"] == "running" and not is_alive(status) else str(status["state"])
        )

    def environment(self) -> dict[str, Any]:
        """`environment.json`: versions, device, commit, seed, fingerprints.

        Raises:
            BrokenFileError: missing, broken or of a foreign program.
        """
        file = self.path / "environment.json"
        environment = files.read_object(file)
        data = environment.setdefault("data", {})
        files.check_types(file, environment, {"data": (dict,)}, needed=True)
        files.check_types(file, data, dict.fromkeys(data, (dict,)), needed=True)
        return environment

    def history(self) -> list[dict[str, Any]]:
        """Rows of `history.jsonl`, a step each, in order.

        Raises:
            BrokenFileError: missing or broken, or a row without its step.
        """
        return self._rows("history.jsonl", {"step": (int,)})

    def metrics(self) -> dict[str, Any]:
        """`metrics.json`: the final scores.

        Raises:
            BrokenFileError: missing or broken, or without exact_match, f1 and count.
        """
        file = self.path / "metrics.json"
        metrics = files.read_object(file)
        files.check_types(
            file, metrics, {"exact_match": files.NUMBER, "f1": files.NUMBER, "count": (int,)}, needed=True
        )
        files.check_types(file, metrics, {"eval_loss": files.NUMBER, "no_answer_threshold": files.NUMBER})
        return metrics

    def predictions(self) -> list[dict[str, Any]]:
        """Rows of `predictions.jsonl`, a validation question each.

        Raises:
            BrokenFileError: missing or broken, or a row without id and scores.
        """
        return self._rows(
            "predictions.jsonl", {"id": (str,), "exact_match": files.NUMBER, "f1": files.NUMBER}
        )

    def _rows(self, name: str, types: files.Types) -> list[dict[str, Any]]:
        rows = files.read_rows(self.path / name)
        for number, row in enumerate(rows, start=1):
            files.check_types(self.path / name, row, types, where=f"line {number}: ", needed=True)
        return rows

    def model_folder(self) -> Path:
        """Where its best model is.

        Raises:
            UserError: there is none, because the experiment is not finished or was imported without one.
        """
        folder = Path(self.settings().best_model_path or self.path / "best_model")
        if (folder / "config.json").is_file():
            return folder
        state = self.state()
        if state == "finished":
            raise UserError(
                f"experiment {self.name!r} has no model in {folder}: it was imported from predictions, or "
                "the folder was moved; choose another experiment"
            )
        if self.is_import():
            raise UserError(f"experiment {self.name!r} has no model; {IMPORT_AGAIN.format(self.path)}")
        raise UserError(
            f"experiment {self.name!r} has no model yet ({state}); choose a finished experiment, "
            f"or go on with: {self.resume_command()}"
        )

    def is_import(self) -> bool:
        """Whether its model or predictions come from elsewhere."""
        return _exists(self.path / "environment.json") and "imported" in self.environment()

    def resume_command(self) -> str:
        """What goes on with its training, given in a terminal."""
        return for_terminal(f"python run_experiment.py --name {self.name} --resume", self.path.parent)

    def validation_questions(self) -> QuestionSet:
        """The questions it was scored on, from the copy kept beside the experiments.

        Raises:
            UserError: no record of them, or the copy is gone or broken.
        """
        data = self.environment()["data"].get("validation", {})
        return read_dataset(self.path.parent, str(data.get("sha256", "")), str(data.get("name", "")))

    def checkpoints(self) -> dict[int, Path]:
        """Whole checkpoints by step, ascending; one without a true manifest does not count."""
        found = {}
        for folder in (self.path / "checkpoints").glob("checkpoint-*"):
            match = CHECKPOINT.fullmatch(folder.name)
            if match is not None and _is_whole(folder):
                found[int(match["step"])] = folder
        return dict(sorted(found.items()))

    def evaluations(self) -> dict[str, dict[str, Any]]:
        """Metrics of its evaluations on other data, by the data's fingerprint; broken ones left out."""
        found = {}
        for file in sorted((self.path / "evaluations").glob("[!.]*/metrics.json")):
            try:
                found[file.parent.name] = files.read_object(file)
            except files.BrokenFileError:
                continue
        return found

    def write_evaluation(
        self, data_sha: str, metrics: dict[str, Any], rows: Iterable[dict[str, Any]]
    ) -> Path:
        """Keep an evaluation on other data, in place of an earlier one; returns its folder."""
        folder = self.path / "evaluations" / data_sha
        files.remove_leftovers(folder.parent.glob(".*"))
        # The folder as a whole, or a reader could pair new predictions with old metrics.
        with files.replacing(folder) as temporary:
            files.write_rows(temporary / "predictions.jsonl", rows)
            files.write_json(temporary / "metrics.json", metrics)
        return folder

    def problems(self) -> list[str]:
        """What is wrong with the folder, a line each; empty for a healthy one.

        Cheap enough for a list of experiments: predictions are looked for, not read.
        """
        readers: list[Callable[[], Any]] = [self.settings, self.status, self.environment]
        if _exists(self.path / "history.jsonl"):
            readers.append(self.history)
        if self.state() == "finished":
            readers.append(self.metrics)
        found = []
        for read in readers:
            try:
                read()
            except UserError as error:
                found.append(str(error))
        if self.state() == "finished" and not _exists(self.path / "predictions.jsonl"):
            found.append(f"{self.path / 'predictions.jsonl'}: is missing")
        return found


def _exists(path: Path) -> bool:
    """As `Path.exists`, but true where the folder may not be searched: reading then says what is wrong."""
    try:
        return path.exists()
    except OSError:
        return True


def list_experiments(root: Path) -> list[Experiment]:
    """Every folder that could be an experiment, by name; hidden ones and plain files are none.

    Raises:
        UserError: the folder of experiments itself cannot be read.
    """
    try:
        folders = [item for item in root.iterdir() if NAME.fullmatch(item.name) and item.is_dir()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(
            f"{root}: cannot be read ({error.strerror}); give the folder of experiments with "
            "--experiments-dir"
        ) from error
    return [Experiment(folder) for folder in sorted(folders)]


def find_experiment(root: Path, name: str) -> Experiment:
    """The experiment of that name.

    Raises:
        UserError: no such folder, naming those there are.
    """
    check_name(name)
    experiments = {experiment.name: experiment for experiment in list_experiments(root)}
    if name not in experiments:
        some = ", ".join([*experiments][:10]) + (" ..." if len(experiments) > 10 else "")
        known = f"there are: {some}" if experiments else "there are none"
        command = for_terminal("python -m qa list", root)
        raise UserError(f"no experiment {name!r} in {root}; {known} ({command})")
    return experiments[name]


def is_alive(status: dict[str, Any]) -> bool:
    """Whether the run that wrote this status as `running` still goes on."""
    try:
        seen = datetime.fromisoformat(str(status["updated"])).astimezone(UTC).timestamp()
    except (KeyError, ValueError, OverflowError):
        return False
    # A heartbeat from the future tells of a wrong clock, not of a living process.
    if abs(datetime.now(UTC).timestamp() - seen) < SILENT_SECONDS:
        return True
    pid = status.get("pid")
    here = status.get("host") == socket.gethostname()
    return here and type(pid) is int and pid > 0 and files.process_lives(pid, seen=seen)


def _is_whole(checkpoint: Path) -> bool:
    try:
        listed = files.read_object(checkpoint / "manifest.json").get("files")
        if not isinstance(listed, dict) or not listed:
            return False
        return all((checkpoint / name).stat().st_size == size for name, size in listed.items())
    except (UserError, OSError, ValueError):
        return False


def dataset_file(root: Path, sha: str) -> Path:
    """Where the copy of a validation set is kept.

    Args:
        root: the folder of experiments.
        sha: the set's fingerprint.
    """
    return root / ".datasets" / f"{sha}.jsonl.gz"


def read_dataset(root: Path, sha: str, name: str) -> QuestionSet:
    """The copy of a validation set.

    Args:
        root: the folder of experiments.
        sha: its fingerprint, which the copy is checked against.
        name: what to call it.

    Raises:
        UserError: there is none of that fingerprint, or it is broken.
    """
    file = dataset_file(root, sha)
    if not FINGERPRINT.fullmatch(sha) or not file.is_file():
        raise UserError(
            f"the validation questions ({name or 'unknown'}) are not in {file.parent}; bring this folder "
            "along when experiments are moved"
        )
    try:
        kept = _unpacked(file, name)
        if kept.sha256() != sha:
            raise ValueError("its content does not match its name")
    except (OSError, EOFError, zlib.error, ValueError, TypeError, KeyError, RecursionError) as error:
        raise files.BrokenFileError(
            f"{file}: broken ({type(error).__name__}: {error}); remove it: the next run or import with this "
            "data writes it again"
        ) from error
    return kept


def _unpacked(file: Path, name: str) -> QuestionSet:
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        head, *rows = [json.loads(line) for line in lines]
    questions = tuple(
        Question(**{**row, "answers": tuple(row["answers"]), "starts": tuple(row["starts"])}) for row in rows
    )
    misplaced = tuple(question.id for question in questions if -1 in question.starts)
    return QuestionSet(name or head["name"], head["version"], questions, misplaced)
