"""Experiment folders without a training behind them: healthy, running, ended early, broken, and many.

What is written is what `qa.run` writes, so that whoever reads cannot tell.
"""

import json
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks.home import ROWS, make_experiments
from qa.config import Settings, settings_text
from qa.experiment import Experiment

ENDED = 99_999_999  # no system gives out process numbers this high


def write(root: Path, name: str, state: str = "finished", *, settings: Settings | None = None, **changes):
    """An experiment in that state; `changes` are entries of `status.json`."""
    folder = root / name
    folder.mkdir(parents=True)
    now = datetime.now(UTC)
    status = {
        "state": state,
        "step": 60,
        "total_steps": 120,
        "epoch": 1.5,
        "started": (now - timedelta(minutes=10)).isoformat(timespec="seconds"),
        "updated": now.isoformat(timespec="seconds"),
        "pid": ENDED,
        "host": socket.gethostname(),
        "message": "training" if state == "running" else "",
        "best_step": 40,
        "best_f1": 61.5,
        "seconds": 600.0,
    }
    (folder / "config.yaml").write_text(settings_text(settings or Settings(model_name="pocket")))
    _json(folder / "status.json", status | changes)
    data = {"name": "validation.json", "version": "2.0", "questions": 200, "sha256": "5" * 64}
    _json(folder / "environment.json", {"data": {"validation": data}})
    rows = [
        {"step": step, "epoch": step / 40, "f1": 50 + step / 5, "examples_per_second": 12.5}
        for step in (20, 40, 60)
    ]
    (folder / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if state == "finished":
        metrics = {
            "exact_match": 55.5,
            "f1": 62.0,
            "eval_loss": 1.5,
            "count": 200,
            "exact_match_interval": [50.5, 60.5],
            "f1_interval": [57.0, 67.0],
        }
        _json(folder / "metrics.json", metrics)
        row = {"id": "1", "prediction": "x", "exact_match": 1.0, "f1": 1.0}
        (folder / "predictions.jsonl").write_text(json.dumps(row) + "\n")
    return Experiment(folder)


def interrupted(root: Path, name: str) -> Experiment:
    """One that was killed a while ago."""
    long_ago = (datetime.now(UTC) - timedelta(days=2)).isoformat(timespec="seconds")
    return write(root, name, "running", updated=long_ago)


# What may be wrong with a folder: what is done to a healthy finished one.
BREAKING = {
    "no-status": lambda folder: (folder / "status.json").unlink(),
    "no-config": lambda folder: (folder / "config.yaml").unlink(),
    "no-metrics": lambda folder: (folder / "metrics.json").unlink(),
    "no-predictions": lambda folder: (folder / "predictions.jsonl").unlink(),
    "no-environment": lambda folder: (folder / "environment.json").unlink(),
    "empty": lambda folder: [file.unlink() for file in folder.iterdir()],
    "empty-files": lambda folder: [file.write_bytes(b"") for file in folder.iterdir()],
    "binary": lambda folder: [file.write_bytes(b"\0\xff\xfe") for file in folder.iterdir()],
    "torn-status": lambda folder: (folder / "status.json").write_text('{"state": "fini'),
    "status-list": lambda folder: (folder / "status.json").write_text("[]"),
    "unknown-state": lambda folder: (folder / "status.json").write_text('{"state": "dreaming"}'),
    "text-for-number": lambda folder: (folder / "metrics.json").write_text('{"exact_match": "high"}'),
    "nan": lambda folder: (folder / "metrics.json").write_text('{"exact_match": NaN, "f1": 1, "count": 1}'),
    "nested": lambda folder: (folder / "environment.json").write_text("[" * 100_000),
    "config-list": lambda folder: (folder / "config.yaml").write_text("- 1\n"),
    "config-tab": lambda folder: (folder / "config.yaml").write_text("a:\t[\n"),
    "unknown-setting": lambda folder: (folder / "config.yaml").write_text("epoch: 3\n"),
    "broken-history": lambda folder: (folder / "history.jsonl").write_text("{}\n[]\n"),
    "folder-for-file": lambda folder: _folder_for(folder / "status.json"),
    "loop": lambda folder: _loop(folder / "metrics.json"),
}


def broken(root: Path, kind: str, *, name: str | None = None) -> Experiment:
    """A folder that is broken in that way."""
    experiment = write(root, name or f"broken-{kind}")
    BREAKING[kind](experiment.path)
    return experiment


def many(root: Path, *, count: int = 1000) -> Path:
    """So many experiments, of which 20 are broken, each in a way of its own.

    Their predictions are hard links to 20 files of 100 to 10,000 rows.
    """
    make_experiments(root, count=count, rows=ROWS)
    for number, breaking in enumerate(BREAKING.values(), start=1):
        folder = root / f"experiment-{count - number:04}"
        # A link must not be written through.
        predictions = folder / "predictions.jsonl"
        predictions.unlink()
        predictions.write_text("")
        breaking(folder)
    return root


def _json(file: Path, value: object) -> None:
    file.write_text(json.dumps(value))


def _folder_for(file: Path) -> None:
    file.unlink()
    file.mkdir()


def _loop(file: Path) -> None:
    file.unlink()
    file.symlink_to(file)
