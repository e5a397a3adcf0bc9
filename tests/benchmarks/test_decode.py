"""Decoding against the loop at a small size, and the loop against spans picked by hand."""

import numpy as np
import pytest

import small_runs
import tiny
import tiny_models
from benchmarks import decode, decode_loops
from benchmarks.comparison import Options, compare
from qa.squad import Question
from qa.windows import make_windows


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("decode")
    data = small_runs.write_questions(folder / "dev.json", paragraphs=30, seed=2)
    options = Options(folder, dataset=str(data), model=str(tiny_models.save(folder / "model")))
    return {case.name: case for case in decode.cases(options)}


@pytest.mark.parametrize("name", ["decode", "decode-bare"])
def test_both_sides_give_the_same_texts(cases, name):
    result = compare(cases[name], rounds=1, peak=lambda _case, _side: None, say=lambda _: None)
    assert result.max_difference == 0
    assert min(result.ours, result.theirs) > 0
    assert "dev.json" in cases[name].what


def test_the_best_spans_are_made_on_both_sides(cases):
    case = cases["decode-n-best"]
    ours, theirs = case.prepare("ours")(), list(case.prepare("theirs")().values())
    assert len(ours) == len(theirs)
    for own, other in zip(ours, theirs, strict=True):
        assert own[0].text == other[0]["text"]
        assert sum(span["probability"] for span in other) == pytest.approx(1)


def test_another_text_is_counted(cases):
    case = cases["decode"]
    found, theirs = decode.material(case), case.prepare("theirs")
    first = slice(0, int(found.windows.splits[1]))
    start, end = found.start.copy(), found.end.copy()
    start[first] *= -1
    end[first] *= -1
    other = case.ours(decode.Material(found.questions, found.windows, start, end))
    assert case.difference(other, theirs) == 1


def test_several_windows_of_a_question_compete(cases):
    question = Question("id", "", "/0", "Who sat?", " ".join(tiny.SENTENCES), (), ())
    windows = make_windows([question], tiny.unigram(), max_length=48, stride=8, max_question_length=16)
    assert len(windows) > 3
    for seed in range(20):
        found = decode.Material((question,), windows, *decode.peaked_logits(windows, seed=seed))
        for case in (cases["decode"], cases["decode-bare"]):
            assert case.difference(case.ours(found), case.theirs(found)) == 0


def loop_over(start, end, *, max_answer_length=2, n_best=3):
    """The loop on one window: a question's token, then the context's `ab cd ef`."""
    offsets = [None, (0, 2), (3, 5), (6, 8)]
    feature = decode_loops.Feature(offsets, np.array(start, np.float32), np.array(end, np.float32))
    (text,) = decode_loops.BareLoop(("ab cd ef",), [[feature]], max_answer_length, n_best)()
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


def test_in_every_window_one_span_stands_out(cases):
    found = decode.material(cases["decode"])
    windows, start, end = found.windows, found.start, found.end
    assert not np.array_equal(start, decode.peaked_logits(windows, seed=1)[0])
    assert np.array_equal(start, decode.peaked_logits(windows, seed=0)[0])
    for number, window in enumerate(windows):
        base = int(windows.splits[number])
        tokens = slice(base + window.context.start, base + window.context.stop)
        first, last = int(start[tokens].argmax()), int(end[tokens].argmax())
        assert start[tokens][first] > 1
        assert last - first < 30
