"""Scores and differences: a table, the intervals of the differences as a chart, and what they mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import streamlit as st

from dashboard import elements, wording
from dashboard.charts import intervals
from dashboard.charts.intervals import Dot
from dashboard.data import comparison
from dashboard.data.comparison import Board, Candidate
from qa.comparison import PARTS, Comparison, Difference, Score
from qa.intervals import holm
from qa.scored import METRICS

TITLES = {"exact_match": "exact match", "f1": "F1"}
PART_TITLES = {"": wording.ALL, "HasAns_": wording.ANSWERABLE, "NoAns_": wording.UNANSWERABLE}
INTERVALS = (
    "Intervals are 95 %: percentiles of 10,000 resamples of paragraphs, each with all its questions. Those "
    "of a difference are paired: both experiments are scored on the same resample. McNemar's test is exact "
    "and two-sided; it takes questions as independent, the intervals do not."
)


def draw(board: Board) -> None:
    """Everything about the scores on one data set."""
    found = comparison.scores(board)
    pairs = comparison.comparisons(board) if len(board.names) > 1 else []
    part = _part(found)
    if len(pairs) == 1:
        _cards(pairs[0], part)
    table = frame(found, pairs, board.names, part)
    st.dataframe(
        table,
        hide_index=True,
        column_config=_columns(adjusted=len(pairs) > 1),
        placeholder="",
        alt=f"Scores of {', '.join(board.names)} on {len(board.questions)} questions",
    )
    if pairs:
        _chart(pairs, part)
    paragraphs = len({question.paragraph for question in board.questions})
    asked = f"{len(board.questions):,} questions on {wording.counted(paragraphs, 'paragraph')}"
    st.caption(f"{wording.plain(board.data)}: {asked}. {INTERVALS}")


def _part(found: Sequence[tuple[Score, ...]]) -> str:
    """Which questions the scores are over; a choice only where some have no answer."""
    there = [part for part in PARTS if any(score.metric == f"{part}f1" for score in found[0])]
    if len(there) == 1:
        return there[0]
    chosen: str | None = st.segmented_control(
        "Questions",
        there,
        default="",
        format_func=PART_TITLES.__getitem__,
        key="compare_part",
        persist_state="session",
        required=True,
        label_visibility="collapsed",
    )
    return chosen if chosen in there else ""


def _cards(pair: Comparison, part: str) -> None:
    """The difference of two experiments in four figures."""
    first, second = (wording.plain(name) for name in pair.names)
    with st.container(horizontal=True):
        for metric in METRICS:
            difference = _of(pair, part, metric)
            st.metric(
                f"{TITLES[metric].capitalize()} of {second}",
                f"{difference.second:.2f} %",
                f"{difference.difference:+.2f} points ({signed(difference.interval)})",
                delta_color="normal" if is_clear(difference) else "off",
                border=True,
                help=f"{difference.first:.2f} % for {first}. In brackets: 95 % interval of the difference.",
            )
        _, only_first, only_second, _ = pair.right
        if not part:
            st.metric(
                f"Right only in {second}",
                f"{only_second:,}",
                f"{only_first:,} only in {first}",
                delta_color="off",
                delta_arrow="off",
                border=True,
                help="Questions that one of the two answers exactly and the other does not.",
            )
            st.metric(
                "McNemar's exact test",
                f"p = {pair.p_value:.2g}",
                "right equally often?",
                delta_color="off",
                delta_arrow="off",
                border=True,
                help="How likely so uneven a split of the questions only one has right is, by chance alone.",
            )


def is_clear(difference: Difference) -> bool:
    """Whether the interval of a difference leaves zero out."""
    bounds = difference.interval
    return bounds is not None and (bounds[0] > 0 or bounds[1] < 0)


def signed(interval: tuple[float, float] | None) -> str:
    """An interval of a difference in points, such as +0.69 to +4.20."""
    return "no interval" if interval is None else f"{interval[0]:+.2f} to {interval[1]:+.2f}"


def _of(pair: Comparison, part: str, metric: str) -> Difference:
    return next(item for item in pair.differences if item.metric == f"{part}{metric}")


def frame(
    scores: Sequence[tuple[Score, ...]], pairs: Sequence[Comparison], names: Sequence[str], part: str
) -> pd.DataFrame:
    """A row an experiment, the reference first.

    Args:
        scores: of each experiment.
        pairs: of each but the first with the first.
        names: of the experiments.
        part: which questions, one of PARTS.
    """
    adjusted = holm([pair.p_value for pair in pairs])
    rows = []
    for index, (name, own) in enumerate(zip(names, scores, strict=True)):
        row: dict[str, Any] = {"experiment": name if index else f"{name} (reference)"}
        for metric in METRICS:
            score = next(item for item in own if item.metric == f"{part}{metric}")
            row |= {"count": score.count, metric: score.value, f"{metric}_interval": between(score.interval)}
        for metric in METRICS if index else ():
            difference = _of(pairs[index - 1], part, metric)
            row[f"{metric}_change"] = difference.difference
            row[f"{metric}_change_interval"] = signed(difference.interval)
        if index and not part:
            row |= {"p": f"{pairs[index - 1].p_value:.2g}", "p_adjusted": f"{adjusted[index - 1]:.2g}"}
        rows.append(row)
    return pd.DataFrame(rows)


def between(interval: tuple[float, float] | None) -> str:
    """An interval of a score in percent, such as 82.28 to 86.04; nothing where there is none."""
    return "" if interval is None else f"{interval[0]:.2f} to {interval[1]:.2f}"


def _columns(*, adjusted: bool) -> dict[str, Any]:
    column = st.column_config
    found: dict[str, Any] = {
        "experiment": column.TextColumn("Experiment", pinned=True),
        "count": column.NumberColumn("Questions", format="localized"),
        "p": column.TextColumn("McNemar p", help="That both are right equally often; exact, two-sided."),
        "p_adjusted": column.TextColumn(
            "p, adjusted", help="Holm's adjustment for the number of experiments compared with the reference."
        )
        if adjusted
        else None,
    }
    for metric, title in (("exact_match", "EM"), ("f1", "F1")):
        found |= {
            metric: column.NumberColumn(f"{title}, %", format="%.2f"),
            f"{metric}_interval": column.TextColumn(f"{title}, 95 %"),
            f"{metric}_change": column.NumberColumn(
                f"Δ {title}", format="%+.2f", help="Points more than the reference."
            ),
            f"{metric}_change_interval": column.TextColumn(
                f"Δ {title}, 95 %", help="Of the difference, paired, by paragraph."
            ),
        }
    return found


def dots(pairs: Sequence[Comparison], part: str) -> list[Dot]:
    """The differences for a chart."""
    return [
        Dot(pair.names[1], TITLES[metric], item.difference, item.interval, item.count)
        for pair in pairs
        for metric in METRICS
        for item in [_of(pair, part, metric)]
    ]


def _chart(pairs: Sequence[Comparison], part: str) -> None:
    reference = pairs[0].names[0]
    st.subheader("Differences")
    chart = intervals.differences(
        dots(pairs, part),
        [*TITLES.values()],
        title=f"points more than {reference} (95 % interval, paired)",
        look=elements.look(),
    )
    best = max(pairs, key=lambda pair: _of(pair, part, "f1").difference)
    said = (
        f"{best.names[1]} differs most from {reference} in F1: {_of(best, part, 'f1').difference:+.2f} points"
    )
    st.altair_chart(chart, width="stretch", key="compare_differences", alt=f"Against {reference}: {said}")


def draw_apart(apart: Sequence[Candidate]) -> None:
    """Scores of experiments that cannot be paired with the reference here, on whatever data they have."""
    rows = [
        {
            "experiment": one.name,
            "data": found.name,
            "count": found.metrics.get("count"),
            "exact_match": found.metrics["exact_match"],
            "f1": found.metrics["f1"],
        }
        for one in apart
        for found in one.sets.values()
    ]
    if not rows:
        return
    st.dataframe(
        pd.DataFrame(rows),
        hide_index=True,
        column_config=_columns(adjusted=False) | {"data": st.column_config.TextColumn("Data")},
        alt="Scores of experiments on other data",
    )
