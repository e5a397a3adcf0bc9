"""Settings that differ, how they go with the score, and the spread over seeds."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from dashboard import elements
from dashboard.charts.parallel import MOST_AXES, parallel_coordinates
from dashboard.data.comparison import Candidate
from qa.differing import MISSING, Row, setting_rows
from qa.printing import visible
from qa.seeds import SeedGroup, SeedRun, seed_groups

# They differ whenever runs do, and say nothing about why one is better.
NOT_AXES = ("group", "best_model_path")
# Columns beside those of the experiments: the blank, which no page shows, is in no name.
SETTING, DIFFERS = "setting ", "differs "


def draw(candidates: Sequence[Candidate], sha: str | None) -> None:
    """Settings as a table, and as parallel coordinates with F1 on the chosen data."""
    rows = setting_rows([one.settings for one in candidates])
    every = st.toggle(
        "All settings, also those that are equal", key="compare_all_settings", persist_state="session"
    )
    shown = rows if every else [row for row in rows if row.differs]
    if shown:
        st.dataframe(frame(shown, candidates), hide_index=True, alt="Settings of the experiments")
    else:
        st.info("No setting differs.")
    st.caption(
        f"{sum(row.differs for row in rows)} of {len(rows)} differ. {MISSING} means that an experiment has "
        "no such setting, which counts as different; an imported one has none of the settings of training."
    )
    _parallel(candidates, rows, sha)


def frame(rows: Sequence[Row], candidates: Sequence[Candidate]) -> pd.DataFrame:
    """A row a setting, a column an experiment."""
    table = {SETTING: [row.key for row in rows]}
    if any(not row.differs for row in rows):
        table[DIFFERS] = ["≠" if row.differs else "" for row in rows]
    for index, one in enumerate(candidates):
        table[one.name] = [visible(row.values[index]) for row in rows]
    return pd.DataFrame(table)


def axes(rows: Sequence[Row]) -> list[Row]:
    """The settings worth an axis: they differ, and are no circumstance or name of the run."""
    return [row for row in rows if row.differs and "." not in row.key and row.key not in NOT_AXES]


def _parallel(candidates: Sequence[Candidate], rows: Sequence[Row], sha: str | None) -> None:
    scored = [index for index, one in enumerate(candidates) if sha in one.sets]
    if len(scored) < 2 or sha is None:
        return
    kept = [
        Row(
            row.key,
            tuple(row.values[index] for index in scored),
            len({row.values[index] for index in scored}) > 1,
            tuple(row.chosen[index] for index in scored),
        )
        for row in rows
    ]
    varying = axes(kept)
    if not varying:
        return
    st.subheader("Settings and F1")
    scores = [float(candidates[index].sets[sha].metrics["f1"]) for index in scored]
    names = [candidates[index].name for index in scored]
    chart = parallel_coordinates(names, varying, scores, look=elements.look())
    best = names[scores.index(max(scores))]
    alt = f"{', '.join(row.key for row in varying[:MOST_AXES])} against F1; the best is {best}"
    st.altair_chart(chart, width="stretch", key="compare_parallel", alt=alt)
    more = f" The first {MOST_AXES} of {len(varying)} settings that vary." if len(varying) > MOST_AXES else ""
    st.caption(
        f"A line an experiment, {len(scored)} on the same data; F1 in % at the right. Each axis goes from "
        f"its smallest to its largest value, by the logarithm where they are far apart.{more}"
    )


def draw_seeds(candidates: Sequence[Candidate]) -> None:
    """Mean and deviation of each group of seeds among the chosen experiments."""
    groups = seed_groups(seed_runs(candidates))
    if not groups:
        st.info(
            "None of these experiments belongs to a seed group: "
            "`python run_experiment.py --name N --seeds 1 2 3` makes one."
        )
        return
    names = {sha: found.name for one in candidates for sha, found in one.sets.items()}
    st.dataframe(seed_frame(groups, names), hide_index=True, alt="Mean and deviation of each seed group")
    st.caption(
        "Mean ± standard deviation of the runs (n − 1), in percentage points: how far one run may lie from "
        "the next. It is no interval of the mean. Only the experiments chosen above count."
    )


def seed_runs(candidates: Sequence[Candidate]) -> list[SeedRun]:
    """The scores of the experiments that belong to a group, on each of their data sets."""
    return [
        SeedRun(one.group, one.name, sha, float(found.metrics["exact_match"]), float(found.metrics["f1"]))
        for one in candidates
        if one.group is not None
        for sha, found in one.sets.items()
    ]


def seed_frame(groups: Sequence[SeedGroup], names: dict[str, str]) -> pd.DataFrame:
    """A row a group and data set.

    Args:
        groups: of runs.
        names: of data sets, by fingerprint.
    """
    return pd.DataFrame(
        {
            "group": [visible(group.name) for group in groups],
            "data": [visible(names.get(group.sha, group.sha[:8])) for group in groups],
            "runs": [len(group.runs) for group in groups],
            "EM": [str(group.exact_match) for group in groups],
            "F1": [str(group.f1) for group in groups],
            "F1, lowest": [round(group.f1.low, 2) for group in groups],
            "F1, highest": [round(group.f1.high, 2) for group in groups],
            "experiments": [", ".join(group.runs) for group in groups],
        }
    )
