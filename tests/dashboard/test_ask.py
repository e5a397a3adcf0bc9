"""Ask without a browser: what is asked, answered, compared with the last answer, picked and refused."""

import shutil

import pytest

import asked
from asked import CONTEXT, HOSTILE, QUESTION, run
from dashboard import asking, wording
from dashboard.marking import inline
from qa.experiment import Experiment
from qa.reader import Reader


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return asked.furnish(tmp_path_factory.mktemp("ask") / "experiments")


@pytest.fixture
def ask(open_page, root):
    def start(at=root, **query):
        page = open_page("ask", at, **query)
        assert not page.exception
        return page

    return start


def said(page):
    kinds = ("title", "subheader", "markdown", "caption", "info", "error", "warning", "text")
    return "\n".join(str(one.value) for kind in kinds for one in page.get(kind))


def shown(page):
    """All HTML on the page."""
    return "\n".join(one.proto.body for one in page.get("html"))


def metrics(page):
    return {one.label: (one.value, one.delta) for one in page.metric}


def write(page, question, context):
    page.text_input(key=asking.QUESTION_BOX).set_value(question)
    page.text_area(key=asking.CONTEXT_BOX).set_value(context)
    next(one for one in page.button if one.label == "Ask").click()
    return run(page)


def answer_of(root, name, question, context):
    return Reader.of(Experiment(root / name)).answer(question, context)


def test_without_experiments_it_says_how_to_get_one(ask, tmp_path):
    page = ask(tmp_path)
    assert "There is no experiment yet" in said(page)


def test_at_first_a_question_of_the_data_is_asked(ask, root):
    page = ask()
    assert page.query_params["experiment"] == "bert", "the first by name"
    assert page.query_params["id"].startswith("5-")
    assert page.subheader
    assert "Gold: " in said(page)


def test_an_answer_is_the_readers_own(ask, root):
    page = ask(experiment="tiny", question=QUESTION, context=CONTEXT)
    answer = answer_of(root, "tiny", QUESTION, CONTEXT)
    assert page.subheader[0].value == inline(answer.text)
    assert metrics(page)["Probability"][0] == wording.share(answer.probability)
    assert metrics(page)["No answer"][0] == wording.share(answer.no_answer_probability)
    (n_best,) = (one.value for one in page.dataframe)
    assert n_best["answer"].tolist() == [span.text for span in answer.n_best]
    assert n_best["probability"].tolist() == pytest.approx([span.probability for span in answer.n_best])
    assert ">" + answer.text + "</mark>" in shown(page)
    assert f"read in {answer.windows} windows of at most 96 tokens that overlap by 16" in said(page)
    assert "Main attended token: **" in said(page)
    (chart,) = page.get("vega_lite_chart")
    assert chart.proto.alt


def test_what_was_edited_and_what_that_changed(ask, root):
    page = ask(experiment="tiny", question=QUESTION, context=CONTEXT)
    assert metrics(page)["Probability"][1] in (None, "")
    edited = QUESTION.replace("first", "last")
    page = write(page, edited, CONTEXT)
    assert page.query_params["question"] == edited
    assert page.info[0].value == "Edited in the question: **first** → **last**"
    before, after = (answer_of(root, "tiny", text, CONTEXT) for text in (QUESTION, edited))
    if before.text == after.text:
        delta = 100 * (after.probability - before.probability)
        assert metrics(page)["Probability"][1] == f"{delta:+.1f} points"
    else:
        now = {span.text: span.probability for span in after.n_best}
        said_now = f", now {now[before.text]:.1%}" if before.text in now else ""
        assert f"Before the edit: {inline(before.text)} ({before.probability:.1%}{said_now})" in said(page)
    page = run(page)
    assert page.info, "it stays while the question stays"
    page = write(page, "Something else entirely", "in another text")
    assert not page.info


def test_asking_the_same_again_keeps_the_id(ask):
    page = ask(experiment="tiny", id="5-0-1")
    shown_question = page.text_input(key=asking.QUESTION_BOX).value
    page = write(page, shown_question, page.text_area(key=asking.CONTEXT_BOX).value)
    assert page.query_params["id"] == "5-0-1"
    assert "question" not in page.query_params


def test_two_experiments_answer_side_by_side(ask, root):
    page = ask(experiment="tiny", other="other", question=QUESTION, context=CONTEXT)
    expected = [answer_of(root, name, QUESTION, CONTEXT) for name in ("tiny", "other")]
    assert [one.value for one in page.subheader] == [inline(answer.text) for answer in expected]
    assert len(page.dataframe) == len(page.get("vega_lite_chart")) == 2


def test_an_experiment_beside_itself_is_shown_once(ask):
    page = ask(experiment="tiny", other="tiny", question=QUESTION, context=CONTEXT)
    assert len(page.subheader) == 1


def test_a_question_is_picked_from_the_data(ask):
    page = ask(experiment="tiny", id="5-0-0")
    page.segmented_control(key="asking_way").set_value(asking.PICK)
    page = run(page)
    table = page.dataframe[0].value
    assert len(table) == 8
    assert table["F1"].tolist() == sorted(table["F1"])
    page.text_input(key="asking_search").set_value("5-2-1")
    page = run(page)
    assert page.dataframe[0].value["id"].tolist() == ["5-2-1"]
    assert "1 of 8 questions" in said(page)


def test_an_unknown_id_is_dropped_with_a_line(ask):
    page = ask(experiment="tiny", id="nowhere")
    assert "no question" in said(page)
    assert page.query_params["id"] != "nowhere"


def test_imported_predictions_have_no_model_and_say_so(ask):
    page = ask(experiment="predictions")
    assert "has no model in" in said(page)
    assert not page.subheader


def test_one_with_a_model_answers_beside_one_without(ask):
    page = ask(experiment="predictions", other="tiny", question=QUESTION, context=CONTEXT)
    assert "has no model in" in said(page)
    assert len(page.subheader) == 1


def test_without_validation_data_one_writes(ask, root, tmp_path):
    shutil.copytree(root / "tiny", tmp_path / "experiments" / "tiny")
    page = ask(tmp_path / "experiments", experiment="tiny")
    assert "Type or paste a question" in said(page)
    page = write(page, QUESTION, CONTEXT)
    assert page.subheader
    page.segmented_control(key="asking_way").set_value(asking.PICK)
    assert "the validation questions" in said(run(page))


def test_a_blank_question_is_refused_with_a_line(ask):
    page = ask(experiment="tiny", question="   ", context=CONTEXT)
    assert "question: it is empty" in said(page).replace("\\", "")


@pytest.mark.parametrize("context", ["\u200b", ".", "w" * 3000, HOSTILE, "שלום עולם " * 30])
def test_any_text_is_shown_as_text(ask, context):
    page = ask(experiment="tiny", question=HOSTILE, context=context)
    assert "<script" not in shown(page)
    assert "<b>" not in shown(page)
    for one in (*page.markdown, *page.caption, *page.subheader):
        assert HOSTILE not in one.value
    if context == HOSTILE:
        assert "\\u200bmat\\u202e" in shown(page)


def test_a_long_text_stays_in_the_tab(ask):
    page = ask(experiment="tiny", question=QUESTION, context=CONTEXT)
    page = write(page, QUESTION, CONTEXT * 40)
    assert "context" not in page.query_params
    assert "too long for a link" in said(page)
    assert page.subheader
