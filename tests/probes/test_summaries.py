"""Words attended to, rollout and the rest without sinks: by hand on eight tokens, and against plain loops."""

import dataclasses
import re

import numpy as np
import pytest
import torch

from probes.attend import attend
from probes.maps import ALL_HEADS, ANSWER, CLS, QUESTION, SEP
from probes.storage import load_attention, save_attention
from probes.summaries import attended_words, rollout, without_sinks
from probing import CONTEXT, READING, every_kind, small_attention
from probing import QUESTION as ASKED
from qa.errors import UserError
from qa.reader import Reader

KINDS = ["deberta-v3", "bert", "roberta"]


@pytest.fixture(scope="module", params=KINDS)
def attended(request, reader_of):
    return attend(reader_of(request.param), ASKED, CONTEXT, dtype=torch.float32)


def weights_of(words):
    return {word.text: word.weight for word in words}


# The tokens are [CLS] Who s ##at [SEP] The cat [SEP]; the answer is "cat", row 6.
def with_answer_row(*rows_of_layers, dtype=np.float32):
    probabilities = np.full((len(rows_of_layers), len(rows_of_layers[0]), 8, 8), 1 / 8)
    probabilities[:, :, 6] = rows_of_layers
    return small_attention(probabilities.astype(dtype))


def test_words_by_hand():
    one = with_answer_row(
        # Who gets 0.1, sat 0.5 in the first layer; in the second a hundredth of that, the other way round.
        [[0.6, 0.1, 0.2, 0.1, 0, 0, 0, 0], [0, 0, 0.1, 0.1, 0.8, 0, 0, 0]],
        [[0.996, 0.003, 0, 0.001, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 1]],
    )
    words = attended_words(one)
    assert [(word.text, word.start, word.end) for word in words] == [("sat", 4, 7), ("Who", 0, 3)]
    assert weights_of(words) == pytest.approx(
        {"Who": (1 / 6 + 3 / 4) / 2, "sat": (5 / 6 + 1 / 4) / 2}, abs=1e-6
    )
    assert weights_of(attended_words(one.select(layers=[1]))) == pytest.approx(
        {"Who": 3 / 4, "sat": 1 / 4}, abs=1e-6
    )
    assert weights_of(attended_words(one.select(heads=[1], layers=[0]))) == {"sat": 1, "Who": 0}


def test_a_layer_that_does_not_look_at_the_question_has_no_say():
    nowhere = [[1, 0, 0, 0, 0, 0, 0, 0]]
    one = with_answer_row(nowhere, [[0.5, 0.1, 0.3, 0.1, 0, 0, 0, 0]])
    assert weights_of(attended_words(one)) == pytest.approx({"sat": 0.8, "Who": 0.2}, abs=1e-6)
    assert attended_words(with_answer_row(nowhere, nowhere)) == ()


def test_words_of_equal_weight_are_in_the_order_of_the_text():
    words = attended_words(with_answer_row([[0, 0.5, 0.25, 0.25, 0, 0, 0, 0]]))
    assert [word.text for word in words] == ["Who", "sat"]
    assert weights_of(words) == {"Who": 0.5, "sat": 0.5}


def test_a_word_without_text_is_named_by_its_token():
    one = with_answer_row([[0, 0.5, 0.5, 0, 0, 0, 0, 0]])
    chars = one.chars.copy()
    chars[1] = 0
    (first, _) = attended_words(dataclasses.replace(one, chars=chars))
    assert (first.text, first.start, first.end) == ("who", -1, -1)


