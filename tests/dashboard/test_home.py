"""Home without a browser: empty, full, moving, broken and huge folders, and what can be done from it."""

import os
import time
from unittest.mock import Mock

import pytest

import folders
from dashboard import listing
from dashboard.data import experiments, runs
from qa import files
from qa.config import read_settings
from qa.experiment import Experiment

TABLE, TICKED = "experiments_table", "_experiments_ticked"


@pytest.fixture
def root(tmp_path):
    return tmp_path / "experiments"


@pytest.fixture
def home(open_page, root):
    def start(**query):
        at = open_page("home", root, **query)
        assert not at.exception
        return at

    return start


def table(at):
    """The table's rows by experiment."""
    frames = [one.value for one in at.dataframe if "state" in one.value]
    return {row["name"]: row for row in frames[0].to_dict("records")} if frames else {}


def attention(at):
    """Which experiments need attention, and why."""
    (found,) = [one.value for one in at.dataframe if "What happened" in one.value]
    return found


def button(at, label):
    return next(one for one in at.button if one.label == label)


def labels(at):
    return [one.label for one in at.button]


def tick(at, *names):
    """Tick rows as the browser does: by position in what was sent."""
    places = [*table(at)]
    rows = sorted(places.index(name) for name in names)
    at.session_state[TABLE] = {"selection": {"rows": rows, "columns": [], "cells": []}}
    at.session_state[TICKED] = [places[row] for row in rows]
    return at.run()


def said(at):
    return "\n".join(str(one.value) for kind in (at.markdown, at.caption, at.info, at.text) for one in kind)


def test_an_empty_folder_says_how_to_begin(home, root):
    at = home()
    assert "no experiment here yet" in at.info[0].value
    assert "make demo-experiments" in at.code[0].value
    assert str(root).split("/")[-2].replace("_", "\\_") in at.caption[0].value
    assert table(at) == {}
    assert at.text_input(key="start_name")


def test_a_folder_that_is_a_file_is_one_line(open_page, tmp_path):
    (tmp_path / "file").write_text("")
    at = open_page("home", tmp_path / "file")
    assert not at.exception
    assert "cannot be read" in at.error[0].value


def test_every_state_is_in_the_table(home, root):
    for state in ("finished", "stopped"):
        folders.write(root, state, state)
    folders.write(root, "failed", "failed", message="out of memory; lower batch_size")
    folders.write(root, "running", "running", pid=os.getpid())
    folders.interrupted(root, "interrupted")
    folders.broken(root, "no-status", name="broken")
    at = home()
    rows = table(at)
    assert {name: [*row["state"]] for name, row in rows.items()} == {name: [name] for name in rows}
    names = [*rows]
    assert (names[0], names[-1]) == ("running", "broken")
    row = rows["finished"]
    assert (row["f1"], row["f1_interval"]) == (62.0, "57.0 – 67.0")
    assert (row["em"], row["em_interval"], row["count"]) == (55.5, "50.5 – 60.5", 200)
    assert (row["model"], row["data"], row["seed"], [*row["curve"]]) == (
        "pocket",
        "validation.json",
        42,
        [54, 58, 62],
    )
    assert [*attention(at)["Experiment"]] == ["broken", "failed", "stopped", "interrupted"]
    assert rows["failed"]["note"] == "out of memory; lower batch_size"
    assert "ended without a word at step 60; tick it to resume" in rows["interrupted"]["note"]
    assert "status.json: cannot be read" in rows["broken"]["note"]


def test_a_running_one_is_shown_as_it_goes(home, root):
    folders.write(root, "one", "running", pid=os.getpid(), message="evaluating, 3 of 9 windows")
    folders.write(root, "two", "finished")
    at = home()
    assert "**one**" in said(at)
    assert "evaluating, 3 of 9 windows" in said(at).replace("\\", "")
    progress = at.get("progress")[0].proto
    assert progress.value == 50
    assert progress.text == (
        "step 60 of 120 · epoch 1.5 of 3 · 12.5 windows/s · 10 min so far · **10 min left**"
    )
    assert "Stop" in labels(at)
    button(at, "Stop").click().run()
    # This very process does not hold the experiment's lock, and lives on.
    assert "nothing was stopped" in at.error[0].value


