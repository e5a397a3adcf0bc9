"""One self-contained HTML file about a comparison: tables, charts as SVG, how every number came about.

It asks no host for anything and runs nothing, which its own content policy holds. The trap: names, settings
and answers are untrusted; every text is escaped here, at the one place where text becomes HTML. Charts are
SVG made by our own renderer from data, in which texts are escaped by it.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass

from qa.exports import Cell
from qa.printing import visible

STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, "Liberation Sans", Arial, sans-serif; color: #1f2933; margin: 2.5rem auto;
       max-width: 74rem; padding: 0 1.25rem; }
h1 { font-size: 1.7rem; margin-bottom: .2rem; } h2 { font-size: 1.2rem; margin-top: 2.4rem; }
p.note { color: #52606d; font-size: .88rem; max-width: 52rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; margin: .8rem 0; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid #e5e9f0; text-align: left; vertical-align: top;
         unicode-bidi: isolate; overflow-wrap: break-word; max-width: 28rem; }
th { border-bottom: 2px solid #9aa5b1; white-space: nowrap; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
svg { max-width: 100%; height: auto; }
"""
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_TAG = re.compile(r"<[^>]*>")
_IDENTIFIER = re.compile(r'(\bid="|url\(#|href="#)')


@dataclass(frozen=True, slots=True)
class Table:
    """A table of a report.

    Attributes:
        heading: a name for each column.
        rows: cells; floats get two decimals.
    """

    heading: Sequence[str]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a report.

    Attributes:
        title: any text.
        note: how to read it, any text.
        tables: in order.
        charts: SVG of `dashboard.charts.rendering`, in order.
    """

    title: str
    note: str
    tables: Sequence[Table] = ()
    charts: Sequence[str] = ()


def as_html(title: str, note: str, sections: Sequence[Section]) -> str:
    """The report as a whole file.

    Args:
        title: any text.
        note: what it is about, any text.
        sections: in order.
    """
    parts = [_section(section, number) for number, section in enumerate(sections)]
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            '<head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{_text(title)}</title>",
            f"<style>{STYLE}</style></head>",
            f'<body><h1>{_text(title)}</h1><p class="note">{_text(note)}</p>',
            *parts,
            "</body></html>",
            "",
        ]
    )


def _section(section: Section, number: int) -> str:
    tables = "".join(map(_table, section.tables))
    charts = "".join(
        f"<div>{_own_names(chart, f's{number}-{place}-')}</div>" for place, chart in enumerate(section.charts)
    )
    note = f'<p class="note">{_text(section.note)}</p>' if section.note else ""
    return f"<section><h2>{_text(section.title)}</h2>{note}{tables}{charts}</section>"


def _own_names(svg: str, prefix: str) -> str:
    """The picture with names of its parts that no other picture of the page has: each counts from 0."""
    return _TAG.sub(lambda tag: _IDENTIFIER.sub(rf"\g<1>{prefix}", tag[0]), svg)


def _table(table: Table) -> str:
    heading = "".join(f"<th>{_text(name)}</th>" for name in table.heading)
    rows = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in table.rows)
    return f'<div class="wide"><table><thead><tr>{heading}</tr></thead><tbody>{rows}</tbody></table></div>'


def _cell(cell: Cell) -> str:
    if cell is None:
        return '<td class="number">–</td>'
    if isinstance(cell, float):
        return f'<td class="number">{cell:.2f}</td>'
    if isinstance(cell, int):
        return f'<td class="number">{cell:,}</td>'
    return f"<td>{_text(cell)}</td>"


def _text(text: str) -> str:
    # Half a surrogate pair could not be written as UTF-8; `visible` spells it out, like all that is not seen.
    return html.escape(visible(text))
