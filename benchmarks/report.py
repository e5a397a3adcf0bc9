"""Results as a table for people, as JSON for programs, and as the table of the README.

The README's rows are kept by name: a run replaces the rows it measured and leaves the others under the
machine they were measured on. The trap: a row says nothing without its machine, so rows stand in one table
for each machine, and one that is measured anew leaves the table it stood in.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from benchmarks.comparison import Case, Result
from qa import files
from qa.errors import UserError

BEGIN, END = "<!-- benchmarks -->", "<!-- /benchmarks -->"
ROW = re.compile(r"\| `([^`]+)` \|")
MACHINE = re.compile(r"Measured on (.+):")
HEADING = (
    "| benchmark | what | against | ours | theirs | times as fast (rounds) | peak memory, ours and theirs "
    "| largest difference |"
)


def json_line(results: Sequence[Result]) -> str:
    """One JSON object: the values of each case under its name; times are seconds, of one item."""
    return json.dumps({result.case.name: result.as_dict() for result in results})


def table(results: Sequence[Result]) -> str:
    """The results aligned in columns, and below what they are results of."""
    heading = (
        "",
        "ours",
        "theirs",
        "times as fast",
        "(rounds)",
        "peak memory",
        "theirs",
        "largest difference",
    )
    rows = [heading, *map(_cells, results)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    about = [f"{result.case.name}: {result.case.what}; theirs: {result.case.against}" for result in results]
    machines = [f"Measured on {machine}" for machine in dict.fromkeys(result.machine for result in results)]
    return "\n".join(line.rstrip() for line in [*lines, "", *about, "", *machines])


def _cells(result: Result) -> tuple[str, ...]:
    low, high = result.spread
    return (
        result.case.name,
        _amount(result.ours, result.case),
        _amount(result.theirs, result.case),
        f"{result.ratio:.2f}{' times less' if result.case.quantity == 'bytes' else ''}",
        f"({low:.2f} to {high:.2f})",
        _megabytes(result.ours_peak_mb),
        _megabytes(result.theirs_peak_mb),
        _difference(result),
    )


def _amount(value: float, case: Case) -> str:
    if case.quantity == "bytes":
        return _megabytes(value / 1e6)
    if case.unit is not None:
        return f"{1 / value:.3g} {case.unit}/s"
    return f"{value * 1000:.3g} ms" if value < 1 else f"{value:.3g} s"


def _megabytes(value: float | None) -> str:
    return "not measured" if value is None else f"{value:,.{0 if value >= 10 else 1}f} MB"


def _difference(result: Result) -> str:
    if result.max_difference is None:
        return result.case.compared
    return f"{result.max_difference:.2g} ({result.case.compared})"


def markdown_row(result: Result) -> str:
    """The result as a row of the README's table."""
    name, ours, theirs, ratio, rounds, own, other, difference = _cells(result)
    cells = (f"`{name}`", result.case.what, result.case.against, ours, theirs, f"{ratio} {rounds}")
    return f"| {' | '.join((*cells, f'{own}, {other}', difference))} |"


def check_readme(readme: Path) -> None:
    """Refuse a file that has no place for the table, before anything is measured.

    Raises:
        UserError: it cannot be read, or the markers are not in it, once each and in order.
    """
    _split(readme)


def write_readme(readme: Path, results: Sequence[Result]) -> None:
    """Put the results between the markers of `readme`; rows of other benchmarks stay.

    Raises:
        UserError: as `check_readme`, or the file cannot be written.
    """
    before, old, after = _split(readme)
    tables = _read_tables(old)
    for result in results:
        for rows in tables.values():
            rows.pop(result.case.name, None)
        tables.setdefault(result.machine, {})[result.case.name] = markdown_row(result)
    parts = [_table_of(machine, rows) for machine, rows in tables.items() if rows]
    files.write_text(readme, "\n\n".join([before + BEGIN, *parts, END + after]))


def _split(readme: Path) -> tuple[str, str, str]:
    """The text before the opening marker, between the two, and after the closing one."""
    try:
        text = readme.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{readme}: cannot be read ({error}); give a Markdown file") from error
    found = text.count(BEGIN), text.count(END)
    if found != (1, 1) or text.index(BEGIN) > text.index(END):
        raise UserError(
            f"{readme}: no place for the table; put the lines {BEGIN} and {END} where it should stand, "
            "once each"
        )
    before, _, rest = text.partition(BEGIN)
    inside, _, after = rest.partition(END)
    return before, inside, after


def _read_tables(text: str) -> dict[str, dict[str, str]]:
    """The rows by name, by machine."""
    tables: dict[str, dict[str, str]] = {}
    machine = ""
    for line in text.splitlines():
        if found := MACHINE.fullmatch(line):
            machine = found[1]
        elif found := ROW.match(line):
            tables.setdefault(machine, {})[found[1]] = line
    return tables


def _table_of(machine: str, rows: dict[str, str]) -> str:
    rule = "|---" * (HEADING.count("|") - 1) + "|"
    lines = [HEADING, rule, *(rows[name] for name in sorted(rows))]
    return f"Measured on {machine}:\n\n" + "\n".join(lines)
