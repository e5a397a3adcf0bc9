"""What a message tells to do next: commands for a terminal, on the experiments that it is about."""

from __future__ import annotations

import shlex
from pathlib import Path


def for_terminal(command: str, root: Path) -> str:
    """The command as it is given in a terminal, with the folder of experiments where it is not the usual one.

    Names of experiments need no quotes (`qa.experiment.check_name`).

    Args:
        command: a program of the project with its arguments, or `make` with its target.
        root: the folder of experiments that it is to work on.
    """
    if root == Path("experiments"):
        return command
    folder = shlex.quote(str(root))
    if command.startswith("make "):
        return f"EXPERIMENTS_DIR={folder} {command}"
    return f"{command} --experiments-dir {folder}"


def no_experiments(root: Path) -> str:
    """What to say where there are none in the folder: whether it is there at all, and how to begin."""
    missing = "" if root.exists() else ", which does not exist"
    return f"no experiments in {root}{missing}; {how_to_begin(root)}"


def how_to_begin(root: Path) -> str:
    """How to get experiments in the folder."""
    demo, train = (
        for_terminal(command, root)
        for command in ("make demo-experiments", "python run_experiment.py --name my-first")
    )
    return f"make some with: {demo}, or train one with: {train}"
