"""What Compare keeps: files are read once, changed ones again, and what is shown is said of the right one."""

import os
import shutil

import numpy as np
import pytest
import streamlit as st

import comparisons
from dashboard.comparing import cards, choosing, configured, exporting
from dashboard.comparing.asked import in_order, matches
from dashboard.data import comparison
from dashboard.data.comparison import board, candidate, common_data
from dashboard.data.experiments import Index
from qa.differing import setting_rows
from qa.experiment import Experiment
from qa.run import keep_dataset
from qa.squad import Question, load_questions

QUESTIONS = load_questions("pocket", "validation").limited(40)


@pytest.fixture(autouse=True)
def nothing_kept():
    st.cache_data.clear()
    st.cache_resource.clear()


@pytest.fixture
def pair(tmp_path):
    """Candidates `one` and `two`."""
    return [
        candidate(comparisons.trained(tmp_path, name, QUESTIONS, share=share, seed=seed))
        for seed, (name, share) in enumerate((("one", 0.4), ("two", 0.7)))
    ]


@pytest.fixture
def reads(monkeypatch):
    """The names of the experiments whose answers are read from the disk."""
    found, real = [], comparison.read_answers

    def read(scored, questions):
        found.append(scored.experiment.name)
        return real(scored, questions)

    monkeypatch.setattr(comparison, "read_answers", read)
    return found


def board_of(pair):
    return board(pair, QUESTIONS.sha256())


def test_answers_are_read_once_and_again_when_they_change(pair, reads):
    first = board_of(pair)
    assert board_of(pair).key == first.key
    assert reads == ["one", "two"]
    file = pair[1].experiment.path / "predictions.jsonl"
    text = file.read_text()
    file.unlink()
    file.write_text(text.replace('"exact_match": 0.0', '"exact_match": 1.0'))
    second = board_of(pair)
    assert reads == ["one", "two", "two"]
    assert second.key != first.key
    assert second.answers[1].right.all()
    assert comparison.scores(second)[1][0].value == 100
    assert comparison.scores(first)[1][0].value < 100


def test_hard_links_are_read_once_under_names_of_their_own(pair, reads, tmp_path):
    linked = tmp_path / "three"
    shutil.copytree(pair[0].experiment.path, linked, copy_function=os.link)
    found = board([*pair, candidate(Experiment(linked))], QUESTIONS.sha256())
    assert found.names == ("one", "two", "three")
    assert reads == ["one", "two"]
    assert found.answers[2].right.tolist() == found.answers[0].right.tolist()
    assert [each.names for each in comparison.comparisons(found)] == [("one", "two"), ("one", "three")]


def test_a_candidate_is_looked_at_again_when_a_file_changes(pair):
    experiment = pair[0].experiment
    (experiment.path / "metrics.json").unlink()
    assert candidate(experiment).sets == {}
    assert "metrics.json" in candidate(experiment).problems[0]
    metrics = {"exact_match": 1.0, "f1": 2.0, "count": 40, "dataset": "d"}
    experiment.write_evaluation(keep_dataset(experiment.path.parent, QUESTIONS), metrics, [])
    assert [*candidate(experiment).sets] == [QUESTIONS.sha256()]


def test_a_candidate_is_looked_at_again_when_answers_or_model_come_or_go(pair, tmp_path):
    experiment = pair[0].experiment
    assert (pair[0].has_model, pair[0].problems) == (False, ())
    model = experiment.path / "best_model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    predictions = experiment.path / "predictions.jsonl"
    predictions.rename(tmp_path / "kept")
    changed = candidate(experiment)
    assert changed.has_model
    assert "predictions.jsonl" in changed.problems[0]
    (tmp_path / "kept").rename(predictions)
    (model / "config.json").unlink()
    again = candidate(experiment)
    assert (again.has_model, again.problems) == (False, ())


def test_common_data_are_named(pair):
    assert common_data(pair) == {QUESTIONS.sha256(): "validation.json"}
    assert common_data(pair[:1]) == {QUESTIONS.sha256(): "validation.json"}
    assert common_data([]) == {}


def test_two_to_begin_with_are_on_the_same_data(tmp_path, pair):
    comparisons.trained(tmp_path, "zzz", QUESTIONS.limited(10), share=0.5)
    assert choosing.suggested(Index(tmp_path).visit()) == ["one", "two"]
    shutil.rmtree(tmp_path / "one")
    assert choosing.suggested(Index(tmp_path).visit()) == ["zzz"]
    assert choosing.suggested([]) == []


def test_order_and_search(pair):
    found = board_of(pair)
    first, second = found.answers
    everything = np.arange(40)
    change = second.f1s - first.f1s
    assert change[in_order(everything, first, second, "gain")].tolist() == sorted(change, reverse=True)
    assert change[in_order(everything, first, second, "loss")].tolist() == sorted(change)
    assert first.f1s[in_order(everything, first, None, "low")].tolist() == sorted(first.f1s)
    assert in_order(everything, first, second, "data").tolist() == everything.tolist()
    id_ = QUESTIONS.questions[3].id
    assert np.flatnonzero(matches(found, id_)).tolist() == [3]
    assert matches(found, " ").all()
    given = second.texts[5]
    assert matches(found, given)[5]


