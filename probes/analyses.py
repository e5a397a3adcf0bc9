"""Analyses: tables about one model, in its experiment's folder, each with its version and its model's mark.

An analysis takes minutes or hours, so it is made in parts, each a Parquet file that is whole or absent. What
is there when the command is killed is not made again, and several processes can share the parts out. When all
are there they become one file, a row group for each, so neither making nor reading it need hold it all at
once. The same work gives the same file, however often it was interrupted.

How to use it: a `Kind` for each table, a `Header` for what was asked, and then

    with Parts.open(experiment, header) as parts:
        for number in parts.missing(count):
            parts.add(number, table)
        path = parts.finish(count)

and to read it, `find_analyses` and `read_analysis`, which refuse what they would have to guess about.
The trap: a table does not say what it was made from, and one of another version or model looks just as right.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from qa import files
from qa.errors import UserError
from qa.experiment import Experiment

FOLDER = "analyses"
METADATA = b"analysis"
LOCK = ".lock"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of table.

    Attributes:
        name: letters, digits and "_"; the file's name begins with it.
        version: raised whenever the same columns come to mean something else, or others are needed.
        columns: names and types, in order.
        command: what makes it, `NAME` standing for the experiment: "python -m probes contrast NAME".
    """

    name: str
    version: int
    columns: pa.Schema
    command: str


@dataclass(frozen=True, slots=True)
class Header:
    """What one table is of.

    Attributes:
        kind: of the table.
        model: `checkpoint_fingerprint` of the model.
        about: whatever else it depends on, as JSON: the data set with its fingerprint, limits, options.
    """

    kind: Kind
    model: str
    about: Mapping[str, Any]

    @property
    def file_name(self) -> str:
        """Begins with the kind, and is another one for another model or another `about`."""
        digest = hashlib.sha256(json.dumps([self.model, self.about], sort_keys=True).encode())
        return f"{self.kind.name}-{digest.hexdigest()[:12]}.parquet"

    def schema(self) -> pa.Schema:
        """The columns, with this header as metadata of the file."""
        values = {
            "kind": self.kind.name,
            "version": self.kind.version,
            "model": self.model,
            "about": dict(self.about),
        }
        return self.kind.columns.with_metadata({METADATA: json.dumps(values, sort_keys=True).encode()})


@dataclass(frozen=True, slots=True)
class Found:
    """A table that was read.

    Attributes:
        path: of its file.
        about: see `Header`.
        table: its rows.
    """

    path: Path
    about: dict[str, Any]
    table: pa.Table


