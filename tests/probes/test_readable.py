"""A readable part of a view: never larger than asked for, around the answer, its numbers untouched."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.maps import ANSWER, CLS, CONTEXT, QUESTION, SEP, View
from probes.readable import around_answer


def view_of(question, context, answer=(0, 0), *, seen=False):
    """A view of so many words; the answer are those of the context from one to before another."""
    regions = [CLS, *[QUESTION] * question, SEP, *[CONTEXT] * context, SEP]
    for place in range(*answer):
        regions[question + 2 + place] = ANSWER
    count = len(regions)
    probabilities = np.arange(count**2, dtype=np.float32).reshape(1, 1, count, count)
    return View(
        unit="word",
        probabilities=probabilities,
        layers=(3,),
        heads=(5,),
        labels=tuple(f"w{place}" for place in range(count)),
        chars=np.arange(2 * count, dtype=np.int32).reshape(count, 2),
        regions=np.array(regions, dtype=np.int32),
        seen=np.arange(count**2).reshape(count, count) % 3 > 0 if seen else None,
    )


def places(view):
    return [int(label[1:]) for label in view.labels]


def test_a_view_that_can_be_read_is_left_as_it_is():
    view = view_of(3, 4)
    assert around_answer(view, 10) is view


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        ((0, 0), [5, 6, 7, 8]),  # none: the beginning
        ((10, 11), [13, 14, 15, 16]),
        ((10, 12), [14, 15, 16, 17]),
        ((0, 1), [5, 6, 7, 8]),
        ((19, 20), [21, 22, 23, 24]),
        ((4, 16), [13, 14, 15, 16]),  # longer than there is room: its middle
    ],
)
def test_question_and_special_tokens_stay_and_the_context_around_the_answer(answer, kept):
    shown = around_answer(view_of(3, 20, answer), 10)
    assert places(shown) == [0, 1, 2, 3, 4, *kept, 25]


def test_a_long_question_is_cut_where_it_would_take_more_than_half():
    assert places(around_answer(view_of(20, 20, (10, 11)), 10)) == [0, 1, 2, 3, 4, 5, 21, 31, 32, 42]


def test_numbers_and_descriptions_go_with_their_words():
    view = view_of(3, 20, (10, 11), seen=True)
    shown = around_answer(view, 9)
    kept = places(shown)
    for row, query in enumerate(kept):
        for column, key in enumerate(kept):
            assert shown.probabilities[0, 0, row, column] == view.probabilities[0, 0, query, key]
            assert shown.seen[row, column] == view.seen[query, key]
    assert shown.chars.tolist() == view.chars[kept].tolist()
    assert shown.regions.tolist() == view.regions[kept].tolist()
    assert (shown.layers, shown.heads, shown.unit) == ((3,), (5,), "word")


@given(st.integers(0, 12), st.integers(0, 12), st.integers(0, 12), st.integers(0, 12), st.integers(3, 30))
def test_never_more_than_asked_for_and_no_room_wasted(question, context, first, length, most):
    first, last = min(first, context), min(first + length, context)
    view = view_of(question, context, (first, last))
    shown = around_answer(view, most)
    assert len(shown.labels) <= most
    assert places(shown) == sorted(set(places(shown)))
    if len(shown.labels) < min(most, len(view.labels)):
        assert np.sum(shown.regions >= CONTEXT) == context, "room is left, and so is context"
    if last > first and np.sum(shown.regions >= CONTEXT):
        assert ANSWER in shown.regions
