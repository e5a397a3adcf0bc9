"""Parts of untrusted text marked, as HTML that shows the text and nothing else.

The trap: what cannot be seen (zero-width characters, marks that turn the reading direction) would hide or
move what follows, so it is written out; line breaks stay.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher
from itertools import pairwise

from dashboard.wording import plain
from qa.printing import cut, visible

BOX = '<div dir="auto" style="white-space: pre-wrap; overflow-wrap: anywhere; line-height: 1.6">{}</div>'
ANSWER = "background: rgb(234 179 8 / 35%); border-bottom: 2px solid #ca8a04; color: inherit; padding: 1px 0"
LONGEST = 300  # characters of a text in a line
SHADE = "background: rgb(37 99 235 / {:.0f}%); border-radius: 3px; padding: 1px 0"


def shown(text: str) -> str:
    """Escaped text, with what a reader could not see written out; line breaks stay."""
    return "\n".join(html.escape(visible(line)) for line in text.split("\n"))


def in_cell(text: str, most: int = LONGEST) -> str:
    """A text for a cell of a table or a box, which take it as it is: cut, with nothing in it hidden."""
    return cut(visible(text), most)


def inline(text: str, most: int = LONGEST) -> str:
    """Markdown that shows a text in a line of ours, cut where it is longer, nothing in it hidden."""
    return plain(in_cell(text, most))


def with_answer(context: str, start: int, end: int) -> str:
    """A context with its answer marked; none if it is empty."""
    if start >= end:
        return BOX.format(shown(context))
    before, answer, after = context[:start], context[start:end], context[end:]
    marked = f'<mark style="{ANSWER}">{shown(answer)}</mark>'
    return BOX.format(f"{shown(before)}{marked}{shown(after)}")


def shaded(text: str, shares: Iterable[tuple[int, int, float]]) -> str:
    """A text whose stretches are shaded by their share of 1; the largest is shaded most.

    Args:
        text: any.
        shares: first character, end and share of stretches that do not overlap.
    """
    stretches = sorted((start, end, share) for start, end, share in shares if 0 <= start < end)
    top = max((share for _, _, share in stretches), default=1.0)
    edges = [0, *(edge for start, end, _ in stretches for edge in (start, end)), len(text)]
    share_of = {(start, end): share for start, end, share in stretches}
    pieces = [_shade(text[start:end], share_of.get((start, end)), top) for start, end in pairwise(edges)]
    return BOX.format("".join(pieces))


def _shade(text: str, share: float | None, top: float) -> str:
    if share is None:
        return shown(text)
    return f'<span title="{share:.1%}" style="{SHADE.format(60 * share / top)}">{shown(text)}</span>'


def changes(before: Sequence[str], after: Sequence[str]) -> list[tuple[str, str]]:
    """Runs of words that were replaced, each with what took their place; either may be empty."""
    found = SequenceMatcher(a=before, b=after, autojunk=False).get_opcodes()
    return [(" ".join(before[i:j]), " ".join(after[k:m])) for kind, i, j, k, m in found if kind != "equal"]
