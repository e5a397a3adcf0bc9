"""Files that are whole or absent: beside readers, killed writers, full disks and torn ends."""

import errno
import json
import os
import resource
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from qa import files
from qa.errors import UserError

ENDED = 99_999_999  # no system gives out process numbers this high


@contextmanager
def small_files():
    """A limit on the size of files: writing beyond it fails, as on a full disk.

    No fixture, or it would hold while pytest reports, and end it where its output is a longer file.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def hidden(folder):
    return sorted(path.name for path in folder.rglob(".*"))


def no_space(*arguments, **options):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def refused(function, *arguments):
    """The one line that `function` is refused with."""
    with pytest.raises(UserError) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Whole or absent


def test_readers_never_see_a_broken_file(tmp_path, python):
    """A writer in another process replaces a JSON file, a line file and a folder, whose parts agree."""
    writer = python(
        """
        import sys
        from pathlib import Path
        from qa import files

        root = Path(sys.argv[1])
        for number in range(100_000):
            with files.replacing(root / "folder") as temporary:
                temporary.mkdir()
                for name in ("a.json", "b.json"):
                    (temporary / name).write_text(str(number))
            files.write_rows(root / "rows.jsonl", ({"number": number} for _ in range(300)))
            files.write_json(root / "status.json", {"number": number, "again": [number] * 2000})
            if number == 0:
                print("ready", flush=True)
            if (root / "enough").exists():
                break
        """,
        tmp_path,
    )
    assert writer.stdout.readline() == "ready\n"
    for _ in range(200):
        status = files.read_object(tmp_path / "status.json")
        assert set(status["again"]) == {status["number"]}
        rows = files.read_rows(tmp_path / "rows.jsonl")
        assert len(rows) == 300
        assert len({row["number"] for row in rows}) == 1
    (tmp_path / "enough").touch()
    assert writer.wait() == 0
    assert files.read_json(tmp_path / "folder" / "a.json") == files.read_json(tmp_path / "folder" / "b.json")
    assert hidden(tmp_path) == []


def test_threads_of_one_process_do_not_share_a_temporary_file(tmp_path):
    path = tmp_path / "file.json"
    together = threading.Barrier(2)

    def write(number):
        with files.replacing(path) as temporary:
            temporary.write_text(str(number))
            together.wait(timeout=30)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert files.read_json(path) in (0, 1)
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_killed_writer_leaves_the_old_state(tmp_path, python, what):
    if what == "file":
        files.write_text(tmp_path / "it", "old")
    else:
        (tmp_path / "it").mkdir()
        files.write_text(tmp_path / "it" / "inside", "old")
    writer = python(
        """
        import sys, time
        from pathlib import Path
        from qa import files

        with files.replacing(Path(sys.argv[1])) as temporary:
            if sys.argv[2] == "folder":
                temporary.mkdir()
            path = temporary / "inside" if sys.argv[2] == "folder" else temporary
            with path.open("w") as file:
                file.write("half of the ne")
                file.flush()
                print("written", flush=True)
                time.sleep(600)
        """,
        tmp_path / "it",
        what,
    )
    assert writer.stdout.readline() == "written\n"
    files.remove_leftovers(tmp_path.glob(".*"))
    assert len(hidden(tmp_path)) == 1  # its writer lives
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    old = tmp_path / "it" if what == "file" else tmp_path / "it" / "inside"
    assert old.read_text() == "old"
    assert hidden(tmp_path) == [f".it.{writer.pid}.0.tmp"]
    files.remove_leftovers(tmp_path.glob(".*"))
    assert hidden(tmp_path) == []
    assert old.read_text() == "old"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_in_the_block_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "a.txt"
    files.write_text(path, "old")
    with pytest.raises(error), files.replacing(path) as temporary:  # noqa: PT012  # the block is the test
        temporary.write_text("new")
        raise error
    assert path.read_text() == "old"
    assert hidden(tmp_path) == []


def test_a_failing_row_leaves_the_old_rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    files.write_rows(path, [{"a": 1}])

    def rows():
        yield {"a": 2}
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011  # raised just above
        files.write_rows(path, rows())
    assert files.read_rows(path) == [{"a": 1}]


def test_a_file_is_not_replaced_by_a_folder_nor_a_folder_by_a_file(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "precious").touch()
    assert "folder: cannot be written" in refused(files.write_text, tmp_path / "folder", "text")
    (tmp_path / "file").write_text("precious")

    def write_folder():
        with files.replacing(tmp_path / "file") as temporary:
            temporary.mkdir()

    assert "file: cannot be written" in refused(write_folder)
    assert (tmp_path / "file").read_text() == "precious"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder", "precious"]


def test_a_folder_that_cannot_take_its_place_leaves_the_old_one(tmp_path, monkeypatch):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "old").touch()
    replace = Path.replace

    def full(self, target):
        if self.name.endswith(".tmp") and not (self / "old").exists():
            no_space()
        return replace(self, target)

    def write():
        with files.replacing(folder) as temporary:
            temporary.mkdir()

    monkeypatch.setattr(Path, "replace", full)
    assert "No space left on device" in refused(write)
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "old"]


def test_a_link_to_a_folder_is_replaced_and_its_target_kept(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "old").touch()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with files.replacing(tmp_path / "link") as temporary:
        temporary.mkdir()
    assert (tmp_path / "elsewhere" / "old").exists()
    assert (tmp_path / "link").is_dir()
    assert not (tmp_path / "link").is_symlink()


# A full disk


@pytest.mark.parametrize("function", [(os, "fsync"), (Path, "replace"), (Path, "open"), (Path, "mkdir")])
def test_a_full_disk_is_one_line_and_the_old_file_stays(tmp_path, monkeypatch, function):
    path = tmp_path / "a.json"
    files.write_json(path, "old")
    with monkeypatch.context() as full:
        full.setattr(*function, no_space)
        message = refused(files.write_json, path, "new")
    assert message == (
        f"{path}: cannot be written (No space left on device); free space or mend the permissions and "
        "run the command again (training: with --resume); what was written before is intact"
    )
    assert files.read_json(path) == "old"
    assert hidden(tmp_path) == []


def test_a_row_that_did_not_fit_does_not_spoil_the_next(tmp_path, monkeypatch):
    path = tmp_path / "rows.jsonl"
    files.append_row(path, {"step": 1})
    with path.open("a") as file:
        file.write('{"step": 2, "lo')  # what a disk takes before it is full
    with monkeypatch.context() as full:
        full.setattr(os, "fsync", no_space)
        assert "No space left on device" in refused(files.append_row, path, {"step": 2})
    files.append_row(path, {"step": 3})
    assert [row["step"] for row in files.read_rows(path)] == [1, 2, 3]
    assert path.read_bytes().endswith(b'{"step": 3}\n')


@pytest.mark.parametrize(
    "save",
    [
        lambda path: save_file({"weight": torch.zeros(30_000)}, path),
        lambda path: torch.save({"weight": torch.zeros(30_000)}, path),
        lambda path: path.write_text("x" * 100_000),
    ],
    ids=["safetensors", "torch.save", "write"],
)
def test_libraries_that_cannot_write_the_whole_file(tmp_path, save):
    """Each library has words of its own for that; torch's do not say why."""
    message = r"^model: cannot be written \((File too large|No space left on device)\); free space"
    with pytest.raises(UserError, match=message), small_files(), files.explained(Path("model")):
        save(tmp_path / "file")


