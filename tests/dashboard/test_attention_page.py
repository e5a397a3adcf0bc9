"""Attention without a browser: which head, what of it, what is said, and what runs the model.

Clicks in charts are made in tests/browser; here their handlers are called.
"""

import json

import numpy as np
import pyarrow
import pytest
from streamlit.testing.v1 import AppTest

import asked
from asked import CONTEXT, HOSTILE, QUESTION, run
from dashboard import asking, looking, sections
from dashboard.charts import heads
from dashboard.data import answers
from dashboard.measures import MEASURES
from probes.attend import attend
from probes.overview import PARTS, first_head
from qa.experiment import Experiment
from qa.reader import Reader
from word_views import view_of_words

ASKED = {"question": QUESTION, "context": CONTEXT}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return asked.furnish(tmp_path_factory.mktemp("attention") / "experiments")


@pytest.fixture
def attention(open_page, root):
    def start(at=root, **query):
        page = open_page("attention", at, **query)
        assert not page.exception
        return page

    return start


def said(page):
    kinds = ("title", "subheader", "markdown", "caption", "info", "error", "warning", "text")
    return "\n".join(str(one.value) for kind in kinds for one in page.get(kind))


def charts(page):
    """Specification and rows of each chart, by its key."""
    found = {}
    for one in page.get("vega_lite_chart"):
        rows = [pyarrow.ipc.open_stream(data.data.data).read_pandas() for data in one.proto.datasets]
        found[key_of(one)] = (json.loads(one.proto.spec), rows)
    return found


def key_of(chart):
    return chart.proto.id.rsplit("-", 1)[-1]


def cells(page, key):
    (rows,) = (rows for rows in charts(page)[key][1] if "attention" in rows)
    return rows


def choose(page, key, value):
    page.selectbox(key=key).set_value(value)
    return run(page)


def switch(page, key, value):
    page.segmented_control(key=key).set_value(value)
    return run(page)


def whole_attention(root, name="tiny"):
    return attend(Reader.of(Experiment(root / name)), QUESTION, CONTEXT).window()


def test_at_first_the_head_in_which_the_answer_looks_at_the_question(attention, root):
    page = attention(experiment="tiny", **ASKED)
    layer, head = first_head(whole_attention(root))
    assert page.query_params["layer"] == str(layer)
    assert page.query_params["head"] == str(head)
    assert f"Layer {layer}, head {head}" in said(page)


def test_a_link_shows_its_head_with_the_numbers_of_its_attention(attention, root):
    page = attention(experiment="tiny", layer=1, head=0, extent=looking.WHOLE, **ASKED)
    view = whole_attention(root).select(layers=[1], heads=[0]).by("word")
    rows = cells(page, "attention_head")
    assert 0 < len(rows) <= 10_000
    for row in rows.itertuples():
        assert row.attention == pytest.approx(view.probabilities[0, 0, row.query, row.key], abs=1e-3)


def test_every_measure_unit_part_and_extent(attention):
    page = attention(experiment="tiny", **ASKED)
    for name in MEASURES:
        page = choose(page, "map", name)
        assert MEASURES[name].note in said(page)
    page = choose(page, "map", "attention")
    for part in PARTS:
        page = choose(page, "part", part)
    page = choose(page, "part", "everything")
    for unit in looking.UNITS:
        for extent in (looking.WHOLE, looking.AROUND):
            page = switch(switch(page, "unit", unit), "extent", extent)
            assert len(cells(page, "attention_head")) <= 10_000


def test_a_part_is_a_filter(attention, root):
    page = attention(experiment="tiny", part="question → context", **ASKED)
    view = whole_attention(root).by("word")
    rows = cells(page, "attention_head")
    assert {view.labels[place] for place in rows["query"]} <= set(QUESTION.replace("?", " ?").split())


def test_switching_heads_runs_no_model(attention, root):
    page = attention(experiment="tiny", layer=0, head=0, **ASKED)
    model = answers.load(Experiment(root / "tiny"))
    forwards = []
    hook = model.reader.encoder.model.register_forward_pre_hook(lambda *_: forwards.append(1))
    for key, value in (("attention_layer_box", 1), ("attention_head_box", 1), ("attention_layer_box", 0)):
        page = choose(page, key, value)
    for name in ("text", "norms", "rollout"):
        page = choose(page, "map", name)
    page = switch(page, looking.MORE, looking.PINS)
    assert forwards == []
    page = choose(page, "map", "c2p")
    assert forwards == [1], "the terms of a layer"
    page = choose(page, "attention_head_box", 0)
    assert forwards == [1]
    hook.remove()
    assert (page.query_params["layer"], page.query_params["head"]) == ("0", "0")


