"""A fixed span is the same text in every window that holds it, with the probability that decoding gives."""

import numpy as np
import pytest

from probes.span_target import SpanTarget
from probing import CONTEXT, QUESTION
from qa.spans import decode


@pytest.fixture(scope="module", params=["bert", "roberta", "deberta-v3"])
def windows(request, reader_of):
    return reader_of(request.param).windows([(QUESTION, CONTEXT)])


def random_scores(windows, count=3, scale=2.0):
    draw = np.random.default_rng(0)
    return draw.normal(scale=scale, size=(2, count, len(windows.ids))).astype(np.float32)


def test_the_span_in_every_window_that_holds_it(windows):
    (start,), (end,) = random_scores(windows, 1)
    spans = decode(windows, start, end, n_best=200)[0].n_best
    held = set()
    for span in spans:
        target = SpanTarget.of(windows, span)
        assert (target.text, target.start, target.end) == (span.text, span.start, span.end)
        assert (windows.splits[span.window] + [target.first, target.last]).tolist() == (
            target.places[target.place].tolist()
        )
        expected = []
        for number, window in enumerate(windows):
            covers = window.chars[:, 1] > window.chars[:, 0]
            starts = np.flatnonzero(covers & (window.chars[:, 0] == span.start))
            ends = np.flatnonzero(covers & (window.chars[:, 1] == span.end))
            if len(starts) and len(ends):
                tokens = windows.splits[number] + window.context.start
                expected.append((tokens + starts[0], tokens + ends[-1]))
        # A window may begin inside of the span's first character, and so hold its end and not its start.
        assert set(map(tuple, target.places.tolist())) <= set(expected)
        assert len(target.places) >= len(expected) - 1
        first, last = target.places[target.place]
        assert start[first] + end[last] == pytest.approx(span.score, abs=1e-6)
        held.add(len(target.places))
    assert held >= {1, 2}


@pytest.mark.parametrize("no_answer", [-400.0, 0.0, 400.0])
def test_scores_and_probability(windows, no_answer):
    start, end = random_scores(windows)
    cls = windows.splits[:-1] + windows.cls
    start[:, cls] = no_answer
    answers = [decode(windows, *each, n_best=10**6)[0] for each in zip(start, end, strict=True)]
    for span in answers[0].n_best[:50]:
        target = SpanTarget.of(windows, span)
        same = [
            next(one for one in answer.n_best if (one.start, one.end) == (span.start, span.end))
            for answer in answers
        ]
        expected = [one.probability for one in same]
        np.testing.assert_allclose(target.probability(start, end, answers), expected, rtol=1e-9, atol=0)
        sums = np.sum(target.scores(start, end), axis=0)
        assert sums[0] == pytest.approx(span.score, abs=1e-6)
        assert (sums <= [one.score + 1e-6 for one in same]).all()  # another window may give a better one
