"""Processes that the dashboard starts and that outlive it."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from qa import files


def start_apart(
    command: Sequence[str], *, root: Path, log: Path, environment: Mapping[str, str] | None = None
) -> int:
    """Start a command of this project on a folder of experiments; its process number.

    Args:
        command: without the folder.
        root: the folder of experiments.
        log: takes all that it says, instead of what is there.
        environment: variables beside those of this process.

    Raises:
        UserError: the log cannot be written.
    """
    with files.explained(log):
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*command, "--experiments-dir", str(root.resolve())],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                # Ctrl-C at the server is meant for the server.
                start_new_session=True,
            )
    # Somebody must ask how it ended, or it stays in the table of processes.
    threading.Thread(target=process.wait, daemon=True).start()
    return process.pid
