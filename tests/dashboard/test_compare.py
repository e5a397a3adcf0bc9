"""The page Compare without a browser: every state of the folder, and what each part says."""

import builtins
import html
import io
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

import comparisons
import folders
from dashboard import state
from dashboard.comparing import asked, configured, offering
from dashboard.data import evaluating
from qa.comparison import compare
from qa.differing import Row
from qa.experiment import Experiment
from qa.run import keep_dataset
from qa.squad import QuestionSet, load_questions

QUESTIONS = load_questions("pocket", "validation").limited(60)
OTHER = load_questions("pocket", "validation").limited(30)
PARTS = ("Scores", "Questions", "Slices", "Curves", "Settings", "Seeds", "Export")


@pytest.fixture
def pair(tmp_path):
    """Two experiments on the same questions, `one` and `two`."""
    for name, share in (("one", 0.4), ("two", 0.7)):
        comparisons.trained(
            tmp_path, name, QUESTIONS, share=share, seed=len(name) + int(10 * share), epochs=share
        )
    return tmp_path


def said(at) -> str:
    """Everything a reader of the page sees as text."""
    kinds = ("title", "subheader", "markdown", "caption", "info", "warning", "error", "html")
    texts = [
        str(getattr(item, "value", "") or getattr(item, "body", ""))
        for kind in kinds
        for item in at.get(kind)
    ]
    cards = [f"{metric.label} {metric.value} {metric.delta}" for metric in at.metric]
    return "\n".join([*texts, *cards]).replace("\\", "")


def bodies(at) -> str:
    """All that was given to the browser as HTML."""
    return "\n".join(item.proto.body for item in at.get("html"))


def table(at, number=0):
    return at.dataframe[number].value


def test_an_empty_folder_says_how_to_begin(open_page, tmp_path):
    at = open_page("compare", tmp_path)
    assert not at.exception
    assert "no experiment yet" in said(at)


def test_without_a_link_the_two_newest_on_the_same_data_are_compared(open_page, pair):
    at = open_page("compare", pair)
    assert not at.exception
    assert at.query_params["runs"] in ("one,two", ["one,two"])
    assert at.multiselect[0].value == ["one", "two"]
    assert at.selectbox[0].value == "one"


def test_scores_differences_and_the_test_are_those_of_the_comparison(open_page, pair):
    at = open_page("compare", pair, runs="one,two")
    assert not at.exception
    found = compare(Experiment(pair / "one"), Experiment(pair / "two"))
    exact, f1 = found.differences[:2]
    rows = table(at)
    assert [*rows["experiment"]] == ["one (reference)", "two"]
    assert rows["f1"].tolist() == pytest.approx([f1.first, f1.second])
    assert rows["exact_match_change"].iloc[1] == pytest.approx(exact.difference)
    assert rows["f1_change_interval"].iloc[1] == f"{f1.interval[0]:+.2f} to {f1.interval[1]:+.2f}"
    assert rows["p"].iloc[1] == f"{found.p_value:.2g}"
    text = said(at)
    assert f"p = {found.p_value:.2g}" in text
    assert f"{exact.difference:+.2f} points" in text
    assert f"{len(QUESTIONS.questions)} questions on" in text
    assert "paired" in text


def test_the_reference_is_the_first_and_can_be_changed(open_page, pair):
    at = open_page("compare", pair, runs="two,one")
    assert table(at)["experiment"].iloc[0] == "two (reference)"
    at.selectbox[0].set_value("one").run()
    assert not at.exception
    assert table(at)["experiment"].iloc[0] == "one (reference)"
    assert at.query_params["runs"] in ("one,two", ["one,two"])


def test_questions_without_an_answer_have_scores_of_their_own(open_page, pair):
    at = open_page("compare", pair, runs="one,two")
    at.segmented_control(key="compare_part").set_value("NoAns_").run()
    assert not at.exception
    found = compare(Experiment(pair / "one"), Experiment(pair / "two"))
    expected = next(item for item in found.differences if item.metric == "NoAns_f1")
    assert table(at)["f1"].tolist() == pytest.approx([expected.first, expected.second])
    assert "p" not in table(at)