def test_more_running_ones_than_cards(home, root):
    for number in range(6):
        folders.write(root, f"run-{number}", "running", pid=os.getpid())
    at = home()
    assert labels(at).count("Stop") == 4
    assert "2 more run" in said(at)


@pytest.mark.parametrize("kind", folders.BREAKING)
def test_a_broken_folder_is_named_with_its_problem(home, root, kind):
    folders.write(root, "healthy")
    folders.broken(root, kind, name="troubled")
    at = home()
    problems = attention(at)
    assert {*problems["Experiment"]} == {"troubled"}
    assert problems["What happened"].str.len().min() > 10
    assert {*table(at)} == {"healthy", "troubled"}
    assert table(at)["troubled"]["note"].startswith(problems["What happened"][0])


def test_ticked_experiments_are_carried_to_other_pages(home, root, monkeypatch):
    for name in ("a", "b", "c"):
        folders.write(root, name)
    (root / "a" / "best_model").mkdir()
    (root / "a" / "best_model" / "config.json").write_text("{}")
    gone = []
    monkeypatch.setattr("dashboard.state.go", lambda page, **query: gone.append((page, query)))
    at = home()
    assert button(at, "Compare").disabled
    assert button(at, "Ask").disabled
    tick(at, "a")
    assert button(at, "Compare").disabled
    button(at, "Ask").click().run()
    assert gone == [("ask", {"experiment": "a"})]
    tick(at, "b")
    assert button(at, "Ask").disabled
    assert "b has no model to ask" in said(at)
    tick(at, "a", "c", "b")
    assert button(at, "Ask").disabled
    button(at, "Compare 3").click().run()
    assert gone[1] == ("compare", {"runs": "a,b,c"})


def test_ticks_stay_with_their_experiments_when_rows_change(home, root):
    for name in ("b", "zeta"):
        folders.write(root, name)
    at = tick(home(), "zeta")
    folders.write(root, "a")
    at.run()
    assert [*table(at)] == ["a", "b", "zeta"]
    assert at.session_state[TABLE]["selection"]["rows"] == [2]
    at.text_input(key="find").set_value("zeta").run()
    assert at.session_state[TABLE]["selection"]["rows"] == [0]


def test_search_and_states_narrow_the_table(home, root):
    folders.write(
        root, "first", settings=folders.Settings(model_name="microsoft/deberta-v3-base", group="large")
    )
    folders.write(root, "second", "stopped")
    at = home(find="DEBERTA large")
    assert [*table(at)] == ["first"]
    at.text_input(key="find").set_value("").run()
    assert len(table(at)) == 2
    at.pills[0].set_value(["stopped"]).run()
    assert [*table(at)] == ["second"]
    at.text_input(key="find").set_value("deberta").run()
    assert table(at) == {}
    assert "No experiment is like that" in said(at)


def test_one_that_ended_early_can_be_resumed(home, root, monkeypatch):
    resumed = []
    monkeypatch.setattr(runs, "resume", lambda experiment: resumed.append(experiment))
    folders.interrupted(root, "one")
    folders.write(root, "two")
    at = tick(home(), "two")
    assert "Resume" not in labels(at)
    button(tick(at, "one"), "Resume").click().run()
    assert resumed == [Experiment(root / "one")]


@pytest.fixture
def quick(tmp_path, monkeypatch):
    """In the place of run_experiment.py, a script that ends at once with a line."""
    file = tmp_path / "script.py"
    file.write_text("import sys; sys.exit('run_experiment: **no** such <b>data</b>')")
    monkeypatch.setattr(runs, "SCRIPT", file)


def wait_until_ended(root):
    end = time.monotonic() + 60
    while any(start.alive for start in runs.starting(root)):
        assert time.monotonic() < end
        time.sleep(0.02)


def submit(at, name, text=None):
    at.text_input(key="start_name").set_value(name)
    if text is not None:
        at.text_area(key="start_settings").set_value(text)
    return button(at, "Start").click().run()


