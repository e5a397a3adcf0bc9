"""What people type: asked for until it is right, and read in the same way from a terminal, pipe or argument.

A parser gives the value or raises a `UserError` that says what is allowed. The trap: a number such as
999999999999 must be refused before a range is made of it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from qa.errors import UserError
from qa.printing import cut, visible

with suppress(ImportError):  # not on Windows
    import readline  # noqa: F401 - `input` then takes long lines, which a plain terminal cuts at 4,095 bytes

Value = TypeVar("Value")

NUMBERS = re.compile(r"(?P<first>[0-9]{1,9})(?:-(?P<last>[0-9]{1,9}))?")
YES, NO = ("", "y", "yes"), ("n", "no")
SHOWN = 60  # characters of a wrong entry that are repeated


def ask(prompt: str, parse: Callable[[str], Value]) -> Value:
    """What is entered at a prompt; after a wrong entry it says what is allowed, and asks again.

    Raises:
        EOFError: there is no more input.
        KeyboardInterrupt: Ctrl-C.
    """
    while True:
        entry = input(prompt)
        if not sys.stdin.isatty():
            # So that what a script piped in reads as it does in a terminal.
            print(cut(visible(entry), SHOWN))
        try:
            return parse(entry)
        except UserError as error:
            print(visible(str(error)))


def text(entry: str, *, name: str) -> str:
    """Any text that is not blank.

    Raises:
        UserError: it is blank.
    """
    if not entry.strip():
        raise UserError(f"{name}: it is empty; give some text")
    return entry


def yes(entry: str) -> bool:
    """True for yes or nothing, False for no.

    Raises:
        UserError: anything else.
    """
    answer = entry.strip().lower()
    if answer not in (*YES, *NO):
        raise UserError(f"{shown(entry)}: enter y or n")
    return answer in YES


def numbers(entry: str, *, name: str, count: int) -> tuple[int, ...]:
    """Numbers from 0 to count - 1, once each and ascending, from "3 4, 7", "0-5" or "all".

    Raises:
        UserError: something else, or a number that is not there.
    """
    if entry.strip().lower() == "all":
        return tuple(range(count))
    found: set[int] = set()
    for part in re.sub(r"\s*-\s*", "-", entry.strip()).replace(",", " ").split():
        match = NUMBERS.fullmatch(part)
        first, last = (int(match["first"]), int(match["last"] or match["first"])) if match else (0, -1)
        if not first <= last < count:
            raise UserError(
                f"{name}: {shown(part)}; there are 0 to {count - 1}: give one, several (0 {count - 1}), "
                f"from-to (0-{count - 1}) or all"
            )
        found.update(range(first, last + 1))
    if not found:
        raise UserError(f"{name}: nothing given; give numbers from 0 to {count - 1}, or all")
    return tuple(sorted(found))


def shown(entry: str) -> str:
    """A wrong entry as it is repeated in a message."""
    return repr(cut(entry, SHOWN))
