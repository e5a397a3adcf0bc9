"""The index of the experiments folder: true, bounded, and opening only what has changed."""

import json
import os
import sys
import threading
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import folders
from dashboard import listing
from dashboard.data.experiments import CURVE_POINTS, Index, _thinned, index_of
from qa import files
from qa.errors import UserError

OPENED: list[str] = []


def _hear(event, arguments):
    if event == "open" and isinstance(arguments[0], str | os.PathLike):
        OPENED.append(str(arguments[0]))


sys.addaudithook(_hear)  # cannot be taken away again, so there is one


@pytest.fixture
def opened(tmp_path):
    """Every file of this test's folder that Python opens, whoever does it."""

    def since():
        found = [Path(name).relative_to(tmp_path) for name in OPENED if name.startswith(str(tmp_path))]
        OPENED.clear()
        return sorted(map(str, found))

    since()
    return since


@pytest.fixture
def root(tmp_path):
    for state in ("finished", "stopped", "failed"):
        folders.write(tmp_path, state, state)
    folders.write(tmp_path, "running", "running", pid=os.getpid())
    folders.interrupted(tmp_path, "interrupted")
    return tmp_path


def test_a_summary_says_what_the_folder_says(root):
    summaries = {one.name: one for one in Index(root).visit()}
    assert {name: one.state for name, one in summaries.items()} == {name: name for name in summaries}
    one = summaries["finished"]
    assert (one.f1, one.f1_interval, one.exact_match, one.exact_match_interval) == (
        62.0,
        (57.0, 67.0),
        55.5,
        (50.5, 60.5),
    )
    assert (one.count, one.data, one.data_sha, one.has_model) == (200, "validation.json", "5" * 64, False)
    assert (one.curve, one.speed, one.problems) == ((54, 58, 62), 12.5, ())
    running = summaries["running"]
    assert (running.step, running.total_steps, running.seconds_left) == (60, 120, 600)
    assert running.f1 is None
    assert [name for name, one in summaries.items() if one.can_resume] == ["failed", "interrupted", "stopped"]
    assert not any(one.imported for one in summaries.values())


@pytest.mark.parametrize("state", ["failed", "interrupted"])
def test_an_import_that_was_cut_off_cannot_go_on(root, state):
    environment = root / state / "environment.json"
    environment.write_text(json.dumps({**json.loads(environment.read_text()), "imported": "model"}))
    one = next(one for one in Index(root).visit() if one.name == state)
    assert (one.imported, one.ended_early, one.can_resume) == (True, True, False)
    why = "an import that was cut off" if state == "interrupted" else one.message
    assert listing.note(one) == f"{why}; remove the folder and import it again"


def test_a_model_is_seen(root):
    index = Index(root)
    assert not any(one.has_model for one in index.visit())
    (root / "finished" / "best_model").mkdir()
    (root / "finished" / "best_model" / "config.json").write_text("{}")
    assert [one.name for one in index.visit() if one.has_model] == ["finished"]


@pytest.mark.parametrize("kind", folders.BREAKING)
def test_problems_are_those_of_the_experiment(tmp_path, kind):
    experiment = folders.broken(tmp_path, kind)
    (one,) = Index(tmp_path).visit()
    whole = [problem.replace(f"{experiment.path}/", "") for problem in experiment.problems()]
    assert [*one.problems] == whole
    assert whole
    assert one.state == experiment.state()


def test_a_second_visit_opens_nothing(root, opened):
    for kind in folders.BREAKING:
        folders.broken(root, kind)
    opened()
    index = Index(root)
    first = index.visit()
    there = [name for name in opened() if os.path.lexists(root / name)]
    assert index.opened == len(there) > 100
    # A file that is not there is looked for once: its problem is known.
    assert index.visit() == first
    assert opened() == []


def test_only_what_changed_is_opened(root, opened):
    index = Index(root)
    index.visit()
    with (root / "running" / "history.jsonl").open("a") as file:
        file.write(json.dumps({"step": 80, "f1": 70.0}) + "\n")
    folders.write(root, "new")
    opened()
    before = index.opened
    assert {one.name: one.curve[-1] for one in index.visit()}["running"] == 70
    names = ["config.yaml", "environment.json", "history.jsonl", "metrics.json", "status.json"]
    expected = [*(f"new/{name}" for name in names), "running/history.jsonl"]
    assert opened() == expected
    assert index.opened - before == len(expected)


