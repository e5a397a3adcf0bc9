"""Scores over a text against a loop over its windows."""

import numpy as np
import pytest

from probes.text_scores import TextScores
from probing import CONTEXT, QUESTION


@pytest.fixture(scope="module", params=["deberta-v3", "roberta"])
def read(request, reader_of):
    reader = reader_of(request.param)
    return reader.read(reader.windows([(QUESTION, CONTEXT)]))


def test_each_token_has_the_best_of_its_windows(read):
    expected = {}
    for number in range(len(read.windows)):
        window = read.windows[number]
        first = read.windows.splits[number]
        for at, place in enumerate(range(window.context.start, window.context.stop)):
            token = window.first_context_token + at
            scores = expected.setdefault(token, (tuple(window.chars[at]), [], []))
            scores[1].append(read.start[first + place])
            scores[2].append(read.end[first + place])
    assert len(read.windows) > 1
    assert max(len(starts) for _, starts, _ in expected.values()) > 1
    found = TextScores.of(read)
    assert len(found.start) == len(expected)
    for token, (chars, starts, ends) in expected.items():
        assert tuple(found.chars[token]) == chars
        assert (found.start[token], found.end[token]) == (max(starts), max(ends))


def test_the_answer_is_where_its_characters_are(read):
    found, best = TextScores.of(read), read.answers[0].n_best[0]
    first, end = found.span(best.start, best.end)
    assert found.chars[first, 0] <= best.start < found.chars[first, 1]
    assert found.chars[end - 1, 0] < best.end <= found.chars[end - 1, 1]
    assert found.start[first] + found.end[end - 1] >= best.score - 1e-4
    assert found.span(0, 0) == (0, 0)


@pytest.mark.parametrize("place", [0, 30, 10_000])
def test_the_tokens_near_a_place(read, place):
    found = TextScores.of(read)
    count = len(found.start)
    part, before = found.near(min(place, count - 1), 20)
    assert len(part.start) == 20
    assert before <= min(place, count - 1) < before + 20
    np.testing.assert_array_equal(part.start, found.start[before : before + 20])
    whole, none = found.near(0, 10**6)
    assert (len(whole.end), none) == (count, 0)