CLICK = """
import streamlit as st
from types import SimpleNamespace
from dashboard import looking, sections, state
from probes.overview import units_of
from word_views import view_of_words

own = view_of_words("who won", ["play", "##ing", "Olaf", "won"])
other = view_of_words("who won", ["playing", "Ol", "##af", "won"])
first = SimpleNamespace(model=SimpleNamespace(name="first"), units=lambda unit: own)
state.arrive("attention")
sections.choose_head("grid")
looking.pin("map", SimpleNamespace(units=units_of(other)), first, "word")
"""


def clicked(grid, map_):
    page = AppTest.from_string(CLICK)
    page.session_state["grid"] = {"selection": {heads.PICKED: grid}}
    page.session_state["map"] = {"selection": {"cell": map_}}
    return run(page)


def test_a_click_chooses_a_head_or_pins_two_words_wherever_they_are_in_the_first_model():
    labels = list(view_of_words("who won", ["playing", "Ol", "##af", "won"]).labels)
    page = clicked([{"layer": 1, "head": 2}], [{"query": labels.index("won", 4), "key": labels.index("who")}])
    assert page.query_params == {"layer": "1", "head": "2"}
    own = view_of_words("who won", ["play", "##ing", "Olaf", "won"]).labels
    assert page.session_state[looking.PIN.format("word")] == own.index("won", 4)
    assert page.session_state[looking.TOWARD.format("word")] == own.index("who")
    assert page.session_state[looking.MORE] == looking.PINS


def test_a_click_on_a_word_that_the_first_model_cuts_elsewhere_is_told():
    page = clicked([], [{"query": 2, "key": 5}])  # "Ol", of a word that the first model has whole
    assert [one.value for one in page.toast] == ["first cuts the text elsewhere and has no such word."]
    assert looking.PIN.format("word") not in page.session_state
    assert looking.MORE not in page.session_state


def test_a_click_beside_everything_changes_nothing():
    page = clicked([], [])
    assert page.query_params == {}
    assert looking.MORE not in page.session_state


def test_the_grid_does_not_depend_on_the_head(attention):
    page = attention(experiment="tiny", layer=0, head=0, **ASKED)
    before = [one.proto.spec for one in page.get("vega_lite_chart") if "attention_grid" in one.proto.id]
    page = choose(page, "attention_layer_box", 1)
    after = [one.proto.spec for one in page.get("vega_lite_chart") if "attention_grid" in one.proto.id]
    assert before == after
    assert len(before) == 1


def test_the_strongest_pairs_are_a_table(attention, root):
    page = attention(experiment="tiny", layer=1, head=1, extent=looking.WHOLE, **ASKED)
    view = whole_attention(root).select(layers=[1], heads=[1]).by("word")
    (table,) = (one.value for one in page.dataframe)
    assert len(table) == looking.PAIRS
    expected = np.sort(view.probabilities[0, 0].ravel())[::-1][: looking.PAIRS]
    assert table["attention"].tolist() == pytest.approx(expected, abs=1e-3)


def test_a_pinned_word_in_every_head(attention, root):
    page = attention(experiment="tiny", more=looking.PINS, **ASKED)
    assert "Choose a word" in said(page)
    page = choose(page, "pin_word", 3)
    view = whole_attention(root).by("word")
    gives, gets = charts(page)["attention_gives"][1][0], charts(page)["attention_gets"][1][0]
    for row in gives.itertuples():
        own = view.probabilities[row.layer, row.head, 3]
        assert row.value == pytest.approx(own.max(), abs=1e-3)
        assert row.words == view.labels[own.argmax()]
    for row in gets.itertuples():
        others = np.delete(view.probabilities[row.layer, row.head, :, 3], 3)
        assert row.value == pytest.approx(others.mean(), abs=1e-3)
    page = choose(page, "toward_word", 5)
    for row in charts(page)["attention_gives"][1][0].itertuples():
        assert row.value == pytest.approx(view.probabilities[row.layer, row.head, 3, 5], abs=1e-3)


def test_a_word_that_is_not_there_any_more_is_not_pinned(attention):
    page = attention(experiment="tiny", more=looking.PINS, **ASKED)
    page = choose(page, "pin_word", 30)
    page.session_state["_shared"] = {"experiment": "tiny", "question": "Who?", "context": "red"}
    assert page.selectbox(key="pin_word").value == 30
    page.query_params["question"], page.query_params["context"] = "Who?", "red"
    assert run(page).selectbox(key="pin_word").value is None