@pytest.mark.parametrize("part", PARTS)
def test_every_part_with_one_two_and_three_experiments(open_page, pair, part):
    comparisons.trained(pair, "three", QUESTIONS, share=0.5, seed=9, steps=0, group="g")
    for runs in ("one", "one,two", "one,two,three"):
        at = open_page("compare", pair, runs=runs, part=part)
        assert not at.exception, (runs, at.exception)
        assert not at.error
    assert at.segmented_control(key="part").value == part


def test_nothing_chosen_says_what_to_do(open_page, pair):
    at = open_page("compare", pair, runs=",")
    assert not at.exception
    assert "Choose two experiments or more" in said(at)


def test_a_link_to_what_is_not_there(open_page, pair):
    at = open_page("compare", pair, runs="one,gone,../x,one,<b>,two")
    assert not at.exception
    assert at.multiselect[0].value == ["one", "two"]
    assert "Not in this folder, and left out: gone, ../x, <b>." in said(at)


@pytest.mark.parametrize("kind", [*folders.BREAKING])
def test_every_way_to_be_broken_is_named(open_page, pair, kind):
    folders.broken(pair, kind)
    for part in ("Scores", "Settings"):
        at = open_page("compare", pair, runs=f"one,broken-{kind},two", part=part)
        assert not at.exception
        assert f"broken-{kind}" in said(at) or not Experiment(pair / f"broken-{kind}").problems()
    at = open_page("compare", pair, runs=f"broken-{kind},one", part="Scores")
    assert not at.exception


@pytest.mark.parametrize("broken", ["one", "two"])
def test_answers_that_cannot_be_read_are_left_out_by_name(open_page, pair, broken):
    (pair / broken / "predictions.jsonl").write_text('{"id": "x", "exact_match": 0.5, "f1": 2}\n')
    at = open_page("compare", pair, runs="one,two")
    assert not at.exception
    assert f"{broken} is left out: predictions.jsonl: line 1: scores 0.5 and 2" in said(at)
    kept = {"one": "two", "two": "one"}[broken]
    assert [*table(at)["experiment"]] == [f"{kept} (reference)"]
    assert ("The reference is now two" in said(at)) is (broken == "one")


def test_questions_that_are_gone_are_said(open_page, pair):
    for file in (pair / ".datasets").iterdir():
        file.unlink()
    for part in PARTS:
        at = open_page("compare", pair, runs="one,two", part=part)
        assert not at.exception
        assert "bring this folder along" in said(at)


@pytest.fixture
def apart(pair):
    """The pair, and `third` on other data; nobody has a model."""
    comparisons.trained(pair, "third", OTHER, share=0.5)
    return pair


def test_other_data_are_shown_but_not_paired(open_page, apart):
    at = open_page("compare", apart, runs="one,two,third")
    assert not at.exception
    assert [*table(at)["experiment"]] == ["one (reference)", "two"]
    assert table(at, 1)["f1"].tolist() == pytest.approx([Experiment(apart / "third").metrics()["f1"]])
    text = said(at)
    assert "third cannot be paired with one here: it was scored on validation.json" in text.replace("**", "")
    assert "third has no model, so it cannot be evaluated on other data" in text
    assert not at.button


def test_what_has_a_model_can_be_evaluated_on_the_others_data(open_page, apart, monkeypatch):
    started = []
    monkeypatch.setattr(evaluating, "start", lambda *arguments, **names: started.append((arguments, names)))
    (apart / "third" / "best_model").mkdir()
    (apart / "third" / "best_model" / "config.json").write_text("{}")
    at = open_page("compare", apart, runs="one,third")
    assert at.button[0].label == "Evaluate third"
    at.button[0].click().run()
    assert not at.exception
    experiment, source = started[0][0]
    assert (experiment.name, source) == ("third", QUESTIONS.sha256())


def test_both_can_be_evaluated_on_other_data(open_page, pair, monkeypatch):
    started = []
    monkeypatch.setattr(evaluating, "start", lambda *arguments, **names: started.append((arguments, names)))
    for name in ("one", "two"):
        (pair / name / "best_model").mkdir()
        (pair / name / "best_model" / "config.json").write_text("{}")
    at = open_page("compare", pair, runs="one,two")
    assert at.selectbox(key=offering.SOURCE).value == offering.OTHER
    assert not at.button
    at.text_input(key=offering.PATH).set_value(" some/dev.json ").run()
    for button in at.button:
        button.click()
    at.run()
    assert not at.exception
    assert [(experiment.name, source) for (experiment, source), _ in started] == [
        ("one", "some/dev.json"),
        ("two", "some/dev.json"),
    ]


