"""What several tests of `probes` share: tiny models of every architecture, and questions for them."""

from collections.abc import Callable
from functools import cache

import pytest
import torch

import tiny_models
from probing import PAIRS, READING
from qa.batches import pad_windows
from qa.model import Encoder, load_encoder
from qa.reader import Reader
from qa.squad import Question
from qa.windows import WindowSet, make_windows


@pytest.fixture(autouse=True)
def no_power_cuts(monkeypatch):
    """Waiting for the disk would take most of the time."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


@pytest.fixture(scope="session")
def encoder_of(tmp_path_factory) -> Callable[..., Encoder]:
    """A tiny encoder by architecture and attention; the same object to all, so leave it as it was."""

    @cache
    def folder(architecture):
        return str(tiny_models.save(tmp_path_factory.mktemp("models") / architecture, architecture))

    @cache
    def encoder(architecture, attention="auto"):
        return load_encoder(folder(architecture), attention)

    return encoder


@pytest.fixture(scope="session")
def reader_of(encoder_of) -> Callable[..., Reader]:
    """A reader by architecture and attention."""
    return lambda architecture, attention="auto": Reader(encoder_of(architecture, attention), READING, None)


def windows_of(encoder: Encoder) -> WindowSet:
    """The windows of all pairs above."""
    asked = [
        Question(str(n), "", "0", question, context, (), ()) for n, (question, context) in enumerate(PAIRS)
    ]
    return make_windows(asked, encoder.tokenizer, max_length=64, stride=12, max_question_length=24)


@pytest.fixture(scope="session")
def inputs_of(encoder_of) -> Callable[[str], dict[str, torch.Tensor]]:
    """All windows of the pairs above as one padded batch."""

    @cache
    def inputs(architecture):
        encoder = encoder_of(architecture)
        windows = windows_of(encoder)
        return pad_windows(windows, range(len(windows)), encoder.tokenizer)

    return inputs


@pytest.fixture(scope="session")
def expected_of(encoder_of, inputs_of) -> Callable[[str], list[torch.Tensor]]:
    """What the library's eager model returns for that batch: [L, H, n, n] for each example."""

    @cache
    def expected(architecture):
        inputs = inputs_of(architecture)
        with torch.inference_mode():
            attentions = encoder_of(architecture, "eager").model(**inputs, output_attentions=True).attentions
        stacked = torch.stack(attentions, dim=1)
        lengths = inputs["attention_mask"].sum(1).tolist()
        return [example[:, :, :n, :n] for example, n in zip(stacked, lengths, strict=True)]

    return expected
