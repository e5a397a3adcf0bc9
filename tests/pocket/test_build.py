"""What the bundled model is built from: the articles named, no others, in one layout."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

import tiny_models
from qa.errors import UserError
from qa.experiment import Experiment
from qa.model import load_encoder
from qa.squad import hold_out, read_squad

FILE = Path(__file__).resolve().parents[2] / "pocket" / "build.py"


@pytest.fixture(scope="module")
def build():
    spec = importlib.util.spec_from_file_location("pocket_build", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def article(title: str, **more) -> dict:
    question = {"id": title, "question": "Who?", "answers": [{"text": "Ada", "answer_start": 0}], **more}
    return {"title": title, "paragraphs": [{"context": "Ada wrote it.", "qas": [question]}]}


def test_articles_are_the_ones_named(build):
    v2 = [article(title, is_impossible=False) for title in [*build.WITH_UNANSWERABLE, "Other"]]
    v1 = [article(title) for title in [*build.ANSWERABLE_ONLY, *build.WITH_UNANSWERABLE, "Another"]]
    merged = build.merge_squad(v1, v2)
    titles = [item["title"] for item in merged]
    assert titles == sorted({*build.ANSWERABLE_ONLY, *build.WITH_UNANSWERABLE})
    questions = [question for item in merged for question in item["paragraphs"][0]["qas"]]
    assert not any(question["is_impossible"] for question in questions)


def test_a_missing_article_is_named(build):
    with pytest.raises(UserError, match="35 articles are in neither SQuAD file"):
        build.merge_squad([article("Kenya")], [])


def test_held_out_articles_have_unanswerable_questions(build):
    assert set(build.HELD_OUT) <= set(build.WITH_UNANSWERABLE)


def test_of_real_squad(build, squad_dir, tmp_path):
    v1, v2 = (
        json.loads((squad_dir / f"train-{version}.json").read_text())["data"] for version in ("v1.1", "v2.0")
    )
    build._write(tmp_path / "squad.json", build.merge_squad(v1, v2))
    questions = read_squad(tmp_path / "squad.json")
    training, held_out = hold_out(questions, build.HELD_OUT)
    assert (len(training.questions), len(held_out.questions)) == (10_515, 1_334)
    merged = {question.id for question in questions.questions}
    first, second = (
        {
            question["id"]
            for item in articles
            for paragraph in item["paragraphs"]
            for question in paragraph["qas"]
        }
        for articles in (v1, v2)
    )
    assert second <= merged <= first | second
    assert len(first - merged) == 59, "v2.0 left out a few questions of these articles, and nothing else did"


def test_an_existing_model_is_not_overwritten(build, tmp_path, capsys):
    arguments = ["--bert", "b", "--v1", "1", "--v2", "2", "--shifts", "s", "--work", "w", "--into"]
    assert build.main([*arguments, str(tmp_path)]) == 2
    assert "exists already" in capsys.readouterr().err


def test_stages_begin_with_earlier_ones(build):
    done: set[str] = set()
    for stage in build.STAGES:
        assert set(stage.start) <= done, stage.name
        done.add(stage.name)
    assert set(build.AVERAGED) <= done


def test_only_the_last_stage_is_trained_on_the_held_out_articles(build, tmp_path):
    for stage in build.STAGES:
        settings = build._settings(tmp_path, stage, tmp_path)
        apart = settings.held_out_articles == build.HELD_OUT or stage.data == "shifts"
        assert apart == (stage.name != "squad-36"), stage.name
    last = build._settings(tmp_path, build.STAGES[-1], tmp_path)
    times = last.epochs * last.evaluations_per_epoch
    assert times == 1, "with several evaluations the best would be chosen on questions it was trained on"


def test_the_parts_of_the_average(build):
    """Each later stage enters with its weight: 1/2, 1/2 and 1/3 of what there is then."""
    parts = {"squad": 1 / 3, "squad-again": 1 / 3, "answerable": 1 / 3}
    for stage, weight in (("all-golds", 1 / 2), ("squad-all-golds", 1 / 2), ("squad-36", 1 / 3)):
        parts = {name: part * (1 - weight) for name, part in parts.items()} | {stage: weight}
    shares = {name: build.AVERAGED.count(name) / len(build.AVERAGED) for name in build.AVERAGED}
    assert shares == pytest.approx(parts)


def test_questions_without_an_answer_are_left_out(build):
    impossible = article("Kenya", is_impossible=True, answers=[])
    both = {**article("Rhine"), "paragraphs": [*article("Rhine")["paragraphs"], *impossible["paragraphs"]]}
    found = build._data([both], [article("Reddit")])["answerable"]
    assert [len(item["paragraphs"]) for item in found] == [1, 1]
    of_squad = build._data([both], [article("Reddit")])["squad-answerable"]
    assert [(item["title"], len(item["paragraphs"])) for item in of_squad] == [("Rhine", 1)]
    assert [item["title"] for item in build._data([both], [])["held-out"]] == ["Rhine"]


def test_the_whole_of_it_with_a_tiny_bert(build, tmp_path, monkeypatch, capsys):
    """All stages, from a BERT to the model, which is the average of its stages in half precision."""
    monkeypatch.setattr(build, "COMMON", {**build.COMMON, "max_length": 96, "stride": 16, "device": "cpu"})
    tiny_models.save(tmp_path / "bert", "bert")
    articles = {
        "v1": [article(title) for title in build.ANSWERABLE_ONLY],
        "v2": [article(title) for title in build.WITH_UNANSWERABLE],
        "shifts": [article(f"shift {number}") for number in range(3)],
    }
    for name, items in articles.items():
        build._write(tmp_path / f"{name}.json", items)
    arguments = [f"--{name}={tmp_path / name}.json" for name in articles]
    arguments += [f"--bert={tmp_path / 'bert'}", f"--work={tmp_path / 'work'}", f"--into={tmp_path / 'out'}"]
    assert build.main(arguments) == 0, capsys.readouterr().err
    states = [
        load_file(Experiment(tmp_path / "work" / name).model_folder() / "model.safetensors")
        for name in build.AVERAGED
    ]
    for name, weight in load_encoder(str(tmp_path / "out")).model.state_dict().items():
        expected = sum(state[name].double() for state in states) / len(states)
        assert (weight - expected).abs().max() <= 1e-3 * expected.abs().max() + 1e-6, name
