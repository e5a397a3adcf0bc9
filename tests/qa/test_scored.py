"""What an experiment was scored on is found, and answers come in the order of the questions."""

import json

import numpy as np
import pytest

from qa import files
from qa.errors import UserError
from qa.experiment import Experiment
from qa.importing import import_predictions
from qa.run import keep_dataset
from qa.scored import arrange, read_answers, scored_sets, shared_sets
from qa.squad import load_questions

QUESTIONS = load_questions("pocket", "validation").limited(12)
OTHER = load_questions("pocket", "validation").limited(5)


def answer(question, **changes):
    row = {"id": question.id, "prediction": "x", "exact_match": 0.0, "f1": 0.5, "windows": 2}
    return row | {"start": 0, "end": 1, "probability": 0.25, "no_answer_probability": 0.5} | changes


@pytest.fixture
def experiment(tmp_path) -> Experiment:
    """Imported on QUESTIONS, evaluated on OTHER as well."""
    found, _ = import_predictions({}, QUESTIONS, root=tmp_path, name="one", source="a test")
    metrics = {"exact_match": 0.0, "f1": 50.0, "count": 5, "dataset": OTHER.name}
    found.write_evaluation(keep_dataset(tmp_path, OTHER), metrics, map(answer, OTHER.questions))
    return found


def test_own_data_and_evaluations_are_found(experiment):
    found = scored_sets(experiment)
    assert [*found] == [QUESTIONS.sha256(), OTHER.sha256()]
    own, other = found.values()
    assert (own.folder, other.folder.parent.name) == (experiment.path, "evaluations")
    assert own.metrics["count"] == 12
    assert other.questions().questions == OTHER.questions
    assert {own.name, other.name} == {QUESTIONS.name}
    answers = read_answers(other, OTHER.questions)
    assert answers.texts == ("x",) * 5
    assert answers.spans == ((0, 1),) * 5
    assert answers.windows.tolist() == [2] * 5
    assert answers.scores.tolist() == [[0.0] * 5, [0.5] * 5]
    assert (answers.probabilities[0], answers.no_answer[0]) == (0.25, 0.5)


def test_the_own_scores_come_before_an_evaluation_on_the_same_data(experiment):
    experiment.write_evaluation(
        QUESTIONS.sha256(), {"exact_match": 1.0, "f1": 1.0, "dataset": "x"}, map(answer, QUESTIONS.questions)
    )
    assert scored_sets(experiment)[QUESTIONS.sha256()].folder == experiment.path


def test_what_is_broken_is_no_scored_set(experiment):
    (experiment.path / "metrics.json").write_text('{"exact_match": "high"}')
    assert [*scored_sets(experiment)] == [OTHER.sha256()]
    (experiment.path / "evaluations" / OTHER.sha256() / "metrics.json").write_text('{"f1": 3}')
    assert scored_sets(experiment) == {}


def test_unknown_values_are_unknown(experiment):
    answers = read_answers(scored_sets(experiment)[QUESTIONS.sha256()], QUESTIONS.questions)
    assert answers.texts == (None,) * 12
    assert answers.spans == (None,) * 12
    assert np.isnan(answers.probabilities).all()
    assert np.isnan(answers.no_answer).all()
    assert answers.windows.tolist() == [0] * 12


def test_answers_are_in_the_order_of_the_questions(tmp_path):
    rows = [answer(question, f1=number / 12) for number, question in enumerate(QUESTIONS.questions)]
    found = arrange("one", tmp_path, rows[::-1], QUESTIONS.questions)
    assert found.f1s.tolist() == [number / 12 for number in range(12)]
    assert not found.right.any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"exact_match": 0.5}, "line 2: scores 0.5 and 0.5; exact match is 0 or 1"),
        ({"f1": 1.01}, "F1 from 0 to 1"),
        ({"f1": float("inf")}, "F1 from 0 to 1"),
        ({"f1": None}, "line 2: f1 is missing"),
        ({"f1": True}, "line 2: f1 is True"),
        ({"prediction": ["x"]}, "line 2: prediction is"),
        ({"windows": "3"}, "line 2: windows is '3'"),
        ({"id": QUESTIONS.questions[0].id}, "occurs twice"),
        ({"id": "another"}, f"no row for 1 of its questions \\({QUESTIONS.questions[1].id}"),
    ],
)
def test_a_foreign_row_is_refused(tmp_path, changes, message):
    rows = [answer(question) for question in QUESTIONS.questions]
    rows[1] |= changes
    with pytest.raises(files.BrokenFileError, match=message):
        arrange("one", tmp_path / "predictions.jsonl", rows, QUESTIONS.questions)


def test_a_missing_file_is_named(experiment):
    scored = scored_sets(experiment)[QUESTIONS.sha256()]
    scored.predictions.unlink()
    with pytest.raises(UserError, match=r"predictions.jsonl: cannot be read"):
        read_answers(scored, QUESTIONS.questions)


def test_shared_data_are_those_of_the_reference_and_another(tmp_path, experiment):
    second, _ = import_predictions({}, OTHER, root=tmp_path, name="two", source="a test")
    third, _ = import_predictions({}, QUESTIONS, root=tmp_path, name="three", source="a test")
    fourth, _ = import_predictions({}, OTHER, root=tmp_path, name="four", source="a test")
    sets = [scored_sets(item) for item in (experiment, second, third, fourth)]
    found = shared_sets(sets)
    assert [(sha, [item.experiment.name for item in shared]) for sha, shared in found.items()] == [
        (OTHER.sha256(), ["one", "two", "four"]),
        (QUESTIONS.sha256(), ["one", "three"]),
    ]
    assert shared_sets([sets[2], sets[1]]) == {}
    assert shared_sets([{}, sets[1]]) == {}


def test_lone_surrogates_and_odd_texts_are_read(experiment):
    file = experiment.path / "predictions.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows[0]["prediction"] = "\ud83d<b>$x$"
    files.write_rows(file, rows)
    answers = read_answers(scored_sets(experiment)[QUESTIONS.sha256()], QUESTIONS.questions)
    assert answers.texts[0] == "\ud83d<b>$x$"
