"""Writing an experiment folder: one run at a time, and nothing half done counts, whenever a run is killed."""

import errno
import gzip
import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from qa import files
from qa.config import Settings
from qa.errors import UserError
from qa.experiment import Experiment
from qa.run import claim_model_folder, keep_dataset, open_run
from qa.squad import Question, QuestionSet

ENDED = 99_999_999  # no system gives out process numbers this high
QUESTIONS = QuestionSet(
    "colours.json",
    "1.1",
    (Question("1", "Colours", "Colours/0", "What is red?", "Red is a colour.", ("a colour",), (7,)),),
    (),
)


@pytest.fixture
def run(tmp_path):
    """A run that has begun."""
    with open_run(tmp_path, "mine") as opened:
        opened.begin(Settings(), {"device": "cpu"})
        yield opened


def refused(function, *arguments):
    """The one line that `function` is refused with."""
    with pytest.raises(UserError) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def enter(root, name="mine"):
    with open_run(root, name):
        pass


def no_space(*arguments, **options):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# The course of a run


def test_a_run_from_beginning_to_end(tmp_path):
    settings = Settings().changed(seed=7)
    with open_run(tmp_path, "mine") as run:
        run.begin(settings, {"device": "cpu"})
        experiment = run.experiment
        assert experiment.state() == "running"
        assert experiment.settings() == settings
        assert experiment.environment()["device"] == "cpu"
        assert experiment.problems() == []
        run.update(step=3, epoch=0.5, message="training")
        run.append_history({"step": 3, "loss": 1.0})
        status = experiment.status()
        assert (status["step"], status["epoch"], status["message"]) == (3, 0.5, "training")
        assert (status["pid"], status["best_step"], status["total_steps"]) == (os.getpid(), None, None)
        run.finish({"exact_match": 1.0, "f1": 2.0, "count": 1}, [{"id": "1", "exact_match": 1.0, "f1": 1.0}])
    assert experiment.state() == "finished"
    assert experiment.problems() == []
    assert experiment.metrics()["f1"] == 2.0
    assert experiment.predictions()[0]["id"] == "1"
    assert sorted(path.name for path in experiment.path.iterdir()) == [
        ".lock",
        "config.yaml",
        "environment.json",
        "history.jsonl",
        "metrics.json",
        "predictions.jsonl",
        "status.json",
    ]


def test_an_exception_is_a_failure_with_its_first_line(tmp_path):
    with pytest.raises(UserError, match="too"), open_run(tmp_path, "mine") as run:  # noqa: PT012  # one story
        run.begin(Settings(), {})
        raise UserError("out of memory\nand that too")
    status = Experiment(tmp_path / "mine").status()
    assert (status["state"], status["message"]) == ("failed", "out of memory")


@pytest.mark.parametrize(
    ("error", "state", "message"),
    [
        (ValueError(), "failed", "ValueError"),
        (ValueError("x" * 1000), "failed", "x" * 500),
        (ValueError("\ud800 🙂"), "failed", "\ud800 🙂"),
        (SystemExit(), "failed", "SystemExit"),
        (KeyboardInterrupt(), "stopped", "stopped on request; go on with --resume"),
    ],
)
def test_how_a_run_ended_is_in_its_status(tmp_path, error, state, message):
    with pytest.raises(type(error)), open_run(tmp_path, "mine") as run:  # noqa: PT012  # one story
        run.begin(Settings(), {})
        raise error
    status = Experiment(tmp_path / "mine").status()
    assert (status["state"], status["message"]) == (state, message)


@pytest.mark.parametrize("say", ["stop", "finish"])
def test_what_a_run_said_of_itself_stays_said(tmp_path, say):
    with pytest.raises(ValueError, match="late"), open_run(tmp_path, "mine") as run:  # noqa: PT012  # one story
        run.begin(Settings(), {})
        run.stop() if say == "stop" else run.finish({}, [])
        raise ValueError("late")
    assert Experiment(tmp_path / "mine").state() == {"stop": "stopped", "finish": "finished"}[say]


