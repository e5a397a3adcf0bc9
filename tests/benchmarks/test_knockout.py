"""The cases of knocking out at a tiny size: they run, agree, and would notice a head that is not off."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import small_runs
import tiny_models
from benchmarks import knockout
from benchmarks.comparison import Options, compare


@pytest.fixture
def options(tmp_path):
    data = small_runs.write_questions(tmp_path / "dev.json", paragraphs=4, seed=3)
    model = tiny_models.save(tmp_path / "model", "deberta-v3")
    return Options(tmp_path, dataset=str(data), model=str(model))


def test_the_cases_are_a_sentence_and_a_context_of_the_usual_length():
    sentence, long = knockout.cases(Options(Path("scratch"), dataset="dir/dev.json", model="some"))
    assert (sentence.name, sentence.words) == ("knockout", None)
    assert sentence.what == "effect of every head on the answer, a sentence"
    assert (long.name, long.words) == ("knockout-long", 150)
    assert long.what == "effect of every head on the answer, about 150 words of dev.json"
    assert {sentence.against, long.against} == {"one forward a head, the same attention"}


@pytest.mark.parametrize("name", ["knockout", "knockout-long"])
def test_both_sides_agree(name, options):
    case = next(case for case in knockout.cases(options) if case.name == name)
    result = compare(replace(case, rounds=1), peak=lambda _case, _side: None, say=lambda _: None)
    assert result.max_difference <= 1e-5
    assert min(result.ours, result.theirs, result.ratio) > 0
    ours, theirs = case.prepare("ours")(), case.prepare("theirs")()
    assert ours.start.shape == theirs.start.shape == (tiny_models.LAYERS, tiny_models.HEADS)
    assert ours.texts == theirs.texts
    assert np.abs(ours.start).min() > 1e-4


def test_the_context_is_the_nearest_in_length(options):
    (case,) = (replace(case, words=4) for case in knockout.cases(options)[1:])
    _, (question, context) = knockout.material(case)
    lengths = [
        len(one.context.split()) for one in knockout.load_questions(case.dataset, "validation").questions
    ]
    assert abs(len(context.split()) - 4) == min(abs(length - 4) for length in lengths)
    assert question


def test_a_head_that_stays_on_shows(options, monkeypatch):
    case = knockout.cases(options)[0]
    monkeypatch.setattr("probes.ablation.ablated", lambda context, gone, **_: context)
    assert case.difference(case.prepare("ours"), case.prepare("theirs")) > 1e-3


def test_without_a_model_there_is_a_stand_in(options, monkeypatch):
    monkeypatch.setattr("benchmarks.data.POCKET_MODEL", Path("nowhere"))
    monkeypatch.setattr(
        "benchmarks.knockout.POCKET", replace(knockout.POCKET, layers=1, width=24, vocabulary=200)
    )
    case = knockout.cases(replace(options, model=None))[0]
    assert case.model is None
    assert case.prepare("ours")().start.shape == (1, 12)