def test_words_against_a_loop(attended):
    window = attended.window()
    received = np.zeros((len(window.layers), len(ASKED)))
    for i, j in np.ndindex(window.probabilities.shape[2:]):
        if window.regions[i] == ANSWER and window.regions[j] == QUESTION:
            received[:, window.chars[j, 0]] += window.probabilities[:, :, i, j].astype(float).sum(1)
    received /= received.sum(1, keepdims=True)
    expected = [
        (match.group(), received.mean(0)[match.start() : match.end()].sum(), *match.span())
        for match in re.finditer(r"\w+|[^\w\s]", ASKED)
    ]
    expected.sort(key=lambda word: -word[1])
    words = attended_words(window)
    assert [(word.text, word.start, word.end) for word in words] == [
        (word[0], word[2], word[3]) for word in expected
    ]
    np.testing.assert_allclose([word.weight for word in words], [word[1] for word in expected], rtol=1e-6)
    assert sum(word.weight for word in words) == pytest.approx(1, abs=1e-12)


def test_words_are_the_same_joined_and_nearly_so_in_float16(attended):
    window = attended.window()
    expected = weights_of(attended_words(window))
    assert weights_of(attended_words(attended.joined())) == pytest.approx(expected, abs=1e-12)
    half = dataclasses.replace(window, probabilities=window.probabilities.astype(np.float16))
    assert weights_of(attended_words(half)) == pytest.approx(expected, abs=1e-3)


def test_without_an_answer_there_are_no_words(attended, reader_of):
    other = next(window for window in attended.windows if not (window.regions == ANSWER).any())
    assert attended_words(other) == ()
    refused = attend(Reader(reader_of("bert").encoder, READING, 0.0), ASKED, CONTEXT)
    assert refused.answer.text == ""
    assert attended_words(refused.window()) == ()


def test_without_a_question_there_are_no_words(reader_of):
    # WordPiece drops control characters.
    asked = attend(reader_of("bert"), "\x00", "The cat sat.")
    assert asked.answer.text
    assert attended_words(asked.window()) == ()


def test_rollout_by_hand():
    # Half of each row stays: [[0.75, 0.25], [0, 1]], whose square is below.
    layer = [[[0.5, 0.5], [0, 1]]]
    one = small_attention(np.array([layer, layer], dtype=np.float32), tokens=[5, 6])
    rolled = rollout(one)
    assert rolled.probabilities.tolist() == [
        [[[0.75, 0.25], [0, 1]]],
        [[[0.5625, 0.4375], [0, 1]]],
    ]
    assert (rolled.layers, rolled.heads, rolled.norms) == ((0, 1), (ALL_HEADS,), None)


def test_rollout_without_sinks_by_hand():
    # [CLS], a word and [SEP]: the first has nothing beside the sinks, the others only the word.
    maps = [[0.5, 0, 0.5], [0.6, 0.1, 0.3], [0, 0.5, 0.5]]
    one = small_attention(np.array([[maps]], dtype=np.float32), tokens=[0, 6, 7])
    assert rollout(one, sinks=False).probabilities.tolist() == [[[[1, 0, 0], [0, 1, 0], [0, 0.5, 0.5]]]]