def test_an_error_that_is_not_the_disks_is_left_alone():
    with pytest.raises(RuntimeError, match="shapes"), files.explained(Path("model")):
        raise RuntimeError("shapes differ")


# Leftovers


def test_only_leftovers_of_ended_processes_are_removed(tmp_path):
    dead = [f".status.json.{ENDED}.0.tmp", f".best_model.{ENDED}.12.tmp", f".a.b.{os.getpid()}.0.tmp"]
    kept = [f".live.{os.getpid()}.0.tmp", ".foreign.tmp", ".lock", "a.tmp", f"status.json.{ENDED}.0.tmp"]
    for name in (*dead, *kept):
        (tmp_path / name).mkdir()
        (tmp_path / name / "inside").touch()
    before = psutil.Process().create_time() - 60
    os.utime(tmp_path / dead[2], (before, before))  # of another process that had our number
    files.remove_leftovers(tmp_path.glob("*"))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)


def test_a_process_is_known_by_its_number_and_its_age(python):
    now = time.time()
    assert files.process_lives(os.getpid(), seen=now)
    assert not files.process_lives(os.getpid(), seen=psutil.Process().create_time() - 60)
    assert not files.process_lives(ENDED, seen=now)
    assert not files.process_lives(10**30, seen=now)
    ended = python("")
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    assert psutil.pid_exists(ended.pid)  # until somebody asks for its exit status
    assert not files.process_lives(ended.pid, seen=time.time())


def test_a_process_that_hides_counts_as_alive(monkeypatch):
    def hides(pid):
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil, "Process", hides)
    assert files.process_lives(1, seen=0)


