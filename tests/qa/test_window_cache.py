"""Windows that are kept: the same as new ones, cut once, and never the reason that something fails."""

import dataclasses

import numpy as np
import pytest

import small_runs
from qa.evaluation import Prepared, Reading
from qa.squad import load_questions
from qa.window_cache import MOST_FILES
from qa.windows import make_windows
from tiny import wordpiece


@pytest.fixture
def questions(tmp_path):
    return load_questions(str(small_runs.write_questions(tmp_path / "data.json", paragraphs=9, seed=3)))


@pytest.fixture
def cut(monkeypatch):
    """How many times windows were cut."""
    calls = []

    def counted(*arguments, **named):
        calls.append(named)
        return make_windows(*arguments, **named)

    monkeypatch.setattr("qa.evaluation.make_windows", counted)
    return calls


READING = Reading(max_length=16, stride=4, max_question_length=5)


def same(one, other):
    """Every field, with the types of arrays."""
    for field in dataclasses.fields(one):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if isinstance(a, np.ndarray):
            assert a.dtype == b.dtype, field.name
            assert np.array_equal(a, b), field.name
        else:
            assert a == b, field.name


def test_read_back_as_they_were_cut(questions, cut, tmp_path):
    new = Prepared.of(questions, wordpiece(), READING)
    assert new.windows.shortened
    assert len(new.windows) > len(questions.questions)
    for _ in range(2):
        kept = Prepared.of(questions, wordpiece(), READING, kept=tmp_path / "kept")
        same(kept.windows, new.windows)
        assert all(np.array_equal(*pair) for pair in zip(kept.labels, new.labels, strict=True))
    assert len(cut) == 2


def test_other_questions_lengths_or_tokenizers_are_cut_anew(questions, cut, tmp_path):
    folder, tokenizer = tmp_path / "kept", wordpiece()
    Prepared.of(questions, tokenizer, READING, kept=folder)
    Prepared.of(questions.limited(4), tokenizer, READING, kept=folder)
    Prepared.of(questions, tokenizer, dataclasses.replace(READING, stride=5), kept=folder)
    tokenizer.add_tokens(["quagga"])
    Prepared.of(questions, tokenizer, READING, kept=folder)
    assert len(cut) == len(list(folder.iterdir())) == 4


@pytest.mark.parametrize("content", [b"", b"no archive", None])
def test_a_broken_file_is_made_again(questions, cut, tmp_path, content):
    folder = tmp_path / "kept"
    new = Prepared.of(questions, wordpiece(), READING, kept=folder)
    (file,) = folder.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if content is None else content)
    again = Prepared.of(questions, wordpiece(), READING, kept=folder)
    same(again.windows, new.windows)
    assert len(cut) == 2
    Prepared.of(questions, wordpiece(), READING, kept=folder)
    assert len(cut) == 2


def test_where_nothing_can_be_written_it_goes_without(questions, tmp_path):
    (tmp_path / "file").write_text("in the way")
    kept = Prepared.of(questions, wordpiece(), READING, kept=tmp_path / "file" / "kept")
    same(kept.windows, Prepared.of(questions, wordpiece(), READING).windows)


def test_the_oldest_go(questions, tmp_path):
    folder = tmp_path / "kept"
    for count in range(1, MOST_FILES + 3):
        Prepared.of(questions.limited(count), wordpiece(), READING, kept=folder)
    assert len(list(folder.iterdir())) == MOST_FILES


def test_a_file_with_a_flipped_bit_is_made_again(questions, tmp_path):
    tokenizer, folder = wordpiece(), tmp_path / "kept"
    new = Prepared.of(questions, tokenizer, READING, kept=folder)
    (file,) = folder.glob("*.npz")
    whole = file.read_bytes()
    draw = np.random.default_rng(0)
    for place in draw.integers(0, len(whole), 150).tolist():
        broken = bytearray(whole)
        broken[place] ^= 1 << int(draw.integers(8))
        file.write_bytes(broken)
        again = Prepared.of(questions, tokenizer, READING, kept=folder)
        assert len(again.windows) == len(new.windows)
