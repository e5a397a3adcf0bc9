"""Marked text shows the text and nothing else, whatever is in it."""

import html
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard import marking
from dashboard.marking import changes, inline, shaded, shown, with_answer
from qa.printing import visible
from texts import awkward

TAG = re.compile(r"</?(?:div|mark|span)\b[^>]*>")


def text_of(markup):
    """What a browser shows, and whether there is any tag but ours."""
    without = TAG.sub("", markup)
    assert "<" not in without
    return html.unescape(without)


def lines_shown(text):
    return "\n".join(map(visible, text.split("\n")))


@given(awkward, st.integers(0, 60), st.integers(0, 60))
def test_a_context_is_shown_whole_with_its_answer_marked(context, start, end):
    markup = with_answer(context, start, min(end, len(context)))
    assert text_of(markup) == lines_shown(context) or start >= end
    if start < end <= len(context):
        (marked,) = re.findall(r"<mark[^>]*>(.*?)</mark>", markup, re.DOTALL)
        assert html.unescape(marked) == lines_shown(context[start:end])
    else:
        assert "<mark" not in with_answer(context, 0, 0)


@given(awkward)
def test_nothing_is_hidden(text):
    assert html.unescape(shown(text)) == lines_shown(text)
    assert not {"\u200b", "\u202e", "\ufeff", "\x00"} & set(shown(text))


def test_markup_is_text():
    context = "<script>alert(1)</script> & <b>x</b>\nsecond\u202eline"
    markup = with_answer(context, 0, 8)
    assert "<script" not in markup
    assert "&lt;script&gt;</mark>alert(1)" in markup
    assert "second\\u202eline" in markup


def test_shares_are_shades_and_titles():
    markup = shaded("Who sat <b>", [(4, 7, 0.75), (0, 3, 0.25), (-1, -1, 0.5)])
    spans = re.findall(r'<span title="([^"]*)" style="[^"]*/ (\d+)%\)[^"]*">(.*?)</span>', markup)
    assert spans == [("25.0%", "20", "Who"), ("75.0%", "60", "sat")]
    assert text_of(markup) == "Who sat <b>"
    assert text_of(shaded("nothing", [])) == "nothing"


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("a b c", "a x c", [("b", "x")]),
        ("a b", "a b c d", [("", "c d")]),
        ("a b", "b", [("a", "")]),
        ("a b", "a b", []),
        ("a b c d", "x b c y", [("a", "x"), ("d", "y")]),
    ],
)
def test_what_was_edited(before, after, expected):
    assert changes(before.split(), after.split()) == expected


def test_a_text_in_a_line_means_nothing_in_markdown():
    assert (
        inline("**a** $b$ :smile:\n\u202ec") == r"\*\*a\*\* \$b\$ " + marking.plain(":smile:") + r" \\u202ec"
    )
    assert inline("x" * 400).count("x") == marking.LONGEST - 1