# JSON and lines


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One folder for all examples of a property."""
    return tmp_path_factory.mktemp("files")


texts = st.text('aé🙂\ud800\u2028\0\n\r"\\\x7f', max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner) | st.dictionaries(texts, inner),
    max_leaves=5,
)


@given(row=st.dictionaries(texts, values))
def test_what_is_written_is_read(folder, row):
    files.write_json(folder / "a.json", row)
    files.write_rows(folder / "a.jsonl", [row, {}])
    files.append_row(folder / "a.jsonl", row)
    assert files.read_object(folder / "a.json") == row
    assert files.read_rows(folder / "a.jsonl") == [row, {}, row]


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_not_finite_is_refused(tmp_path, number):
    json_file, line_file = tmp_path / "a.json", tmp_path / "a.jsonl"
    files.write_json(json_file, {"loss": 1.0})
    files.write_rows(line_file, [{"loss": 1.0}])
    before = json_file.read_bytes(), line_file.read_bytes()
    for write in (
        lambda: files.write_json(json_file, {"loss": number}),
        lambda: files.write_rows(line_file, [{"loss": 2.0}, {"loss": number}]),
        lambda: files.append_row(line_file, {"loss": number}),
        lambda: files.append_row(tmp_path / "new.jsonl", {"loss": number}),
    ):
        with pytest.raises(ValueError, match="not JSON compliant"):
            write()
    assert (json_file.read_bytes(), line_file.read_bytes()) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.jsonl"]


def test_a_torn_last_line_is_skipped_wherever_it_is_torn(tmp_path):
    path = tmp_path / "rows.jsonl"
    files.write_rows(path, [{"step": 1}, {"step": 2, "name": "é"}])
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for length in range(first, len(whole)):
        path.write_bytes(whole[:length])
        assert files.read_rows(path) == [{"step": 1}]
        files.append_row(path, {"step": 3})
        assert files.read_rows(path) == [{"step": 1}, {"step": 3}]
    path.write_bytes(whole[:5])
    assert files.read_rows(path) == []
    files.append_row(path, {"step": 3})
    assert files.read_rows(path) == [{"step": 3}]


@pytest.mark.parametrize("tail", [b"\0\0\0\0", b"\xff\xc3", b"{" * 10])
def test_what_a_power_cut_leaves_at_the_end_is_skipped(tmp_path, tail):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"step": 1}\n' + tail)
    assert files.read_rows(path) == [{"step": 1}]


def test_lines_of_other_programs(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes('{"a": "é\u2028"}\r\n{"a": 2}\n'.encode())
    assert files.read_rows(path) == [{"a": "é\u2028"}, {"a": 2}]
    path.write_bytes(b"")
    assert files.read_rows(path) == []


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b'{"a": 1}\n{"a": \n{"a": 3}\n', "line 2 is broken"),
        (b"\n", "line 1 is broken"),
        (b"[1]\n", "line 1 is broken (not an object)"),
        (b"null\n", "line 1 is broken (not an object)"),
        (b'{"a": NaN}\n', "line 1 is broken (NaN is no JSON number)"),
        (b'{"a": "\xff"}\n', "line 1 is broken ("),
        (b"\0\0\n", "line 1 is broken ("),
        (b"[" * 100_000 + b"\n", "line 1 is broken ("),
    ],
)
def test_a_broken_line_is_named(tmp_path, content, problem):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    assert refused(files.read_rows, path).startswith(f"{path}: {problem}")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "not a JSON file"),
        (b"{", "not a JSON file"),
        (b"\xff\xfe{}", "not a JSON file"),
        (b'{"a": -Infinity}', "not a JSON file (-Infinity is no JSON number)"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not a JSON file"),
        (b"[" * 100_000, "not a JSON file"),
        (b"[]", "holds list, not an object"),
        (b"null", "holds NoneType, not an object"),
    ],
)
def test_a_broken_json_file_is_named(tmp_path, content, problem):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    assert refused(files.read_object, path).startswith(f"{path}: {problem}")


@pytest.mark.parametrize("read", [files.read_json, files.read_object, files.read_rows])
def test_a_missing_file_and_a_folder_are_named(tmp_path, read):
    assert refused(read, tmp_path / "no") == f"{tmp_path / 'no'}: cannot be read (No such file or directory)"
    assert refused(read, tmp_path) == f"{tmp_path}: cannot be read (Is a directory)"


def test_json_for_people_is_indented_and_ends_with_a_line_break(tmp_path):
    files.write_json(tmp_path / "a.json", {"a": [1]})
    text = (tmp_path / "a.json").read_text()
    assert text.startswith('{\n "a"')
    assert text.endswith("}\n")
    assert json.loads(text) == {"a": [1]}


def test_types_of_foreign_values(tmp_path):
    values = {"step": 1, "loss": 0.5, "name": "x", "none": None, "flag": True}
    files.check_types(
        tmp_path, values, {"step": (int,), "loss": files.NUMBER, "none": (str,), "absent": (str,)}
    )
    for types, message in (
        ({"name": (int,)}, "line 3: name is 'x', not int"),
        ({"flag": files.NUMBER}, "line 3: flag is True, not int or float"),
    ):
        with pytest.raises(files.BrokenFileError) as caught:
            files.check_types(Path("a.json"), values, types, where="line 3: ")
        assert str(caught.value) == f"a.json: {message}"
    for name in ("none", "absent"):
        with pytest.raises(files.BrokenFileError, match=f"^a.json: {name} is missing$"):
            files.check_types(Path("a.json"), values, {name: (str,)}, needed=True)


def test_removing(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    files.remove(tmp_path / "link")
    files.remove(tmp_path / "broken")
    files.remove(tmp_path / "nothing")
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "file"]
    files.remove(tmp_path / "folder")
    assert list(tmp_path.iterdir()) == []


def test_writers_of_one_folder_at_once_leave_one_whole_folder(tmp_path):
    folder = tmp_path / "folder"

    def write(number):
        for _ in range(40):
            with files.replacing(folder) as temporary:
                temporary.mkdir()
                (temporary / "one").write_text(str(number))
                (temporary / "two").write_text(str(number))

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(write, number) for number in range(4)]:
            done.result()
    assert (folder / "one").read_text() == (folder / "two").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
