"""Attention in a file comes back to the bit, and a broken or foreign file is one line."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from probes.attend import attend
from probes.storage import load_attention, save_attention
from probing import CONTEXT, QUESTION
from qa.files import BrokenFileError


@pytest.fixture(scope="module")
def attended(reader_of):
    return attend(reader_of("deberta-v3"), QUESTION, CONTEXT)


def assert_same(one, other):
    for field in dataclasses.fields(one):
        first, second = getattr(one, field.name), getattr(other, field.name)
        if isinstance(first, np.ndarray):
            assert first.dtype == second.dtype
            np.testing.assert_array_equal(first, second)
        else:
            assert first == second, field.name


def test_a_window_and_all_joined_come_back(attended, tmp_path):
    for one in (attended.windows[1], attended.joined(), attended.windows[0].select(layers=[1], heads=[0])):
        assert (one.norms is None) == (one.seen is not None)
        save_attention(one, tmp_path / "one.safetensors")
        assert_same(one, load_attention(tmp_path / "one.safetensors"))
    assert [path.name for path in tmp_path.iterdir()] == ["one.safetensors"]


def test_float32_and_odd_text_come_back(reader_of, tmp_path):
    odd = "The \ud83d cat \udc4d sat 👩\u200d🚀 on שלום e\u0301."
    (one,) = attend(reader_of("bert"), "Who \ud83d?", odd, dtype=torch.float32).windows
    save_attention(one, tmp_path / "odd.safetensors")
    assert_same(one, load_attention(tmp_path / "odd.safetensors"))


def test_a_failed_save_leaves_what_was_there(attended, tmp_path, monkeypatch):
    path = tmp_path / "one.safetensors"
    save_attention(attended.windows[0], path)
    before = path.read_bytes()

    def half(arrays, target, metadata):
        target.write_bytes(b"half")
        raise ZeroDivisionError

    monkeypatch.setattr("probes.storage.save_file", half)
    with pytest.raises(ZeroDivisionError):
        save_attention(attended.windows[1], path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture
def saved(attended, tmp_path):
    path = tmp_path / "one.safetensors"
    save_attention(attended.windows[0], path)
    return path


def refused(path):
    with pytest.raises(BrokenFileError) as error:
        load_attention(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


def test_files_that_are_none_of_ours(saved, tmp_path):
    assert "cannot be read as attention" in refused(tmp_path / "absent.safetensors")
    assert "cannot be read as attention" in refused(tmp_path)
    for content in (b"", b"{}", b"\x80\x04 pickle", saved.read_bytes()[:-7], saved.read_bytes()[:50]):
        saved.write_bytes(content)
        assert "cannot be read as attention" in refused(saved)
    save_file({"weight": np.zeros(3)}, saved)
    assert "does not say that it holds attention" in refused(saved)
    for metadata in ("[1]", '{"version": 2}', "{", "[" * 100_000):
        save_file({"weight": np.zeros(3)}, saved, metadata={"attention": metadata})
        refused(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda described, arrays: described.pop("tokens"), "tokens is missing"),
        (lambda described, arrays: described.update(question=3), "question is 3, not str"),
        (lambda described, arrays: described["layers"].append(5), "probabilities is missing or not of shape"),
        (lambda described, arrays: described.update(layers=["a", 1]), "must be whole numbers"),
        (lambda described, arrays: described.update(answer=[1]), "must be whole numbers"),
        (lambda described, arrays: described["tokens"].__setitem__(0, None), "tokens must be texts"),
        (lambda described, arrays: arrays.pop("words"), "words is missing"),
        (
            lambda described, arrays: arrays.update(chars=arrays["chars"][:, :1].copy()),
            "chars is missing or not",
        ),
        (
            lambda described, arrays: arrays.update(regions=arrays["regions"] + 2),
            "regions must be from 0 to 4",
        ),
        (lambda described, arrays: arrays.update(words=arrays["words"][::-1].copy()), "words must count up"),
        (
            lambda described, arrays: arrays.update(sentences=arrays["sentences"] - 1),
            "sentences must be from 0",
        ),
        (
            lambda described, arrays: arrays.update(seen=np.ones(3, dtype=bool)),
            "seen is missing or not of shape",
        ),
        (
            lambda described, arrays: arrays.update(norms=arrays["norms"][:1]),
            "norms is missing or not of shape",
        ),
        (
            lambda described, arrays: arrays.update(probabilities=arrays["probabilities"].astype(np.int8)),
            "probabilities is missing or not",
        ),
    ],
)
def test_what_does_not_fit_together(saved, change, message):
    with safe_open(saved, framework="numpy") as file:
        described = json.loads(file.metadata()["attention"])
    arrays = load_file(saved)
    change(described, arrays)
    save_file(arrays, saved, metadata={"attention": json.dumps(described)})
    assert message in refused(saved)