def plain_rollout(window, first, sinks):
    """Row by row, in float64."""
    T = len(window.tokens)
    result, through = [], np.eye(T)
    for layer in range(first, max(window.layers) + 1):
        maps = window.probabilities[window.layers.index(layer)].astype(np.float64)
        mixed = np.zeros((T, T))
        for i in range(T):
            row = sum(maps[head, i] for head in range(len(maps))) / len(maps)
            if not sinks:
                row[(window.regions == CLS) | (window.regions == SEP)] = 0
            if row.sum() > 0:
                row = row / row.sum()
            mixed[i] = 0.5 * row
            mixed[i, i] += 1 - 0.5 * (row.sum() > 0)
        through = np.stack([sum(mixed[i, k] * through[k] for k in range(T)) for i in range(T)])
        result.append(through)
    return np.stack(result)[:, None]


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("sinks", [True, False])
@pytest.mark.parametrize("first", [0, 1])
def test_rollout_against_a_loop(attended, first, sinks, dtype):
    window = attended.windows[1]
    window = dataclasses.replace(window, probabilities=window.probabilities.astype(dtype))
    rolled = rollout(window, first=first, sinks=sinks)
    expected = plain_rollout(window, first, sinks)
    assert rolled.layers == tuple(range(first, 2))
    assert rolled.probabilities.dtype == np.float32
    np.testing.assert_allclose(rolled.probabilities, expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(rolled.probabilities.sum(-1), 1, rtol=0, atol=1e-6)
    ordered = rollout(window.select(layers=[1, 0]), first=first, sinks=sinks)
    np.testing.assert_array_equal(ordered.probabilities, rolled.probabilities)
    inner = ~np.isin(window.regions, (CLS, SEP))
    hidden = rolled.probabilities[:, :, inner][..., ~inner]
    assert (hidden > 0).any() if sinks else (hidden == 0).all()


def test_rollout_has_every_view_and_can_be_joined_and_saved(attended, tmp_path):
    every = attended.each(rollout)
    for one in (every.window(), every.joined(), every.joined(layers=[1], heads=[ALL_HEADS])):
        save_attention(one, tmp_path / "one.safetensors")
        back = load_attention(tmp_path / "one.safetensors")
        assert (back.layers, back.heads) == (one.layers, (ALL_HEADS,))
        np.testing.assert_array_equal(back.probabilities, one.probabilities)
        for unit in ("token", "word", "sentence", "region"):
            np.testing.assert_allclose(back.by(unit).probabilities.sum(-1), 1, rtol=0, atol=1e-5)
    rows = every.joined().windows == every.answer.window
    assert rows.sum() == len(every.window().tokens)
    np.testing.assert_allclose(
        every.joined().by("region").between("answer", "question"),
        every.window().by("region").between("answer", "question"),
        rtol=0,
        atol=1e-6,
    )


def test_rollout_needs_each_layer_of_one_window(attended):
    window = attended.window()
    with pytest.raises(
        UserError, match=r"^rollout: from layer 0 on, but captured are \[1\]; capture each layer"
    ):
        rollout(window.select(layers=[1]))
    assert rollout(window.select(layers=[1]), first=1).layers == (1,)
    for first in (2, -1):
        with pytest.raises(UserError, match=rf"^rollout: from layer {first} on, but captured are \[0, 1\]; "):
            rollout(window, first=first)
    gap = dataclasses.replace(window, layers=(0, 2))
    with pytest.raises(UserError, match=r"^rollout: from layer 0 on, but captured are \[0, 2\]; "):
        rollout(gap)
    with pytest.raises(
        UserError, match=r"^rollout: these windows are joined; roll out each of them and join"
    ):
        rollout(attended.joined())


@every_kind
def test_without_sinks_against_a_loop(architecture, attention, reader_of):
    one = attend(reader_of(architecture, attention), "Who?", CONTEXT[:60]).window()
    rest = without_sinks(one)
    assert rest.probabilities.dtype == np.float32
    for layer, head, i in np.ndindex(one.probabilities.shape[:3]):
        row = one.probabilities[layer, head, i].astype(np.float64)
        row[[region in (CLS, SEP) for region in one.regions]] = 0
        np.testing.assert_allclose(rest.probabilities[layer, head, i], row / row.sum(), rtol=0, atol=1e-6)
    assert (rest.by("word").sinks() == 0).all()


def test_a_row_with_nothing_but_sinks_is_0():
    one = with_answer_row([[0.5, 0, 0, 0, 0.25, 0, 0, 0.25]])
    sums = without_sinks(one).probabilities.sum(-1)[0, 0]
    np.testing.assert_allclose(sums, [1, 1, 1, 1, 1, 1, 0, 1], rtol=0, atol=1e-6)


def test_too_much_is_refused(monkeypatch):
    one = with_answer_row([[1, 0, 0, 0, 0, 0, 0, 0]], dtype=np.float16)
    monkeypatch.setattr("probes.maps.MOST_BYTES", 2 * one.probabilities.nbytes - 1)
    with pytest.raises(UserError, match=r"^attention: 1 layers without sinks would take 0\.0 GB"):
        without_sinks(one)