CONTEXT = "ab <cd> ef"


def answer_at(*spans):
    """Stand-ins for answers to one question, with those spans."""
    return [type("Answers", (), {"spans": (span,)}) for span in spans]


def marked(golds, *spans):
    texts = tuple(CONTEXT[start:end] for start, end in golds)
    question = Question("i", "", "", "q", CONTEXT, texts, tuple(start for start, _ in golds))
    found = cards.marked(question, answer_at(*spans), 0)
    gold = f'<mark style="{cards.GOLD}">'
    return found.replace(gold, "[").replace("</mark>", "]"), found


def test_gold_and_answers_are_marked_where_they_are():
    assert marked([(3, 7)])[0] == "ab [&lt;cd&gt;] ef"
    assert marked([])[0] == "ab &lt;cd&gt; ef"
    assert marked([], None, (0, 0))[0] == "ab &lt;cd&gt; ef"
    _, found = marked([(0, 2)], (1, 4), (1, 4))
    assert found.count("<sup") == 2
    assert found.count("<mark") == 2, "the gold answer is cut where the others begin"


@pytest.mark.parametrize("span", [(5, 99), (-3, 2), (4, 3)])
def test_a_span_that_is_none_marks_nothing(span):
    assert marked([], span)[0] == "ab &lt;cd&gt; ef"


def test_axes_are_settings_that_vary_and_matter():
    rows = setting_rows([{"seed": 1, "group": "a", "environment.torch": "1"}, {"seed": 2, "group": "b"}])
    assert [row.key for row in configured.axes(rows)] == ["seed"]


def test_exports_hold_the_numbers_of_the_page(pair):
    found = board_of(pair)
    heading, rows = exporting.score_table(found)
    table = [dict(zip(heading, row, strict=True)) for row in rows]
    (pair_found,) = comparison.comparisons(found)
    f1 = next(row for row in table if row["experiment"] == "two" and row["metric"] == "f1")
    expected = next(item for item in pair_found.differences if item.metric == "f1")
    assert (f1["value_percent"], f1["difference_points"]) == (expected.second, expected.difference)
    assert (f1["difference_low"], f1["difference_high"]) == expected.interval
    exact = next(row for row in table if row["experiment"] == "two" and row["metric"] == "exact_match")
    assert exact["mcnemar_p"] == exact["mcnemar_p_holm"] == pair_found.p_value
    heading, rows = exporting.answer_table(found)
    assert len(rows) == 40
    assert [row[heading.index("two: f1")] for row in rows] == found.answers[1].f1s.tolist()
    assert exporting.latex(found).count(r"\\" + "\n") == 3
    heading, rows = exporting.slice_table(found)
    assert {len(row) for row in rows} == {len(heading)}


def test_the_report_holds_everything_and_hostile_names_are_text(tmp_path):
    questions = comparisons.hostile(6)
    chosen = [
        candidate(comparisons.trained(tmp_path, f"e{seed}", questions, share=0.5, seed=seed, group="g"))
        for seed in (1, 2)
    ]
    page = exporting.report(chosen, board(chosen, questions.sha256()))
    titles = (
        "Scores: all questions, 6",
        "Right and wrong",
        "Learning curves",
        "Settings that differ",
        "Seeds",
    )
    for title in titles:
        assert f"<h2>{title}</h2>" in page
    assert "&lt;i&gt;$hostile$&lt;/i&gt; :smile:.json" in page
    assert "<script" not in page
    assert "<i>" not in page
    assert page.count("<svg") >= 3
    page.encode("utf-8")


def test_what_is_missing_of_a_slice_is_a_dash_in_the_report(pair):
    page = exporting.report(pair, board_of(pair))
    slices = page.partition("<h2>Slices</h2>")[2].partition("<h2>")[0]
    assert '<td class="number">–</td>' in slices
    assert ">nan<" not in page


def test_p_values_of_several_are_adjusted(pair, tmp_path):
    third = candidate(comparisons.trained(tmp_path, "three", QUESTIONS, share=0.6, seed=3))
    found = board_of([*pair, third])
    values = [one.p_value for one in comparison.comparisons(found)]
    heading, rows = exporting.paper_table(found)
    assert heading[-1] == "McNemar p, Holm"
    smallest = min(1.0, 2 * min(values))
    by_hand = [smallest if value == min(values) else max(value, smallest) for value in values]
    assert [row[-1] for row in rows] == ["reference", *(f"{value:.2g}" for value in by_hand)]
    assert exporting.paper_table(board_of(pair))[0][-1] == "McNemar p"
