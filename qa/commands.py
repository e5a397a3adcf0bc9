"""What `python -m qa` and `python -m probes` have in common: how a command ends, and what arguments are."""

from __future__ import annotations

import argparse
import os
import sys

from qa.errors import UserError


def run(program: str, options: argparse.Namespace, *, interrupted: str = "interrupted") -> int:
    """Run `options.command` with the options; the exit status, 2 with one line that says what is wrong.

    Args:
        program: qa or probes.
        options: with `command` and `name_of_command`.
        interrupted: what to say after Ctrl-C.
    """
    name = f"{program} {options.name_of_command}"
    try:
        options.command(options)
        sys.stdout.flush()
    except UserError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{name}: {interrupted}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # Whoever read the output has had enough of it (`| head`); what is still buffered has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def count_of(text: str) -> int:
    """A whole number of at least 1, for an argument."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)
