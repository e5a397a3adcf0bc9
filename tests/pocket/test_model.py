"""The bundled model as a newcomer meets it, and what its card says of it."""

import json
import re

import pytest
from safetensors import safe_open

from qa.__main__ import main
from qa.config import read_settings
from qa.importing import import_model
from qa.model import load_encoder, tokenizer_fingerprint
from qa.pocket import POCKET_MODEL, POCKET_SETTINGS
from qa.reader import Reader
from qa.squad import load_questions

SETTINGS = read_settings(POCKET_SETTINGS)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """pocket-base on a few questions only, as its answers do not depend on them."""
    root = tmp_path_factory.mktemp("experiments")
    questions = load_questions("pocket", "validation").limited(30)
    return import_model("pocket", questions, root=root, name="pocket-base", settings=SETTINGS)


def test_stored_in_half_precision_and_loaded_in_float32():
    with safe_open(POCKET_MODEL / "model.safetensors", "pt") as weights:
        assert {weights.get_slice(name).get_dtype() for name in weights.keys()} == {"F16"}  # noqa: SIM118  # no mapping
    assert sum(item.stat().st_size for item in POCKET_MODEL.iterdir()) < 50_000_000
    assert {str(weight.dtype) for weight in load_encoder("pocket").model.parameters()} == {"torch.float32"}


def test_nothing_in_it_names_a_machine():
    for file in POCKET_MODEL.glob("*.json"):
        assert not re.search(r'"/(?!")[a-z]+/', file.read_text(encoding="utf-8")[:20_000]), file.name


def test_tokenizer_survives_saving(tmp_path):
    tokenizer = load_encoder("pocket").tokenizer
    tokenizer.save_pretrained(tmp_path)
    assert tokenizer_fingerprint(type(tokenizer).from_pretrained(tmp_path)) == tokenizer_fingerprint(
        tokenizer
    )


def test_favorite_color(base, capsys):
    arguments = [
        "--question",
        "What is my favorite color?",
        "--context",
        "My favorite color is red.",
        "--json",
    ]
    assert main(["answer", base.name, "--experiments-dir", str(base.path.parent), *arguments]) == 0
    assert json.loads(capsys.readouterr().out)["text"] == "red"


def test_a_passage_longer_than_a_window(base):
    longest = max(
        load_questions("pocket", "validation").questions, key=lambda question: len(question.context)
    )
    answer = Reader.of(base).answer(longest.question, longest.context)
    assert longest.context[answer.start : answer.end] == answer.text
    assert answer.text
