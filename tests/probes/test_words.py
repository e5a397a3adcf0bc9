"""Words and sentences as a reader would cut them, in any script."""

from itertools import groupby

import numpy as np
import pytest
from hypothesis import given

from probes.words import sentences_of, words_of
from texts import awkward


def cut(numbers, text):
    """The pieces of a text, with the blanks after them left out."""
    groups = groupby(zip(numbers.tolist(), text, strict=True), key=lambda pair: pair[0])
    return ["".join(character for _, character in group).strip() for _, group in groups]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("My favorite color is red.", ["My", "favorite", "color", "is", "red", "."]),
        (
            "the cat's forty-two (42), £3.50!",
            ["the", "cat's", "forty-two", "(", "42", ")", ",", "£", "3.50", "!"],
        ),
        ("1,000 at 10:30, red,blue", ["1,000", "at", "10:30", ",", "red", ",", "blue"]),
        ("in the U.S. and at a@b.org", ["in", "the", "U.S", ".", "and", "at", "a@b.org"]),
        ("  two  blanks ", ["two", "blanks"]),
        ("'quoted' -- ...", ["'", "quoted", "'", "-", "-", ".", ".", "."]),
        ("cafe\u0301 Zu\u0308rich a\u0323\u0301b", ["cafe\u0301", "Zu\u0308rich", "a\u0323\u0301b"]),
        ("👩\u200d🚀❤\ufe0f 👍🏽", ["👩\u200d🚀", "❤\ufe0f", "👍", "🏽"]),
        ("שלום שמאל. مَكْتَب", ["שלום", "שמאל", ".", "مَكْتَب"]),
        ("猫坐1745年", ["猫", "坐", "1745", "年"]),
        ("x", ["x"]),
        ("", []),
    ],
)
def test_words(text, words):
    assert cut(words_of(text), text) == words


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("Dr. Smith met J. Doe of the U.S. army. Then?", ["Dr. Smith met J. Doe of the U.S. army.", "Then?"]),
        ('"Why?" he said. (So.) Yes', ['"Why?" he said.', "(So.)", "Yes"]),
        ("It cost 3.50 in 1745... Really", ["It cost 3.50 in 1745...", "Really"]),
        ("one line\nand its end\n\nanother", ["one line\nand its end\n\nanother"]),
        ("A title\n\nThe text.", ["A title", "The text."]),
        ("猫坐。河水上涨。", ["猫坐。", "河水上涨。"]),
        ("  ", [""]),
        ("", []),
    ],
)
def test_sentences(text, sentences):
    assert cut(sentences_of(text), text) == sentences


@given(awkward)
def test_whatever_the_text(text):
    for numbers in (words_of(text), sentences_of(text)):
        assert numbers.shape == (len(text),)
        assert set(np.diff(numbers).tolist()) <= {0, 1}
        assert not len(text) or numbers[0] == 0
    for word in cut(words_of(text), text):
        assert not any(character.isspace() for character in word)


def test_no_word_is_in_two_sentences():
    text = 'Dr. No. "He said: 3.5!" No more... (really?) Yes.\n\nEnd.'
    words, sentences = words_of(text), sentences_of(text)
    for word in set(words.tolist()):
        visible = [i for i in np.flatnonzero(words == word) if not text[i].isspace()]
        assert len(set(sentences[visible].tolist())) == 1


def test_text_that_never_ends_takes_no_time():
    text = "! " * 50_000 + "a.b " * 50_000
    assert len(words_of(text)) == len(sentences_of(text)) == len(text)
