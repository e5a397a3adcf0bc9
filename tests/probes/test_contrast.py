"""The tables of `contrast`: one run killed and resumed gives the same, and they say what was planted."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import paper
import small_runs
from probes import contrast as module
from probes.__main__ import main
from probes.analyses import FOLDER, read_analysis
from probes.contrast import contrast, rank, rows_of, summarise_rows
from probes.contrast_files import (
    LABELS,
    MEASURES,
    METHODS,
    RANDOM,
    ROWS,
    SHARES,
    SUMMARY,
    finding,
    read_summaries,
)
from probes.faithfulness import faithfulness
from probes.targets import Asked, Target
from qa.errors import UserError
from qa.experiment import Experiment
from qa.intervals import paired_interval, paragraph_interval
from qa.squad import Question


@pytest.fixture
def experiment(tmp_path):
    return small_runs.imported(tmp_path / "experiments", "one")


@pytest.fixture
def questions(experiment):
    return experiment.validation_questions()


def test_on_the_model_that_needs_one_word_every_method_finds_it():
    """Beside the answer, which attends to that word alone, nothing matters; random rankings do much worse."""
    question = Question("q", "", "p", paper.QUESTION, paper.CONTEXT, (), ())
    rows = {row["method"]: row for row in rows_of(paper.reader(), question)}
    assert list(rows) == list(LABELS)
    for method in METHODS:
        # Each share masks, or keeps, that word at least.
        assert rows[method]["comprehensiveness"] == pytest.approx(1, abs=1e-6), method
        assert rows[method]["sufficiency"] == pytest.approx(0, abs=1e-6), method
    assert rows[RANDOM]["comprehensiveness"] < 0.6
    assert rows["integrated_gradients"]["steps"] >= 32
    assert rows["integrated_gradients"]["delta_share"] <= 0.01
    assert rows["attention"]["steps"] is None
    assert {row["words"] for row in rows.values()} == {18}
    assert min(row["probability"] for row in rows.values()) == pytest.approx(1, abs=1e-6)


def test_numbers_are_means_over_the_inner_shares(reader_of):
    reader = reader_of("deberta-v3")
    question = Question("q", "", "p", "Who?", "My favorite color is red, and the cat sat on it.", (), ())
    asked = Asked.of(reader, question.question, question.context)
    rankings, _ = rank(asked, asked.fix(Target()))
    found = faithfulness(asked, asked.fix(Target()), rankings, random=3)
    assert found.curves["attention"].shares.tolist() == list(SHARES)
    for row in rows_of(reader, question):
        curves = found.random.curves if row["method"] == RANDOM else [found.curves[row["method"]]]
        for measure, name in (("comprehensiveness", "without"), ("sufficiency", "only")):
            losses = [curve.full - getattr(curve, name)[1:6] for curve in curves]
            assert row[measure] == pytest.approx(np.mean(losses), abs=1e-6)


def test_a_question_without_anything_to_explain_is_left_out(reader_of):
    assert not list(rows_of(reader_of("bert"), Question("q", "", "p", "Who?", "\u200b", (), ())))


def test_resumed_it_gives_the_same_files(experiment, questions, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "QUESTIONS_OF_PART", 3)
    seen, real = [], module.rows_of

    def counted(reader, question):
        seen.append(question.id)
        if len(seen) == 5:
            raise KeyboardInterrupt
        return real(reader, question)

    monkeypatch.setattr(module, "rows_of", counted)
    with pytest.raises(KeyboardInterrupt):
        contrast(experiment, questions)
    assert not read_summaries(experiment)[0]
    done = []
    made = contrast(experiment, questions, progress=lambda *at: done.append(at))
    ids = [question.id for question in questions.questions]
    assert seen == [*ids[:5], *ids[3:]]  # the first part was kept, the second begun again
    assert done == [(6, 8), (8, 8)]
    kept = made.path.read_bytes(), made.rows_path.read_bytes()
    assert sorted(file.name for file in (experiment.path / FOLDER).iterdir()) == [
        made.rows_path.name,
        made.path.name,
    ]
    again = contrast(experiment, questions)  # it is all there
    assert (len(seen), again.rows) == (10, made.rows)
    made.rows_path.unlink()
    made.path.unlink()
    whole = contrast(experiment, questions)
    assert (whole.path.read_bytes(), whole.rows_path.read_bytes()) == kept
    table = read_analysis(made.rows_path, ROWS, model=None).table
    assert table.num_rows == len(ids) * len(LABELS)
    assert made.rows == summarise_rows(table).to_pylist()


def rows_with(values):
    """Rows of 12 questions of 4 paragraphs with these comprehensivenesses, sufficiency being 1 less."""
    return [
        {
            "id": f"q{number}",
            "paragraph": f"p{number % 4}",
            "method": method,
            "comprehensiveness": value + 0.01 * (number % 4),
            "sufficiency": 1 - value + 0.01 * (number % 4),
        }
        for number in range(12)
        for method, value in values.items()
    ]


def test_means_and_intervals():
    values = dict.fromkeys(LABELS, 0.3) | {"rollout": 0.5, RANDOM: 0.1}
    rows = rows_with(values)
    table = summarise_rows(pa.Table.from_pylist(rows, schema=ROWS.columns)).to_pylist()
    assert [(row["method"], row["measure"]) for row in table] == [(n, m) for n in LABELS for m in MEASURES]
    (row,) = (row for row in table if (row["method"], row["measure"]) == ("rollout", "comprehensiveness"))
    own = [one["comprehensiveness"] for one in rows if one["method"] == "rollout"]
    paragraphs = [one["paragraph"] for one in rows if one["method"] == "rollout"]
    assert row["mean"] == pytest.approx(np.mean(own))
    assert (row["low"], row["high"]) == pytest.approx(paragraph_interval(own, paragraphs))
    chance = [one["comprehensiveness"] for one in rows if one["method"] == RANDOM]
    over = paired_interval(chance, own, paragraphs=paragraphs)
    assert (row["over_random_low"], row["over_random_high"]) == pytest.approx(over)
    assert (row["over_random"], row["count"]) == (pytest.approx(0.4), 12)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"rollout": 0.9}, "attention rollout is the most faithful, clear of all others."),
        ({"rollout": 0.31}, "attention rollout is the most faithful, clear of all others."),
        ({RANDOM: 0.5}, "raw attention is the most faithful, though not surely better than chance."),
    ],
)
def test_what_was_found_is_said_and_hedged(values, said):
    rows = rows_with(dict.fromkeys(METHODS, 0.3) | {RANDOM: 0.1} | values)
    sentence = finding(summarise_rows(pa.Table.from_pylist(rows, schema=ROWS.columns)).to_pylist())
    assert f"By comprehensiveness (higher is better) {said}" in sentence
    assert f"By sufficiency (lower is better) {said}" in sentence
    one = [row | {"paragraph": "p"} for row in rows]
    hedged = finding(summarise_rows(pa.Table.from_pylist(one, schema=ROWS.columns)).to_pylist())
    assert "with one paragraph there is no telling how sure that is" in hedged


def test_distances_to_the_best_are_paired():
    """A method that is a little better on most questions and worse on some cannot be told apart."""
    values = dict.fromkeys(METHODS, 0.3) | {"rollout": 0.5, "value_norm": 0.5, RANDOM: 0.1}
    rows = rows_with(values)
    for row in rows:
        if row["method"] == "value_norm":
            change = -0.05 if row["paragraph"] == "p3" else 0.01
            row["comprehensiveness"] += change
            row["sufficiency"] -= change
    table = summarise_rows(pa.Table.from_pylist(rows, schema=ROWS.columns)).to_pylist()
    found = {(row["method"], row["measure"]): row for row in table}
    own = {method: [row["comprehensiveness"] for row in rows if row["method"] == method] for method in LABELS}
    paragraphs = [row["paragraph"] for row in rows if row["method"] == RANDOM]
    behind = found["value_norm", "comprehensiveness"]
    expected = paired_interval(own["value_norm"], own["rollout"], paragraphs=paragraphs)
    assert behind["behind_best"] == pytest.approx(0.005)
    assert (behind["behind_best_low"], behind["behind_best_high"]) == pytest.approx(expected)
    assert found["rollout", "comprehensiveness"]["behind_best"] == 0
    assert found["attention", "sufficiency"]["behind_best_low"] == pytest.approx(0.2)
    assert found[RANDOM, "sufficiency"]["behind_best"] is None
    assert finding(table).startswith(
        "By comprehensiveness (higher is better) attention rollout is the most faithful, though it cannot be "
        "told apart from value-norm attention. By sufficiency"
    )


def test_no_row_at_all_is_refused():
    with pytest.raises(UserError, match="no question in it has an answer that could be explained"):
        summarise_rows(ROWS.columns.empty_table())


def test_the_command(experiment, capsys):
    root = str(experiment.path.parent)
    arguments = ["contrast", "one", "--experiments-dir", root, "--limit", "3"]
    assert main([*arguments, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert printed["count"] == 3
    assert set(printed) == {
        "finding",
        "count",
        *(f"{name}_{measure}" for name in LABELS for measure in MEASURES),
    }
    assert set(printed["rollout_sufficiency"]) == {"mean", "interval", "over_random"}
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "  attention × gradient" in out
    assert "is the most faithful" in out
    (summary,), problems = read_summaries(experiment)
    assert not problems
    assert summary.about["questions"] == 3
    assert main(["contrast", "two", "--experiments-dir", root]) == 2
    assert capsys.readouterr().err.startswith("probes contrast: no experiment 'two'")


def test_a_summary_of_another_model_or_cut_short_is_a_problem_to_show(experiment, questions):
    made = contrast(experiment, questions.limited(2))
    whole = made.path.read_bytes()
    made.path.write_bytes(whole[:-9])
    found, problems = read_summaries(experiment)
    assert not found
    assert "cut short" in problems[0]
    made.path.write_bytes(whole)
    (experiment.model_folder() / "more.json").write_text("{}")
    found, problems = read_summaries(experiment)
    assert not found
    assert "another model" in problems[0]
    assert pq.read_schema(made.path).names == SUMMARY.columns.names
    assert read_summaries(Experiment(experiment.path.parent / "none")) == ([], [])
