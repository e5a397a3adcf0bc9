"""Coloured texts show the text and nothing else, with a hue for each sign and the sign in words."""

import html
import re

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from asked import HOSTILE
from dashboard.coloured import both_texts, coloured, sign, strongest
from probes.maps import ANSWER, CONTEXT, QUESTION
from probes.word_scores import Word
from texts import awkward

WORDS = (
    Word("Who", QUESTION, 0, 3),
    Word("The", CONTEXT, 0, 3),
    Word("cat", ANSWER, 4, 7),
    Word("sat", CONTEXT, 8, 11),
)
SCORES = np.array([2.0, 0.0, -4.0, 1.0])


def spans(made):
    """Title, style and text of each span."""
    return re.findall(r'<span title="(.*?)" style="(.*?)">(.*?)</span>', made)


def test_signs_have_a_hue_and_a_word_and_zero_has_none():
    question, context = both_texts(
        "Who?", "The cat sat", WORDS, SCORES, answer=(4, 7), unit="logits", signed=True
    )
    ((title, style, text),) = spans(question)
    assert (title, text) == ("supports 2 logits", "Who")
    assert "37 99 235 / 38%" in style  # on the scale of both texts, whose largest score is 4
    (against, against_style, cat), (less, less_style, sat) = spans(context)
    assert (against, cat, less, sat) == ("opposes 4 logits", "cat", "supports 1 logits", "sat")
    assert "239 68 68 / 75%" in against_style
    assert "border-bottom" in against_style
    assert "border-bottom" not in less_style
    assert sign(-0.1) == "opposes"


def test_amounts_without_a_sign_do_not_say_one():
    made = coloured("The cat", [(4, 7, 0.5)], top=1.0, answer=(0, 0), unit="of it", signed=False)
    assert [title for title, _, _ in spans(made)] == ["0.5 of it"]


def test_an_answer_that_ends_inside_of_a_word():
    made = coloured("ab cdef", [(3, 7, 1.0)], top=1.0, answer=(3, 5), unit="x")
    assert [(text, "border-bottom" in style) for _, style, text in spans(made)] == [
        ("cd", True),
        ("ef", False),
    ]


@given(awkward, st.lists(st.tuples(st.integers(0, 30), st.floats(-3, 3)), max_size=8))
@settings(max_examples=30)
def test_the_text_is_all_there_and_escaped(text, scores):
    stretches = [(2 * n, 2 * n + 1, score) for n, (_, score) in enumerate(scores) if 2 * n + 1 <= len(text)]
    made = coloured(text, stretches, top=3.0, answer=(0, min(3, len(text))), unit="logits")
    inside = re.sub(r"</?(span|div)[^<>]*>", "", made)
    assert "<" not in inside
    plain = coloured(text, [], top=1.0, answer=(0, 0), unit="")
    assert html.unescape(inside) == html.unescape(re.sub(r"</?(span|div)[^<>]*>", "", plain))


def test_hostile_text_stays_text():
    made = coloured(HOSTILE, [(0, len(HOSTILE), 1.0)], top=1.0, answer=(0, 0), unit="logits")
    assert "<script>" not in made
    assert "<b>" not in made
    assert "&lt;script&gt;" in made


def test_the_strongest_words_by_sign():
    said = strongest(WORDS, SCORES, count=1, signed=True)
    assert said == "Supports: **Who** (+2). Opposes: **cat** (-4)."
    assert strongest(WORDS, np.abs(SCORES), count=2, signed=False) == "Most: **cat** (4), **Who** (2)."
    assert strongest(WORDS, np.zeros(4), count=2, signed=True) == "No word has any score."
    odd = (Word("*b*", QUESTION, 0, 3),)
    plus = (Word("C", CONTEXT, 0, 1), Word("+", CONTEXT, 1, 2))
    assert strongest(plus, np.array([1.0, 2.0]), count=2, signed=False) == "Most: **\\+** (2), **C** (1)."
    assert "\\*b\\*" in strongest(odd, np.ones(1), count=1, signed=True)
