"""Reading experiment folders as they are found: whole, running, killed, broken, foreign or empty."""

import gzip
import json
import os
import socket
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qa import files
from qa.config import Settings, settings_text
from qa.errors import UserError
from qa.experiment import (
    STATES,
    Experiment,
    check_name,
    experiments_dir,
    find_experiment,
    list_experiments,
    read_dataset,
)
from qa.run import keep_dataset
from qa.squad import Question, QuestionSet

ENDED = 99_999_999  # no system gives out process numbers this high
STATUS = {"state": "finished", "step": 4, "total_steps": 4, "epoch": 1.0, "message": "", "best_f1": 50.0}
METRICS = {"exact_match": 50.0, "f1": 60.5, "eval_loss": 1.5, "count": 2}
GARBAGE = [b"", b"\0\xff\xfe", b"null", b"[]", b"{}", b'"text"', b'{"a": ', b"a: [", b"1", b"[" * 500]


def question(number, **changes):
    values = {
        "id": str(number),
        "title": "Colours",
        "paragraph": "Colours/0",
        "question": "What is red?",
        "context": "Red is a colour.",
        "answers": ("a colour",),
        "starts": (7,),
    }
    return Question(**values | changes)


QUESTIONS = QuestionSet(
    "colours.json",
    "2.0",
    (
        question(1),
        question(2, answers=(), starts=()),
        question(3, answers=("blue",), starts=(-1,)),
        question(4, question="Quelle couleur\u2028\ud800🙂?\0"),
    ),
    ("3",),
)


@pytest.fixture
def experiment(tmp_path):
    """A healthy finished experiment."""
    found = Experiment(tmp_path / "good")
    files.write_text(found.path / "config.yaml", settings_text(Settings()))
    files.write_json(found.path / "status.json", STATUS)
    data = {"name": QUESTIONS.name, "sha256": QUESTIONS.sha256()}
    files.write_json(found.path / "environment.json", {"data": {"validation": data}})
    files.write_rows(found.path / "history.jsonl", [{"step": 2, "loss": 3.0}, {"step": 4, "f1": 50.0}])
    files.write_json(found.path / "metrics.json", METRICS)
    files.write_rows(
        found.path / "predictions.jsonl", [{"id": "1", "prediction": "x", "exact_match": 1.0, "f1": 1.0}]
    )
    return found


def refused(function, *arguments):
    """The one line that `function` is refused with."""
    with pytest.raises(UserError) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Names and the folder of experiments


@pytest.mark.parametrize("name", ["a", "0", "my-run_2.b", "A" * 64, "a..b", "README.md"])
def test_names(name):
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "/etc",
        "a\\b",
        ".hidden",
        "-n",
        "_a",
        "a b",
        "a\n",
        "a\0",
        "é",
        "A" * 65,
        "~",
    ],
)
def test_what_is_no_name(name):
    assert refused(check_name, name).startswith(f"experiment name {name!r} is not allowed; use up to 64")


@given(st.text() | st.text("ab.-_/\\~\0\n ", max_size=6))
def test_no_name_leaves_the_folder(name):
    root = Path("/somewhere/experiments")
    try:
        path = root / check_name(name)
    except UserError:
        return
    assert Path(os.path.normpath(path)).parent == root
    assert path.name == name


def test_where_experiments_are(monkeypatch):
    assert experiments_dir() == Path("experiments")
    monkeypatch.setenv("EXPERIMENTS_DIR", "elsewhere")
    assert experiments_dir() == experiments_dir("") == Path("elsewhere")
    assert experiments_dir("given") == Path("given")
    assert experiments_dir("~/mine") == Path.home() / "mine"
    assert "--experiments-dir ~nobody-of-this-name/x: " in refused(experiments_dir, "~nobody-of-this-name/x")


def test_finding(experiment, tmp_path):
    assert find_experiment(tmp_path, "good") == experiment
    assert refused(find_experiment, tmp_path, "bad") == (
        f"no experiment 'bad' in {tmp_path}; there are: good (python -m qa list --experiments-dir {tmp_path})"
    )
    assert "is not allowed" in refused(find_experiment, tmp_path, "../good")
    assert "there are none" in refused(find_experiment, tmp_path / "nowhere", "good")
    for number in range(12):
        (tmp_path / f"n{number:02}").mkdir()
    assert "good, n00, n01, n02, n03, n04, n05, n06, n07, n08 ... (" in refused(
        find_experiment, tmp_path, "no"
    )


