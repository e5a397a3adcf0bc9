"""What the bundled model is built from: the articles named, no others, in one layout."""

import importlib.util
import json
from pathlib import Path

import pytest

from qa.errors import UserError
from qa.squad import hold_out, read_squad

FILE = Path(__file__).resolve().parents[2] / "pocket" / "build.py"


@pytest.fixture(scope="module")
def build():
    spec = importlib.util.spec_from_file_location("pocket_build", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
