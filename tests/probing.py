"""What tests of `probes` share: questions, implementations of attention, and one forward's captures.

The questions are read in several windows, in one, and in the least there can be.
"""

import pytest
import torch

import tiny
import tiny_models
from probes.attention import AttentionProbe
from qa.evaluation import Reading

READING = Reading(max_length=64, stride=12, max_question_length=24, n_best=5, batch_size=4)
QUESTION = "When did the dynasty fall in Zürich?"
CONTEXT = " ".join(tiny.SENTENCES)
PAIRS = ((QUESTION, CONTEXT), ("Who?", tiny.SENTENCES[0]), ("Who wrote it?", "red"))

IMPLEMENTATIONS = [
    *((architecture, "eager") for architecture in tiny_models.ARCHITECTURES),
    *((architecture, "fast") for architecture in ("deberta-v2", "deberta-v3")),
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