def test_listing_leaves_out_what_is_no_experiment(experiment, tmp_path):
    (tmp_path / "README.md").touch()
    (tmp_path / ".datasets").mkdir()
    (tmp_path / "with blank").mkdir()
    (tmp_path / "broken-link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "link").symlink_to(experiment.path)
    (tmp_path / "Empty").mkdir()
    assert [found.name for found in list_experiments(tmp_path)] == ["Empty", "good", "link"]
    assert list_experiments(tmp_path / "nowhere") == []


def test_a_folder_of_experiments_that_cannot_be_read(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    assert refused(list_experiments, tmp_path / "file") == (
        f"{tmp_path / 'file'}: cannot be read (Not a directory); give the folder of experiments with "
        "--experiments-dir"
    )
    assert "File name too long" in refused(list_experiments, tmp_path / ("x" * 300))

    def denied(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", denied)
    assert "Permission denied" in refused(find_experiment, tmp_path, "good")


# Folders as they are found


def read_everything(experiment):
    """Call every reader; whatever is wrong must come as a UserError."""
    for read in (
        experiment.settings,
        experiment.status,
        experiment.environment,
        experiment.history,
        experiment.metrics,
        experiment.predictions,
        experiment.model_folder,
        experiment.validation_questions,
    ):
        with suppress(UserError):
            read()
    assert experiment.state() in (*STATES, "interrupted", "broken")
    assert isinstance(experiment.problems(), list)
    assert experiment.checkpoints() == {}
    assert isinstance(experiment.evaluations(), dict)


def test_a_healthy_folder(experiment, tmp_path):
    keep_dataset(tmp_path, QUESTIONS)
    assert experiment.problems() == []
    assert experiment.name == "good"
    assert experiment.state() == "finished"
    assert experiment.settings() == Settings()
    assert experiment.status() == STATUS
    assert [row["step"] for row in experiment.history()] == [2, 4]
    assert experiment.metrics() == METRICS
    assert experiment.predictions()[0]["prediction"] == "x"
    assert experiment.validation_questions() == QUESTIONS


NAMES = [
    "config.yaml",
    "status.json",
    "environment.json",
    "history.jsonl",
    "metrics.json",
    "predictions.jsonl",
]


@pytest.mark.parametrize("name", NAMES)
def test_any_file_may_hold_garbage(experiment, name):
    for garbage in GARBAGE:
        (experiment.path / name).write_bytes(garbage)
        read_everything(experiment)
    (experiment.path / name).unlink()
    read_everything(experiment)
    (experiment.path / name).mkdir()
    read_everything(experiment)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "predictions.jsonl"])
def test_a_broken_file_is_a_problem_that_names_it(experiment, name):
    (experiment.path / name).write_bytes(b"\0\n")
    (problem,) = experiment.problems()
    assert str(experiment.path / name) in problem


def test_missing_files_are_problems_but_a_history_may_be_missing(experiment):
    for name in NAMES:
        (experiment.path / name).rename(experiment.path / "away")
        problems = experiment.problems()
        assert len(problems) == (name != "history.jsonl")
        assert all(name in problem for problem in problems)
        (experiment.path / "away").rename(experiment.path / name)
    assert experiment.problems() == []


@pytest.mark.parametrize(
    ("name", "values", "problem"),
    [
        ("status.json", STATUS | {"state": "done"}, "unknown state 'done'"),
        ("status.json", STATUS | {"state": ["running"]}, "unknown state ['running']"),
        ("status.json", STATUS | {"step": "4"}, "step is '4', not int or float"),
        ("status.json", STATUS | {"message": 3}, "message is 3, not str"),
        ("environment.json", {"data": []}, "data is [], not dict"),
        ("environment.json", {"data": None}, "data is missing"),
        ("environment.json", {"data": {"validation": "x"}}, "validation is 'x', not dict"),
        ("metrics.json", {}, "exact_match is missing"),
        ("metrics.json", METRICS | {"f1": "60"}, "f1 is '60', not int or float"),
        ("metrics.json", METRICS | {"count": True}, "count is True, not int"),
    ],
)
def test_values_of_foreign_programs_are_problems(experiment, name, values, problem):
    (experiment.path / name).write_text(json.dumps(values))
    assert experiment.problems() == [f"{experiment.path / name}: {problem}"]


def test_rows_without_their_keys_are_named(experiment):
    (experiment.path / "history.jsonl").write_text('{"step": 1}\n{"loss": 2}\n')
    assert "history.jsonl: line 2: step is missing" in refused(experiment.history)
    (experiment.path / "predictions.jsonl").write_text('{"id": 5, "f1": 0, "exact_match": 0}\n')
    assert "predictions.jsonl: line 1: id is 5, not str" in refused(experiment.predictions)


def test_listing_a_zoo_of_folders_never_raises(experiment, tmp_path):
    (tmp_path / "empty").mkdir()
    huge = tmp_path / "huge"
    (huge / "checkpoints").mkdir(parents=True)
    for number in range(300):
        (huge / f"file-{number}").touch()
        (huge / "checkpoints" / f"checkpoint-{number}").mkdir()
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "config.yaml").write_text("services:\n  web: {image: x}\n")
    (foreign / "evaluations").touch()
    (foreign / "checkpoints").touch()
    found = {other.name: other for other in list_experiments(tmp_path)}
    for other in found.values():
        read_everything(other)
    assert {name: other.state() for name, other in found.items()} == {
        "empty": "broken",
        "foreign": "broken",
        "good": "finished",
        "huge": "broken",
    }
    assert "unknown setting 'services'" in found["foreign"].problems()[0]


