"""The `evaluate` interface gives the scores of `qa.metrics`, without network and without files."""

import socket

import evaluate
import pytest

from qa.errors import UserError
from qa.metrics import read_predictions, score
from qa.squad import read_squad
from qa.squad_metric import SquadMetric


def reference(id_, *answers):
    return {"id": id_, "answers": {"text": list(answers), "answer_start": [0] * len(answers)}}


def prediction(id_, text):
    return {"id": id_, "prediction_text": text}


@pytest.fixture
def sealed(monkeypatch, tmp_path):
    """No connection can be made, and the folder where `evaluate` would keep its files is a test's own."""

    def refuse(*_):
        raise AssertionError("a connection was attempted")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", tmp_path / "cache")
    return tmp_path


@pytest.mark.parametrize(
    ("dataset", "predictions"),
    [("dev-v1.1.json", "r-net-plus-v1.1.json"), ("dev-v2.0.json", "bert-single-v2.0.json")],
)
def test_equal_to_score(sealed, squad_dir, dataset, predictions):
    questions = read_squad(squad_dir / dataset)
    texts = read_predictions(squad_dir / "predictions" / predictions)
    found = SquadMetric(questions.version).compute(
        predictions=[prediction(question.id, texts[question.id]) for question in questions.questions],
        references=[
            {
                "id": question.id,
                "answers": {"text": list(question.answers), "answer_start": list(question.starts)},
            }
            for question in questions.questions
        ],
    )
    assert found == score(questions.questions, texts, version=questions.version).as_dict()
    assert list(sealed.iterdir()) == []


def test_the_version_decides(sealed):
    rows = {"predictions": [prediction("x", "The")], "references": [reference("x", "A")]}
    assert SquadMetric("1.1").compute(**rows)["f1"] == 0
    assert SquadMetric("2.0").compute(**rows)["f1"] == 100


def test_batches_add_up_and_the_metric_can_be_used_again(sealed):
    metric = SquadMetric("2.0")
    metric.add_batch(predictions=[prediction("x", "cat")], references=[reference("x", "cat")])
    metric.add(prediction=prediction("y", "cat"), reference=reference("y"))
    assert metric.compute()["exact_match"] == 50
    again = metric.compute(predictions=[prediction("z", "")], references=[reference("z")])
    assert again == {
        "exact_match": 100,
        "f1": 100,
        "count": 1,
        "NoAns_exact_match": 100,
        "NoAns_f1": 100,
        "NoAns_count": 1,
    }
    assert list(sealed.iterdir()) == []


def test_files_are_kept_only_where_asked(sealed):
    metric = SquadMetric("1.1", keep_in_memory=False, cache_dir=str(sealed / "asked"))
    assert (
        metric.compute(predictions=[prediction("x", "cat")], references=[reference("x", "cat")])["f1"] == 100
    )
    assert [path.name for path in sealed.iterdir()] == ["asked"]


@pytest.mark.parametrize(
    ("ids", "gold_ids", "words"),
    [
        ("xx", "xy", "predictions: question id 'x' occurs twice"),
        ("xy", "yy", "'y' occurs twice in the data"),
        ("", "", "no questions"),
    ],
)
def test_rows_that_cannot_be_scored(sealed, ids, gold_ids, words):
    metric = SquadMetric("1.1")
    with pytest.raises(UserError, match=words):
        metric.compute(
            predictions=[prediction(id_, "cat") for id_ in ids],
            references=[reference(id_, "cat") for id_ in gold_ids],
        )


def test_unknown_version():
    with pytest.raises(UserError, match=r"'squad_v2'; it must be one of 1\.1, 2\.0"):
        SquadMetric("squad_v2")
