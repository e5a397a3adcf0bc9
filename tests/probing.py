"""What tests of `probes` share: questions, implementations of attention, captures, and attention made up.

The questions are read in several windows, in one, and in the least there can be.
"""

import numpy as np
import pytest
import torch

import tiny
import tiny_models
from probes import maps
from probes.attention import AttentionProbe
from probes.maps import Attention, groups_of
from probes.words import sentences_of, words_of
from qa.evaluation import Reading

READING = Reading(max_length=64, stride=12, max_question_length=24, n_best=5, batch_size=4)
QUESTION = "When did the dynasty fall in Zürich?"
CONTEXT = " ".join(tiny.SENTENCES)
PAIRS = ((QUESTION, CONTEXT), ("Who?", tiny.SENTENCES[0]), ("Who wrote it?", "red"))

IMPLEMENTATIONS = [
    *((architecture, "eager") for architecture in tiny_models.ARCHITECTURES),
    *((architecture, "fast") for architecture in ("deberta", "deberta-v2", "deberta-v3")),
    *((architecture, "sdpa") for architecture in ("bert", "roberta", "electra", "distilbert", "albert")),
]
# One for each way in which probabilities are come by.
KINDS = [("deberta-v3", "fast"), ("deberta-v2", "eager"), ("bert", "sdpa")]

every_implementation = pytest.mark.parametrize(("architecture", "attention"), IMPLEMENTATIONS)
every_kind = pytest.mark.parametrize(("architecture", "attention"), KINDS)


@torch.inference_mode()
def capture(model, inputs, layers=None, **options):
    """One forward's captures."""
    with AttentionProbe(model, layers, **options) as probe:
        model(**inputs)
    return probe.captures


def assert_close(actual, expected, tolerance):
    assert actual.shape == expected.shape
    difference = (actual.float() - expected).abs().max().item()
    assert difference <= tolerance, f"{tuple(actual.shape)} differ by {difference:.2g}"


TOKENS = (
    ("[CLS]", maps.CLS, -1, -1),
    ("who", maps.QUESTION, 0, 3),
    ("s", maps.QUESTION, 4, 5),
    ("##at", maps.QUESTION, 5, 7),
    ("[SEP]", maps.SEP, -1, -1),
    ("the", maps.CONTEXT, 0, 3),
    ("cat", maps.ANSWER, 4, 7),
    ("[SEP]", maps.SEP, -1, -1),
)


def small_attention(probabilities, norms=None, tokens=range(8)):
    """Attention [L, H, T, T] between some of eight tokens of "Who sat" and "The cat", answered with "cat"."""
    names, *numbers = zip(*(TOKENS[token] for token in tokens), strict=True)
    regions, chars = np.array(numbers[0], dtype=np.int32), np.array(numbers[1:], dtype=np.int32).T
    texts = {"question": "Who sat", "context": "The cat"}
    words, sentences = (groups_of(regions, chars, cut=cut, **texts) for cut in (words_of, sentences_of))
    return Attention(
        probabilities=probabilities,
        layers=tuple(range(len(probabilities))),
        heads=tuple(range(len(probabilities[0]))),
        tokens=names,
        chars=chars,
        words=words,
        sentences=sentences,
        regions=regions,
        windows=np.zeros(len(names), dtype=np.int32),
        seen=None,
        before=0,
        answer=(4, 7),
        norms=norms,
        **texts,
    )
