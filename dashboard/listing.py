"""The list of experiments as a table: which rows a search leaves, their order, and how columns look.

The trap: the table tells which rows are ticked by their position in what was sent, whatever the reader sorted
by, so the page must keep the names in the order they were sent.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from dashboard import wording
from dashboard.data.experiments import Summary

# In the order of the page: what needs attention first.
STATES = {
    "running": "blue",
    "failed": "red",
    "interrupted": "orange",
    "stopped": "yellow",
    "finished": "green",
    "broken": "gray",
}


def in_order(summaries: Sequence[Summary]) -> list[Summary]:
    """Running ones first, then by when they last wrote, the newest first; broken ones last."""

    def place(one: Summary) -> tuple[bool, bool, float, str]:
        moment = 0.0 if one.updated is None else one.updated.timestamp()
        return (one.state == "broken", one.state != "running", -moment, one.name)

    return sorted(summaries, key=place)


def found(summaries: Sequence[Summary], search: str, states: Sequence[str]) -> list[Summary]:
    """Those in one of the states (all, if none is named) that have every word of the search somewhere."""
    words = search.casefold().split()
    return [
        one
        for one in summaries
        if (not states or one.state in states) and all(word in _searched(one) for word in words)
    ]


def _searched(one: Summary) -> str:
    parts = [one.name, one.state, one.data or "", note(one)]
    if one.settings is not None:
        parts += [one.settings.model_name, one.settings.dataset, one.settings.group or ""]
    return " ".join(parts).casefold()


def note(one: Summary) -> str:
    """What a reader should know about it besides its scores."""
    if one.problems:
        more = len(one.problems) - 1
        return one.problems[0] + (f" (and {more} more)" if more else "")
    if one.ended_early and one.imported:
        why = one.message if one.state == "failed" else "an import that was cut off"
        return f"{why}; remove the folder and import it again"
    if one.state in ("stopped", "interrupted"):
        how = "stopped on request" if one.state == "stopped" else "ended without a word"
        return f"{how} at step {one.step or 0:,}; tick it to resume"
    if one.state == "failed":
        return one.message
    return "scores only" if one.state == "finished" and not one.has_model else ""


def model_of(one: Summary) -> str | None:
    """The model's name; of a folder only its last part."""
    if one.settings is None:
        return None
    name = one.settings.model_name
    return Path(name).name if Path(name).is_absolute() or name.startswith(f".{os.sep}") else name


def frame(summaries: Sequence[Summary]) -> pd.DataFrame:
    """A row an experiment."""
    rows: list[dict[str, Any]] = [
        {
            "name": one.name,
            "state": [one.state],
            "f1": one.f1,
            "f1_interval": wording.between(one.f1_interval),
            "em": one.exact_match,
            "em_interval": wording.between(one.exact_match_interval),
            "curve": [*one.curve] or None,
            "data": one.data,
            "count": one.count,
            "model": model_of(one),
            "group": None if one.settings is None else one.settings.group,
            "seed": None if one.settings is None else one.settings.seed,
            "minutes": None if one.seconds is None or one.state == "running" else one.seconds / 60,
            "started": one.started,
            "note": note(one),
        }
        for one in summaries
    ]
    table = pd.DataFrame(rows)
    numbers = ["f1", "em", "minutes"]
    table[numbers] = table[numbers].astype("float32")
    table[["count", "seed"]] = table[["count", "seed"]].astype("Int64")
    table["started"] = pd.to_datetime(table["started"], utc=True)
    return table


def columns(summaries: Sequence[Summary]) -> dict[str, Any]:
    """How each column is shown; curves share one scale, or a fall of a point would look like one of fifty."""
    column = st.column_config
    points = [point for one in summaries for point in one.curve] or [0.0]
    return {
        "name": column.TextColumn("Experiment", pinned=True, width=170),
        "state": column.MultiselectColumn(
            "State", options=[*STATES], color=[*STATES.values()], width=105, help="What the run is doing."
        ),
        "f1": column.NumberColumn("F1", format="%.1f", width=60, help="Overlap with the gold answer, in %."),
        "f1_interval": column.TextColumn(
            "F1, 95 %", width=100, help="Where F1 would lie on other paragraphs of the same kind."
        ),
        "em": column.NumberColumn("EM", format="%.1f", width=60, help="Answers exactly as a gold one, in %."),
        "em_interval": column.TextColumn("EM, 95 %", width=100, help="As for F1."),
        "curve": column.LineChartColumn(
            "F1 while training",
            width=120,
            y_min=min(points),
            y_max=max(points),
            help=f"F1 at each evaluation, {min(points):.0f} at the bottom to {max(points):.0f} at the top.",
        ),
        "data": column.TextColumn("Validation data", width=140),
        "count": column.NumberColumn("Questions", format="localized", width=85),
        "model": column.TextColumn("Model", width=180),
        "group": column.TextColumn("Seed group", width=110, help="Runs that differ in the seed only."),
        "seed": column.NumberColumn("Seed", format="%d", width=60),
        "minutes": column.NumberColumn("Minutes", format="%.1f", width=80, help="Time spent on the run."),
        "started": column.DatetimeColumn("Started", format="distance", width=120),
        "note": column.TextColumn("Note", width=420),
    }
