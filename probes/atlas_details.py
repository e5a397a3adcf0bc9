"""What lies beside the table of heads: pruning, and every question's own values; and all of it as CSV.

The files of one atlas have the same mark in their names. The trap: the values of all questions and measures
may be large, so they are read a measure at a time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from probes.analyses import Kind, read_analysis
from probes.atlas_files import COMMAND, QUESTIONS, Atlas, Float, shape_of, summarised, values_of
from probes.atlas_measures import QUESTION_MEASURES
from probes.atlas_pruning import PRUNING
from qa import files
from qa.exports import as_csv, rows_of
from qa.files import BrokenFileError
from qa.squad import Question


@dataclass(frozen=True, slots=True)
class QuestionValues:
    """A measure of every question.

    Attributes:
        ids: of Q questions.
        values: NaN where a question has none [Q, L, H].
    """

    ids: NDArray[np.object_]
    values: Float

    def extremes(self, layer: int, head: int, number: int) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The questions with the largest and with the smallest values of a head: id and value, extreme first.

        None is in both; of equal values the earlier question comes first.
        """
        own = self.values[:, layer, head]
        there = int(np.isfinite(own).sum())
        falling, rising = (np.argsort(values, kind="stable")[:there] for values in (-own, own))
        most = falling[:number]
        chosen = (most, rising[~np.isin(rising, most)][:number])
        largest, smallest = (
            pd.DataFrame({"id": self.ids[places], "value": own[places]}) for places in chosen
        )
        return largest, smallest

    def among(self, ids: Collection[str]) -> QuestionValues:
        """Of these questions only."""
        wanted = set(ids)
        there = np.fromiter((id_ in wanted for id_ in self.ids), dtype=bool, count=len(self.ids))
        return QuestionValues(self.ids[there], self.values[there])


def companion(atlas: Atlas, kind: Kind) -> Path:
    """Where another table of the same atlas is, if there is one."""
    return atlas.path.with_name(f"{kind.name}-{atlas.path.stem.rpartition('-')[2]}.parquet")


def read_pruning(atlas: Atlas) -> pd.DataFrame | None:
    """A row for each order and step; None where heads were not switched off.

    Raises:
        UserError: the file cannot be used.
    """
    path = companion(atlas, PRUNING)
    if not path.exists():
        return None
    pruning: pd.DataFrame = read_analysis(path, PRUNING, model=None).table.to_pandas()
    return pruning


def read_questions(atlas: Atlas, measure: str) -> QuestionValues:
    """The values of one measure, one of QUESTION_MEASURES.

    Raises:
        UserError: the file is gone or cannot be used.
    """
    table = _questions_table(atlas, ["id", measure])
    try:
        values = values_of(table, measure, atlas.shape)
    except ValueError as error:
        raise _other_shape(atlas) from error
    found = QuestionValues(table["id"].to_numpy(zero_copy_only=False), values)
    return found if atlas.only is None else found.among(atlas.only)


def over_questions(atlas: Atlas, ids: Collection[str], *, part: str = "some") -> Atlas:
    """The same atlas over some of its questions only: every mean, interval and role anew.

    Args:
        atlas: over all of its questions.
        ids: the questions that count; others than the atlas was made of are left out.
        part: what they are called.

    Raises:
        UserError: the file of the questions is gone or cannot be used.
    """
    _questions_table(atlas, ["id"])
    path = companion(atlas, QUESTIONS)
    try:
        heads = summarised(path, atlas.shape, ids).to_pandas()
    except ValueError as error:
        raise _other_shape(atlas) from error
    except (OSError, pa.ArrowException) as error:
        raise BrokenFileError(f"{path}: damaged ({error}); make it again: {COMMAND}") from error
    return replace(atlas, heads=heads, only=frozenset(ids), part=part)


def by_answerability(atlas: Atlas, questions: Iterable[Question]) -> dict[str, Atlas]:
    """The atlas over its answerable and over its unanswerable questions; empty where all are of one kind.

    What a head is needed for may differ: to find an answer, or to see that there is none.

    Args:
        atlas: over all of its questions.
        questions: those, and perhaps more.

    Raises:
        UserError: the file of the questions is gone or cannot be used.
    """
    there = set(_questions_table(atlas, ["id"])["id"].to_pylist())
    ids: dict[str, set[str]] = {"answerable": set(), "unanswerable": set()}
    for question in questions:
        ids["answerable" if question.answers else "unanswerable"].add(question.id)
    known = {name: own & there for name, own in ids.items()}
    if not all(known.values()):
        return {}
    return {name: over_questions(atlas, own, part=name) for name, own in known.items()}


def _questions_table(atlas: Atlas, columns: list[str]) -> pa.Table:
    path = companion(atlas, QUESTIONS)
    found = read_analysis(path, QUESTIONS, model=None, columns=columns)
    if shape_of(found) != atlas.shape or found.about != atlas.about:
        raise BrokenFileError(f"{path}: of another atlas than {atlas.path.name}; make it again: {COMMAND}")
    return found.table


def _other_shape(atlas: Atlas) -> BrokenFileError:
    path = companion(atlas, QUESTIONS)
    return BrokenFileError(f"{path}: not of this model's shape; make it again: {COMMAND}")


def question_frame(atlas: Atlas) -> pd.DataFrame:
    """Every value of every question: a row for each question and head, a column for each measure."""
    found = {measure.name: read_questions(atlas, measure.name) for measure in QUESTION_MEASURES}
    ids = next(iter(found.values())).ids
    layers, heads = np.indices(atlas.shape).reshape(2, -1)
    columns: dict[str, NDArray[np.generic]] = {
        "id": np.repeat(ids, len(layers)),
        "layer": np.tile(layers, len(ids)),
        "head": np.tile(heads, len(ids)),
    }
    return pd.DataFrame(columns | {name: values.values.ravel() for name, values in found.items()})


def export_csv(atlas: Atlas, folder: Path, parts: Iterable[Atlas] = ()) -> list[Path]:
    """Write the tables of heads, pruning and questions as CSV; the files.

    Args:
        atlas: over all of its questions.
        folder: where.
        parts: the same atlas over parts of them, whose heads are written too.

    Raises:
        UserError: the disk is full, the folder cannot be written, or a table cannot be used.
    """
    tables: dict[str, pd.DataFrame | None] = {"heads": atlas.heads}
    tables |= {f"heads-{part.part}": part.heads for part in parts}
    tables |= {"pruning": read_pruning(atlas), "questions": question_frame(atlas)}
    written = []
    for name, table in tables.items():
        if table is None:
            continue
        written.append(write_csv(table, folder / f"{name}.csv"))
    return written


def write_csv(table: pd.DataFrame, path: Path) -> Path:
    """Write a table as CSV, whole or not at all; the path.

    Raises:
        UserError: the disk is full, or the folder cannot be written.
    """
    files.write_text(path, table_csv(table))
    return path


def table_csv(table: pd.DataFrame) -> str:
    """A table as CSV; ids are any text, so what a spreadsheet would run as a formula is marked as text."""
    return as_csv(list(table.columns), rows_of(table))
