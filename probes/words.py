"""Where words and sentences of a text begin, so that every tokenizer's pieces join into the same words.

A word is a run of letters and digits with apostrophes, hyphens and points inside it; any other sign is a word
of its own, and so is a character of a script that writes no blanks. Sentences end at . ! ? and their kin and
at empty lines; a reading aid, which knows the commonest abbreviations and no more. The trap: accents may be
characters of their own, and one emoji may be many, so text is cut between classes of characters.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Int = NDArray[np.int32]

# Thai, Lao, Myanmar, Khmer; kana and ideographs: no blanks between words.
WITHOUT_BLANKS = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff]"
)
JOINER = "\u200d"  # makes one emoji of several
# Classes: l letter, d digit, m mark on what precedes it, z joiner, b blank, s sign;
# i: a sign that belongs to the word between letters or digits; n: between digits only.
INSIDE = dict.fromkeys("'’.-‐_·@&", "i") | dict.fromkeys(",:/", "n") | {JOINER: "z"}  # noqa: RUF001 - as written
WORD = re.compile(r"[ld][mz]*(?:i?[ld][mz]*|(?<=d)n(?=d))*|[^b](?:m|z[^b])*")
SENTENCE_END = re.compile(r"[.!?…]+[\"'”’»)\]]*(?=\s)|[。！？؟]+|\n\s*\n")  # noqa: RUF001 - as written
VISIBLE = re.compile(r"\S")
NO_END = re.compile(r"(?:^|[^\w.])(?:(?:[^\W\d_]\.)*[^\W\d_]|Mr|Mrs|Ms|Dr|Prof|St|Sr|Jr|Mt|No|vs|cf|ca)\.$")


@lru_cache(maxsize=8)
def words_of(text: str) -> Int:
    """The word that each character is in, or follows as a blank, counted from 0 [len(text)].

    Blanks before the first word count as part of it.
    """
    classes = "".join(map(_class, text))
    return _numbers(len(text), [match.start() for match in WORD.finditer(classes)])


@lru_cache(maxsize=8)
def sentences_of(text: str) -> Int:
    """The sentence that each character is in, or follows as a blank, counted from 0 [len(text)]."""
    starts = [0]
    for match in SENTENCE_END.finditer(text):
        before = text[max(0, match.start() - 12) : match.start() + 1]
        following = VISIBLE.search(text, match.end())
        if following is None or following.group().islower() or NO_END.search(before):
            continue
        starts.append(following.start())
    return _numbers(len(text), starts)


def _numbers(length: int, starts: list[int]) -> Int:
    begins = np.zeros(length, dtype=np.int32)
    begins[[start for start in starts if start < length]] = 1
    return np.maximum(np.cumsum(begins, dtype=np.int32) - 1, 0)


@lru_cache(maxsize=4096)
def _class(character: str) -> str:
    if character in INSIDE:
        return INSIDE[character]
    if character.isspace():
        return "b"
    category = unicodedata.category(character)
    if category[0] == "M" or category == "Cf":
        return "m"
    if WITHOUT_BLANKS.match(character):
        return "s"
    if category == "Nd":
        return "d"
    return "l" if category[0] in "LN" else "s"