def test_a_file_put_in_place_of_another_is_seen_whatever_its_time_and_size(root, opened):
    index = Index(root)
    index.visit()
    file = root / "finished" / "metrics.json"
    text, found = file.read_text(), file.stat()
    files.write_text(file, text.replace("62.0", "99.0"))
    os.utime(file, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (found.st_size, found.st_mtime_ns)
    opened()
    assert {one.name: one.f1 for one in index.visit()}["finished"] == 99
    assert opened() == ["finished/metrics.json"]


def test_what_is_mended_or_gone_is_forgotten(root):
    index = Index(root)
    broken = folders.broken(root, "torn-status")
    assert [one.name for one in index.visit() if one.problems] == [broken.name]
    files.write_json(broken.path / "status.json", {"state": "stopped"})
    assert not any(one.problems for one in index.visit())
    files.remove(broken.path)
    assert len(index.visit()) == len(index._parts) == 5


def test_predictions_are_never_opened(tmp_path, opened):
    folders.write(tmp_path, "large")
    opened()
    Index(tmp_path).visit()
    found = opened()
    assert "large/metrics.json" in found
    assert "large/predictions.jsonl" not in found


def test_sessions_at_once_see_whole_summaries(root):
    index, stop, seen = Index(root), threading.Event(), []

    def look():
        while not stop.is_set():
            seen.append({one.name: (one.state, one.f1) for one in index.visit()})

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for f1 in range(100):
        metrics = {"exact_match": 1.0, "f1": float(f1), "count": 1}
        files.write_json(root / "finished" / "metrics.json", metrics)
    stop.set()
    for thread in threads:
        thread.join()
    assert seen
    assert {found["finished"][0] for found in seen} == {"finished"}
    assert {one.name: one.f1 for one in index.visit()}["finished"] == 99


def test_no_folder_is_no_experiments(tmp_path):
    assert Index(tmp_path / "nowhere").visit() == ()


def test_a_file_for_a_folder_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be read"):
        Index(tmp_path / "file").visit()


def test_all_sessions_share_an_index(root):
    assert index_of(str(root)) is index_of(str(root))


@given(st.lists(st.floats(0, 100), max_size=200))
def test_a_curve_keeps_its_ends(values):
    thinned = _thinned(values)
    assert len(thinned) == min(len(values), CURVE_POINTS)
    assert thinned[:1] == tuple(values[:1])
    assert thinned[-1:] == tuple(values[-1:])


# Whatever a foreign program wrote into the files, the page's table can be made and sent.
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**400), 10**400)
    | st.floats(allow_nan=False)
    | st.sampled_from([1e308, 2**53, -1, 0, "2026-01-01T00:00:00", "0001-01-01T00:00:00+14:00", "\ud800"])
    | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=4,
)
STATUS = (
    "step",
    "total_steps",
    "epoch",
    "seconds",
    "best_f1",
    "started",
    "updated",
    "message",
    "pid",
    "host",
)
METRICS = ("exact_match", "f1", "count", "exact_match_interval", "f1_interval")


@given(
    state=st.sampled_from(["running", "finished", "failed"]),
    status=st.dictionaries(st.sampled_from(STATUS), ANYTHING),
    metrics=st.dictionaries(st.sampled_from(METRICS), ANYTHING),
    data=st.dictionaries(st.sampled_from(["name", "sha256"]), ANYTHING),
    row=st.dictionaries(st.sampled_from(["f1", "examples_per_second"]), ANYTHING),
)
def test_foreign_values_never_break_the_table(tmp_path_factory, state, status, metrics, data, row):
    root = tmp_path_factory.mktemp("foreign")
    experiment = folders.write(root, "foreign", "finished")
    folder = experiment.path
    for name, values in {
        "status.json": {"state": state, **status},
        "metrics.json": {"exact_match": 1.0, "f1": 1.0, "count": 1} | metrics,
        "environment.json": {"data": {"validation": data}},
        "history.jsonl": {"step": 1, **row},
    }.items():
        (folder / name).write_text(json.dumps(values) + "\n")
    (one,) = Index(root).visit()
    table = listing.frame([one])
    assert pa.Table.from_pandas(table).num_rows == 1
    json.dumps([one.name, one.message, *one.problems]).encode()
    "".join([one.message, *one.problems, one.data or ""]).encode()
    assert one.seconds_left is None or one.seconds_left >= 0
