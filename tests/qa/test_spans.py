"""Decoding against a plain loop over windows, starts and lengths, and on every question of real SQuAD."""

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tiny
from qa import spans as spans_module
from qa.spans import Answer, Candidate, decode
from qa.squad import Question, read_squad
from qa.windows import make_windows
from texts import awkward

LENGTHS = {"max_length": 24, "stride": 5, "max_question_length": 8}
TOKENIZERS = {name: make() for name, make in tiny.TOKENIZERS.items()}
names = st.sampled_from(list(TOKENIZERS))
ANSWER = Answer(
    text="red",
    start=21,
    end=24,
    probability=0.5,
    no_answer_probability=0.25,
    no_answer_score=1.0,
    window=1,
    windows=3,
    n_best=(Candidate("red", 21, 24, 0.5, 2.0, 1),),
)


def windows_of(*contexts, name="wordpiece", **lengths):
    asked = [Question("id", "", "/0", "Who sat?", context, (), ()) for context in contexts]
    return make_windows(asked, TOKENIZERS[name], **LENGTHS | lengths)


def logits_of(windows, seed, *, ties=False):
    """Random start and end logits, flat; with `ties` of five values only."""
    generator = np.random.default_rng(seed)
    shape = (2, len(windows.ids))
    drawn = generator.integers(-2, 3, shape) / 2 if ties else 4 * generator.standard_normal(shape)
    return drawn.astype(np.float32)


def decode_plainly(windows, start, end, *, max_answer_length, n_best):
    """What `decode` promises, one question, window, start and length after another."""
    return [
        plain_answer(windows, question, start.tolist(), end.tolist(), max_answer_length, n_best)
        for question in range(len(windows.contexts))
    ]


def plain_answer(windows, question, start, end, max_answer_length, n_best):
    context = windows.contexts[question]
    numbers = [number for number, window in enumerate(windows) if window.question == question]
    chars = {}
    for number in numbers:
        window = windows[number]
        chars |= dict(enumerate(map(tuple, window.chars.tolist()), start=window.first_context_token))
    starters, enders = ends_of_spans(chars)

    best, no_answer = {}, math.inf
    for number in numbers:
        window, base = windows[number], int(windows.splits[number])
        no_answer = min(no_answer, start[base + window.cls] + end[base + window.cls])
        count = window.context.stop - window.context.start
        for first in range(count):
            for last in range(first, min(first + max_answer_length, count)):
                span = (window.first_context_token + first, window.first_context_token + last)
                if span[0] not in starters or span[1] not in enders:
                    continue
                at = base + window.context.start
                score = start[at + first] + end[at + last]
                if span not in best or score > best[span][0]:
                    best[span] = (score, window.ordinal)

    peak = max([no_answer, *(score for score, _ in best.values())])
    total = math.fsum(math.exp(score - peak) for score in [no_answer, *(score for score, _ in best.values())])
    ranked = sorted(best, key=lambda span: (-best[span][0], span))[:n_best]
    candidates = tuple(
        Candidate(
            text=context[chars[first][0] : chars[last][1]],
            start=chars[first][0],
            end=chars[last][1],
            probability=math.exp(best[first, last][0] - peak) / total,
            score=best[first, last][0],
            window=best[first, last][1],
        )
        for first, last in ranked
    )
    top = candidates[0] if candidates else Candidate("", 0, 0, 1.0, 0.0, 0)
    no_answer_probability = math.exp(no_answer - peak) / total
    return Answer(
        top.text,
        top.start,
        top.end,
        top.probability,
        no_answer_probability,
        no_answer,
        top.window,
        len(numbers),
        candidates,
    )


def ends_of_spans(chars):
    """The first of the tokens that begin at a character, and the last of those that end at one."""
    starters, enders = {}, {}
    for position, (first, stop) in sorted(chars.items()):
        if first < stop:
            starters.setdefault(first, position)
            enders[stop] = position
    return set(starters.values()), set(enders.values())


def assert_same(found, expected):
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert without_probabilities(ours) == without_probabilities(theirs)
        np.testing.assert_allclose(probabilities(ours), probabilities(theirs), rtol=1e-12, atol=0)


def probabilities(answer):
    return [answer.probability, answer.no_answer_probability, *(span.probability for span in answer.n_best)]


def without_probabilities(answer):
    return (
        (answer.text, answer.start, answer.end, answer.no_answer_score, answer.window, answer.windows),
        [(span.text, span.start, span.end, span.score, span.window) for span in answer.n_best],
    )


@given(
    name=names,
    contexts=st.lists(awkward, min_size=1, max_size=3),
    seed=st.integers(0, 2**32 - 1),
    ties=st.booleans(),
    max_answer_length=st.integers(1, 8),
    n_best=st.integers(1, 12),
)
def test_decoding_against_a_plain_loop(name, contexts, seed, ties, max_answer_length, n_best):
    windows = windows_of(*contexts, name=name)
    start, end = logits_of(windows, seed, ties=ties)
    limits = {"max_answer_length": max_answer_length, "n_best": n_best}
    found = decode(windows, start, end, **limits)
    assert_same(found, decode_plainly(windows, start, end, **limits))
    for answer, context in zip(found, contexts, strict=True):
        for span in (answer, *answer.n_best):
            assert context[span.start : span.end] == span.text == span.text.strip()
        places = [(span.start, span.end) for span in answer.n_best]
        assert len(places) == len(set(places))