def test_a_folder_that_may_not_be_searched_is_a_problem(experiment, monkeypatch):
    def denied(path, *arguments, **options):
        raise PermissionError(13, "Permission denied")

    for name in ("stat", "open", "read_bytes", "read_text"):
        monkeypatch.setattr(Path, name, denied)
    assert len(experiment.problems()) == 4
    assert all("Permission denied" in problem for problem in experiment.problems())
    assert experiment.state() == "broken"


# State


@pytest.mark.parametrize("state", ["finished", "stopped", "failed"])
def test_a_run_that_said_how_it_ended_is_believed(experiment, state):
    files.write_json(experiment.path / "status.json", {"state": state})
    assert experiment.state() == state


OLD = timedelta(hours=1)
HERE = socket.gethostname()


@pytest.mark.parametrize(
    ("age", "values", "state"),
    [
        (timedelta(), {"pid": ENDED, "host": HERE}, "running"),  # a heartbeat is proof enough for a while
        (timedelta(), {"pid": ENDED, "host": "another"}, "running"),
        (OLD, {"pid": ENDED, "host": HERE}, "interrupted"),
        (OLD, {"pid": 1, "host": "another"}, "interrupted"),  # its process cannot be looked up from here
        (OLD, {"pid": "1", "host": HERE}, "interrupted"),
        (OLD, {"pid": True, "host": HERE}, "interrupted"),
        (OLD, {"pid": 0, "host": HERE}, "interrupted"),
        (OLD, {"pid": -1, "host": HERE}, "interrupted"),
        (OLD, {"pid": 10**30, "host": HERE}, "interrupted"),
        (OLD, {}, "interrupted"),
        (-OLD, {"pid": ENDED, "host": HERE}, "interrupted"),  # a clock that was wrong
    ],
)
def test_a_running_run_is_believed_while_there_is_a_sign_of_life(experiment, age, values, state):
    updated = (datetime.now(UTC) - age).isoformat()
    files.write_json(experiment.path / "status.json", {"state": "running", "updated": updated} | values)
    assert experiment.state() == state


def test_an_old_heartbeat_of_a_living_process(experiment):
    """A process that is suspended, say: it was there before the heartbeat and still is."""
    updated = datetime.now(UTC)
    status = {"state": "running", "updated": updated.isoformat(), "pid": os.getpid(), "host": HERE}
    files.write_json(experiment.path / "status.json", status)
    later = updated + OLD

    class Later(datetime):
        @classmethod
        def now(cls, zone=None):
            return later

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("qa.experiment.datetime", Later)
        assert experiment.state() == "running"
    # The same number, but of a process that began after the last heartbeat.
    files.write_json(experiment.path / "status.json", status | {"updated": (updated - OLD * 24).isoformat()})
    assert experiment.state() == "interrupted"


