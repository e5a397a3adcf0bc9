"""What the page Heads shows of an atlas, a section each: map, list, scatter, pruning, training, compared.

A click on a head in any chart chooses it, and its card tells everything that is known of it. The trap: a
fragment keeps the arguments it was drawn with, so what a click changes is read from the state inside of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import streamlit as st

from dashboard import atlas_card, elements, state, wording
from dashboard.charts import heads, heads_atlas
from dashboard.charts.looks import LIGHT
from dashboard.charts.rendering import png, svg
from dashboard.data import heads as data
from dashboard.elements import Download
from dashboard.sections import choose_head
from probes.atlas_details import question_frame, table_csv
from probes.atlas_files import Atlas
from probes.atlas_measures import BY_NAME, MAP_MEASURES
from probes.atlas_roles import ROLES
from probes.atlas_snapshots import Training
from qa.errors import UserError
from qa.experiment import Experiment

MAP_WIDTH = 520


def measure_box(label: str, names: Sequence[str], key: str, *, first: str) -> str:
    """A box to choose a measure, with what it means below."""
    # What another experiment's atlas had goes; a value set here instead would win over that of a link.
    if key in st.session_state and st.session_state[key] not in names:
        del st.session_state[key]
    chosen: str = st.selectbox(
        label,
        names,
        index=names.index(first) if first in names else 0,
        key=key,
        format_func=lambda name: BY_NAME[name].label,
        bind="query-params",
    )
    measure = BY_NAME[chosen]
    st.caption(f"{measure.meaning[0].upper()}{measure.meaning[1:]} ({measure.unit}).")
    return chosen


def first_measure(atlas: Atlas) -> str:
    """Importance where it is known."""
    return "knockout" if "knockout" in atlas.measured() else "entropy"


@st.fragment
def draw_map(experiment: Experiment, atlas: Atlas) -> None:
    """Any measure as a map of all heads, beside the card of the chosen head."""
    left, right = st.columns([6, 7], gap="medium")
    with left:
        name = measure_box("Measure", atlas.measured(), "heads_measure", first=first_measure(atlas))
        draw_head_map(atlas.map(name), name, key=f"heads_map_{name}{_suffix(atlas, '_')}")
        _draw_over(atlas)
        _draw_roles(atlas.heads)
    with right:
        atlas_card.draw(experiment, atlas, name)


def draw_head_map(
    values: Any, name: str, *, key: str, label: str | None = None, top: float | None = None
) -> None:
    """A number for each head [L, H], with downloads; a click chooses the head.

    Args:
        values: [L, H].
        name: of the measure.
        key: of the chart.
        label: what the numbers are, where it is no measure.
        top: what is drawn darkest; None: the largest number.
    """
    L, H = values.shape
    title = label or BY_NAME[name].label

    def chart(look: Any) -> heads.Chart:
        return heads.head_map(values, range(L), range(H), measure=title, look=look, top=top, width=MAP_WIDTH)

    st.altair_chart(
        heads.on_page(chart(elements.look())),
        key=key,
        on_select=lambda: choose_head(key),
        selection_mode=heads.PICKED,
        alt=f"{title} of each of {L} × {H} heads",
    )
    files = [
        Download("PNG", f"{key}.png", lambda: png(chart(LIGHT)), "image/png"),
        Download("SVG", f"{key}.svg", lambda: svg(chart(LIGHT)), "image/svg+xml"),
    ]
    elements.downloads(files, key=f"{key}_files")


def _suffix(atlas: Atlas, joined: str) -> str:
    """What tells files and charts of a part of the questions from those of all."""
    return f"{joined}{atlas.part}" if atlas.part else ""


def _draw_over(atlas: Atlas) -> None:
    if atlas.part:
        st.caption(f"Over {wording.counted(atlas.count, f'{atlas.part} question')} only.")


def _draw_roles(table: pd.DataFrame) -> None:
    """Which heads have which role, and by what rule."""
    rows = [
        {"role": role.name, "heads": ", ".join(names), "rule (lower end of the interval)": role.rule}
        for role in ROLES
        if (names := [f"{row.layer}.{row.head}" for row in table[table["role"] == role.name].itertuples()])
    ]
    if rows:
        st.dataframe(rows, hide_index=True, alt="Roles, the heads that have them, and the rule")
    none = int((table["role"] == "").sum())
    st.caption(f"{none} of {len(table)} heads have no clear role. Heads are named layer.head, from 0.")


@st.fragment
def draw_list(experiment: Experiment, atlas: Atlas) -> None:
    """All heads, most of a measure first, with intervals."""
    name = measure_box("Measure", atlas.measured(), "heads_list_measure", first=first_measure(atlas))
    shown = atlas.heads[["layer", "head", "role", name, f"{name}_low", f"{name}_high", f"{name}_questions"]]
    shown = shown.sort_values([name, "layer", "head"], ascending=[False, True, True]).reset_index(drop=True)
    key = "heads_list"

    def choose() -> None:
        rows = st.session_state[key]["selection"]["rows"]
        if rows:
            row = shown.iloc[rows[0]]
            state.put(layer=int(row["layer"]), head=int(row["head"]))

    left, right = st.columns(2, gap="medium")
    with left:
        st.dataframe(
            shown,
            hide_index=True,
            key=key,
            on_select=choose,
            selection_mode="single-row",
            height=520,
            column_config={
                "layer": st.column_config.NumberColumn(width=45),
                "head": st.column_config.NumberColumn(width=45),
                "role": st.column_config.TextColumn(width=130),
                name: st.column_config.NumberColumn("value", format="%.3f", width=80),
                f"{name}_low": st.column_config.NumberColumn("95 % from", format="%.3f", width=75),
                f"{name}_high": st.column_config.NumberColumn("to", format="%.3f", width=60),
                f"{name}_questions": st.column_config.NumberColumn("questions", width=70),
            },
            alt=f"All heads by {BY_NAME[name].label}",
        )
    with right:
        atlas_card.draw(experiment, atlas, name)


@st.fragment
def draw_scatter(experiment: Experiment, atlas: Atlas) -> None:
    """Two measures of every head."""
    left, right = st.columns([7, 6], gap="medium")
    with left:
        boxes = st.columns(2)
        with boxes[0]:
            x = measure_box("Across", atlas.measured(), "heads_x", first="same_word")
        with boxes[1]:
            y = measure_box("Up", atlas.measured(), "heads_y", first=first_measure(atlas))
        titles = (_title(x), _title(y))
        key = f"heads_scatter_{x}_{y}"
        st.altair_chart(
            heads_atlas.scatter(atlas.heads, x, y, titles=titles, look=elements.look()),
            key=key,
            on_select=lambda: choose_head(key),
            selection_mode=heads.PICKED,
            alt=f"{titles[1]} against {titles[0]}, a dot for each head",
        )
        st.caption("Named are heads with a role, and the five highest, where there is room.")
    with right:
        atlas_card.draw(experiment, atlas, y)


def _title(name: str) -> str:
    measure = BY_NAME[name]
    return f"{measure.label}, {measure.unit}"


def draw_pruning(experiment: Experiment, atlas: Atlas) -> None:
    """How many heads the model can do without."""
    pruning = data.pruning(atlas)
    if pruning is None:
        st.info(
            "Heads were not switched off for this atlas, or for questions on one paragraph only; make one "
            "with --knockouts above 0.",
            icon=":material/content_cut:",
        )
        return
    st.altair_chart(
        heads_atlas.pruning_curve(pruning, look=elements.look()),
        key="heads_pruning",
        alt="F1 as heads are removed, smallest effect first, against random orders",
    )
    st.caption(
        f"F1 over {pruning['questions'].max()} questions as heads are removed, those with the smallest "
        "effect first: the size of the change in the gold answer's log-probability, up or down, in the mean "
        "over questions. The order is found on one half of the paragraphs and scored on the other. "
        "Grey: between the worst and the best of five random orders; bars: 95 % intervals."
    )
    with st.expander("The numbers", icon=":material/table:"):
        st.dataframe(pruning, hide_index=True, alt="F1 and exact match at each step of each order")


@st.fragment
def draw_training(experiment: Experiment) -> None:
    """The slider over training."""
    try:
        training = data.training(experiment)
    except UserError as error:
        elements.problem(error)
        return
    if training is None:
        st.info(
            "The training of this experiment was not watched. Train with a setting above 0 to record every "
            "head before the first step and at each evaluation.",
            icon=":material/timeline:",
        )
        elements.command("python run_experiment.py --name my-run --set atlas_snapshots=8")
        return
    names = [measure.name for measure in MAP_MEASURES]
    left, right = st.columns([6, 7], gap="medium")
    with left:
        name = measure_box("Measure", names, "heads_course_measure", first="same_word")
        step = _slider(training.steps)
        table = training.at(step)
        shape = (training.about["layers"], training.about["heads"])
        values = table[name].to_numpy().reshape(shape)
        top = float(training.heads[name].max())
        draw_head_map(values, name, key=f"heads_course_{name}_{step}", top=top)
        _draw_roles(table)
    with right:
        _draw_course(training, name, step, shape)


def _slider(steps: list[int]) -> int:
    if len(steps) == 1:
        return steps[0]
    if st.session_state.get("heads_step") not in steps:
        st.session_state["heads_step"] = steps[-1]
    step: int = st.select_slider("Training step", steps, key="heads_step")
    return step


def _draw_course(training: Training, name: str, step: int, shape: tuple[int, int]) -> None:
    """One head over all steps, and which heads got a role on the way."""
    rows, last = training.heads, training.at(training.steps[-1])
    default = divmod(int(last[name].fillna(-1).argmax()), shape[1])
    layer, head = atlas_card.chosen_head(shape, default=default)
    own = rows[(rows["layer"] == layer) & (rows["head"] == head)]
    st.subheader(f"Layer {layer}, head {head}", anchor=False)
    st.altair_chart(
        heads_atlas.course(own, name, step, title=BY_NAME[name].unit, look=elements.look()),
        key="heads_course_line",
        alt=f"{_title(name)} of layer {layer}, head {head} over the training",
    )
    band = (
        "the band is the 95 % interval, by paragraph."
        if own[f"{name}_low"].notna().any()
        else "they are too few for an interval, and so for a role."
    )
    st.caption(f"Over {training.about['questions']} validation questions, the same at each step; {band}")
    first = training.at(training.steps[0])
    changed = [
        {
            "head": f"{then['layer']}.{then['head']}",
            "at the start": then["role"] or "none",
            "at the end": now["role"] or "none",
        }
        for then, now in zip(first.to_dict("records"), last.to_dict("records"), strict=True)
        if then["role"] != now["role"]
    ]
    if changed:
        st.dataframe(changed, hide_index=True, alt="Heads whose role changed in training")
    else:
        st.caption("No head has got or lost a clear role between the first and the last of these steps.")


def draw_downloads(experiment: Experiment, atlas: Atlas) -> None:
    """Everything as Parquet and CSV, and how to read it in a notebook."""
    with st.expander("Export, and reading it in a notebook", icon=":material/download:"):
        name, part = experiment.name, _suffix(atlas, "-")
        files = [
            Download("Heads (CSV)", f"{name}-heads{part}.csv", lambda: table_csv(atlas.heads), "text/csv"),
            Download(
                "Questions (CSV)",
                f"{name}-questions{part}.csv",
                lambda: table_csv(question_frame(atlas)),
                "text/csv",
            ),
            Download(
                "Heads (Parquet)", f"{name}-heads.parquet", atlas.path.read_bytes, "application/octet-stream"
            ),
            Download(
                "Questions (Parquet)",
                f"{name}-questions.parquet",
                lambda: _questions(atlas),
                "application/octet-stream",
            ),
        ]
        try:
            pruning = data.pruning(atlas)
        except UserError:
            pruning = None
        if pruning is not None:
            files.append(
                Download("Pruning (CSV)", f"{name}-pruning.csv", lambda: table_csv(pruning), "text/csv")
            )
        elements.downloads(files, key="heads_export")
        if atlas.part:
            st.caption(f"CSV of heads and questions: the {atlas.part} ones; the other files: all questions.")
        st.code(
            "from probes.atlas_files import latest_atlas\n"
            f'heads = latest_atlas("{experiment.path}").heads  # a pandas table, a row a head',
            language="python",
        )


def _questions(atlas: Atlas) -> bytes:
    from probes.atlas_details import companion
    from probes.atlas_files import QUESTIONS

    return companion(atlas, QUESTIONS).read_bytes()