def test_a_refused_evaluation_is_said(open_page, apart):
    (apart / "third" / "best_model").mkdir()
    (apart / "third" / "best_model" / "config.json").write_text("{}")
    at = open_page("compare", apart, runs="one,third")
    (apart / "third" / "best_model" / "config.json").unlink()
    at.button[0].click().run()
    assert not at.exception
    assert "'third' has no model" in said(at)


def test_an_evaluation_on_common_data_is_paired(open_page, apart):
    found = comparisons.rows(OTHER, comparisons.answers(OTHER, share=0.9, seed=5))
    mean = 100 * sum(row["f1"] for row in found) / len(found)
    metrics = {"exact_match": 50.0, "f1": mean, "count": 30, "dataset": "validation.json"}
    Experiment(apart / "one").write_evaluation(keep_dataset(apart, OTHER), metrics, found)
    at = open_page("compare", apart, runs="one,third")
    assert not at.exception
    rows = table(at)
    assert [*rows["experiment"]] == ["one (reference)", "third"]
    assert rows["f1"].iloc[0] == pytest.approx(mean)
    assert rows["count"].tolist() == [30, 30]


def test_a_text_too_long_for_a_link_is_taken_along(open_page, apart, monkeypatch):
    found = comparisons.rows(OTHER, comparisons.answers(OTHER, share=0.9, seed=5))
    metrics = {"exact_match": 50.0, "f1": 50.0, "count": 30, "dataset": "validation.json"}
    for name in ("one", "two"):
        Experiment(apart / name).write_evaluation(keep_dataset(apart, OTHER), metrics, found)
    monkeypatch.setattr(state, "LONGEST_TEXT", 100)
    went = []
    monkeypatch.setattr(state, "go", lambda page, **values: went.append((page, values)))
    at = open_page("compare", apart, runs="one,two", part="Questions")
    box = at.selectbox(key="compare_data")
    box.set_value(OTHER.sha256()).run()
    next(button for button in at.button if button.label == "Ask this question").click().run()
    assert not at.exception
    ((page, values),) = went
    asked_ = next(one for one in OTHER.questions if one.question == values["question"])
    assert (page, values["experiment"], values["context"]) == ("ask", "one", asked_.context)


def test_of_several_common_data_sets_one_is_chosen(open_page, apart):
    for name in ("one", "two"):
        found = comparisons.rows(OTHER, comparisons.answers(OTHER, share=0.9, seed=len(name)))
        metrics = {"exact_match": 50.0, "f1": 50.0, "count": 30, "dataset": "other.json"}
        Experiment(apart / name).write_evaluation(keep_dataset(apart, OTHER), metrics, found)
    at = open_page("compare", apart, runs="one,two,third")
    box = at.selectbox(key="compare_data")
    assert box.value == OTHER.sha256(), "all three have it"
    assert table(at)["count"].tolist() == [30] * 3
    box.set_value(QUESTIONS.sha256()).run()
    assert not at.exception
    assert table(at)["count"].tolist() == [60] * 2


def test_running_and_failed_evaluations_are_shown(open_page, pair, monkeypatch):
    def one(name, **changes):
        values = {"data": "dev.json", "since": None, "alive": True, "progress": None, "failure": None}
        return evaluating.Evaluation(name, **values | {"note": pair / f"{name}.json", "pid": 1} | changes)

    listed = [one("one", progress=(30, 120)), one("two", alive=False, failure="qa evaluate: no <b>space</b>")]
    monkeypatch.setattr(evaluating, "started", lambda root: listed)
    at = open_page("compare", pair, runs="one,two")
    assert not at.exception
    assert "two on dev.json: qa evaluate: no <b>space</b>" in said(at).replace("**", "")
    assert "30 of 120 windows" in at.get("progress")[0].proto.text
    assert at.get("progress")[0].proto.value == 25
    stopped = []
    monkeypatch.setattr(evaluating, "stop", stopped.append)
    (stop,) = [one for one in at.button if one.label == "Stop"]
    stop.click().run()
    assert not at.exception
    assert stopped == listed[:1]


