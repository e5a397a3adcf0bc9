"""Decoding against the loop at a small size, and the loop against spans picked by hand."""

import numpy as np
import pytest

import small_runs
import tiny
import tiny_models
from benchmarks import decode
from benchmarks.comparison import Options, compare
from qa.squad import Question
from qa.windows import make_windows


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    folder = tmp_path_factory.mktemp("decode")
    data = small_runs.write_questions(folder / "dev.json", paragraphs=30, seed=2)
    options = Options(folder, dataset=str(data), model=str(tiny_models.save(folder / "model")))
    (found,) = decode.cases(options)
    return found


def test_both_sides_give_the_same_texts(case):
    result = compare(case, rounds=1, peak=lambda _case, _side: None, say=lambda _: None)
    assert result.max_difference == 0
    assert min(result.ours, result.theirs) > 0
    assert "dev.json" in case.what


def test_another_text_is_counted(case):
    windows, start, end = decode.material(case)
    ours, theirs = case.prepare("ours"), case.prepare("theirs")
    assert len(ours()) == len(theirs()) == len(windows.contexts)
    assert all(ours())
    first = slice(0, int(windows.splits[1]))
    other = decode.Bands(windows, start.copy(), end.copy(), 30, 20)
    other.start[first] *= -1
    other.end[first] *= -1
    assert case.difference(other, theirs) == 1


def test_several_windows_of_a_question_compete():
    question = Question("id", "", "/0", "Who sat?", " ".join(tiny.SENTENCES), (), ())
    windows = make_windows([question], tiny.unigram(), max_length=48, stride=8, max_question_length=16)
    assert len(windows) > 3
    for seed in range(20):
        start, end = decode.peaked_logits(windows, seed=seed)
        loop = decode.Loop(windows.contexts, decode.features_of(windows, start, end), 30, 20)
        assert loop() == decode.Bands(windows, start, end, 30, 20)()


def loop_over(start, end, *, max_answer_length=2, n_best=3):
    """The loop on one window: a question's token, then the context's `ab cd ef`."""
    offsets = [None, (0, 2), (3, 5), (6, 8)]
    feature = decode.Feature(offsets, np.array(start, np.float32), np.array(end, np.float32))
    (text,) = decode.Loop(("ab cd ef",), [[feature]], max_answer_length, n_best)()
    return text


@pytest.mark.parametrize(
    ("start", "end", "text"),
    [
        ([0, 5, 1, 0], [0, 1, 5, 0], "ab cd"),
        ([9, 5, 1, 0], [9, 1, 5, 0], "ab cd"),  # the question's token is no answer
        ([0, 5, 1, 0], [0, 0, 1, 5], "ab cd"),  # three tokens are too many
        ([0, 0, 1, 5], [0, 5, 1, 0], "ef"),  # an end before its start
    ],
)
def test_the_loop_keeps_the_best_span_that_is_one(start, end, text):
    assert loop_over(start, end, n_best=4) == text


def test_the_loop_sees_only_the_best_starts_and_ends():
    assert loop_over([9, 5, 1, 0], [9, 1, 5, 0], n_best=1) == ""


def test_in_every_window_one_span_stands_out(case):
    windows, start, end = decode.material(case)
    assert not np.array_equal(start, decode.peaked_logits(windows, seed=1)[0])
    assert np.array_equal(start, decode.peaked_logits(windows, seed=0)[0])
    for number, window in enumerate(windows):
        base = int(windows.splits[number])
        tokens = slice(base + window.context.start, base + window.context.stop)
        first, last = int(start[tokens].argmax()), int(end[tokens].argmax())
        assert start[tokens][first] > 1
        assert last - first < 30
