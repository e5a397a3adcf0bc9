"""Text from anywhere, made fit to be printed or drawn.

Questions, contexts and answers may hold what steers a terminal (escape sequences), turns the reading
direction of what follows, or is no character at all. The trap: some invisible characters are part of words
and emoji, so those stay.
"""

from __future__ import annotations

from collections.abc import Sequence

JOINERS = "\u200c\u200d"  # within words of Persian and Indic scripts, and within emoji


def visible(text: str) -> str:
    r"""The text on one line; what a reader could not see is written out, such as \x1b."""
    return "".join(map(_shown, text))


def cut(text: str, most: int) -> str:
    """At most so many characters of the text; an ellipsis says that there were more."""
    return text if len(text) <= most else text[: most - 1] + "…"


def decimal(value: float, places: int) -> str:
    """A number from 0 up with so many decimals; one that is smaller than they show apart from 0.

    With 3 places 0.984, 0.000082 (two digits) and <0.000001.
    """
    least = 10 ** -(places + 3)
    if value == 0 or value >= 0.5 / 10**places:
        return f"{value:.{places}f}"
    if value < 0.95 * least:
        return f"<{least:.{places + 3}f}"
    return f"{float(f'{value:.1e}'):.{places + 4}f}".rstrip("0")


def listed(names: Sequence[str]) -> str:
    """At least one name, as a sentence names them: "a", "a and b", "a, b and c"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _shown(character: str) -> str:
    if character.isprintable() or character in JOINERS:
        return character
    return " " if character.isspace() else character.encode("unicode_escape").decode("ascii")