def test_default_lengths_against_a_plain_loop():
    windows = windows_of(" ".join(tiny.SENTENCES), "The cat sat.", name="unigram")
    start, end = logits_of(windows, 0)
    expected = decode_plainly(windows, start, end, max_answer_length=30, n_best=20)
    assert_same(decode(windows, start, end), expected)


def test_equal_scores_are_equally_probable_and_in_order_of_position():
    windows = windows_of("in red Denver")
    (answer,) = decode(windows, *np.zeros((2, len(windows.ids)), np.float32), max_answer_length=2)
    assert [span.text for span in answer.n_best] == ["in", "in red", "red", "red Denver", "Denver"]
    assert probabilities(answer) == pytest.approx([1 / 6] * 7, rel=1e-15)


def test_no_answer_is_as_likely_as_the_window_that_says_so_least():
    windows = windows_of(" ".join(tiny.SENTENCES))
    start, end = np.zeros((2, len(windows.ids)), np.float32)
    cls = windows.splits[:-1] + windows.cls
    start[cls], end[cls] = 50, 40
    start[cls[3]] = -41.5
    (answer,) = decode(windows, start, end)
    assert answer.windows == len(windows) > 3
    assert answer.no_answer_score == -1.5
    assert answer.no_answer_probability / answer.probability == pytest.approx(math.exp(-1.5), rel=1e-12)


def test_a_span_in_two_windows_counts_once_with_its_better_score():
    windows = windows_of("The river rose in 1745 in Denver in red in blue", max_length=22, stride=8)
    first, second = windows[0], windows[1]
    shared = second.first_context_token  # the first token that both windows hold
    start, end = np.full((2, len(windows.ids)), -30, np.float32)
    start[windows.splits[0] + first.context.start + shared] = 1
    start[windows.splits[1] + second.context.start] = 2
    end[windows.splits[0] + first.context.start + shared] = 4
    end[windows.splits[1] + second.context.start] = 3
    (answer,) = decode(windows, start, end, max_answer_length=1)
    chars = tuple(second.chars[0])
    assert (answer.start, answer.end, answer.n_best[0].score) == (*chars, 5)
    assert answer.window == 0  # both give 5, and the first window keeps it
    assert answer.probability == pytest.approx(1, rel=1e-12)
    assert [(span.start, span.end) for span in answer.n_best].count(chars) == 1


@pytest.mark.parametrize("context", ["", "  \n\t ", "\u200b\x00\u202e"])
def test_a_context_without_a_token_for_an_answer(context):
    windows = windows_of("The cat.", context, "Denver.")
    start, end = logits_of(windows, 0)
    before, answer, after = decode(windows, start, end)
    cls = int(windows.splits[1] + windows.cls[1])
    assert answer == Answer("", 0, 0, 1.0, 1.0, float(start[cls]) + float(end[cls]), 0, 1, ())
    assert before.n_best
    assert after.n_best


def test_no_windows_no_answers():
    assert decode(windows_of(), *np.zeros((2, 0), np.float32)) == []


@pytest.mark.parametrize("cells", [1, 700, 5000])
def test_chunks_give_what_one_piece_gives(monkeypatch, cells):
    contexts = ["", " ".join(tiny.SENTENCES), "👍 The cat.", *tiny.SENTENCES, " "]
    windows = windows_of(*contexts, name="byte_bpe")
    start, end = logits_of(windows, 0, ties=True)
    at_once = decode(windows, start, end)
    monkeypatch.setattr(spans_module, "BLOCK", cells)
    assert decode(windows, start, end) == at_once
    assert len(at_once) == len(contexts)


@pytest.mark.parametrize("threshold", [None, 1.0, 0.25])
def test_an_answer_stays_unless_no_answer_is_more_probable_than_the_threshold(threshold):
    assert ANSWER.with_threshold(threshold) is ANSWER


@pytest.mark.parametrize("threshold", [math.nextafter(0.25, 0), 0.0])
def test_a_refused_answer_is_empty_and_keeps_its_alternatives(threshold):
    refused = ANSWER.with_threshold(threshold)
    assert (refused.text, refused.start, refused.end, refused.probability) == ("", 0, 0, 0.25)
    assert (refused.n_best, refused.no_answer_probability, refused.windows) == (ANSWER.n_best, 0.25, 3)


def test_every_answer_on_real_squad_is_a_slice_of_its_context(squad_dir):
    questions = read_squad(squad_dir / "dev-v1.1.json").questions
    words = sorted(set(re.findall(r"\w+", " ".join(question.context for question in questions))))
    windows = make_windows(questions, tiny.unigram(words), max_length=160, stride=40)
    answers = decode(windows, *logits_of(windows, 0), max_answer_length=12, n_best=5)
    assert len(answers) == len(questions)
    for question, answer in zip(questions, answers, strict=True):
        assert len(answer.n_best) == 5
        for span in (answer, *answer.n_best):
            assert question.context[span.start : span.end] == span.text == span.text.strip() != ""
        assert 0 < sum(probabilities(answer)[1:]) <= 1
    assert max(answer.window for answer in answers) > 0
