"""The URL is the state: what a link carries, what a page change keeps, and what is dropped with a line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from streamlit.testing.v1 import AppTest

from dashboard import state

SCRIPT = """
import streamlit as st
from dashboard import state

state.arrive(st.session_state.get("on", "attention"))
for name, value in st.session_state.pop("puts", {}).items():
    state.put(**{name: value})
st.json({name: state.get(name) for name in ("experiment", "question", "context", "id", "layer", "runs")})
"""


def run(at=None, *, on="attention", puts=None, **query):
    """One run of a page; `query` is what the browser's address says, None what it has no longer."""
    at = at or AppTest.from_string(SCRIPT)
    at.session_state["on"] = on
    at.session_state["puts"] = puts or {}
    for name, value in query.items():
        if value is None:
            at.query_params.pop(name, None)
        else:
            at.query_params[name] = value
    at.run()
    assert not at.exception
    return at


def memory(at):
    return dict(at.session_state[state.MEMORY])


def test_a_pasted_link_becomes_the_state():
    at = run(experiment="a", layer="3", id="q1", foreign="x")
    assert memory(at) == {"experiment": "a", "layer": "3", "id": "q1"}
    assert at.query_params["foreign"] == "x"


def test_what_is_put_stands_in_the_address():
    at = run(run(experiment="a"), puts={"layer": 4})
    assert at.query_params == {"experiment": "a", "layer": "4"}
    assert run(at, puts={"layer": None}).query_params == {"experiment": "a"}


def test_another_page_takes_what_it_uses_and_the_rest_is_kept():
    at = run(experiment="a", id="q1", layer="3")
    # The menu leads to an address without a query.
    at = run(at, on="ask", experiment=None, id=None, layer=None)
    assert at.query_params == {"experiment": "a", "id": "q1"}
    at = run(at, on="home", experiment=None, id=None)
    assert at.query_params == {}
    at = run(at, on="attention")
    assert at.query_params == {"experiment": "a", "id": "q1", "layer": "3"}


def test_the_back_button_wins_over_memory():
    at = run(run(experiment="a"), puts={"layer": 4})
    at = run(at, layer=None)
    assert memory(at) == {"experiment": "a"}
    assert memory(run(at, experiment="b")) == {"experiment": "b"}


def test_a_typed_question_and_a_picked_one_exclude_each_other():
    at = run(run(experiment="a", id="q1"), puts={"question": "Who?"})
    assert memory(at) == {"experiment": "a", "question": "Who?"}
    at = run(at, puts={"context": "Anna."})
    assert memory(at) == {"experiment": "a", "question": "Who?", "context": "Anna."}
    assert memory(run(at, puts={"id": "q2"})) == {"experiment": "a", "id": "q2"}


def test_a_text_too_long_for_a_link_stays_in_memory():
    long = "é" * state.LONGEST_TEXT
    at = run(run(experiment="a"), puts={"question": "Who?", "context": long})
    assert at.query_params == {"experiment": "a"}
    at = run(run(at, puts={"layer": 1}))
    assert memory(at) == {"experiment": "a", "question": "Who?", "context": long, "layer": "1"}
    at = run(at, on="ask", experiment=None, layer=None)
    assert memory(at)["context"] == long
    at = run(at, on="ask", puts={"context": "short"})
    assert at.query_params == {"experiment": "a", "question": "Who?", "context": "short"}


@given(st.dictionaries(st.sampled_from(["experiment", "question", "context", "layer"]), st.text(min_size=1)))
def test_a_link_says_what_memory_holds(values):
    carried = {name: values[name] for name in state._linked(values, "attention")}
    assert set(values) - set(carried) <= set(state.TEXT)
    assert carried.items() <= values.items()


NUMBERS = """
import streamlit as st
from dashboard import state

state.arrive("attention")
st.json([state.number("layer", below=12)])
"""


@pytest.mark.parametrize(("text", "expected"), [("0", "0"), ("11", "11"), ("007", "7")])
def test_a_number_in_range(text, expected):
    at = AppTest.from_string(NUMBERS)
    at.query_params["layer"] = text
    at.run()
    assert at.json[0].value == f"[{expected}]"
    assert not at.warning


@pytest.mark.parametrize("text", ["12", "-1", "1.5", "x", "٣", "9" * 5000, "<b>", ":smile:"])
def test_any_other_number_is_dropped_with_one_line(text):
    at = AppTest.from_string(NUMBERS)
    at.query_params["layer"] = text
    at.run()
    assert not at.exception
    assert at.json[0].value == "[null]"
    (line,) = at.warning
    assert "0 to 11" in line.value.replace("\\", "")
    assert "layer" not in at.query_params
    assert not at.run().warning


@pytest.mark.parametrize("name", ["../x", "nobody", "a" * 300, "<script>"])
def test_an_unknown_experiment_is_dropped_with_one_line(tmp_path, monkeypatch, name):
    monkeypatch.setenv("EXPERIMENTS_DIR", str(tmp_path))
    at = AppTest.from_string("from dashboard import state\nstate.arrive('ask')\nstate.chosen_experiment()")
    at.query_params["experiment"] = name
    at.run()
    assert not at.exception
    assert len(at.warning) == 1
    assert "experiment" not in at.query_params


def test_the_folder_of_experiments(monkeypatch, tmp_path):
    monkeypatch.setenv("EXPERIMENTS_DIR", str(tmp_path / "variable"))
    monkeypatch.setattr("sys.argv", ["Home.py", "-x"])
    assert state.root() == tmp_path / "variable"
    monkeypatch.setattr("sys.argv", ["Home.py", "--experiments-dir", str(tmp_path)])
    assert state.root() == tmp_path
    monkeypatch.setattr("sys.argv", ["Home.py", "--experiments-dir"])
    with pytest.raises(state.UserError, match="--experiments-dir"):
        state.root()


def test_every_script_is_in_the_table():
    scripts = {file.stem for file in state.VIEWS.glob("[!_]*.py")}
    assert scripts == state.PAGES.keys()
    assert next(iter(state.PAGES)) == "home"