def test_heads_switched_off(attention, root):
    page = attention(experiment="tiny", more=sections.OFF, layer=1, head=0, **ASKED)
    assert "Without it" not in said(page)
    page.button(key="off_one").click()
    page = run(page)
    assert "Without it" in said(page)
    page.button(key="off_all").click()
    page = run(page)
    model = answers.load(Experiment(root / "tiny"))
    effects = answers.known_effects(model, answers.ask(model, QUESTION, CONTEXT), how="zero")
    rows = charts(page)["attention_off"][1][0]
    for row in rows.itertuples():
        assert row.value == pytest.approx(100 * effects.probability[row.layer, row.head], abs=1e-4)
        assert bool(row.sign) == effects.changed[row.layer, row.head]
    table = page.dataframe[-1].value
    assert table["points"].abs().is_monotonic_decreasing
    page = switch(page, "off", "mean")
    assert "attention_off" not in charts(page), "of another way nothing is known"


def test_what_the_scores_are_made_of(attention):
    page = attention(experiment="tiny", more=sections.SCORES, **ASKED)
    shares = [charts(page)[f"attention_share_{term}"][1][0]["value"] for term in ("c2c", "c2p", "p2c")]
    np.testing.assert_allclose(sum(shares), 1, atol=1e-5)


def test_a_bert_has_no_terms_and_a_link_to_them_is_no_error(attention):
    page = attention(experiment="bert", more=sections.SCORES, map="c2c", **ASKED)
    assert page.selectbox(key="map").value == "attention"
    assert sections.SCORES not in page.segmented_control(key=looking.MORE).options


def test_two_experiments_and_their_difference(attention, root):
    page = attention(experiment="tiny", other="other", layer=1, head=0, extent=looking.WHOLE, **ASKED)
    first, second = (
        whole_attention(root, name).select(layers=[1], heads=[0]).by("word") for name in ("tiny", "other")
    )
    drawn = charts(page)
    assert {"attention_head", "attention_other", "attention_difference", "attention_moved"} <= set(drawn)
    if first.labels == second.labels:
        for row in cells(page, "attention_difference").itertuples():
            expected = (second.probabilities - first.probabilities)[0, 0, row.query, row.key]
            assert row.attention == pytest.approx(expected, abs=2e-3)


def test_two_architectures_are_compared_by_words(attention):
    page = attention(experiment="tiny", other="bert", layer=1, head=0, **ASKED)
    assert "Not shown: these two models cut the text into other tokens" in said(page)
    assert "attention_difference" in charts(page)


def test_windows_of_a_long_context(attention):
    page = attention(experiment="tiny", **ASKED)
    windows = page.selectbox(key="window")
    assert len(windows.options) > 1
    other = 1 - page.selectbox(key="window").value if len(windows.options) == 2 else 0
    assert run(choose(page, "window", other))


def test_a_head_of_a_larger_model_is_dropped_with_a_line(attention):
    page = attention(experiment="tiny", layer=11, head=1, **ASKED)
    assert "layer" in page.warning[0].value
    assert page.query_params["layer"] in ("0", "1")


def test_imported_predictions_have_no_attention_and_say_so(attention):
    page = attention(experiment="predictions")
    assert "has no model in" in said(page)
    assert not charts(page)


def test_without_experiments_it_says_how_to_get_one(attention, tmp_path):
    assert "There is no experiment yet" in said(attention(tmp_path))


def test_another_question_is_asked_here_too(attention):
    page = attention(experiment="tiny", question="Who?", context="")
    page.text_input(key=asking.QUESTION_BOX).set_value("What rose?")
    page.text_area(key=asking.CONTEXT_BOX).set_value(CONTEXT)
    next(one for one in page.button if one.label == "Ask").click()
    page = run(page)
    assert page.query_params["question"] == "What rose?"
    assert "attention_head" in charts(page)


@pytest.mark.parametrize("context", ["\u200b", ".", HOSTILE])
def test_any_text(attention, context):
    page = attention(experiment="tiny", question=HOSTILE, context=context, more=looking.PINS)
    for one in (*page.markdown, *page.caption):
        assert HOSTILE not in one.value


def test_every_picture_has_its_files(attention):
    page = attention(experiment="tiny", more=looking.PINS, **ASKED)
    page = choose(page, "pin_word", 2)
    labels = [one.proto.label for one in page.get("download_button")]
    assert labels.count("PNG") == labels.count("SVG") == labels.count("CSV") == len(charts(page)) == 4


def test_a_part_that_is_not_there_has_no_files(attention):
    page = attention(experiment="tiny", part="answer → everything", **ASKED)
    before = [one.proto.label for one in page.get("download_button")]
    answered = page.selectbox(key="window").value
    choose(page, "window", 0 if answered else len(page.selectbox(key="window").options) - 1)
    assert "there is no answer in it" in said(page)
    after = [one.proto.label for one in page.get("download_button")]
    assert after.count("PNG") == before.count("PNG") - 1
