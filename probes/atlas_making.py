"""Make a table about many questions: in parts of whole paragraphs, by one process or several.

A part's numbers depend on nothing outside of it, and it is kept as soon as it is made; so what is interrupted
goes on, several processes share the parts out, and the file is the same in any case. Nothing but the
questions themselves is held for longer than a part. The trap: with another number of threads floating-point
sums are no longer the same to the last digit, so let all runs of one table have as many.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from probes.analyses import Header, Parts
from probes.atlas_files import row_groups
from probes.atlas_processes import Processes
from qa.experiment import Experiment
from qa.squad import Question, QuestionSet
from qa.windows import Progress

QUESTIONS_OF_PART = 16

# Gives the progress of a stage by its name.
Stage = Callable[[str], Progress]


@dataclass(frozen=True, slots=True)
class Table:
    """A table that is made question by question.

    Attributes:
        header: of its file.
        parts: the questions of each part.
        row: what is found out about a question.
        join: makes the table of a part of what was found.
    """

    header: Header
    parts: Sequence[Sequence[Question]]
    row: Callable[[Question], Any]
    join: Callable[[list[Any]], pa.Table]


def by_paragraphs(questions: QuestionSet) -> QuestionSet:
    """The same questions, those of a paragraph together, paragraphs in the order of their first question."""
    place: dict[str, int] = {}
    for question in questions.questions:
        place.setdefault(question.paragraph, len(place))
    return questions.subset(sorted(questions.questions, key=lambda question: place[question.paragraph]))


def spread(questions: QuestionSet, count: int) -> QuestionSet:
    """So many of the questions, or all if they are fewer, at even distances from the first to the last."""
    chosen = min(count, len(questions.questions))
    places = np.linspace(0, len(questions.questions) - 1, chosen).round().astype(int)
    return questions.subset([questions.questions[place] for place in places])


def parts_of(questions: QuestionSet) -> list[list[Question]]:
    """The questions, ordered by paragraphs, in pieces that hold whole ones."""
    parts: list[list[Question]] = []
    previous: str | None = None
    for question in questions.questions:
        begins = question.paragraph != previous
        if not parts or (begins and len(parts[-1]) >= QUESTIONS_OF_PART):
            parts.append([])
        parts[-1].append(question)
        previous = question.paragraph
    return parts


def make_table(experiment: Experiment, table: Table, *, progress: Progress, processes: Processes) -> Path:
    """The file of a table, which is made unless it is there already.

    Args:
        experiment: whose folder it goes to.
        table: what to make.
        progress: called with (questions done, questions to do), both of this process.
        processes: who shares the work.

    Raises:
        UserError: another command is making it, or the folder cannot be written.
    """
    first = Parts.open(experiment, table.header) if processes.is_first else None
    processes.wait()
    with first or Parts(experiment, table.header) as parts:
        if not _is_whole(parts.path, table.header):
            todo = processes.own(parts.missing(len(table.parts)))
            done, total = 0, sum(len(table.parts[number]) for number in todo)
            for number in todo:
                rows = []
                for question in table.parts[number]:
                    rows.append(table.row(question))
                    done += 1
                    progress(done, total)
                parts.add(number, table.join(rows))
            processes.wait()
            if processes.is_first:
                parts.finish(len(table.parts))
        processes.wait()
        return parts.path


def _is_whole(path: Path, header: Header) -> bool:
    """Whether a file is there and can be read to its end."""
    try:
        if not pq.read_schema(path).equals(header.schema(), check_metadata=True):
            return False
        for _ in row_groups(path):
            pass
    except (OSError, pa.ArrowException):
        return False
    return True
