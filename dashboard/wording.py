"""Texts for people: untrusted text made safe for Markdown and HTML, numbers and times in words.

Streamlit reads labels, captions and messages as Markdown. Names, messages and data are not ours, so they go
through `plain` (into Markdown) or `as_html` (into `st.html`); `st.text` and cells of a data frame take them
as they are. The trap: a backslash keeps every character from meaning something, but `:name:` becomes an
emoji, and an address a link, after the backslashes are gone; an invisible joiner keeps those apart.
"""

from __future__ import annotations

import html
import re

from qa.printing import decimal

PUNCTUATION = re.compile(r"[!-/:-@\[-`{-~]")
# After a colon of an emoji or of an address, after www, and before the @ of a mail address.
APART = re.compile(r"(?<=:)(?=[\w+-]+:|//)|(?<=www)(?=\.)|(?=@)", re.IGNORECASE)
JOINER = "\u2060"
# Parts of a data set.
ALL, ANSWERABLE, UNANSWERABLE = "all questions", "with an answer", "without an answer"


def plain(text: str) -> str:
    """Markdown that shows exactly this text, on one line."""
    line = " ".join(text.split())
    return PUNCTUATION.sub(r"\\\g<0>", APART.sub(JOINER, line))


def as_html(text: str) -> str:
    """HTML that shows exactly this text, line breaks and runs of blanks included."""
    return f'<div dir="auto" style="white-space: pre-wrap; overflow-wrap: anywhere">{html.escape(text)}</div>'


def duration(seconds: float) -> str:
    """A time span in the two largest units that matter, such as 2 h 5 min."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes = round(whole / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {rest} min" if rest else f"{hours} h"
    return f"{round(hours / 24)} days"


def counted(number: int, noun: str) -> str:
    """The number with its noun, such as 1 experiment or 1,000 experiments."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def share(part: float) -> str:
    """A share of 1 in percent, a small one apart from none: "12.3%", "0.0032%", "<0.0001%"."""
    return f"{decimal(100 * part, 1)}%"


def between(interval: tuple[float, float] | None) -> str:
    """A 95 % interval of percentages, such as 38.7 – 50.0; nothing where there is none."""
    return "" if interval is None else f"{interval[0]:.1f} – {interval[1]:.1f}"
