"""The commands `python -m probes atlas | contrast`: what a model looks at, over a whole data set.

Results go to standard output, messages and progress to standard error; `--json` prints one JSON object as the
last line of standard output. Exit status 0, or 2 with one line that says what is wrong. Each command is a
module with `add_parser(commands)`, which sets `command` to a function of the options. The trap: torch takes
seconds to import, so those modules import what they compute with only when they run.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from probes import atlas_command, contrast_command
from qa.errors import UserError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit status."""
    options = _parser().parse_args(arguments)
    try:
        options.command(options)
        sys.stdout.flush()
    except UserError as error:
        print(f"probes {options.name_of_command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            f"probes {options.name_of_command}: interrupted; the same command goes on from here",
            file=sys.stderr,
        )
        return 2
    except BrokenPipeError:
        # Whoever read the output has had enough of it (`| head`); what is still buffered has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m probes", description="What a model looks at, over a whole data set."
    )
    commands = parser.add_subparsers(dest="name_of_command", required=True)
    atlas_command.add_parser(commands)
    contrast_command.add_parser(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
