"""Evaluations started from the page: a real process, its progress, its end and its failures."""

import json
import os
import time

import psutil
import pytest

import small_runs
from dashboard.data import evaluating
from dashboard.data.evaluating import FOLDER, started
from qa import files
from qa.errors import UserError
from qa.experiment import Experiment
from qa.run import keep_dataset
from qa.squad import load_questions

WAIT = 120
NAMES = ("one", "done", "dead", "mute")


@pytest.fixture
def root(tmp_path):
    """A folder of experiments; what was started there and still runs is killed."""
    root = tmp_path / "experiments"
    root.mkdir()
    yield root
    for process in psutil.process_iter(["cmdline"]):
        if str(root) in (process.info["cmdline"] or ()):
            process.kill()


def note(root, name="one", *, log=None, **changes):
    """What `start` leaves behind, of a process that is gone."""
    file = root / FOLDER / f"{name if name in NAMES else 'note'}.0123456789ab.json"
    values = {"name": name, "data": "dev.json", "pid": 99_999_999, "since": "2026-01-01T10:00:00+00:00"}
    files.write_json(file, values | changes)
    if log is not None:
        file.with_suffix(".log").write_bytes(log)
    return file


def wait_for_the_end(root):
    end = time.monotonic() + WAIT
    while any(one.alive for one in started(root)):
        assert time.monotonic() < end, "it did not end"
        time.sleep(0.05)


@pytest.mark.slow
def test_an_evaluation_from_start_to_result(root, tmp_path):
    experiment = small_runs.imported(root, "one")
    questions = load_questions(str(small_runs.write_questions(tmp_path / "other.json", paragraphs=3, seed=7)))
    sha = keep_dataset(root, questions)
    evaluating.start(experiment, sha, data="other.json")
    (one,) = started(root)
    assert (one.name, one.data, one.alive, one.failure) == ("one", "other.json", True, None)
    with pytest.raises(UserError, match=r"evaluated on other\.json already"):
        evaluating.start(experiment, sha, data="other.json")
    wait_for_the_end(root)
    assert started(root) == []
    assert [*(root / FOLDER).iterdir()] == []
    assert experiment.evaluations()[sha]["count"] == len(questions.questions)


@pytest.mark.slow
def test_a_refusal_is_told_until_it_is_dismissed(root):
    experiment = small_runs.imported(root, "one")
    evaluating.start(experiment, "missing.json", data="missing.json")
    wait_for_the_end(root)
    (one,) = started(root)
    assert "missing.json: cannot be read" in one.failure
    evaluating.forget(one.note)
    assert started(root) == []


@pytest.mark.slow
def test_a_stopped_evaluation_leaves_nothing(root):
    experiment = small_runs.imported(root, "one")
    before = experiment.evaluations()
    evaluating.start(experiment, "pocket", data="pocket")
    (one,) = started(root)
    process = psutil.Process(one.pid)
    evaluating.stop(one)
    psutil.wait_procs([process], timeout=WAIT)
    assert not process.is_running()
    assert started(root) == []
    assert [*(root / FOLDER).iterdir()] == []
    assert experiment.evaluations() == before
    evaluating.stop(one)  # somebody pressed the button in another window


def test_no_other_process_is_stopped(root):
    file = note(root, pid=os.getpid(), since="2126-01-01T10:00:00+00:00")
    (one,) = started(root)
    with pytest.raises(UserError, match=r"is not the evaluation of one; nothing was stopped"):
        evaluating.stop(one)
    assert file.exists()


def test_an_experiment_without_a_model_is_refused(root):
    with pytest.raises(UserError):
        evaluating.start(Experiment(root / "none"), "pocket", data="pocket")
    assert not (root / FOLDER).exists()


def test_progress_is_that_of_the_last_line(root):
    log = b"some message\nwindows:   3%|#   | 4/120 [00:01<01:00]\rwindows:  25%|##  | 30/120 [00:02<00:10]\r"
    note(root, pid=os.getpid(), since="2126-01-01T10:00:00+00:00", log=log)
    (one,) = started(root)
    assert (one.alive, one.progress, one.failure) == (True, (30, 120), None)


def test_what_succeeded_is_forgotten_and_what_died_is_told(root):
    done = note(root, "done", log=b"written to /somewhere\nexact_match 50\n")
    note(root, "dead", log=b"qa evaluate: <b>\x1b[2J no space\n")
    note(root, "mute", log=b"")
    found = {one.name: one.failure for one in started(root)}
    assert found == {
        "dead": r"qa evaluate: <b>\x1b[2J no space",
        "mute": "it ended without a word; start it again",
    }
    assert not done.exists()


@pytest.mark.parametrize(
    "changes",
    [{"pid": "x"}, {"since": "soon"}, {"name": "../x"}, {"name": 3}, {"data": None}, {"since": None}],
)
def test_a_broken_note_is_removed(root, changes):
    file = note(root, **changes)
    assert started(root) == []
    assert not file.exists()


def test_a_note_that_is_no_json_is_removed(root):
    file = root / FOLDER / "one.json"
    file.parent.mkdir()
    file.write_text(json.dumps([1])[:-1])
    assert started(root) == []
    assert not file.exists()
