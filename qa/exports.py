r"""A table of results as CSV, for programs, and as LaTeX, for papers.

The traps: a spreadsheet runs a cell that begins with = + - or @ as a formula, so texts that do get an
apostrophe in front (numbers stay numbers); and LaTeX reads ten characters of a model's name as commands.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from qa.printing import visible

if TYPE_CHECKING:
    import pandas as pd

Cell = str | int | float | None
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    "Δ": r"$\Delta$",
    "−": "$-$",
    "×": r"$\times$",
    "–": "--",
    "—": "---",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


def as_csv(heading: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """The table as CSV (RFC 4180); None is an empty cell, a float keeps every digit."""
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow([_plain_text(name) for name in heading])
    writer.writerows([[_plain_text(cell) if isinstance(cell, str) else cell for cell in row] for row in rows])
    return file.getvalue()


def rows_of(table: pd.DataFrame) -> list[list[Cell]]:
    """The rows of a data frame, with None for what pandas has as NaN."""
    cells = table.astype(object)
    rows: list[list[Cell]] = cells.where(cells.notna(), None).to_numpy().tolist()
    return rows


def _plain_text(text: str) -> str:
    # Half a surrogate pair, which no file in UTF-8 can hold, is spelled out.
    known = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return f"'{known}" if known.startswith(_FORMULA) else known


def as_latex(heading: Sequence[str], rows: Sequence[Sequence[Cell]], *, caption: str) -> str:
    """The table as a LaTeX `table` with the rules of the package booktabs.

    Args:
        heading: a name for each column.
        rows: cells; numbers get two decimals and stand at the right.
        caption: any text.
    """
    numeric = [any(isinstance(row[column], int | float) for row in rows) for column in range(len(heading))]
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{latex_text(caption)}}}",
        rf"\begin{{tabular}}{{{''.join('r' if number else 'l' for number in numeric)}}}",
        r"\toprule",
        _latex_row(heading),
        r"\midrule",
        *(_latex_row(row) for row in rows),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _latex_row(cells: Sequence[Cell]) -> str:
    return " & ".join(map(_latex_cell, cells)) + r" \\"


def _latex_cell(cell: Cell) -> str:
    if cell is None:
        return "---"
    if isinstance(cell, float):
        return f"${cell:.2f}$" if cell < 0 else f"{cell:.2f}"
    return latex_text(str(cell))


def latex_text(text: str) -> str:
    """Any text as LaTeX that prints it, on one line."""
    return "".join(_LATEX.get(character, character) for character in visible(text))
