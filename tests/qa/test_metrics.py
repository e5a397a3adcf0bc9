"""Scores against the official script's own results and hand-computed cases."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qa.errors import UserError
from qa.metrics import (
    check_version,
    normalize,
    read_predictions,
    score,
    score_answer,
)
from qa.squad import Question, read_squad

VERSIONS = ("1.1", "2.0")
# Articles, punctuation and repeats are common here, so that answers often collide or normalise to nothing.
texts = st.lists(st.sampled_from(["a", "The", "an", "cat", "Cat's", "dog", "dog", "-", "1745", "é"])).map(
    " ".join
)
golds = st.lists(texts, min_size=1, max_size=4)
versions = st.sampled_from(VERSIONS)


def question(id_, *answers):
    return Question(id_, "Title", "Title/0", "Who?", "A context.", answers, (0,) * len(answers))


@pytest.mark.parametrize("name", ["bert-ensemble-v1.1.json", "r-net-plus-v1.1.json", "bert-single-v2.0.json"])
def test_official_scores(squad_dir, name):
    official = json.loads((squad_dir / "predictions" / "official_scores.json").read_text())[name]
    questions = read_squad(squad_dir / official["dataset"])
    predictions = read_predictions(squad_dir / "predictions" / name)
    assert len(predictions) == official["predictions"]

    scores = score(questions.questions, predictions, version=questions.version)
    ours = scores.as_dict()

    expected = {
        key.replace("exact", "exact_match").replace("total", "count"): value
        for key, value in official.items()
        if key.endswith(("exact", "f1", "total")) and (questions.version == "2.0" or "_" not in key)
    }
    assert ours == pytest.approx(expected, abs=1e-9, rel=0)
    assert (scores.missing, scores.extra) == ((), ())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  quick\tbrown\nfox", "quick brown fox"),
        ("An apple, a day.", "apple day"),
        ("Theatre analysis", "theatre analysis"),
        ("rock-and-roll", "rockandroll"),
        ("A.n", ""),  # punctuation goes first, so this becomes an article
        ("the-end", "theend"),
        ("«Łazienki» – Park", "«łazienki» – park"),  # only ASCII punctuation goes
        ("", ""),
    ],
)
def test_normalize(text, expected):
    assert normalize(text) == expected


@given(st.text())
def test_normalize_is_idempotent(text):
    assert normalize(normalize(text)) == normalize(text)


@pytest.mark.parametrize("version", VERSIONS)
def test_f1_by_hand(version):
    # Shared words: cat, sat; precision 2/3, recall 2/4.
    assert score_answer("the cat sat down", ["cat sat on mats"], version=version) == (
        0.0,
        pytest.approx(2 * (2 / 3) * (2 / 4) / (2 / 3 + 2 / 4)),
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_repeated_words_count_as_often_as_both_have_them(version):
    assert score_answer("ha ha ha", ["ha ha"], version=version) == (0.0, pytest.approx(2 * 2 / (3 + 2)))


@pytest.mark.parametrize("version", VERSIONS)
def test_f1_takes_its_own_maximum(version):
    exact_match, f1 = score_answer("red car", ["big red car", "blue bike", "red"], version=version)
    assert (exact_match, f1) == (0.0, pytest.approx(0.8))
    assert score_answer("red", ["big red car", "red"], version=version) == (1.0, 1.0)


@pytest.mark.parametrize(("version", "expected"), [("1.1", (1.0, 0.0)), ("2.0", (1.0, 1.0))])
def test_answer_and_prediction_empty_after_normalisation(version, expected):
    assert score_answer("The", ["A"], version=version) == expected


def test_v2_drops_answers_empty_after_normalisation_when_there_are_others():
    assert score_answer("The", ["A", "cat"], version="2.0") == (0.0, 0.0)
    assert score_answer("The", ["A", "cat"], version="1.1") == (1.0, 0.0)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("prediction", "gold"), [("The", "cat"), ("cat", "The")])
def test_one_side_empty_after_normalisation(version, prediction, gold):
    assert score_answer(prediction, [gold], version=version) == (0.0, 0.0)


def test_unanswerable_wants_the_empty_text():
    assert score_answer("", [], version="2.0") == (1.0, 1.0)
    assert score_answer("the", [], version="2.0") == (1.0, 1.0)
    assert score_answer("cat", [], version="2.0") == (0.0, 0.0)


@given(texts, golds, versions)
def test_exact_match_is_at_most_f1_where_a_word_is_left(prediction, answers, version):
    exact_match, f1 = score_answer(prediction, answers, version=version)
    assert 0 <= f1 <= 1
    assert exact_match in (0, 1)
    if version == "2.0" or normalize(prediction):
        assert exact_match <= f1


@given(texts, texts, versions)
def test_f1_is_symmetric(a, b, version):
    assert score_answer(a, [b], version=version)[1] == score_answer(b, [a], version=version)[1]


@given(texts, golds, versions, st.randoms(use_true_random=False))
def test_the_order_of_golds_changes_nothing(prediction, answers, version, random):
    shuffled = random.sample(answers, len(answers))
    assert score_answer(prediction, answers, version=version) == score_answer(
        prediction, shuffled, version=version
    )


@given(texts, golds)
def test_f1_against_precision_and_recall_by_striking_words_out(prediction, answers):
    def f1(gold):
        left = normalize(gold).split()
        words = normalize(prediction).split()
        recall_of, hits = len(left), 0
        for word in words:
            if word in left:
                left.remove(word)
                hits += 1
        if not hits:
            return 0.0
        precision, recall = hits / len(words), hits / recall_of
        return 2 * precision * recall / (precision + recall)

    assert score_answer(prediction, answers, version="1.1")[1] == pytest.approx(
        max(map(f1, answers)), abs=1e-12
    )


def test_scores_in_question_order():
    questions = [question("x", "cat"), question("y"), question("z", "big dog")]
    scores = score(questions, {"z": "dog", "y": "", "x": "bird"}, version="2.0")
    np.testing.assert_array_equal(scores.exact_matches, [0, 1, 0])
    np.testing.assert_allclose(scores.f1s, [0, 1, 2 / 3], rtol=1e-15)
    np.testing.assert_array_equal(scores.answerable, [True, False, True])
    assert scores.exact_matches.dtype == scores.f1s.dtype == np.float64
    assert scores.as_dict() == pytest.approx(
        {
            "exact_match": 100 / 3,
            "f1": 500 / 9,
            "count": 3,
            "HasAns_exact_match": 0.0,
            "HasAns_f1": 100 / 3,
            "HasAns_count": 2,
            "NoAns_exact_match": 100.0,
            "NoAns_f1": 100.0,
            "NoAns_count": 1,
        }
    )
    assert json.loads(json.dumps(scores.as_dict()))["HasAns_count"] == 2


@pytest.mark.parametrize("version", VERSIONS)
def test_missing_predictions_score_zero_and_are_listed(version):
    scores = score([question("x", "cat"), question("y", "dog")], {"x": "cat"}, version=version)
    assert (scores.exact_match, scores.f1, scores.count) == (50, 50, 2)
    assert scores.missing == ("y",)


def test_a_missing_prediction_is_not_a_refusal():
    scores = score([question("y"), question("z", "A")], {}, version="2.0")
    assert (scores.exact_match, scores.f1, scores.missing) == (0, 0, ("y", "z"))


def test_extra_predictions_are_ignored_and_listed():
    scores = score([question("x", "cat")], {"q": "cat", "x": "cat", "p": ""}, version="1.1")
    assert (scores.exact_match, scores.count, scores.extra) == (100, 1, ("q", "p"))


def test_v1_has_no_groups():
    scores = score([question("x", "cat")], {"x": "cat"}, version="1.1")
    assert scores.as_dict() == {"exact_match": 100, "f1": 100, "count": 1}


@pytest.mark.parametrize(("answers", "absent"), [(("cat",), "NoAns"), ((), "HasAns")])
def test_a_group_without_questions_has_no_keys(answers, absent):
    keys = score([question("x", *answers)], {"x": "cat"}, version="2.0").as_dict().keys()
    assert len(keys) == 6
    assert not any(key.startswith(absent) for key in keys)


@pytest.mark.parametrize(
    ("questions", "version", "words"),
    [
        ([], "2.0", "no questions"),
        ([question("x", "cat"), question("y", "cat"), question("x", "dog")], "1.1", "'x' occurs twice"),
        ([question("x", "cat"), question("y")], "1.1", "'y' has no gold answer"),
        ([question("x", "cat")], "v2.0", "'v2.0'; it must be one of 1.1, 2.0"),
    ],
)
def test_questions_that_cannot_be_scored(questions, version, words):
    with pytest.raises(UserError, match=words):
        score(questions, {}, version=version)


def test_known_versions_are_accepted():
    for version in VERSIONS:
        check_version(version)


def test_read_predictions(tmp_path):
    path = tmp_path / "predictions.json"
    path.write_bytes(
        '\ufeff{"x": "Łazienki Park", "y": ""}'.encode()
    )  # with a byte order mark, as from Windows
    assert read_predictions(path) == {"x": "Łazienki Park", "y": ""}
    path.write_text('{"\\ud83d": "half \\udc4d"}')
    assert read_predictions(path) == {"\ufffd": "half \ufffd"}, "as questions are read"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"x": "cat", "y": "", "x": "cat"}', "'x' occurs twice"),
        (b'{"x": null}', "'x' has null, not a text"),
        (b'{"x": 0.25}', "'x' has 0.25, not a text"),
        (b'{"x": {"text": "cat"}}', "'x' has an object, not a text"),
        (b'{"x": [{"text": "cat"}]}', "'x' has an array, not a text"),
        (b'[{"id": "x", "prediction_text": "cat"}]', "holds an array, not an object"),
        (b'"cat"', 'holds "cat", not an object'),
        (b'{"x": "cat"', "not a JSON file"),
        (b"", "not a JSON file"),
        (b'{"x": "\xff"}', "not a JSON file"),
        (b"[" * 200_000, "not a JSON file"),
    ],
)
def test_predictions_that_are_refused(tmp_path, content, words):
    path = tmp_path / "predictions.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=words) as raised:
        read_predictions(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_predictions_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match=r"cannot be read \(No such file"):
        read_predictions(tmp_path / "absent.json")
    with pytest.raises(UserError, match=r"cannot be read \(Is a directory"):
        read_predictions(tmp_path)


def test_scores_are_values():
    scores = score([question("x", "cat")], {"x": "cat"}, version="1.1")
    assert set(asdict(scores)) == {"version", "exact_matches", "f1s", "answerable", "missing", "extra"}
    with pytest.raises(AttributeError):
        scores.version = "2.0"
