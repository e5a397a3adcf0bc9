"""Texts for people. That a browser shows `plain` as it is, is held in tests/browser/test_home.py."""

import html
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard import wording
from texts import awkward


@given(awkward | st.text("<>*_$:[]()`~#@/w.h1\n a", max_size=12))
def test_plain_keeps_every_word_on_one_line(text):
    markdown = wording.plain(text)
    assert "\n" not in markdown
    # Taking back what was added gives the text.
    bare = re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", markdown).replace(wording.JOINER, "")
    assert bare.split() == text.replace(wording.JOINER, "").split()
    assert not re.search(r"(?<!\\)[!-/:-@\[-`{-~]", re.sub(r"\\.", "", markdown))


@pytest.mark.parametrize(
    "text",
    [":smile:", ":+1:", "a:b:c:", "https://x.example", "www.x.example", "WWW.x.example", "a@b.example"],
)
def test_what_would_become_something_else_is_kept_apart(text):
    assert wording.JOINER in wording.plain(text)


@pytest.mark.parametrize("text", ["10:30", "status.json: is missing", "C:", "epochs: 3"])
def test_nothing_invisible_is_put_where_it_is_not_needed(text):
    assert wording.JOINER not in wording.plain(text)


@given(st.text())
def test_html_shows_the_text(text):
    inner = re.fullmatch(r"<div [^>]*>(.*)</div>", wording.as_html(text), re.DOTALL)[1]
    assert "<" not in inner
    assert html.unescape(inner) == html.unescape(html.escape(text))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-3, "0 s"),
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (3569, "59 min"),
        (3571, "1 h"),
        (7500, "2 h 5 min"),
        (172_800, "2 days"),
    ],
)
def test_durations(seconds, words):
    assert wording.duration(seconds) == words


def test_counts_and_intervals():
    assert [wording.counted(n, "run") for n in (0, 1, 1234)] == ["0 runs", "1 run", "1,234 runs"]
    assert wording.between((38.7249, 50.0)) == "38.7 – 50.0"
    assert wording.between(None) == ""


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (0, "0.0%"),
        (1, "100.0%"),
        (0.12345, "12.3%"),
        (0.0005, "0.1%"),
        (0.000451, "0.045%"),
        (3.2106e-5, "0.0032%"),
        (1e-6, "0.0001%"),
        (9e-7, "<0.0001%"),
        (0.99999, "100.0%"),
    ],
)
def test_a_small_share_is_told_from_none(part, said):
    assert wording.share(part) == said