def checkpoint_fingerprint(folder: Path) -> str:
    """SHA-256 over the files of a model's folder: configuration, weights and tokenizer.

    Raises:
        UserError: a file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        for file in sorted(item for item in folder.iterdir() if item.is_file() and item.name[0] != "."):
            with file.open("rb") as content:
                own = hashlib.file_digest(content, "sha256")
            digest.update(f"{file.name} {own.hexdigest()}\n".encode())
    except OSError as error:
        raise files.BrokenFileError(f"{folder}: cannot be read ({error.strerror or error})") from error
    return digest.hexdigest()


class Parts:
    """The numbered parts of a table that is being made, beside where it will be.

    With the lock that `open` takes, only one command works on it. Where several processes share one command,
    one of them opens it, and the others make a `Parts` of their own with the same arguments.
    """

    def __init__(self, experiment: Experiment, header: Header) -> None:
        self.path = experiment.path / FOLDER / header.file_name
        self._folder = self.path.with_name(f".{self.path.stem}.parts")
        self._schema = header.schema()
        self._lock: FileLock | None = None

    @classmethod
    def open(cls, experiment: Experiment, header: Header) -> Self:
        """Parts for use in a `with` block, during which no other command works on this table.

        Raises:
            UserError: another command does, or the folder cannot be written.
        """
        parts = cls(experiment, header)
        with files.explained(parts._folder):
            parts._folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(parts._folder / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise UserError(
                f"{parts.path}: another process is making this table; wait for it, or stop it first"
            ) from error
        parts._lock = lock
        files.remove_leftovers(parts._folder.glob(".*.tmp"))
        return parts

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lock is None:
            return
        if not any(self._folder.glob("*.parquet")):
            files.remove(self._folder)
        self._lock.release()

    def missing(self, count: int) -> list[int]:
        """Which of the parts 0 … count - 1 are still to be made."""
        return [number for number in range(count) if not self._is_whole(number)]

    def add(self, number: int, table: pa.Table) -> None:
        """Keep a part; its columns are those of the kind.

        Raises:
            UserError: the disk is full, or the folder cannot be written.
        """
        write_whole(self._file(number), [table], self._schema)

    def read(self, number: int) -> pa.Table:
        """A part that was kept."""
        return pq.read_table(self._file(number), schema=self._schema)

    def finish(self, count: int) -> Path:
        """Join the parts 0 … count - 1 into the table's own file, whose path it gives, and remove them.

        Raises:
            UserError: as `add`.
        """
        if missing := self.missing(count):
            raise AssertionError(f"parts {missing} are still to be made")
        write_whole(self.path, (self.read(number) for number in range(count)), self._schema)
        for file in self._folder.glob("*.parquet"):
            files.remove(file)
        return self.path

    def _file(self, number: int) -> Path:
        return self._folder / f"{number:06}.parquet"

    def _is_whole(self, number: int) -> bool:
        try:
            schema = pq.read_schema(self._file(number))
        except (OSError, pa.ArrowException):
            return False
        return bool(schema.equals(self._schema, check_metadata=True))


def write_analysis(experiment: Experiment, header: Header, table: pa.Table) -> Path:
    """Write a table that is made at once; its columns are those of the kind.

    Raises:
        UserError: the disk is full, or the folder cannot be written.
    """
    path = experiment.path / FOLDER / header.file_name
    write_whole(path, [table], header.schema())
    return path


def write_whole(path: Path, tables: Iterator[pa.Table] | Sequence[pa.Table], schema: pa.Schema) -> None:
    """Write a Parquet file of these tables, a row group for each, or leave what was there.

    Raises:
        UserError: the disk is full, or the folder cannot be written.
    """
    with files.replacing(path) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        for table in tables:
            writer.write_table(table.cast(schema))


def find_analyses(experiment: Experiment, kind: Kind) -> list[Path]:
    """The files of a kind, newest first; whether they can be used, `read_analysis` says."""
    files_of_kind = (experiment.path / FOLDER).glob(f"{kind.name}-*.parquet")
    return sorted(files_of_kind, key=lambda file: (-file.stat().st_mtime_ns, file.name))


def read_analysis(
    path: Path, kind: Kind, *, model: str | None, columns: Sequence[str] | None = None
) -> Found:
    """A table with what it is about.

    Args:
        path: of the file.
        kind: what it must be.
        model: fingerprint of the model that it must be of; None: of any.
        columns: to read; None: all.

    Raises:
        UserError: it is cut short or no such table, or of another version, model or shape.
    """
    again = f"make it again: {kind.command}"
    try:
        schema = pq.read_schema(path)
        header = json.loads((schema.metadata or {})[METADATA])
        found = {name: header[name] for name in ("kind", "version", "model", "about")}
    except (OSError, pa.ArrowException, KeyError, ValueError, TypeError) as error:
        raise files.BrokenFileError(f"{path}: missing, cut short, or no analysis; {again}") from error
    if found["kind"] != kind.name or found["version"] != kind.version:
        raise UserError(
            f"{path}: {found['kind']!r} of version {found['version']!r}, but this program reads "
            f"{kind.name!r} of version {kind.version}; {again}"
        )
    if model is not None and found["model"] != model:
        raise UserError(f"{path}: made with another model than this experiment has now; {again}")
    if not schema.equals(kind.columns, check_metadata=False) or not isinstance(found["about"], dict):
        raise files.BrokenFileError(f"{path}: its columns are not those of {kind.name!r}; {again}")
    try:
        table = pq.read_table(path, columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise files.BrokenFileError(f"{path}: damaged; {again}") from error
    return Found(path, found["about"], table)