def test_cells_filter_questions(open_page, pair):
    found = compare(Experiment(pair / "one"), Experiment(pair / "two"))
    at = open_page("compare", pair, runs="one,two", part="Questions")
    counts = dict(zip(("both", "first", "second", "neither"), found.right, strict=True))
    for cell, count in counts.items():
        at.radio(key=asked.SHOWN).set_value(cell).run()
        assert not at.exception
        assert f"{count} question{'' if count == 1 else 's'} of 60" in said(at)
        shown = bodies(at)
        right = {"both": 2, "first": 1, "second": 1, "neither": 0}[cell]
        cards = min(count, asked.PER_PAGE)
        assert shown.count("✓ right") == right * cards
        assert shown.count("✗ wrong") == (2 - right) * cards


def test_a_click_on_a_cell_chooses_it(open_page, pair):
    at = open_page("compare", pair, runs="one,two", part="Questions")
    at.session_state[asked.CHART] = {"selection": {"cell": [{"cell": "second"}]}}
    spec = json.loads(at.get("vega_lite_chart")[0].proto.spec)
    assert any(item.get("name") == "cell" for item in spec["params"])


def test_search_order_and_results(open_page, pair):
    at = open_page("compare", pair, runs="one,two", part="Questions")
    id_ = QUESTIONS.questions[7].id
    at.text_input(key="compare_search").set_value(id_.upper()).run()
    assert "1 question of 60" in said(at)
    assert html.escape(QUESTIONS.questions[7].question) in bodies(at)
    at.text_input(key="compare_search").set_value("nothing has this").run()
    assert "No question is like that" in said(at)
    at.text_input(key="compare_search").set_value("").run()
    at.selectbox(key="compare_order").set_value("loss").run()
    first = bodies(at).partition("</table>")[0]
    assert "✓ right" in first.partition("</tr>")[0]
    assert "✗ wrong" in first.partition("</tr>")[2]
    at.segmented_control(key="compare_result_0").set_value("wrong").run()
    assert not at.exception
    assert "✓ right" not in "".join(part.partition("</tr>")[0] for part in bodies(at).split("<table")[1:])


def test_filters_outlive_a_look_at_another_part(open_page, pair):
    at = open_page("compare", pair, runs="one,two", part="Questions")
    at.radio(key=asked.SHOWN).set_value("first").run()
    at.selectbox(key="compare_order").set_value("loss").run()
    at.segmented_control(key="part").set_value("Slices").run()
    at.selectbox(key="compare_slicing").set_value("answerable").run()
    at.segmented_control(key="part").set_value("Questions").run()
    assert not at.exception
    assert at.radio(key=asked.SHOWN).value == "first"
    assert at.selectbox(key="compare_order").value == "loss"
    # On data without unanswerable questions there is no such slicing.
    answered = QuestionSet("some", "1.1", tuple(one for one in QUESTIONS.questions if one.answers), ())
    for name in ("three", "four"):
        comparisons.trained(pair, name, answered, share=0.5, seed=len(name))
    at.multiselect[0].set_value(["three", "four"]).run()
    at.segmented_control(key="part").set_value("Slices").run()
    assert not at.exception
    assert at.selectbox(key="compare_slicing").value != "answerable"


def test_who_cannot_be_paired_is_named_in_every_part_that_pairs(open_page, apart):
    for part in ("Questions", "Slices", "Export"):
        at = open_page("compare", apart, runs="one,two,third", part=part)
        assert not at.exception
        assert "Not here, for want of scores on validation.json (see Scores): third." in said(at)


def test_hostile_texts_are_shown_as_text(open_page, tmp_path):
    questions = comparisons.hostile()
    for seed, name in enumerate(("one", "two")):
        comparisons.trained(tmp_path, name, questions, share=0.5, seed=seed)
    for part in PARTS:
        at = open_page("compare", tmp_path, runs="one,two", part=part)
        assert not at.exception
        markdown = [*at.markdown, *at.caption, *at.warning, *at.info]
        assert not any("<i>" in item.value or ":smile:" in item.value for item in markdown)
    at = open_page("compare", tmp_path, runs="one,two", part="Questions")
    shown = bodies(at)
    assert "<img" not in shown
    assert "&lt;img src=x onerror=alert(1)&gt; **bold** [a](http://b) $x^2$ :smile:" in shown
    assert r"\u200b\u202eabc\x07 שלום" in shown
    assert "&lt;b&gt;0&lt;/b&gt;" in shown


