"""Text from anywhere can be printed: on one line, steering nothing, with its letters as they are."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qa.printing import cut, decimal, listed, visible
from texts import awkward


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("My favorite color is red.", "My favorite color is red."),
        ("a\nb\tc\u2028d\u00a0e", "a b c d e"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("half \ud83d of one", r"half \ud83d of one"),
        ("zero\u200bwidth", r"zero\u200bwidth"),
        ("👩\u200d🚀 می\u200cشود é ไม้", "👩\u200d🚀 می\u200cشود é ไม้"),
    ],
)
def test_what_cannot_be_seen_is_written_out(text, shown):
    assert visible(text) == shown


@given(awkward)
def test_whatever_the_text_it_is_one_line_that_can_be_encoded(text):
    shown = visible(text)
    assert len(io.StringIO(shown, newline=None).read().splitlines()) <= 1
    assert shown.encode("utf-8").decode("utf-8") == shown
    assert not set(shown) & {chr(code) for code in (*range(32), 127, *range(0x80, 0xA0), 0x202E)}
    assert visible(shown) == shown


@pytest.mark.parametrize(
    ("text", "most", "shown"),
    [("short", 5, "short"), ("longer", 5, "long…"), ("longer", 1, "…"), ("", 3, "")],
)
def test_cut_says_that_there_was_more(text, most, shown):
    assert cut(text, most) == shown


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0, "0.000"),
        (1, "1.000"),
        (0.98449, "0.984"),
        (0.0005, "0.001"),
        (0.00049999, "0.0005"),
        (0.0000819, "0.000082"),
        (0.0000995, "0.0001"),
        (0.000001, "0.000001"),
        (0.0000009, "<0.000001"),
    ],
)
def test_a_small_number_is_told_from_none(value, said):
    assert decimal(value, 3) == said


@given(st.floats(0, 1))
def test_a_number_is_as_near_as_its_digits(value):
    said = decimal(value, 3)
    if said.startswith("<"):
        assert 0 < value < 1e-6
    else:
        assert float(said) == pytest.approx(value, rel=0.06, abs=0.0 if value < 0.0005 else 0.0005)


@pytest.mark.parametrize(
    ("names", "said"),
    [(["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")],
)
def test_names_in_a_sentence(names, said):
    assert listed(names) == said
