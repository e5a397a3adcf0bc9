"""Home: every experiment, how far it is and how it scored; the way to all other pages."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from dashboard import elements, listing, live, starting, state, wording
from dashboard.data import runs
from dashboard.data.experiments import Summary, index_of
from qa.errors import UserError
from qa.experiment import Experiment

TABLE, SENT, TICKED = "experiments_table", "_experiments_sent", "_experiments_ticked"
ROW, MOST_ROWS = 35, 16  # a row's height in pixels, and how many are seen without scrolling
MOST_OPEN = 4  # rows of what needs attention that stand open


def draw() -> None:
    """The page."""
    root = state.root().absolute()
    st.title("Experiments")
    with st.spinner("Reading the experiments …", show_time=True):
        summaries = listing.in_order(index_of(str(root)).visit())
    st.caption(_headline(summaries) + f" · {wording.plain(str(root))}")
    live.draw(root, summaries)
    if not summaries:
        _welcome()
        starting.form(root, chosen=None, expanded=True)
        return
    _draw_attention(summaries)
    shown = _searched(summaries)
    actions = st.container()
    ticked = _table(shown)
    with actions:
        _actions(root, ticked)
    starting.form(root, chosen=ticked[0] if len(ticked) == 1 else None, expanded=False)


def _headline(summaries: list[Summary]) -> str:
    counts = {name: sum(one.state == name for one in summaries) for name in listing.STATES}
    said = [f"{count:,} {name}" for name, count in counts.items() if count]
    return " · ".join([wording.counted(len(summaries), "experiment"), *(said if len(summaries) > 1 else [])])


def _welcome() -> None:
    """How to get a first experiment."""
    st.info("There is no experiment here yet.", icon=":material/science:")
    st.markdown(
        "**On this page:** start one below. *Bundled* needs no network and takes some minutes.\n\n"
        "**In a terminal:** two experiments to look at and compare, or a run of your own:"
    )
    elements.command("make demo-experiments", "python run_experiment.py --pocket --name my-first")


def _draw_attention(summaries: list[Summary]) -> None:
    """Folders that are not as they should be and runs that ended early, by name, with what happened."""
    troubled = [one for one in summaries if one.problems]
    ended = [one for one in summaries if one.ended_early and not one.problems]
    if not troubled and not ended:
        return
    said = [
        *([f"{wording.counted(len(troubled), 'folder')} with a problem"] if troubled else []),
        *([f"{wording.counted(len(ended), 'run')} that ended early"] if ended else []),
    ]
    rows = [(one, text) for one in troubled for text in one.problems]
    rows += [(one, listing.note(one)) for one in ended]
    few = len(rows) <= MOST_OPEN
    with st.expander(", ".join(said), icon=":material/notification_important:", expanded=few):
        st.dataframe(
            [{"Experiment": one.name, "State": one.state, "What happened": text} for one, text in rows],
            column_config={"Experiment": {"width": 170}, "State": {"width": 105}},
            hide_index=True,
            alt="Folders with a problem and runs that ended early, and what happened",
        )


def _searched(summaries: list[Summary]) -> list[Summary]:
    """The search, and what it finds."""
    there = [name for name in listing.STATES if any(one.state == name for one in summaries)]
    with st.container(horizontal=True, vertical_alignment="center"):
        search = st.text_input(
            "Search",
            key="find",
            bind="query-params",
            placeholder="name, data, model, group …",
            icon=":material/search:",
            label_visibility="collapsed",
            width=320,
        )
        states = (
            st.pills("State", there, selection_mode="multi", key="states", label_visibility="collapsed")
            if len(there) > 1
            else []
        )
    return listing.found(summaries, search or "", states)


def _table(shown: list[Summary]) -> list[Summary]:
    """The table, and which experiments are ticked in it."""
    if not shown:
        st.info("No experiment is like that.", icon=":material/search_off:")
        return []
    names = [one.name for one in shown]
    _keep_ticks(names)
    st.dataframe(
        listing.frame(shown),
        key=TABLE,
        column_config=listing.columns(shown),
        hide_index=True,
        height=ROW * (min(len(shown), MOST_ROWS) + 1) + 3,
        on_select=_note_ticks,
        selection_mode="multi-row",
        placeholder="",
        alt=f"{len(shown)} experiments with state, scores, data and model",
    )
    st.caption("A click on a heading sorts. Intervals are 95 %, resampled by paragraph.")
    by_name = {one.name: one for one in shown}
    return [by_name[name] for name in st.session_state.get(TICKED, ()) if name in by_name]


def _note_ticks() -> None:
    """Keep which names are ticked: rows are positions in what the browser was sent."""
    sent = st.session_state.get(SENT, [])
    rows = st.session_state[TABLE]["selection"]["rows"]
    st.session_state[TICKED] = [sent[row] for row in rows if row < len(sent)]


def _keep_ticks(names: list[str]) -> None:
    """Tick the same experiments where the rows have changed, or the page has been left since."""
    if st.session_state.get(SENT) != names or TABLE not in st.session_state:
        st.session_state[SENT] = names
        places = {name: row for row, name in enumerate(names)}
        rows = [places[name] for name in st.session_state.get(TICKED, ()) if name in places]
        # A selection set from here makes another message, so that the next run would send the table again.
        if rows or TABLE in st.session_state:
            st.session_state[TABLE] = {"selection": {"rows": rows, "columns": [], "cells": []}}


def _actions(root: Path, ticked: list[Summary]) -> None:
    """What can be done with the ticked experiments."""
    with st.container(horizontal=True, vertical_alignment="center"):
        several = len(ticked) > 1
        if st.button(
            f"Compare {len(ticked)}" if several else "Compare",
            type="primary" if several else "secondary",
            disabled=not several,
            icon=state.PAGES["compare"].icon,
        ):
            state.go("compare", runs=",".join(one.name for one in ticked))
        single = ticked[0] if len(ticked) == 1 else None
        can_ask = single is not None and single.has_model
        if st.button(
            "Ask",
            type="primary" if can_ask else "secondary",
            disabled=not can_ask,
            icon=state.PAGES["ask"].icon,
        ):
            state.go("ask", experiment=ticked[0].name)
        if single is not None and single.can_resume:
            st.button(
                "Resume",
                icon=":material/play_arrow:",
                on_click=_resume,
                args=(Experiment(root / single.name),),
            )
            log = runs.log_of(single, root)
            if log:
                with st.popover("What it wrote"):
                    st.code("\n".join(log), language=None)
        st.caption(_hint(ticked))


def _hint(ticked: list[Summary]) -> str:
    if not ticked:
        return "Tick one experiment to ask it, or several to compare them: the first is the reference."
    if len(ticked) > 1:
        return f"The reference is {wording.plain(ticked[0].name)}."
    one = ticked[0]
    said = [] if one.has_model else [f"{one.name} has no model to ask ({one.state})."]
    return wording.plain(" ".join([*said, listing.note(one)]))


def _resume(experiment: Experiment) -> None:
    try:
        runs.resume(experiment)
    except UserError as error:
        elements.problem(error)


draw()
