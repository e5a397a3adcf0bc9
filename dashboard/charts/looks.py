"""The colours of maps: on paper and light pages, and on dark pages.

Amounts are one hue, more of it for more; changes are two, one for each sign, with the page's own colour in
the middle. The trap: dark blue on black cannot be seen, so the hue of "much" follows the page, not only its
ink.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Look:
    """Colours for one background.

    Attributes:
        ink: text.
        quiet: lines that are not to be looked at.
        grid: between cells.
        unseen: cells about which nothing is known.
        nothing: cells of 0.
        much: the most there can be.
        less: the lowest of changes.
        more: the highest of changes.
        answer: words of the answer.
        start: scores of starts.
        end: scores of ends.
    """

    ink: str
    quiet: str
    grid: str
    unseen: str
    nothing: str
    much: str
    less: str
    more: str
    answer: str
    start: str
    end: str


LIGHT = Look(
    ink="#1f2933",
    quiet="#9aa5b1",
    grid="#e5e9f0",
    unseen="#d9d9d9",
    nothing="#ffffff",
    much="#08306b",
    less="#b2182b",
    more="#2166ac",
    answer="#b91c1c",
    start="#1d4ed8",
    end="#b45309",
)
DARK = Look(
    ink="#e6e9ef",
    quiet="#6b7683",
    grid="#2a2e35",
    unseen="#4b5563",
    nothing="#16181c",
    much="#a5d0ff",
    less="#fb7185",
    more="#60a5fa",
    answer="#fca5a5",
    start="#60a5fa",
    end="#fbbf24",
)
