"""Runs started, stopped and resumed from the page: real processes, and never somebody else's."""

import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime

import psutil
import pytest
import yaml

import folders
import small_runs
import tiny_models
from dashboard.data import runs
from dashboard.data.experiments import Index
from qa import files
from qa.errors import UserError
from qa.experiment import Experiment

SETTINGS = "model_name: pocket\ndataset: pocket\n"
WAIT = 60


@pytest.fixture
def script(tmp_path, monkeypatch):
    """Puts a few lines of Python in the place of run_experiment.py."""

    def write(code):
        file = tmp_path / "script.py"
        file.write_text(code)
        monkeypatch.setattr(runs, "SCRIPT", file)

    return write


@pytest.fixture
def root(tmp_path):
    """A folder of experiments; what was started there and still runs is killed."""
    root = tmp_path / "experiments"
    yield root
    for process in psutil.process_iter(["cmdline"]):
        if str(root) in (process.info["cmdline"] or ()):
            process.kill()


def wait_for(truth):
    end = time.monotonic() + WAIT
    while not truth():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def ended(root):
    wait_for(lambda: not any(start.alive for start in runs.starting(root)))


def not_begun(root):
    return [start for start in runs.starting(root) if not start.alive]


def refused(function, *arguments, **named):
    with pytest.raises(UserError) as caught:
        function(*arguments, **named)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_start_is_a_process_of_its_own(root, script):
    script(
        "import os, sys, time; print(sys.argv[1:], os.getsid(0) == os.getpid(), flush=True); time.sleep(60)"
    )
    runs.start(SETTINGS, root=root, name="first")
    wait_for(lambda: runs.starting(root)[0].log)
    (start,) = runs.starting(root)
    assert (start.name, start.alive) == ("first", True)
    assert (datetime.now(UTC) - start.since).total_seconds() < WAIT
    config = root / runs.FOLDER / "first.yaml"
    assert config.read_text() == SETTINGS
    options = ["--name", "first", "--config", str(config), "--experiments-dir", str(root)]
    assert start.log == (f"{options} True",)
    assert "a moment ago" in refused(runs.start, SETTINGS, root=root, name="first")
    os.kill(files.read_object(root / runs.FOLDER / "first.json")["pid"], signal.SIGKILL)
    ended(root)


def test_a_start_that_is_refused_says_why_until_it_is_forgotten(root, script):
    script("import sys; print('loading\\r50%\\r100%\\n'); sys.exit('run_experiment: no such data \\x1b[31m')")
    runs.start(SETTINGS, root=root, name="first")
    ended(root)
    (start,) = runs.starting(root)
    assert start.log == ("100%", r"run_experiment: no such data \x1b[31m")
    runs.start(SETTINGS, root=root, name="first")  # once more is allowed
    ended(root)
    runs.forget(root, "first")
    assert runs.starting(root) == ()
    assert [*(root / runs.FOLDER).iterdir()] == []


def test_a_start_that_has_begun_is_an_experiment(root, script):
    script("")
    runs.start(SETTINGS, root=root, name="first")
    ended(root)
    pid = files.read_object(root / runs.FOLDER / "first.json")["pid"]
    folders.write(root, "first", "failed", pid=pid, message="no memory")
    assert runs.starting(root) == ()
    assert not (root / runs.FOLDER / "first.json").exists()
    assert "exists already" in refused(runs.start, SETTINGS, root=root, name="first")


def test_seeds_are_one_run_of_several_experiments(root, script):
    script("import sys; print(sys.argv[1:])")
    runs.start(SETTINGS, root=root, name="group", seeds=[1, 23])
    ended(root)
    config = root / runs.FOLDER / "group.yaml"
    options = ["--name", "group", "--config", str(config), "--seeds", "1", "23"]
    (start,) = runs.starting(root)
    assert start.log == (f"{[*options, '--experiments-dir', str(root)]}",)
    pid = files.read_object(root / runs.FOLDER / "group.json")["pid"]
    own = folders.Settings(seed=23, group="group")
    folders.write(root, "group-seed-23", "failed", pid=pid, settings=own)
    assert runs.starting(root) == ()
    found = {one.name: one for one in Index(root).visit()}
    assert runs.log_of(found["group-seed-23"], root) == start.log
    folders.write(root, "other", settings=own)
    found = {one.name: one for one in Index(root).visit()}
    assert runs.log_of(found["other"], root) == ()
    folders.write(root, "group-seed-1")
    assert "'group-seed-1' exists" in refused(runs.start, SETTINGS, root=root, name="group", seeds=[1, 23])
    runs.start(SETTINGS, root=root, name="group", seeds=[1, 5])  # goes on with what is there


@pytest.mark.parametrize(
    ("seeds", "expected"), [([-1], "seed: -1 is not allowed"), ([10**60], "seed: 1000"), ([1], "up to 64")]
)
def test_no_seed_that_is_not_allowed(root, script, seeds, expected):
    script("raise SystemExit")
    name = "x" * 60 if seeds == [1] else "x"
    assert expected in refused(runs.start, SETTINGS, root=root, name=name, seeds=seeds)
    assert not root.exists()


