"""Two experiments' heads beside each other: scores, maps compared, roles.

The trap: numbers of two atlases can be compared only if they are of the same questions.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from dashboard import elements, wording
from dashboard.atlas_sections import draw_head_map
from dashboard.data import heads as data
from probes.atlas_difference import CHANGED, FAR, VERDICTS, Difference
from probes.atlas_files import Atlas
from qa.experiment import Experiment


def draw_compared(experiment: Experiment, other: Experiment | None, atlas: Atlas | None) -> None:
    """Which heads differ from those of another experiment."""
    if other is None:
        st.info("Choose a second experiment above, under Compared with.", icon=":material/compare_arrows:")
        return
    _draw_scores(experiment, other)
    difference, problems = data.differences(experiment, other)
    for problem in problems:
        elements.problem(problem)
    if difference is None:
        st.info("The maps of these two have not been compared yet:", icon=":material/compare_arrows:")
        elements.command(f"python -m probes atlas {experiment.name} --against {other.name}")
    else:
        _draw_difference(difference, experiment, other)
    if atlas is not None:
        _draw_role_changes(atlas, experiment, other)


def _draw_scores(experiment: Experiment, other: Experiment) -> None:
    comparison = data.scores(experiment, other)
    if comparison is None:
        st.caption("Their scores are of different questions, and cannot be compared.")
        return
    labels = {"exact_match": "Exact match", "f1": "F1"}
    columns = st.columns(4)
    for column, found in zip(
        columns, (one for one in comparison.differences if one.metric in labels), strict=False
    ):
        between = ""
        if found.interval is not None:
            between = f" ({found.interval[0]:+.1f} to {found.interval[1]:+.1f})"
        column.metric(
            f"{labels[found.metric]} of {wording.plain(other.name)}",
            f"{found.second:.1f} %",
            f"{found.difference:+.1f}{between}",
            help=f"{wording.plain(experiment.name)}: {found.first:.1f} %. In brackets the 95 % interval.",
        )
    st.caption(f"Beneath: the difference from {wording.plain(experiment.name)}, with its 95 % interval.")


@st.fragment
def _draw_difference(difference: Difference, experiment: Experiment, other: Experiment) -> None:
    here, there = difference.side("here"), difference.side("other")
    shape = (difference.about["layers"], difference.about["heads"])
    left, right = st.columns([6, 7], gap="medium")
    with left:
        if here["place"].notna().any():
            label = "distance to the same place"
            draw_head_map(here["place"].to_numpy().reshape(shape), "", key="heads_place", label=label)
        else:
            label = "distance to the nearest head"
            draw_head_map(here["nearest"].to_numpy().reshape(shape), "", key="heads_nearest", label=label)
        st.caption(
            "Jensen-Shannon distance of the maps, word by word: 0 is alike, 1 is nothing in common; over "
            f"{difference.about['questions']} questions. Changed: at least {CHANGED:g} from the head in the "
            f"same place; vanished and appeared: at least {FAR:g} from every head of the other model. What "
            "counts is the lower end of the 95 % interval."
        )
    with right:
        _draw_verdicts(experiment.name, here, VERDICTS["here"])
        _draw_verdicts(other.name, there, VERDICTS["other"])


def _draw_verdicts(title: str, table: pd.DataFrame, verdicts: Sequence[str]) -> None:
    """The heads with a verdict, or the three that are farthest from any."""
    clear = table[table["verdict"].isin(verdicts)]
    shown = clear if len(clear) else table.nlargest(5, "nearest")
    words = (
        f"{len(clear)} heads {' or '.join(verdicts)}"
        if len(clear)
        else f"none {' or '.join(verdicts)}; the farthest"
    )
    st.markdown(f"**{wording.plain(title)}**: {words}")
    rows = shown.sort_values("nearest", ascending=False).head(20)
    st.dataframe(
        pd.DataFrame(
            {
                "head": [f"{row.layer}.{row.head}" for row in rows.itertuples()],
                **({"verdict": rows["verdict"].to_numpy()} if len(clear) else {}),
                "same place": rows["place"].to_numpy(),
                "nearest": rows["nearest"].to_numpy(),
                "which is": [f"{row.nearest_layer}.{row.nearest_head}" for row in rows.itertuples()],
            }
        ),
        hide_index=True,
        column_config={
            name: st.column_config.NumberColumn(format="%.3f") for name in ("same place", "nearest")
        },
        alt=f"Heads of {title} and how far the nearest head of the other model is",
    )


def _draw_role_changes(atlas: Atlas, experiment: Experiment, other: Experiment) -> None:
    """Roles in both atlases, where both are of the same questions."""
    same = [one for one in data.atlases(other).usable if one.about["data"] == atlas.about["data"]]
    same = [one for one in same if one.shape == atlas.shape]
    if not same:
        st.caption(f"{wording.plain(other.name)} has no atlas of the same questions: roles are not compared.")
        return
    rows = [
        # The blank, which the page does not show, keeps the column apart from an experiment of this name.
        {"head ": f"{one['layer']}.{one['head']}", experiment.name: one["role"], other.name: two["role"]}
        for one, two in zip(atlas.heads.to_dict("records"), same[0].heads.to_dict("records"), strict=True)
        if one["role"] != two["role"]
    ]
    if rows:
        st.dataframe(rows, hide_index=True, alt="Heads whose role differs between the two experiments")
    else:
        st.caption("Every head has the same role, or none, in both.")