def test_a_run_that_is_refused_says_so_until_dismissed(home, root, quick):
    at = submit(home(), "mine")
    assert not at.exception
    assert not at.error
    assert "mine is starting" in at.toast[0].value
    wait_until_ended(root)
    at.run()
    assert "**mine** did not start" in said(at)
    assert "&lt;b&gt;" in at.get("html")[0].proto.body
    button(at, "Dismiss").click().run()
    assert "did not start" not in said(at)
    assert runs.starting(root) == ()


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("../up", None, "is not allowed"),
        ("", None, "is not allowed"),
        ("taken", None, "exists already"),
        ("mine", "epoch: 2", "did you mean 'epochs'"),
        ("mine", "epochs: many", "is not allowed; use a number above 0"),
    ],
)
def test_the_form_says_what_is_wrong_in_one_line(home, root, quick, name, text, expected):
    folders.write(root, "taken")
    at = submit(home(), name, text)
    (error,) = at.error
    assert expected in error.value.replace("\\", "")
    assert "\n" not in error.value
    assert runs.starting(root) == ()
    if text is not None:
        assert at.text_area(key="start_settings").value == text


def test_the_form_takes_seeds(home, root, quick):
    at = home()
    at.text_input(key="start_seeds").set_value("1, 2 x")
    at = submit(at, "mine")
    assert "seeds: '1, 2 x' is not allowed" in at.error[0].value.replace("\\", "")
    at.text_input(key="start_seeds").set_value(" 1, 2 33")
    at = submit(at, "mine")
    assert not at.error
    wait_until_ended(root)
    notes = files.read_object(root / runs.FOLDER / "mine.json")
    assert notes["writes"] == ["mine-seed-1", "mine-seed-2", "mine-seed-33"]


def test_the_form_begins_with_settings_that_are_there(home, root, tmp_path):
    folders.write(root, "one", settings=folders.Settings(seed=7))
    at = tick(home(), "one")
    seeds = []
    for label in [*runs.TEMPLATES, "As one"]:
        at.segmented_control(key="start_template").set_value(label).run()
        file = tmp_path / "settings.yaml"
        file.write_text(at.text_area(key="start_settings").value)
        seeds.append((read_settings(file).model_name, read_settings(file).seed))
    default = "microsoft/deberta-v3-base"
    assert seeds == [("pocket", 42), (default, 42), (default, 7)]
    folders.write(root, "two")
    tick(at.run(), "one", "two")
    assert not at.exception
    assert "seed: 7" in at.text_area(key="start_settings").value


def test_a_thousand_experiments(home, root):
    folders.many(root)
    at = home()
    rows = table(at)
    assert len(rows) == 1000
    problems = attention(at)
    assert len({*problems["Experiment"]}) == len(folders.BREAKING) == 20
    assert "1,000 experiments" in at.caption[0].value
    index = experiments.index_of(str(root))
    opened = index.opened
    at.run()
    assert not at.exception
    assert index.opened == opened
    folders.write(root, "new")
    (root / "experiment-0001" / "metrics.json").write_text('{"exact_match": 1.0, "f1": 2.0, "count": 3}')
    at.run()
    assert index.opened == opened + 6
    assert table(at)["experiment-0001"]["f1"] == 2
    at.text_input(key="find").set_value("group-7").run()
    assert len(table(at)) == 55
    assert len(at.session_state["_experiments_sent"]) == 55


def test_a_folder_as_model_is_called_by_its_last_part(tmp_path):
    folders.write(tmp_path, "one", settings=folders.Settings(model_name="/long/way/to/mine"))
    (one,) = experiments.Index(tmp_path).visit()
    assert listing.model_of(one) == "mine"


def test_one_that_was_stopped_and_resumed_can_be_stopped_again(home, root, monkeypatch):
    process = Mock(pid=os.getpid())
    monkeypatch.setattr(runs, "_process", lambda experiment, pid: process)
    experiment = folders.write(root, "one", "running", pid=os.getpid())
    at, another = home(), home()
    button(at, "Stop").click().run()
    button(another, "Stop").click().run()
    # A second signal would stop it without saving.
    assert process.terminate.call_count == 1
    for page in (at, another, home()):
        assert button(page, "Stopping …").disabled
    status = experiment.status()
    for state, pid, expected in (("stopped", os.getpid(), []), ("running", os.getppid(), ["Stop"])):
        files.write_json(experiment.path / "status.json", status | {"state": state, "pid": pid})
        at.run()
        assert [label for label in labels(at) if label.startswith("Stop")] == expected