def test_a_later_run_from_elsewhere_counts_as_begun(root, script):
    script("")
    folders.write(root, "first", "stopped", updated="2020-01-01T00:00:00+00:00")
    runs.resume(Experiment(root / "first"))
    ended(root)
    assert [start.name for start in runs.starting(root)] == ["first"]
    files.write_json(
        root / "first" / "status.json", {"state": "running", "updated": "2999-01-01T00:00:00+00:00"}
    )
    assert runs.starting(root) == ()


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("../x", SETTINGS, "experiment name '../x' is not allowed"),
        ("", SETTINGS, "experiment name '' is not allowed"),
        ("first", "epoch: 3", "unknown setting 'epoch'; did you mean 'epochs'?"),
        ("first", "epochs: -1", "epochs: -1 is not allowed"),
        ("first", "a: [", "not YAML"),
        ("first", "- 1", "holds list, not settings"),
        ("first", "epochs: 1\nepochs: 2", "stands there a second time"),
        ("first", "!!python/object/apply:os.system ['true']", "not YAML"),
    ],
)
def test_nothing_is_started_with_a_bad_name_or_setting(root, script, name, text, expected):
    script("raise SystemExit")
    line = refused(runs.start, text, root=root, name=name)
    assert line.startswith(expected) or expected in line
    assert str(root) not in line
    assert runs.starting(root) == ()
    assert not list(root.glob("*/*.yaml"))


def test_a_taken_name_is_refused(root):
    folders.write(root, "first")
    assert "exists already" in refused(runs.start, SETTINGS, root=root, name="first")


@pytest.mark.parametrize("state", ["finished", "running"])
def test_what_cannot_go_on_is_not_resumed(root, state):
    experiment = folders.write(root, "first", state)
    assert f"first is {state}" in refused(runs.resume, experiment)


def test_broken_notes_are_removed(root):
    for name, content in {"a": "{", "b": "[]", "c": '{"pid": 1}', "d": '{"pid": 1, "since": "x"}'}.items():
        files.write_text(root / runs.FOLDER / f"{name}.json", content)
    assert runs.starting(root) == ()
    assert [*(root / runs.FOLDER).iterdir()] == []


HOLDING = """
import sys, time
from filelock import FileLock
lock = FileLock(sys.argv[1])
lock.acquire()
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder():
    """A process that holds a lock as a run does."""
    started = []

    def start(lock):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDING, str(lock)], stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def test_stop_asks_the_process_that_writes_the_experiment(root, holder):
    experiment = folders.write(root, "first", "running")
    process = holder(experiment.path / ".lock")
    other = holder(root / "other.lock")
    files.write_json(experiment.path / "status.json", experiment.status() | {"pid": process.pid})
    runs.stop(experiment)
    assert process.wait(WAIT) == -signal.SIGTERM
    assert other.poll() is None


def test_a_run_that_got_the_number_of_a_stopped_one_is_not_stopping(root, holder):
    experiment = folders.write(root, "first", "running")
    process = holder(experiment.path / ".lock")
    files.write_json(experiment.path / "status.json", experiment.status() | {"pid": process.pid})
    began = psutil.Process(process.pid).create_time()
    for asked, expected in ((began - 60, False), (began + 60, True), ("soon", False), (None, False)):
        files.write_json(root / runs.FOLDER / "first.stop", {"pid": process.pid, "asked": asked})
        assert runs.stopping(experiment) is expected
    files.write_text(root / runs.FOLDER / "first.stop", "[")
    assert not runs.stopping(experiment)
    runs.stop(experiment)
    assert process.wait(WAIT) == -signal.SIGTERM
    assert not runs.stopping(experiment)


def test_stop_never_asks_another_process(root, holder):
    experiment = folders.write(root, "first", "running")
    other = holder(root / "other.lock")
    for pid in (other.pid, folders.ENDED, 0, -1, 1, True, 2**70, None, "7"):
        files.write_json(experiment.path / "status.json", experiment.status() | {"pid": pid})
        assert "nothing was stopped" in refused(runs.stop, experiment)
    assert other.poll() is None


@pytest.mark.parametrize(
    ("state", "changes", "expected"),
    [
        ("finished", {}, "first is finished: there is nothing to stop"),
        ("running", {"host": "elsewhere"}, "first runs on elsewhere"),
    ],
)
def test_what_cannot_be_stopped_says_so(root, state, changes, expected):
    assert expected in refused(runs.stop, folders.write(root, "first", state, **changes))


@pytest.mark.slow
def test_a_real_run_starts_stops_and_goes_on(tmp_path, root):
    model = tiny_models.save(tmp_path / "model")
    settings = small_runs.settings(model, epochs=900, patience=900).as_dict()
    runs.start(yaml.safe_dump(settings), root=root, name="real")
    experiment = Experiment(root / "real")
    wait_for(lambda: (experiment.path / "history.jsonl").exists() or not_begun(root))
    assert runs.starting(root) == ()
    assert experiment.state() == "running"
    runs.stop(experiment)
    wait_for(lambda: experiment.state() != "running")
    assert (experiment.state(), experiment.problems()) == ("stopped", [])
    steps = experiment.status()["step"]
    runs.resume(experiment)
    wait_for(lambda: experiment.status()["step"] > steps)
    runs.stop(experiment)
    wait_for(lambda: experiment.state() != "running")
    assert experiment.state() == "stopped"
