"""Scores by slices: one way to part the questions at a time, with intervals, as a chart and a table."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from dashboard import elements, wording
from dashboard.charts import intervals
from dashboard.charts.intervals import Dot
from dashboard.comparing.scoring import TITLES, signed
from dashboard.data import comparison
from dashboard.data.comparison import Board
from qa.scored import METRICS
from qa.slices import FEWEST, Slice

MOST_DRAWN = 8  # experiments in the charts


def draw(board: Board) -> None:
    """The choice of a slicing and of a metric, and the scores."""
    known = {slicing.name: slicing for slicing in comparison.slicings_of(board)}
    if not known:
        st.info("These questions are all of one kind: there is nothing to part them by.")
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        name = st.selectbox(
            "By",
            [*known],
            format_func=lambda one: known[one].title,
            key="compare_slicing",
            persist_state="session",
            width=340,
        )
        metric = st.segmented_control(
            "Metric",
            METRICS,
            default="f1",
            format_func=TITLES.__getitem__,
            required=True,
            key="compare_slice_metric",
            persist_state="session",
        )
    slicing = known.get(name or "", next(iter(known.values())))
    found = comparison.slices(board, slicing, metric or "f1")
    names = board.names[:MOST_DRAWN]
    drawn = [one for one in found if one.experiment in names]
    title = TITLES[metric or "f1"]
    paired = len(board.names) > 1
    left, right = st.columns(2) if paired else (st.container(), None)
    with left:
        st.altair_chart(
            intervals.scores(score_dots(drawn), names, title=f"{title}, % (95 % interval)"),
            width="stretch",
            key="compare_slices",
            alt=f"{title} by {slicing.title}, of {', '.join(names)}",
        )
    if right is not None:
        with right:
            reference = board.names[0]
            chart = intervals.differences(
                change_dots(drawn),
                names,
                title=f"points more than {reference} (95 %, paired)",
                look=elements.look(),
            )
            alt = f"Differences of {title} from {reference} by {slicing.title}"
            st.altair_chart(chart, width="stretch", key="compare_slice_changes", alt=alt)
    with st.expander(
        "As a table", icon=":material/table:", on_change="rerun", key="compare_slice_table"
    ) as table:
        if table.open:
            st.dataframe(frame(found), hide_index=True, alt=f"{title} by {slicing.title}")
    outside = int((slicing.group < 0).sum())
    left_out = f" {wording.counted(outside, 'question')} without it left out." if outside else ""
    st.caption(
        "In brackets: questions. Intervals are 95 %, by paragraph; those of differences are paired. There "
        f"is none on fewer than {FEWEST} paragraphs, or where all values are alike. One in twenty leaves "
        f"out the truth, so a slice is a hint, not a finding.{left_out}"
    )


def _row(one: Slice) -> str:
    return f"{one.label} ({one.count:,})"


def score_dots(found: Sequence[Slice]) -> list[Dot]:
    """The values for a chart."""
    return [Dot(_row(one), one.experiment, one.value, one.interval, one.count) for one in found]


def change_dots(found: Sequence[Slice]) -> list[Dot]:
    """The differences to the reference for a chart."""
    return [
        Dot(_row(one), one.experiment, one.difference, one.difference_interval, one.count)
        for one in found
        if one.difference is not None
    ]


def frame(found: Sequence[Slice]) -> pd.DataFrame:
    """A row a group and experiment."""
    return pd.DataFrame(
        {
            "group": [one.label for one in found],
            "experiment": [one.experiment for one in found],
            "questions": [one.count for one in found],
            "value, %": [round(one.value, 2) for one in found],
            "95 %": [
                "" if one.interval is None else "{:.2f} to {:.2f}".format(*one.interval) for one in found
            ],
            "difference, points": [
                None if one.difference is None else round(one.difference, 2) for one in found
            ],
            "of the difference, 95 %": [
                "" if one.difference is None else signed(one.difference_interval) for one in found
            ],
        }
    )
