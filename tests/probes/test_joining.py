"""Windows joined back onto the text, against a loop over all pairs of tokens."""

import numpy as np
import pytest

from probes.attend import attend
from probes.joining import join
from probing import CONTEXT, QUESTION
from qa.errors import UserError

KINDS = ["deberta-v3", "bert", "roberta"]


@pytest.fixture(scope="module", params=KINDS)
def attended(request, reader_of):
    return attend(reader_of(request.param), QUESTION, CONTEXT, windows=None)


def names_of(window):
    """A name for each token, the same in every window that holds it; they sort as the tokens follow."""
    context = np.flatnonzero(window.regions >= 3)
    first, last = int(context[0]), int(context[-1])
    before = [(0, place) for place in range(first)]
    inside = [(1, window.before + place) for place in range(len(context))]
    return before + inside + [(2, place) for place in range(len(window.tokens) - 1 - last)]


def room_in(names, name):
    """How many tokens of the context are on the shorter side of one."""
    context = [other for other in names if other[0] == 1]
    return min(context.index(name), len(context) - 1 - context.index(name)) if name in context else 0


@pytest.mark.parametrize("chosen", [None, (0, 2, 4)], ids=["all", "with gaps"])
@pytest.mark.parametrize("primary", [0, 2])
def test_every_row_is_from_one_window(attended, chosen, primary):
    assert len(attended.windows) >= 5
    windows = {n: attended.windows[n] for n in chosen or range(len(attended.windows))}
    named = {n: names_of(window) for n, window in windows.items()}
    names = sorted({name for names in named.values() for name in names})
    joined = join(list(windows.values()), first=primary)
    assert len(names) == len(joined.tokens)
    for row, name in enumerate(names):
        holding = [n for n in named if name in named[n]]
        best = primary if primary in holding else max(holding, key=lambda n: (room_in(named[n], name), -n))
        window, local = windows[best], named[best].index(name)
        assert joined.windows[row] == best
        assert joined.tokens[row] == window.tokens[local]
        assert joined.chars[row].tolist() == window.chars[local].tolist()
        assert joined.regions[row] == window.regions[local]
        expected, seen = np.zeros((2, 2, len(names))), []
        for column, other in enumerate(names):
            if other in named[best]:
                expected[:, :, column] = window.probabilities[:, :, local, named[best].index(other)]
                seen.append(column)
        assert (joined.probabilities[:, :, row] == expected).all()
        assert np.flatnonzero(joined.seen[row]).tolist() == seen


def test_rows_sum_to_1_by_every_unit(attended):
    joined = attended.joined()
    assert joined.tokens[0] == attended.windows[0].tokens[0]
    assert set(joined.windows.tolist()) == set(range(len(attended.windows)))
    for unit in ("token", "word", "sentence", "region"):
        sums = joined.by(unit).probabilities.sum(-1)
        np.testing.assert_allclose(sums, 1, rtol=0, atol=1e-3)


def test_words_are_whole_again(attended):
    joined = attended.joined(layers=[1], heads=[0]).by("word")
    words = [label for label, region in zip(joined.labels, joined.regions, strict=True) if region >= 3]
    assert "dynasty" in words
    assert "".join(words) == "".join(CONTEXT.split())
    assert not joined.seen.all()


def test_the_answer_reads_what_it_read_when_it_was_chosen(attended):
    joined, window = attended.joined(), attended.window()
    rows, own = joined.regions == 4, window.regions == 4
    assert rows.sum() == own.sum() > 0
    assert set(joined.windows[rows].tolist()) == {attended.answer.window}
    chars = joined.chars[rows]
    assert (chars[:, 0].min(), chars[:, 1].max()) == (attended.answer.start, attended.answer.end)
    for region in ("question", "[CLS]", "[SEP]"):
        np.testing.assert_allclose(
            joined.by("region").between("answer", region),
            window.by("region").between("answer", region),
            rtol=0,
            atol=1e-6,
        )


def test_one_window_joined_is_itself(attended):
    window = attended.windows[3]
    joined = join([window], first=3)
    assert joined.seen is None
    assert joined.norms is None
    for name in ("probabilities", "chars", "words", "sentences", "regions", "windows"):
        np.testing.assert_array_equal(getattr(joined, name), getattr(window, name))
    assert (joined.tokens, joined.before) == (window.tokens, window.before)


def test_the_window_of_the_answer_must_be_there(attended):
    with pytest.raises(
        UserError, match=r"^first: 1, but only the windows \[0, 3\] are here; capture that one"
    ):
        join([attended.windows[0], attended.windows[3]], first=1)


def test_too_much_to_join_is_refused(attended, monkeypatch):
    monkeypatch.setattr("probes.maps.MOST_BYTES", 200_000)
    assert attended.joined(layers=[0], heads=[1]).probabilities.shape[:2] == (1, 1)
    with pytest.raises(UserError, match=r"tokens joined, 4 maps would take 0\.\d GB"):
        attended.joined()
