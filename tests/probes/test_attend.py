"""Asking with attention gives the reader's own answer, and maps of its own windows, whatever the text."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from probes.attend import attend
from probing import CONTEXT, PAIRS, QUESTION, READING
from qa.batches import pad_windows
from qa.errors import UserError
from qa.evaluation import Reading
from qa.reader import Reader
from texts import awkward

KINDS = [("deberta-v2", "fast"), ("deberta-v3", "fast"), ("deberta-v3", "eager"), ("bert", "sdpa")]


@pytest.fixture(scope="module", params=KINDS, ids="-".join)
def reader(request, reader_of):
    return reader_of(*request.param)


def eager_maps(reader, encoder_of, question, context):
    """The attention of each window on its own, as the library returns it."""
    architecture = next(kind for kind, attention in KINDS if reader.encoder is encoder_of(kind, attention))
    model = encoder_of(architecture, "eager").model
    windows = reader.windows([(question, context)])
    for number in range(len(windows)):
        inputs = pad_windows(windows, [number], reader.encoder.tokenizer)
        with torch.inference_mode():
            yield torch.cat(model(**inputs, output_attentions=True).attentions).numpy()


@pytest.mark.parametrize("pair", PAIRS, ids=["long", "short", "tiny"])
def test_every_window_of_the_reader_with_its_maps(reader, encoder_of, pair):
    attended = attend(reader, *pair, dtype=torch.float32)
    assert attended.answer == reader.answer(*pair)
    assert len(attended.windows) == attended.answer.windows
    for number, (window, expected) in enumerate(
        zip(attended.windows, eager_maps(reader, encoder_of, *pair), strict=True)
    ):
        assert set(window.windows.tolist()) == {number}
        assert (window.question, window.context) == pair
        np.testing.assert_allclose(window.probabilities, expected, rtol=0, atol=1e-6)
        np.testing.assert_allclose(window.probabilities.sum(-1), 1, rtol=0, atol=1e-6)


def test_named_windows_layers_and_heads(reader):
    every = attend(reader, QUESTION, CONTEXT)
    assert len(every.windows) >= 5
    some = attend(reader, QUESTION, CONTEXT, windows=[3, 0], layers=[1], heads=[0])
    assert some.answer == every.answer
    assert [int(window.windows[0]) for window in some.windows] == [0, 3]
    for one in some.windows:
        other = every.window(int(one.windows[0])).select(layers=[1], heads=[0])
        assert (one.layers, one.heads) == (other.layers, other.heads)
        np.testing.assert_allclose(
            one.probabilities.astype(np.float32), other.probabilities.astype(np.float32), rtol=0, atol=5e-4
        )
    assert every.window().answer == (every.answer.start, every.answer.end)
    assert int(every.window().windows[0]) == every.answer.window


def test_an_answer_that_is_known_is_not_asked_for_again(reader, monkeypatch):
    every, seen = attend(reader, QUESTION, CONTEXT, dtype=torch.float32), []
    monkeypatch.delattr(Reader, "read")
    for windows, count in ((None, len(every.windows)), ([2, 1], 2)):
        again = attend(
            reader,
            QUESTION,
            CONTEXT,
            windows=windows,
            dtype=torch.float32,
            answer=every.answer,
            progress=lambda *at: seen.append(at),
        )
        assert again.answer == every.answer
        assert seen[-1] == (count, count)
        for one in again.windows:
            other = every.window(int(one.windows[0]))
            assert one.answer == other.answer
            np.testing.assert_allclose(one.probabilities, other.probabilities, rtol=0, atol=1e-6)


def test_padded_reading_and_progress(reader):
    padded = Reader(
        reader.encoder,
        Reading(**{**{name: getattr(READING, name) for name in READING.__slots__}, "padded": True}),
        None,
    )
    seen = []
    attended = attend(padded, QUESTION, CONTEXT, dtype=torch.float32, progress=lambda *at: seen.append(at))
    plain = attend(reader, QUESTION, CONTEXT, dtype=torch.float32)
    assert seen[-1] == (len(plain.windows), len(plain.windows))
    for one, other in zip(attended.windows, plain.windows, strict=True):
        np.testing.assert_allclose(one.probabilities, other.probabilities, rtol=0, atol=1e-6)


def test_a_refused_question_has_no_answer_region(reader):
    strict = Reader(reader.encoder, READING, 0.0)
    attended = attend(strict, QUESTION, CONTEXT)
    assert attended.answer.text == ""
    assert not any((window.regions == 4).any() for window in attended.windows)
    assert np.isnan(attended.joined().by("region").between("answer", "question")).all()


def test_what_cannot_be_is_refused(reader, monkeypatch):
    with pytest.raises(UserError, match=r"^question: it is empty"):
        attend(reader, " ", CONTEXT)
    with pytest.raises(UserError, match=r"^windows: \[99\]; this context has \d+: give numbers from 0 to"):
        attend(reader, QUESTION, CONTEXT, windows=[99])
    with pytest.raises(UserError, match=r"^layers: \[2\]; this model has 2"):
        attend(reader, QUESTION, CONTEXT, layers=[2])
    first = attend(reader, QUESTION, CONTEXT, windows=[0])
    with pytest.raises(UserError, match=r"^window: 4; captured are \[0\], ask for that one as well$"):
        first.window(4)
    monkeypatch.setattr("probes.maps.MOST_BYTES", 100_000)
    assert attend(reader, QUESTION, CONTEXT, windows=[0], heads=[1]).answer == first.answer
    with pytest.raises(UserError, match=r"^attention: \d+ windows, 4 maps each would take 0\.\d GB"):
        attend(reader, QUESTION, CONTEXT)


@pytest.mark.parametrize("architecture", ["bert", "roberta", "deberta-v3"])
@settings(max_examples=25)
@given(question=awkward, context=awkward)
def test_whatever_the_text(architecture, reader_of, question, context):
    if not question.strip() or not context.strip():
        return
    reader = reader_of(architecture)
    context = context * 9
    attended = attend(reader, question, context, layers=[1], dtype=torch.float32)
    assert attended.answer == reader.answer(question, context)
    assert len(attended.windows) == attended.answer.windows
    for one in (*attended.windows, attended.joined()):
        for unit in ("token", "word", "sentence", "region"):
            probabilities = one.by(unit).probabilities
            sums = probabilities.sum(-1)
            np.testing.assert_allclose(sums[~np.isnan(sums)], 1, rtol=0, atol=2e-6)
            assert unit == "region" or np.isfinite(probabilities).all()
    own = attended.window()
    answer = own.chars[own.regions == 4]
    if attended.answer.text:
        # An unknown run of characters is one token beside the blank before it, whose span lies in its own.
        assert answer[:, 0].min() <= attended.answer.start < attended.answer.end <= answer[:, 1].max()
    else:
        assert not len(answer)
