"""The commands `python -m probes atlas | contrast`: what a model looks at, over a whole data set.

Results go to standard output, messages and progress to standard error; `--json` prints one JSON object as the
last line of standard output. Exit status 0, or 2 with one line that says what is wrong. Each command is a
module with `add_parser(commands)`, which sets `command` to a function of the options. The trap: torch takes
seconds to import, so those modules import what they compute with only when they run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from probes import atlas_command, contrast_command
from qa.commands import run


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit status."""
    return run(
        "probes",
        _parser().parse_args(arguments),
        interrupted="interrupted; the same command goes on from here",
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m probes", description="What a model looks at, over a whole data set."
    )
    commands = parser.add_subparsers(dest="name_of_command", required=True, metavar="COMMAND")
    atlas_command.add_parser(commands)
    contrast_command.add_parser(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
