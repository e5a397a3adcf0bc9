"""What is typed is read in every usual spelling; anything else is asked for again, saying what is allowed."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.entries import ask, numbers, text, yes
from qa.errors import UserError


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("3", (3,)),
        ("0-5", (0, 1, 2, 3, 4, 5)),
        (" 4 - 6 ", (4, 5, 6)),
        ("3 4, 7", (3, 4, 7)),
        ("7,3,3-4", (3, 4, 7)),
        ("11", (11,)),
        ("5-5", (5,)),
        (" ALL ", tuple(range(12))),
        ("007", (7,)),
    ],
)
def test_numbers(entry, expected):
    assert numbers(entry, name="heads", count=12) == expected


@pytest.mark.parametrize(
    ("entry", "part"),
    [
        ("12", "'12'"),
        ("-1", "'-1'"),
        ("5-3", "'5-3'"),
        ("3-12", "'3-12'"),
        ("1.5", "'1.5'"),
        ("0-999999999999", "'0-999999999999'"),
        ("1-2-3", "'1-2-3'"),
        ("three", "'three'"),
        ("³", "'³'"),
        ("٣", "'٣'"),
        ("\x1b[31m", r"'\x1b[31m'"),
        ("9" * 500, "'" + "9" * 59 + "…'"),
    ],
)
def test_wrong_numbers_are_named_with_what_is_allowed(entry, part):
    with pytest.raises(UserError) as caught:
        numbers(entry, name="heads", count=12)
    message = f"heads: {part}; there are 0 to 11: give one, several (0 11), from-to (0-11) or all"
    assert str(caught.value) == message


@pytest.mark.parametrize("entry", ["", " ", ",", " , "])
def test_no_numbers_at_all(entry):
    with pytest.raises(UserError, match=r"^heads: nothing given; give numbers from 0 to 11, or all$"):
        numbers(entry, name="heads", count=12)


@given(st.text(max_size=20), st.integers(1, 30))
def test_whatever_is_typed_numbers_are_there_or_it_is_refused(entry, count):
    try:
        found = numbers(entry, name="layers", count=count)
    except UserError:
        return
    assert found
    assert list(found) == sorted(set(found))
    assert set(found) <= set(range(count))


@pytest.mark.parametrize(
    ("entry", "expected"), [("", True), ("y", True), (" Yes ", True), ("n", False), ("NO", False)]
)
def test_yes_and_no(entry, expected):
    assert yes(entry) is expected


def test_neither_yes_nor_no():
    with pytest.raises(UserError, match=r"^'maybe': enter y or n$"):
        yes("maybe")


def test_text_is_kept_as_it_is_and_blank_is_refused():
    assert text("  two words ", name="question") == "  two words "
    with pytest.raises(UserError, match=r"^question: it is empty; give some text$"):
        text(" \t", name="question")


def test_ask_asks_until_it_is_right_and_repeats_what_was_piped_in(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("12\n\x1b[2J 3\n4-5\nleft over"))
    assert ask("Heads: ", lambda entry: numbers(entry, name="heads", count=12)) == (4, 5)
    assert capsys.readouterr().out.splitlines() == [
        "Heads: 12",
        "heads: '12'; there are 0 to 11: give one, several (0 11), from-to (0-11) or all",
        r"Heads: \x1b[2J 3",
        r"heads: '\x1b[2J'; there are 0 to 11: give one, several (0 11), from-to (0-11) or all",
        "Heads: 4-5",
    ]


def test_the_end_of_the_input_is_told_to_the_caller(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("maybe\n"))
    with pytest.raises(EOFError):
        ask("Go on? ", yes)


def test_a_terminal_shows_what_is_typed_itself(monkeypatch, capsys):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    assert ask("Go on? ", yes)
    assert capsys.readouterr().out == "Go on? "