def test_settings_that_differ_or_all(open_page, pair):
    at = open_page("compare", pair, runs="one,two", part="Settings")
    assert [*table(at)[configured.SETTING]] == ["epochs", "seed"]
    assert [*table(at).columns] == [configured.SETTING, "one", "two"]
    at.toggle(key="compare_all_settings").set_value(True).run()
    assert not at.exception
    assert len(table(at)) > 30
    assert (table(at)[configured.DIFFERS] == "≠").sum() == 2


def test_an_experiment_may_be_called_like_a_column():
    names = ("setting", "differs")
    rows = [Row("epochs", ("1", "2"), True, (1, 2)), Row("seed", ("3", "3"), False, (3, 3))]
    table = configured.frame(rows, [SimpleNamespace(name=name) for name in names])
    assert table[[*names]].to_numpy().tolist() == [["1", "2"], ["3", "3"]]
    assert [*table[configured.SETTING]] == ["epochs", "seed"]
    assert [*table[configured.DIFFERS]] == ["≠", ""]


def test_seeds_are_mean_and_deviation(open_page, tmp_path):
    f1s = [
        comparisons.trained(tmp_path, f"run-{seed}", QUESTIONS, share=0.5, seed=seed, group="run").metrics()[
            "f1"
        ]
        for seed in (1, 2, 3)
    ]
    at = open_page("compare", tmp_path, runs="run-1,run-2,run-3", part="Seeds")
    mean = sum(f1s) / 3
    deviation = (sum((value - mean) ** 2 for value in f1s) / 2) ** 0.5
    row = table(at).iloc[0]
    assert (row["group"], row["runs"]) == ("run", 3)
    assert row["F1"] == f"{mean:.2f} ± {deviation:.2f}"


def test_curves_by_step_epoch_and_time(open_page, pair):
    at = open_page("compare", pair, runs="one,two", part="Curves")
    for by in ("step", "epoch", "time"):
        at.segmented_control(key="compare_by").set_value(by).run()
        assert not at.exception
        assert len(at.get("vega_lite_chart")) == 1
    assert "Training time counts neither" in said(at)
    (pair / "two" / "history.jsonl").unlink()
    at.run()
    assert "Nothing logged for two" in said(at)


def test_a_running_experiment_stands_apart(open_page, pair):
    folders.write(pair, "busy", "running")
    at = open_page("compare", pair, runs="one,busy")
    assert not at.exception
    assert "busy cannot be paired with one here: it has no scores (running)" in said(at).replace("**", "")
    assert offering.OTHER in at.selectbox(key=offering.SOURCE).options[-1]


def test_a_second_visit_opens_only_what_changed(open_page, pair, monkeypatch):
    opened = []
    for module in (io, builtins):
        real = module.open

        def note(file, *arguments, _real=real, **names):
            if str(file).startswith(str(pair)):
                opened.append(Path(file).name)
            return _real(file, *arguments, **names)

        monkeypatch.setattr(module, "open", note)
    at = open_page("compare", pair, runs="one,two")
    assert opened.count("predictions.jsonl") == 2
    opened.clear()
    at.run()
    assert opened == []
    rows = [*map(json.dumps, comparisons.rows(QUESTIONS, comparisons.answers(QUESTIONS, share=1, seed=1)))]
    (pair / "two" / "predictions.jsonl").write_text("\n".join(rows) + "\n")
    opened.clear()
    at.run()
    assert not at.exception
    assert opened == ["predictions.jsonl"]
    assert table(at)["exact_match"].iloc[1] == 100


def test_a_thousand_experiments(open_page, tmp_path):
    root = comparisons.many(tmp_path / "experiments", sizes=(20, 30, 40))
    at = open_page("compare", root, runs="run-0000,run-0001,run-0006,run-0007")
    assert not at.exception
    assert len(at.multiselect[0].options) == 1000
    assert [*table(at, 1)["experiment"]] == ["run-0000 (reference)", "run-0001", "run-0006", "run-0007"]
    assert len({*table(at)["Experiment"]}) == len(folders.BREAKING)
    at = open_page("compare", root, runs=",".join(f"run-{number:04}" for number in range(1000)))
    assert not at.exception
    assert "The first 24 of 1,000 experiments" in said(at)
    for number in range(980, 1000, 3):
        at = open_page("compare", root, runs=f"run-0000,run-{number:04}", part="Scores")
        assert not at.exception
