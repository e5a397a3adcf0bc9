"""A target is at fixed positions of one window, with the score that the unchanged model gave it."""

from dataclasses import replace

import numpy as np
import pytest

import paper
from probes.targets import KINDS, Asked, Target
from probing import CONTEXT, QUESTION
from qa.errors import UserError
from qa.spans import Candidate

GOLD = (CONTEXT.index("Denver"), CONTEXT.index("Denver") + len("Denver"))


@pytest.fixture(scope="module", params=["bert", "roberta", "deberta-v3"])
def asked(request, reader_of):
    return Asked.of(reader_of(request.param), QUESTION, CONTEXT, gold=GOLD)


def ends(asked, span: Candidate, window):
    """First and last token of a span in a window, by looking at the tokens' characters."""
    one = asked.windows[window]
    first, last = (
        np.flatnonzero((one.chars[:, column] == place) & (one.chars[:, 1] > one.chars[:, 0]))
        for column, place in ((0, span.start), (1, span.end))
    )
    return one.context.start + int(first[0]), one.context.start + int(last[-1])


def score(asked, window, first, last):
    at = asked.windows.splits[window]
    return float(asked.read.start[at + first]) + float(asked.read.end[at + last])


def test_the_predicted_answer_is_the_best_span_where_its_best_score_is(asked):
    best = asked.answer.n_best[0]
    fixed = asked.fix(Target())
    first, last = ends(asked, best, best.window)
    assert (fixed.window, fixed.span.text) == (best.window, best.text)
    assert np.argwhere(fixed.weights).tolist() == [[0, first], [1, last]]
    assert fixed.weights.shape == (2, asked.windows.lengths[best.window])
    assert fixed.score == pytest.approx(best.score) == pytest.approx(score(asked, best.window, first, last))
    assert fixed.tokens.tolist() == [*range(first, last + 1)]


def test_start_and_end_are_parts_of_the_sum(asked):
    start, end, both = (asked.fix(Target(part=part)) for part in ("start", "end", "sum"))
    assert np.argwhere(start.weights)[:, 0].tolist() == [0]
    assert np.argwhere(end.weights)[:, 0].tolist() == [1]
    assert (start.weights + end.weights == both.weights).all()
    assert start.score + end.score == pytest.approx(both.score)


def test_the_gold_answer_is_read_in_the_window_that_scores_it_best(asked):
    fixed = asked.fix(Target("gold"))
    assert asked.context[fixed.span.start : fixed.span.end] == fixed.span.text == "Denver"
    held = [int(n) for n in np.searchsorted(asked.windows.splits, fixed.span.places[:, 0], side="right") - 1]
    scores = {n: score(asked, n, *ends(asked, fixed.span, n)) for n in held}
    assert fixed.score == pytest.approx(max(scores.values()))
    assert fixed.window == max(scores, key=scores.get)


def test_the_runner_up_shares_nothing_with_the_answer(asked):
    best, *others = asked.answer.n_best
    span = asked.span("runner_up")
    apart = [one for one in others if one.end <= best.start or best.end <= one.start]
    wanted = (apart or others)[0]
    assert (span.start, span.end, span.window) == (wanted.start, wanted.end, wanted.window)


def test_no_answer_is_the_first_token_of_the_window_that_says_it_least(asked):
    fixed = asked.fix(Target("no_answer"))
    assert fixed.span is None
    scores = [score(asked, n, cls, cls) for n, cls in enumerate(asked.windows.cls)]
    assert fixed.window == int(np.argmin(scores))
    assert fixed.score == pytest.approx(min(scores)) == pytest.approx(asked.answer.no_answer_score)
    assert fixed.tokens.tolist() == [asked.windows.cls[fixed.window]]


def test_a_difference_is_taken_within_one_window(asked):
    fixed = asked.fix(Target(against="no_answer"))
    best = asked.answer.n_best[0]
    cls = int(asked.windows.cls[best.window])
    expected = best.score - score(asked, best.window, cls, cls)
    assert (fixed.window, fixed.score) == (best.window, pytest.approx(expected))
    assert fixed.weights.sum() == 0
    assert fixed.span.text == best.text


def test_a_difference_that_no_window_holds_is_refused(reader_of):
    reader = reader_of("deberta-v3")
    reader = replace(reader, reading=replace(reader.reading, n_best=10_000))
    asked = Asked.of(reader, QUESTION, CONTEXT, gold=(0, 3))
    far = next(span for span in asked.answer.n_best if span.window == len(asked.windows) - 1)
    read = replace(asked.read, answers=(replace(asked.answer, n_best=(far,)),))
    with pytest.raises(UserError, match="no window holds both the predicted answer and the gold answer"):
        replace(asked, read=read).fix(Target(against="gold"))


def test_a_refused_answer_still_has_a_best_span():
    reader = paper.reader()
    asked = Asked.of(replace(reader, threshold=0.0), paper.QUESTION, paper.CONTEXT)
    assert asked.answer.text == ""
    assert asked.fix(Target()).span.text == paper.ANSWER


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kind": "best"}, f"target: 'best'; choose {', '.join(KINDS)}"),
        ({"against": "second"}, "target: 'second'; choose"),
        ({"part": "middle"}, "target: part 'middle'; choose start, end, sum"),
        ({"kind": "gold", "against": "gold"}, "'gold' against itself is always 0"),
    ],
)
def test_what_is_no_target(options, said):
    with pytest.raises(UserError, match=said):
        Target(**options)


def test_labels():
    assert Target().label == "predicted answer, start + end score"
    assert Target("gold", "end", "runner_up").label == "gold answer − runner-up, end score"


def test_what_cannot_be_asked_or_fixed(reader_of):
    reader = reader_of("bert")
    with pytest.raises(UserError, match="gold: characters 3 to 3, but the context has 4"):
        Asked.of(reader, "Who?", "a. b", gold=(3, 3))
    with pytest.raises(UserError, match="no token that could be an answer"):
        Asked.of(reader, "Who?", "\u200b")
    one = Asked.of(reader, "Who?", "red")
    with pytest.raises(UserError, match="the gold answer is not known"):
        one.fix(Target("gold"))
    with pytest.raises(UserError, match="one possible answer only"):
        one.fix(Target("runner_up"))


def test_a_gold_answer_longer_than_any_window_is_refused(reader_of):
    asked = Asked.of(reader_of("bert"), QUESTION, CONTEXT, gold=(0, len(CONTEXT)))
    with pytest.raises(UserError, match="no window holds the gold answer whole"):
        asked.fix(Target("gold"))
