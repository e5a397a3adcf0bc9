"""Attribution against transformers-interpret: equal numbers on the model made for it; a difference shows."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from captum.attr import LayerIntegratedGradients

import small_runs
from benchmarks import attribution
from benchmarks.comparison import Options, UnavailableError, compare


class Explainer:
    """What the other library computes, in Captum's words; its target is the highest score at every step."""

    def __init__(self, model, tokenizer):
        self.model, self.tokenizer = model, tokenizer

    def __call__(self, question, text, n_steps):
        tokenizer = self.tokenizer
        ids, types = (
            tokenizer(question, text, return_tensors="pt")[key] for key in ("input_ids", "token_type_ids")
        )
        special = (ids == tokenizer.cls_token_id) | (ids == tokenizer.sep_token_id)
        own = (ids, types, torch.arange(ids.shape[1])[None])
        base = (torch.where(special, ids, tokenizer.pad_token_id), types * 0, own[2] * 0)
        for part in ("start", "end"):

            def highest(ids, types, positions, part=part):
                read = self.model(ids, token_type_ids=types, position_ids=positions)
                return read[f"{part}_logits"].max(1).values

            lig = LayerIntegratedGradients(highest, self.model.bert.embeddings)
            found = lig.attribute(own, base, n_steps=n_steps)
            setattr(self, f"{part}_attributions", SimpleNamespace(_attributions=found))


@pytest.fixture
def options(tmp_path, monkeypatch):
    shape = replace(attribution.POCKET, layers=2, width=24, heads=3, vocabulary=120)
    monkeypatch.setattr(attribution, "POCKET", shape)
    monkeypatch.setattr(attribution, "STEPS", 8)
    data = small_runs.write_questions(tmp_path / "dev.json", paragraphs=3, seed=3)
    return Options(tmp_path, dataset=str(data))


@pytest.fixture
def stand_in(monkeypatch):
    monkeypatch.setattr(
        attribution, "library", lambda scratch: SimpleNamespace(QuestionAnsweringExplainer=Explainer)
    )


def test_the_cases_are_an_answer_and_its_parts():
    whole, parts = attribution.cases(Options(Path("scratch"), dataset="dir/dev.json"))
    assert (whole.name, whole.parts) == ("attribution", ("sum",))
    assert (parts.name, parts.parts) == ("attribution-parts", ("start", "end"))
    assert whole.what == (
        "integrated gradients of an answer in 50 steps, BERT of pocket's size, about 150 words of dev.json"
    )
    assert "start and end score, each" in parts.what


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("name", ["attribution", "attribution-parts"])
def test_both_sides_agree(name, options):
    case = next(case for case in attribution.cases(options) if case.name == name)
    result = compare(replace(case, rounds=1), peak=lambda _case, _side: None, say=lambda _: None)
    assert result.max_difference <= 1e-5
    assert min(result.ours, result.theirs, result.ratio) > 0


@pytest.mark.usefixtures("stand_in")
def test_a_baseline_with_other_positions_would_show(options):
    case = attribution.cases(options)[0]
    ours, theirs = case.prepare("ours"), case.prepare("theirs")
    for model in (ours.asked.reader.encoder.model, theirs._explainer.model):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            torch.nn.init.normal_(model.bert.embeddings.position_embeddings.weight, std=0.5)
    assert case.difference(ours, theirs) > 1e-3


def test_where_it_cannot_be_installed_one_line_says_so(tmp_path, monkeypatch):
    failed = SimpleNamespace(returncode=1, stderr="a\nERROR: no such registry\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(
        UnavailableError,
        match=r"^transformers-interpret==0\.10\.0 cannot be installed: ERROR: no such registry$",
    ):
        attribution.library(tmp_path)


@pytest.mark.prove
def test_the_library_itself_gives_the_same(options):
    before, case = list(sys.path), attribution.cases(options)[0]
    try:
        assert case.difference(case.prepare("ours"), case.prepare("theirs")) <= 1e-5
    finally:
        sys.path[:] = before
