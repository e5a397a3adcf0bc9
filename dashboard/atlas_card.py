"""Everything that an atlas knows of one head: its role, its numbers, and questions to look at.

The trap: texts of questions are not ours; they are shown as they are and never as Markdown.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import streamlit as st

from dashboard import elements, state, wording
from dashboard.data import heads as data
from dashboard.data.validation import is_of, validation
from probes.atlas_files import Atlas
from probes.atlas_measures import BY_NAME, QUESTION_MEASURES
from probes.atlas_roles import ROLES
from qa.errors import UserError
from qa.experiment import Experiment
from qa.printing import cut, visible

EXAMPLES = 3
LONGEST = 90  # characters of a question


def chosen_head(shape: tuple[int, int], *, default: tuple[int, int]) -> tuple[int, int]:
    """The head of the URL, or the default; two boxes to choose another."""
    chosen = []
    boxes = st.columns(2)
    for box, name, count, first in zip(boxes, ("layer", "head"), shape, default, strict=True):
        number = state.number(name, below=count)
        key = f"heads_{name}_box"
        st.session_state[key] = first if number is None else number
        box.selectbox(name.capitalize(), range(count), key=key, on_change=state.bind, args=(name, key))
        chosen.append(int(st.session_state[key]))
    return chosen[0], chosen[1]


def draw(experiment: Experiment, atlas: Atlas, measure: str) -> None:
    """The card of the chosen head; the head with the most of the measure unless one is chosen."""
    first = divmod(int(np.nanargmax(atlas.map(measure))), atlas.shape[1])
    layer, head = chosen_head(atlas.shape, default=first)
    row = atlas.heads.iloc[layer * atlas.shape[1] + head]
    st.subheader(f"Layer {layer}, head {head}", anchor=False)
    role = next((role for role in ROLES if role.name == row["role"]), None)
    st.markdown(
        "No clear role."
        if role is None
        else f"**{wording.plain(role.name)}**: {wording.plain(role.meaning)}."
    )
    if measure in {one.name for one in QUESTION_MEASURES}:
        _draw_examples(experiment, atlas, measure, layer, head)
    with st.expander("All its numbers", icon=":material/table:"):
        _draw_numbers(atlas, row)


def _draw_numbers(atlas: Atlas, row: pd.Series) -> None:
    rows = [
        {
            "measure": BY_NAME[name].label,
            "value": row[name],
            "95 % from": row[f"{name}_low"],
            "to": row[f"{name}_high"],
            "unit": BY_NAME[name].unit,
            "questions": row[f"{name}_questions"],
        }
        for name in atlas.measured()
    ]
    form = st.column_config.NumberColumn(format="%.3f")
    st.dataframe(
        rows,
        hide_index=True,
        column_config={"value": form, "95 % from": form, "to": form},
        alt="Every measure of this head with its interval",
    )


def _draw_examples(experiment: Experiment, atlas: Atlas, measure: str, layer: int, head: int) -> None:
    """The questions in which the measure is largest and smallest; a click opens one on Attention."""
    try:
        most, least = data.questions(atlas, measure).extremes(layer, head, EXAMPLES)
        # Other data may give the same ids to other questions.
        own = is_of(experiment, atlas.about["data"], atlas.about["questions"])
        known = validation(experiment) if own else {}
    except UserError as error:
        elements.problem(error)
        return
    label = BY_NAME[measure].label
    for title, table in ((f"Most: {label}", most), (f"Least: {label}", least)):
        if not len(table):
            continue
        st.markdown(f"**{title}**")
        for id_, value in zip(table["id"].astype(str), table["value"], strict=True):
            question = known.get(id_)
            shown = id_ if question is None else question.question.question
            text = f"{value:.3f}  ·  {wording.plain(cut(visible(shown), LONGEST))}"
            if question is None:
                st.caption(f"{text} (not among its validation questions)")
            else:
                state.link("attention", text, id=id_, layer=layer, head=head)
