"""Every token of a window knows its text, its region and its word, whatever the text."""

import numpy as np
import pytest
import torch
from hypothesis import given

import tiny
from probes.labels import attention_of
from probes.maps import REGIONS
from probing import READING
from qa.spans import Answer
from qa.squad import Question
from qa.windows import make_windows
from texts import awkward

KINDS = ["bert", "roberta", "deberta-v3"]
NO_ANSWER = Answer("", 0, 0, 1.0, 1.0, 0.0, 0, 1, ())


def labelled(tokenizer, question, context, answer=NO_ANSWER, limit=READING.max_question_length):
    """The attention of each window, with empty maps."""
    windows = make_windows(
        [Question("0", "", "0", question, context, (), ())],
        tokenizer,
        max_length=64,
        stride=12,
        max_question_length=limit,
    )
    return [
        attention_of(
            torch.zeros(1, 1, len(window.ids), len(window.ids)),
            window,
            tokenizer=tokenizer,
            texts=(question, context),
            answer=answer,
            layers=(0,),
            heads=(0,),
        )
        for window in windows
    ]


@pytest.mark.parametrize(
    ("architecture", "frame"), [("bert", ("[CLS]", "[SEP]", 1)), ("roberta", ("<s>", "</s>", 2))]
)
def test_regions_of_a_short_question(architecture, frame, encoder_of):
    first, separator, between = frame
    answer = Answer("red", 13, 16, 1.0, 0.0, 0.0, 0, 1, ())
    (one,) = labelled(encoder_of(architecture).tokenizer, "What is red?", "The color is red.", answer)
    words = one.by("word")
    assert list(words.labels) == [
        first,
        "What",
        "is",
        "red",
        "?",
        *[separator] * between,
        "The",
        "color",
        "is",
        "red",
        ".",
        separator,
    ]
    assert [REGIONS[region] for region in words.regions] == [
        "[CLS]",
        *["question"] * 4,
        *["[SEP]"] * between,
        *["context"] * 3,
        "answer",
        "context",
        "[SEP]",
    ]


def test_special_tokens_inside_the_text_are_text(encoder_of):
    tokenizer = encoder_of("bert").tokenizer
    (one,) = labelled(tokenizer, "is [SEP] red?", "the [SEP] [CLS] red")
    words = one.by("word")
    assert [words.labels[n] for n in np.flatnonzero(words.regions == 1)] == ["is", "[SEP]", "red", "?"]
    assert [words.labels[n] for n in np.flatnonzero(words.regions == 3)] == ["the", "[SEP]", "[CLS]", "red"]
    assert (words.regions == 2).sum() == 2


@pytest.mark.parametrize("architecture", KINDS)
@pytest.mark.parametrize("limit", [5, 6, 7, 24])
def test_a_question_that_was_cut(architecture, limit, encoder_of):
    question = "Who wrote the first book about Zürich, über-strong coffee and Normandy?" * 20
    one = labelled(encoder_of(architecture).tokenizer, question, tiny.SENTENCES[0], limit=limit)[0]
    tokens = np.flatnonzero(one.regions == REGIONS.index("question"))
    assert 0 < len(tokens) <= limit
    start, end = one.chars[tokens].T
    assert start[0] == 0
    assert (np.diff(end) >= 0).all()
    words = one.by("word").labels[1:4]
    assert question.startswith(words[0])


@pytest.mark.parametrize("architecture", KINDS)
@given(question=awkward, context=awkward)
def test_whatever_the_text(architecture, encoder_of, question, context):
    tokenizer = encoder_of(architecture).tokenizer
    for one in labelled(tokenizer, question, context):
        T = len(one.tokens)
        for values in (one.words, one.sentences):
            assert values.shape == (T,)
            assert values[0] == 0
            assert set(np.diff(values).tolist()) <= {0, 1}
        for (start, end), region in zip(one.chars.tolist(), one.regions.tolist(), strict=True):
            text = {"question": question, "context": context}.get(REGIONS[region])
            if text is None:
                assert (start, end) == (-1, -1)
            else:
                assert 0 <= start <= end <= len(text)
                assert text[start:end] == text[start:end].strip()
        special = one.chars[:, 0] < 0
        assert special.sum() == tokenizer.num_special_tokens_to_add(pair=True)
        for unit in ("word", "sentence"):
            groups = getattr(one, f"{unit}s")
            assert np.bincount(groups)[groups[special]].tolist() == [1] * special.sum()
            labels = one.by(unit).labels
            assert all(labels)