def test_a_second_run_goes_on_from_the_first(tmp_path, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    with open_run(tmp_path, "mine") as run:
        run.begin(Settings(), {})
        clock[0] += 100
        started = run.experiment.status()["started"]
        make_checkpoint(run, 4)
        run.update(best_step=4, best_f1=60.0)
        run.stop()
    with open_run(tmp_path, "mine") as run:
        run.begin(Settings(), {})
        status = run.experiment.status()
        assert (status["state"], status["started"], status["step"]) == ("running", started, 0)
        assert (status["best_step"], status["best_f1"]) == (4, 60.0)
        assert status["seconds"] == run.seconds() == 100.0
        run.prune_checkpoints()
    with open_run(tmp_path, "mine") as run:
        run.begin(Settings(), {})
        status = run.experiment.status()
        assert (status["best_step"], status["best_f1"]) == (None, None)


def test_a_broken_status_does_not_keep_a_run_from_beginning(tmp_path):
    enter_and_begin(tmp_path)
    (tmp_path / "mine" / "status.json").write_text("{")
    enter_and_begin(tmp_path)
    assert Experiment(tmp_path / "mine").state() == "running"


def enter_and_begin(root):
    with open_run(root, "mine") as run:
        run.begin(Settings(), {})


def test_the_heartbeat_goes_on_after_a_full_disk_and_ends_with_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr("qa.run.HEARTBEAT_SECONDS", 0.001)
    beaten = threading.Event()
    write_json = files.write_json

    def full_at_first(path, value):
        if threading.current_thread() is not threading.main_thread():
            if not beaten.is_set():
                beaten.set()
                raise UserError("No space left on device")
            second.set()
        write_json(path, value)

    second = threading.Event()
    monkeypatch.setattr(files, "write_json", full_at_first)
    with open_run(tmp_path, "mine") as run:
        run.begin(Settings(), {})
        assert beaten.wait(timeout=60)
        assert second.wait(timeout=60)
        assert run.experiment.state() == "running"
        run.finish({}, [])
    assert not run._pulse.is_alive()
    assert run.experiment.state() == "finished"


def test_a_signal_may_end_a_run_that_is_writing_its_status(run, monkeypatch):
    write_json = files.write_json

    def interrupted(path, value):
        monkeypatch.setattr(files, "write_json", write_json)
        run.stop()  # what a signal handler does, in the same thread and in the middle of an update
        write_json(path, value)

    monkeypatch.setattr(files, "write_json", interrupted)
    run.update(step=1)
    assert run.experiment.status()["state"] == "stopped"
    assert run.experiment.status()["step"] == 1


def test_a_full_disk_ends_a_run_with_its_reason_and_loses_nothing(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="No space left"), open_run(tmp_path, "mine") as run:  # noqa: PT012
        run.begin(Settings(), {})
        run.update(step=5)
        run.append_history({"step": 5})
        make_checkpoint(run, 5)
        monkeypatch.setattr(os, "fsync", no_space)
        run.update(step=6)
    monkeypatch.undo()
    experiment = Experiment(tmp_path / "mine")
    assert experiment.status()["step"] == 5
    assert experiment.history() == [{"step": 5}]
    assert list(experiment.checkpoints()) == [5]
    assert [path.name for path in tmp_path.rglob(".*")] == [".lock"]
    enter_and_begin(tmp_path)


# One run at a time

HOLD = """
    import sys, time
    from pathlib import Path
    from qa.config import Settings
    from qa.run import open_run

    with open_run(Path(sys.argv[1]), "mine") as run:
        run.begin(Settings(), {})
        (run.path / f".status.json.{run.experiment.status()['pid']}.9.tmp").touch()
        print("holds", flush=True)
        sys.stdin.read()
"""


def test_the_lock_keeps_a_second_process_out_and_is_free_after_a_kill(tmp_path, python):
    holder = python(HOLD, tmp_path)
    assert holder.stdout.readline() == "holds\n"
    assert refused(enter, tmp_path) == (
        "experiment 'mine' is being written by another process; wait for it or choose another name"
    )
    second = python(HOLD, tmp_path)
    assert second.wait() == 1
    assert "is being written by another process" in second.stderr.read()
    status = Experiment(tmp_path / "mine").status()
    assert (status["state"], status["pid"]) == ("running", holder.pid)
    enter(tmp_path, "another")
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert len(list((tmp_path / "mine").glob(".status*"))) == 1
    with open_run(tmp_path, "mine") as run:
        assert list((tmp_path / "mine").glob(".status*")) == []
        run.begin(Settings(), {})
        assert run.experiment.status()["pid"] == os.getpid()


def test_the_lock_is_free_after_a_run_has_ended(tmp_path, python):
    holder = python(HOLD, tmp_path)
    assert holder.stdout.readline() == "holds\n"
    holder.stdin.close()
    assert holder.wait() == 0
    enter(tmp_path)


def test_the_lock_keeps_a_second_thread_out(run, tmp_path):
    caught = []

    def second():
        try:
            enter(tmp_path)
        except UserError as error:
            caught.append(error)

    thread = threading.Thread(target=second)
    thread.start()
    thread.join()
    assert "is being written by another process" in str(caught[0])
    assert "is being written by another process" in refused(enter, tmp_path)
    assert run.experiment.state() == "running"


def test_a_process_that_was_forked_off_does_not_hold_the_lock(tmp_path, python):
    """A worker that prepares batches may outlive a killed run for some seconds."""
    parent = python(
        """
        import os, sys
        from pathlib import Path
        from qa.run import open_run

        with open_run(Path(sys.argv[1]), "mine"):
            if os.fork() == 0:
                print(os.getpid(), flush=True)
            sys.stdin.read()
            os._exit(0)
        """,
        tmp_path,
    )
    child = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    enter(tmp_path)
    assert files.process_lives(child, seen=time.time())


@pytest.mark.parametrize("name", ["../mine", "", "a/b", ".mine"])
def test_a_bad_name_makes_no_folder(tmp_path, name):
    root = tmp_path / "experiments"
    assert "is not allowed" in refused(enter, root, name)
    assert list(tmp_path.iterdir()) == []


def test_folders_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    assert refused(enter, tmp_path, "file") == (
        f"{tmp_path / 'file'}: cannot be written (File exists); choose another folder with --experiments-dir"
    )
    assert "(Not a directory)" in refused(enter, tmp_path / "file")
    monkeypatch.setattr(Path, "mkdir", no_space)
    assert "(No space left on device)" in refused(enter, tmp_path)


@pytest.mark.parametrize("names", [["precious.txt"], ["config.yaml"], ["status.json"], list("abcd")])
def test_a_folder_of_somebody_else_is_left_alone(tmp_path, names):
    theirs = tmp_path / "mine"
    theirs.mkdir()
    for name in names:
        (theirs / name).write_text("{}")
    message = refused(enter, tmp_path)
    assert message.startswith(f"{theirs} holds other files ({names[0]}")
    assert message.endswith("choose another name")
    assert sorted(path.name for path in theirs.iterdir()) == sorted(names)


def test_an_experiment_that_was_copied_without_its_lock_is_ours(tmp_path):
    enter_and_begin(tmp_path)
    (tmp_path / "mine" / ".lock").unlink()
    enter(tmp_path)


def test_a_new_folder_in_which_nothing_began_disappears(tmp_path):
    enter(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="no data"), open_run(tmp_path, "mine"):
        raise UserError("no data")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_deleted_while_its_run_goes_on(tmp_path):
    with open_run(tmp_path, "mine") as run:
        files.remove(run.path)
    enter(tmp_path)


# History


def test_history_is_taken_back_to_a_step(run):
    run.rewind_history(3)
    for step in (1, 3, 5):
        run.append_history({"step": step})
    with (run.path / "history.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')
    run.rewind_history(3)
    run.append_history({"step": 4})
    assert [row["step"] for row in run.experiment.history()] == [1, 3, 4]
    run.rewind_history(0)
    assert run.experiment.history() == []


# Checkpoints


def make_checkpoint(run, step, *, keep=()):
    folder = run.path / "checkpoints" / f"checkpoint-{step}"
    (folder / "inner").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"x" * 100)
    (folder / "inner" / "state").write_bytes(b"x" * 10)
    run.seal_checkpoint(folder, keep)
    return folder


def test_a_sealed_checkpoint_lists_all_its_files(run):
    folder = make_checkpoint(run, 2)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest == {"files": {"inner/state": 10, "model.safetensors": 100}}
    assert run.experiment.checkpoints() == {2: folder}
    run.seal_checkpoint(folder, [])
    assert json.loads((folder / "manifest.json").read_text()) == manifest


def test_sealing_keeps_the_best_and_the_last(run):
    make_checkpoint(run, 2)
    make_checkpoint(run, 4, keep=[2])
    make_checkpoint(run, 6, keep=[2])
    assert list(run.experiment.checkpoints()) == [2, 6]
    (run.path / "checkpoints" / "checkpoint-8").mkdir()
    (run.path / "checkpoints" / "tmp-checkpoint-8").mkdir()
    (run.path / "checkpoints" / "note.txt").touch()
    run.prune_checkpoints(run.experiment.checkpoints())
    names = ["checkpoint-2", "checkpoint-6", "note.txt"]
    assert sorted(path.name for path in (run.path / "checkpoints").iterdir()) == names
    run.prune_checkpoints()
    assert run.experiment.checkpoints() == {}


def test_the_manifest_comes_last_and_after_a_flush(run, monkeypatch):
    order = []
    flush, write_json = files.flush, files.write_json

    def flushing(path):
        if path.name.startswith("checkpoint"):
            order.append(sorted(item.name for item in path.iterdir()))
        flush(path)

    def writing(path, value):
        if path.name == "manifest.json":
            order.append("manifest")
        write_json(path, value)

    monkeypatch.setattr(files, "flush", flushing)
    monkeypatch.setattr(files, "write_json", writing)
    make_checkpoint(run, 2)
    assert order == [["inner", "model.safetensors"], "manifest"]


def test_a_full_disk_while_sealing_leaves_the_earlier_checkpoint(run, monkeypatch):
    make_checkpoint(run, 2)
    with monkeypatch.context() as full:
        full.setattr(os, "fsync", no_space)
        assert "No space left on device" in refused(make_checkpoint, run, 4)
    assert list(run.experiment.checkpoints()) == [2]


def test_removal_of_a_checkpoint_that_is_cut_off_anywhere(run, monkeypatch):
    """After each single removal of a file, what is left of the checkpoint does not count."""
    unlink = os.unlink
    seen = []

    def watched(path, *arguments, **options):
        unlink(path, *arguments, **options)
        seen.append(list(run.experiment.checkpoints()))

    make_checkpoint(run, 2)
    monkeypatch.setattr(os, "unlink", watched)
    make_checkpoint(run, 4)
    assert len(seen) >= 3
    assert all(steps == [4] for steps in seen)


# The best model


def save_as(content):
    def save(folder):
        (folder / "config.json").write_text(content)
        (folder / "weights").write_text(content)

    return save


def test_the_model_appears_whole(run):
    target = run.path / "best_model"

    def save(folder):
        save_as("1")(folder)
        assert not target.exists()

    run.publish_model(save, target)
    assert {path.name: path.read_text() for path in target.iterdir()} == {"config.json": "1", "weights": "1"}
    assert run.experiment.model_folder() == target
    run.publish_model(save_as("2"), target)
    assert {path.read_text() for path in target.iterdir()} == {"2"}
    assert [path.name for path in run.path.rglob(".*")] == [".lock"]


@pytest.mark.parametrize("error", [ValueError("defect"), OSError(errno.ENOSPC, "No space left on device")])
def test_a_model_that_could_not_be_saved_leaves_the_old_one(run, error):
    target = run.path / "best_model"
    run.publish_model(save_as("1"), target)

    def fail(folder):
        save_as("2")(folder)
        raise error

    with pytest.raises((ValueError, UserError)):
        run.publish_model(fail, target)
    assert {path.read_text() for path in target.iterdir()} == {"1"}
    assert [path.name for path in run.path.rglob(".*")] == [".lock"]


def test_a_kill_while_the_model_is_saved_leaves_no_trace(tmp_path, python):
    writer = python(
        """
        import sys, time
        from pathlib import Path
        from qa.config import Settings
        from qa.run import open_run

        def save(folder):
            (folder / "weights").write_text("half")
            print("saving", flush=True)
            sys.stdin.read()

        with open_run(Path(sys.argv[1]), "mine") as run:
            target = Path(sys.argv[2])
            run.begin(Settings().changed(best_model_path=str(target)), {})
            run.publish_model(save, target)
        """,
        tmp_path / "experiments",
        tmp_path / "models" / "best[1]",
    )
    assert writer.stdout.readline() == "saving\n"
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    target = tmp_path / "models" / "best[1]"
    assert [path.name for path in target.iterdir()] == ["experiment.json"]
    assert len(list(target.parent.iterdir())) == 2
    foreign = target.parent / f".foreign.{ENDED}.0.tmp"
    foreign.touch()
    with open_run(tmp_path / "experiments", "mine") as run:
        run.publish_model(save_as("1"), target)
    assert sorted(path.name for path in target.iterdir()) == ["config.json", "experiment.json", "weights"]
    assert sorted(target.parent.iterdir()) == [foreign, target]


def test_a_model_folder_of_another_experiment_is_refused(tmp_path):
    model = tmp_path / "models" / "experiment_1" / "best_model"
    settings = Settings().changed(best_model_path=str(model))
    root = tmp_path / "experiments"
    with open_run(root, "first") as first:
        first.begin(settings, {})
        message = refused(claim_model_folder, model, root / "second")
        assert message == (
            f"best_model_path: {model} belongs to the experiment 'first' ({root / 'first'}); choose another "
            "folder, or remove this one"
        )
        with open_run(root, "second") as second:
            assert refused(second.begin, settings, {}) == message
        assert not (root / "second").exists()
        first.publish_model(save_as("1"), model)
    assert refused(claim_model_folder, model, root / "second") == message
    claim_model_folder(model, root / "first")
    with open_run(root, "first") as first:
        first.begin(settings, {})
        first.publish_model(save_as("2"), model)
        assert first.experiment.model_folder() == model
    assert (model / "weights").read_text() == "2"


@pytest.mark.parametrize("owner", ["", "{}", '{"experiment": 3}', "\0"])
def test_a_model_folder_of_nobody_we_know_is_refused(tmp_path, owner):
    model = tmp_path / "model"
    claim_model_folder(model, tmp_path / "experiments" / "mine")
    model.mkdir()
    claim_model_folder(model, tmp_path / "experiments" / "mine")
    (model / "experiment.json").write_text(owner)
    assert refused(claim_model_folder, model, tmp_path / "experiments" / "mine") == (
        f"best_model_path: {model} exists and is no experiment's; choose another folder"
    )
    (tmp_path / "file").touch()
    assert "exists and is no" in refused(claim_model_folder, tmp_path / "file", tmp_path / "mine")


def test_a_model_folder_inside_an_experiment_is_refused_but_for_the_own_one(run, tmp_path):
    with open_run(tmp_path, "other") as other:
        other.begin(Settings(), {})
    claim_model_folder(run.path / "best_model", run.path)
    for folder in (
        run.path,
        run.path / "checkpoints",
        run.path / "best_model" / "inner",
        run.path / "x" / "..",
    ):
        assert "lies in the folder of the experiment 'mine'" in refused(claim_model_folder, folder, run.path)
    for folder in (other.path / "best_model", other.path, other.path / "a" / "b"):
        assert "lies in the folder of the experiment 'other'" in refused(claim_model_folder, folder, run.path)
    unborn = tmp_path / "unborn"
    assert "experiment 'unborn'" in refused(claim_model_folder, unborn / "history.jsonl", unborn)


def test_an_own_model_that_was_moved_and_linked_may_be_replaced(run, tmp_path):
    (tmp_path / "large-disk").mkdir()
    (tmp_path / "large-disk" / "weights").touch()
    (run.path / "best_model").symlink_to(tmp_path / "large-disk")
    run.publish_model(save_as("1"), run.path / "best_model")
    assert (run.path / "best_model" / "weights").read_text() == "1"
    assert (tmp_path / "large-disk" / "weights").read_text() == ""


def test_an_experiment_that_was_moved_still_owns_its_model(run, tmp_path):
    run.publish_model(save_as("1"), run.path / "best_model")
    run.stop()
    run.path.rename(tmp_path / "moved")
    claim_model_folder(tmp_path / "moved" / "best_model", tmp_path / "moved")


# Kept data sets


def test_a_data_set_is_kept_once(tmp_path):
    sha = keep_dataset(tmp_path, QUESTIONS)
    file = tmp_path / ".datasets" / f"{sha}.jsonl.gz"
    first, content = file.stat(), file.read_bytes()
    assert keep_dataset(tmp_path, QUESTIONS) == sha
    assert file.stat().st_ino == first.st_ino
    file.unlink()
    keep_dataset(tmp_path, QUESTIONS)
    assert file.read_bytes() == content  # the same questions give the same file
    head, row = gzip.decompress(content).decode().splitlines()
    assert json.loads(head) == {"version": "1.1", "name": "colours.json"}
    assert json.loads(row)["answers"] == ["a colour"]


def test_keeping_removes_what_killed_writers_left(tmp_path, monkeypatch):
    (tmp_path / ".datasets").mkdir()
    (tmp_path / ".datasets" / f".x.jsonl.gz.{ENDED}.0.tmp").touch()
    with monkeypatch.context() as full:
        full.setattr(os, "fsync", no_space)
        assert "No space left on device" in refused(keep_dataset, tmp_path, QUESTIONS)
    assert list((tmp_path / ".datasets").iterdir()) == []
