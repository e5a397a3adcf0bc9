"""What `python -m qa` and `python -m probes` have in common: how a command ends, and what arguments are."""

from __future__ import annotations

import argparse
import io
import os
import sys

from qa.errors import UserError, is_out_of_memory


def run(program: str, options: argparse.Namespace, *, interrupted: str = "interrupted") -> int:
    """Run `options.command` with the options; the exit status, 2 with one line that says what is wrong.

    Args:
        program: qa or probes.
        options: with `command` and `name_of_command`.
        interrupted: what to say after Ctrl-C.
    """
    name = f"{program} {options.name_of_command}"
    take_any_character()
    try:
        options.command(options)
        sys.stdout.flush()
    except UserError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{name}: {interrupted}", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        print(f"{name}: out of memory; end other programs or ask for less, and try again", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # Whoever read the output has had enough of it (`| head`); what is still buffered has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def take_any_character() -> None:
    """A byte that is no character, or one that the terminal cannot show, is no reason to end."""
    for stream, errors in ((sys.stdin, "replace"), (sys.stdout, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)


def count_of(text: str) -> int:
    """A whole number of at least 1, for an argument."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)