@pytest.mark.parametrize("updated", [None, "", "yesterday", 5, "0001-01-01T00:00:00+23:59", [], "2020-01-01"])
def test_a_heartbeat_that_is_no_time_is_none(experiment, updated):
    status = {"state": "running", "updated": updated, "pid": os.getpid(), "host": HERE}
    files.write_json(experiment.path / "status.json", status)
    assert experiment.state() == "interrupted"


# The model


def test_the_model_is_in_the_folder_or_where_the_settings_say(experiment, tmp_path):
    (experiment.path / "best_model").mkdir()
    (experiment.path / "best_model" / "config.json").touch()
    assert experiment.model_folder() == experiment.path / "best_model"
    elsewhere = tmp_path / "models" / "experiment_1" / "best_model"
    text = settings_text(Settings().changed(best_model_path=str(elsewhere)))
    (experiment.path / "config.yaml").write_text(text)
    assert f"'good' has no model in {elsewhere}: it was imported" in refused(experiment.model_folder)
    elsewhere.mkdir(parents=True)
    (elsewhere / "config.json").touch()
    assert experiment.model_folder() == elsewhere


def test_a_model_that_is_not_there_yet(experiment):
    (experiment.path / "status.json").write_text('{"state": "stopped"}')
    assert refused(experiment.model_folder) == (
        "experiment 'good' has no model yet (stopped); choose a finished experiment, or go on with: "
        f"python run_experiment.py --name good --resume --experiments-dir {experiment.path.parent}"
    )


# Checkpoints


@pytest.fixture
def checkpoint(experiment):
    """Makes a whole checkpoint of a step and returns its folder."""

    def make(step):
        folder = experiment.path / "checkpoints" / f"checkpoint-{step}"
        (folder / "inner").mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"x" * 100)
        (folder / "inner" / "state").write_bytes(b"x" * 10)
        sizes = {"model.safetensors": 100, "inner/state": 10}
        files.write_json(folder / "manifest.json", {"files": sizes})
        return folder

    return make


def test_whole_checkpoints_in_order_of_their_steps(experiment, checkpoint):
    folders = {step: checkpoint(step) for step in (900, 1000, 0)}
    assert experiment.checkpoints() == folders
    assert list(experiment.checkpoints()) == [0, 900, 1000]


@pytest.mark.parametrize(
    "name", ["checkpoint-", "checkpoint-x", "checkpoint-²", "checkpoint-07", "checkpoint-5.tmp"]
)
def test_a_folder_that_is_named_otherwise_is_no_checkpoint(experiment, checkpoint, name):
    checkpoint(5).rename(experiment.path / "checkpoints" / name)
    assert experiment.checkpoints() == {}


def test_a_checkpoint_without_its_manifest_does_not_count(experiment, checkpoint):
    checkpoint(1)
    (checkpoint(2) / "manifest.json").unlink()
    assert list(experiment.checkpoints()) == [1]


@pytest.mark.parametrize("content", [b"x" * 99, b"x" * 101, b"", None])
@pytest.mark.parametrize("name", ["model.safetensors", "inner/state"])
def test_a_checkpoint_with_a_file_of_another_size_does_not_count(experiment, checkpoint, name, content):
    file = checkpoint(1) / name
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    assert experiment.checkpoints() == {}


@pytest.mark.parametrize(
    "manifest",
    [
        *GARBAGE,
        b'{"files": {}}',
        b'{"files": []}',
        b'{"files": 3}',
        b'{"files": {"a\\u0000": 3}}',
        b'{"files"',
    ],
)
def test_a_checkpoint_with_a_broken_manifest_does_not_count(experiment, checkpoint, manifest):
    (checkpoint(1) / "manifest.json").write_bytes(manifest)
    assert experiment.checkpoints() == {}


# Evaluations


