"""Files that are whole or absent: temporary name, flush, rename; and line files that survive a torn end.

The trap: a rename is atomic for readers only within one file system, so the temporary file stands beside its
target. A killed writer leaves it there, under a hidden name with the writer's process number, which tells
later whether anybody still works on it.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import psutil
from safetensors import SafetensorError

from qa.errors import UserError

TEMPORARY = re.compile(r"\..+\.(?P<process>[0-9]{1,9})\.[0-9]+\.tmp")
NUMBER = (int, float)
Types = Mapping[str, tuple[type, ...]]
_numbers = itertools.count()


class BrokenFileError(UserError):
    """A file that is missing, unreadable or not what its name says."""


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Around whatever writes `path`: a disk that refuses becomes one line that says so.

    Raises:
        UserError: the disk is full, or the folder cannot be written.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = _reason(error)
        if reason is None:
            raise
        raise UserError(
            f"{path}: cannot be written ({reason}); free space or mend the permissions and run the command "
            "again (training: with --resume); what was written before is intact"
        ) from error


def _reason(error: BaseException) -> str | None:
    """Why the disk refused, None if it was not the disk."""
    if isinstance(error, OSError):
        return error.strerror or str(error).partition("\n")[0]
    # safetensors and torch.save say in words of their own that a write failed, the latter without the reason.
    numbered = re.search(r"\(os error ([0-9]+)\)", str(error))
    if numbered is not None:
        return os.strerror(int(numbered[1]))
    return os.strerror(errno.ENOSPC) if "inline_container.cc" in str(error) else None


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path that takes the place of `path` when the block ends well, and else disappears.

    The block makes a file or a folder there. A folder takes the place of a folder, a file that of a file.

    Raises:
        UserError: the disk is full, or the folder cannot be written.
    """
    temporary = _beside(path)
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            flush(temporary)
            _rename(temporary, path)
        finally:
            remove(temporary)


def _beside(path: Path) -> Path:
    # Numbered, as threads of one process may write the same file at once.
    return path.with_name(f".{path.name}.{os.getpid()}.{next(_numbers)}.tmp")


def _rename(temporary: Path, path: Path) -> None:
    old = _beside(path)
    while True:
        # No folder can be renamed over another, and one removed in place would be seen half removed.
        if temporary.is_dir() and path.is_dir():
            with suppress(FileNotFoundError):  # another process is at the same, and has moved it away
                path.replace(old)
        try:
            temporary.replace(path)
            break
        except BaseException as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                remove(old)  # the other was faster, and its folder is now the one to replace
                continue
            with suppress(OSError):
                old.replace(path)
            raise
    remove(old)


def flush(path: Path) -> None:
    """Put a file, or all files of a folder, on the disk: after a power cut they are there in full."""
    for file in [path] if path.is_file() else [item for item in path.rglob("*") if item.is_file()]:
        with file.open("rb") as handle:
            os.fsync(handle.fileno())


def remove_leftovers(paths: Iterable[Path]) -> None:
    """Remove those of `paths` that are temporary files of a process that is gone."""
    for path in list(paths):
        match = TEMPORARY.fullmatch(path.name)
        if match is None:
            continue
        try:
            written = path.lstat().st_mtime
        except OSError:
            continue
        if not process_lives(int(match["process"]), seen=written):
            with explained(path):
                remove(path)


def process_lives(pid: int, *, seen: float) -> bool:
    """Whether the process that had this number at a moment still runs.

    Numbers are given out again, so a process that began after that moment is another one.

    Args:
        pid: the number, positive.
        seen: the moment, in seconds since the epoch.
    """
    slack = 5.0  # the kernel's idea of when a process began is this far off the clock at most
    try:
        process = psutil.Process(pid)
        return bool(process.create_time() <= seen + slack and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def write_text(path: Path, text: str) -> None:
    """Write a whole text file, or leave what was there."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, indented for people; a number that is not finite is a ValueError."""
    write_text(path, _json(value, indent=1))


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write a JSON Lines file; a number that is not finite is a ValueError."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(_json(row))


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Add one whole line to a JSON Lines file, in place of a torn one at its end."""
    line = _json(row).encode()
    with explained(path), path.open("ab+") as file:
        _drop_torn_end(file)
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def _drop_torn_end(file: BinaryIO) -> None:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - 1, 0))
    if file.read(1) not in (b"", b"\n"):
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)


def _json(value: Any, *, indent: int | None = None) -> str:
    # ASCII escapes keep lone surrogates of untrusted text, which UTF-8 could not hold.
    return json.dumps(value, ensure_ascii=True, allow_nan=False, indent=indent) + "\n"


def read_json(path: Path) -> Any:
    """The value of a JSON file.

    Raises:
        BrokenFileError: missing, unreadable or not JSON.
    """
    content = _content(path)
    try:
        return _parsed(content)
    except (ValueError, RecursionError) as error:
        raise BrokenFileError(f"{path}: not a JSON file ({error})") from error


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        BrokenFileError: as `read_json`, or another kind of value.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise BrokenFileError(f"{path}: holds {type(value).__name__}, not an object")
    return value


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON Lines file; a torn last line is skipped.

    Raises:
        BrokenFileError: missing, unreadable, or a broken line that is not torn.
    """
    # What follows the last line break was being written when the writer died.
    *lines, _ = _content(path).split(b"\n")
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = _parsed(line)
            if not isinstance(row, dict):
                raise ValueError("not an object")
        except (ValueError, RecursionError) as error:
            raise BrokenFileError(f"{path}: line {number} is broken ({error})") from error
        rows.append(row)
    return rows


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BrokenFileError(f"{path}: cannot be read ({error.strerror or error})") from error


def _parsed(content: bytes) -> Any:
    return json.loads(content.decode("utf-8"), parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> None:
    """Python's json would read NaN and Infinity, which JSON does not have."""
    raise ValueError(f"{name} is no JSON number")


def check_types(
    path: Path, values: Mapping[str, Any], types: Types, *, where: str = "", needed: bool = False
) -> None:
    """Refuse what a foreign program may have written under the names we use.

    Args:
        path: the file the values are from.
        values: an object of that file.
        types: the accepted types by name; a boolean is no number.
        where: put before the name in the message, to say which object of the file is meant.
        needed: whether each name must be there; otherwise it may be absent or null.

    Raises:
        BrokenFileError: a value of another type.
    """
    for name, accepted in types.items():
        value = values.get(name)
        if value is None and not needed:
            continue
        if not isinstance(value, accepted) or isinstance(value, bool):
            shown = (
                "missing"
                if value is None
                else f"{value!r:.80}, not {' or '.join(t.__name__ for t in accepted)}"
            )
            raise BrokenFileError(f"{path}: {where}{name} is {shown}")


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
