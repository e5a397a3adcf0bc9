"""Validation questions with what was answered: joined by id, searched, wrong ones first."""

import json

import pytest
import streamlit as st

import small_runs
from dashboard.data.validation import is_of, search, validation
from qa.errors import UserError


@pytest.fixture
def experiment(tmp_path):
    st.cache_resource.clear()
    return small_runs.imported(tmp_path / "experiments", "small")


def test_questions_meet_their_predictions(experiment):
    rows = {row["id"]: row for row in experiment.predictions()}
    known = validation(experiment)
    assert [*known] == [question.id for question in experiment.validation_questions().questions]
    for id_, one in known.items():
        assert (one.prediction, one.f1) == (rows[id_]["prediction"], rows[id_]["f1"])


def test_wrong_answers_come_first(experiment):
    found = search(validation(experiment), "")
    assert len(found) == 8
    scores = [(one.f1, one.exact_match) for one in found]
    assert scores == sorted(scores)


def test_all_words_must_occur_somewhere(experiment):
    known = validation(experiment)
    one = known["5-0-1"]
    words = one.question.context.split()
    for wanted in ("5-0-1", f"{words[0].upper()} {words[-1]}", one.question.question):
        assert one in search(known, wanted)
    assert search(known, "5-0-1 nowhere-at-all") == []


def test_a_changed_file_is_read_again(experiment):
    before = validation(experiment)
    assert validation(experiment) is before
    file = experiment.path / "predictions.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows[0] |= {"prediction": "something else entirely", "f1": 0.25}
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert validation(experiment)[rows[0]["id"]].prediction == "something else entirely"


def test_without_predictions_there_are_questions_and_without_data_a_message(experiment):
    (experiment.path / "predictions.jsonl").write_text("no JSON\n")
    assert {one.prediction for one in validation(experiment).values()} == {None}
    for file in (experiment.path.parent / ".datasets").iterdir():
        file.unlink()
    (experiment.path / "predictions.jsonl").unlink()
    with pytest.raises(UserError, match="the validation questions"):
        validation(experiment)


def test_its_own_data_are_told_from_others(experiment):
    questions = experiment.validation_questions()
    for count in (1, 3, 8):
        assert is_of(experiment, questions.limited(count).sha256(), count)
    assert not is_of(experiment, questions.limited(3).sha256(), 4)
    assert not is_of(experiment, "f" * 64, 8)