def test_evaluations_are_kept_by_data(experiment):
    folder = experiment.write_evaluation("b" * 64, {"f1": 1.0}, [{"id": "1"}])
    experiment.write_evaluation("a" * 64, {"f1": 2.0}, [])
    assert experiment.evaluations() == {"a" * 64: {"f1": 2.0}, "b" * 64: {"f1": 1.0}}
    experiment.write_evaluation("b" * 64, {"f1": 3.0}, [{"id": "2"}])
    assert experiment.evaluations()["b" * 64] == {"f1": 3.0}
    assert files.read_rows(folder / "predictions.jsonl") == [{"id": "2"}]
    assert [path.name for path in experiment.path.rglob(".*")] == []


def test_an_evaluation_that_fails_leaves_the_earlier_one(experiment):
    experiment.write_evaluation("a" * 64, {"f1": 1.0}, [{"id": "1"}])
    with pytest.raises(ValueError, match="not JSON compliant"):
        experiment.write_evaluation("a" * 64, {"f1": float("nan")}, [{"id": "2"}])
    assert experiment.evaluations() == {"a" * 64: {"f1": 1.0}}
    assert files.read_rows(experiment.path / "evaluations" / ("a" * 64) / "predictions.jsonl") == [
        {"id": "1"}
    ]


def test_broken_evaluations_and_those_of_killed_writers_are_left_out(experiment):
    for name, content in (("a", "{}"), ("b", "{"), (f".a.{ENDED}.0.tmp", "{}")):
        (experiment.path / "evaluations" / name).mkdir(parents=True)
        (experiment.path / "evaluations" / name / "metrics.json").write_text(content)
    (experiment.path / "evaluations" / "c").mkdir()
    assert list(experiment.evaluations()) == ["a"]


# Kept data sets


def test_a_data_set_is_read_back_as_it_was(tmp_path):
    sha = keep_dataset(tmp_path, QUESTIONS)
    assert sha == QUESTIONS.sha256()
    kept = read_dataset(tmp_path, sha, "colours.json")
    assert kept == QUESTIONS
    assert kept.sha256() == sha
    assert read_dataset(tmp_path, sha, "").name == "colours.json"
    assert read_dataset(tmp_path, sha, "other").name == "other"


def test_data_that_is_not_there(experiment, tmp_path):
    message = refused(experiment.validation_questions)
    assert message.startswith(
        f"the validation questions (colours.json) are not in {tmp_path / '.datasets'}; "
    )
    for sha in ("", "x", "../" + "a" * 61, "A" * 64):
        assert "the validation questions (unknown) are not in" in refused(read_dataset, tmp_path, sha, "")
    (experiment.path / "environment.json").write_text("{}")
    assert "the validation questions (unknown) are not in" in refused(experiment.validation_questions)


def packed(text):
    return gzip.compress(text.encode())


@pytest.mark.parametrize(
    "broken",
    [
        lambda whole: b"",
        lambda whole: b"text",
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole[:20] + bytes(byte ^ 255 for byte in whole[20:40]) + whole[40:],
        lambda whole: packed(""),
        lambda whole: packed("{}\n"),
        lambda whole: packed("[]\n"),
        lambda whole: packed("null\nnull\n"),
        lambda whole: packed("[" * 10_000),
        lambda whole: packed(gzip.decompress(whole).decode().replace("Red", "Rad", 1)),
        lambda whole: packed("\n".join(gzip.decompress(whole).decode().split("\n")[:-2])),
        lambda whole: packed(gzip.decompress(whole).decode().replace('"2.0"', '"1.1"', 1)),
        lambda whole: packed(gzip.decompress(whole).decode().replace("paragraph", "chapter")),
    ],
)
def test_a_broken_copy_is_reported(tmp_path, broken):
    sha = keep_dataset(tmp_path, QUESTIONS)
    file = tmp_path / ".datasets" / f"{sha}.jsonl.gz"
    file.write_bytes(broken(file.read_bytes()))
    message = refused(read_dataset, tmp_path, sha, "colours.json")
    assert message.startswith(f"{file}: broken (")
    assert "remove it" in message
    file.unlink()
    keep_dataset(tmp_path, QUESTIONS)
    assert read_dataset(tmp_path, sha, "colours.json") == QUESTIONS
