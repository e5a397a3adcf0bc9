"""Texts for people: untrusted text made safe for Markdown and HTML, numbers and times in words.

Streamlit reads labels, captions and messages as Markdown. Names, messages and data are not ours, so they go
through `plain` (into Markdown) or `as_html` (into `st.html`); `st.text` and cells of a data frame take them
as they are. The trap: a backslash keeps every character from meaning something, except in `:name:`, which
becomes an emoji after the backslashes are gone; an invisible joiner keeps those two colons apart.
"""

from __future__ import annotations

import html
import re

PUNCTUATION = re.compile(r"[!-/:-@\[-`{-~]")
EMOJI = re.compile(r":(?=[\w+-]+:)")
JOINER = "\u2060"


def plain(text: str) -> str:
    """Markdown that shows exactly this text, on one line."""
    line = " ".join(text.split())
    return PUNCTUATION.sub(r"\\\g<0>", EMOJI.sub(f":{JOINER}", line))


def as_html(text: str) -> str:
    """HTML that shows exactly this text, line breaks and runs of blanks included."""
    return f'<div dir="auto" style="white-space: pre-wrap; overflow-wrap: anywhere">{html.escape(text)}</div>'
