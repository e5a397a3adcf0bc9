"""The part of Home that moves: runs at work, and runs that were started and have not begun.

It draws itself again every few seconds, which costs a look at the files' times. When an experiment begins or
ends, the whole page is drawn again. The trap: a button inside is pressed in a run of this part only, so what
it changes elsewhere on the page needs that, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import streamlit as st

from dashboard import elements, wording
from dashboard.data import runs
from dashboard.data.experiments import Summary, index_of
from qa.errors import UserError
from qa.experiment import Experiment

BUSY_SECONDS, IDLE_SECONDS = 2, 15
MOST_CARDS = 4


def draw(root: Path, summaries: Sequence[Summary]) -> None:
    """Cards of what goes on, kept up to date.

    Args:
        root: the folder of experiments.
        summaries: what the rest of the page shows.
    """
    drawn = _states(summaries)
    busy = "running" in drawn.values() or any(start.alive for start in runs.starting(root))
    part = st.fragment(_draw, run_every=BUSY_SECONDS if busy else IDLE_SECONDS)
    part(root, drawn, busy=busy)


def _states(summaries: Sequence[Summary]) -> dict[str, str]:
    return {one.name: one.state for one in summaries}


def _draw(root: Path, drawn: dict[str, str], *, busy: bool) -> None:
    summaries = index_of(str(root)).visit()
    starts = runs.starting(root)
    if _states(summaries) != drawn or any(start.alive for start in starts) > busy:
        st.rerun(scope="app")
    for start in starts:
        _draw_start(root, start)
    running = [one for one in summaries if one.state == "running"]
    for one in running[:MOST_CARDS]:
        _draw_running(root, one)
    if len(running) > MOST_CARDS:
        st.caption(f"{len(running) - MOST_CARDS} more run; the table has them all.")


def _draw_start(root: Path, start: runs.Start) -> None:
    name = wording.plain(start.name)
    if start.alive:
        waited = wording.duration((datetime.now(UTC) - start.since).total_seconds())
        with st.container(border=True):
            st.markdown(f":material/hourglass_top: **{name}** is starting: loading model and data ({waited})")
        return
    with st.container(border=True):
        st.markdown(f":material/error: **{name}** did not start")
        elements.text(start.log[-1] if start.log else "It ended without a word.")
        with st.container(horizontal=True):
            if len(start.log) > 1:
                with st.popover("What it wrote"):
                    st.code("\n".join(start.log), language=None)
            st.button("Dismiss", key=f"dismiss_{start.name}", on_click=runs.forget, args=(root, start.name))


def _draw_running(root: Path, one: Summary) -> None:
    with (
        st.container(border=True),
        st.container(horizontal=True, vertical_alignment="center", gap="medium"),
    ):
        with st.container(width="stretch"):
            st.markdown(f":material/directions_run: **{wording.plain(one.name)}** · {_activity(one)}")
            said = " · ".join(_progress(one))
            if one.total_steps:
                st.progress(min(1.0, (one.step or 0) / one.total_steps), text=said)
            else:
                st.caption(said)
        if one.best_f1 is not None:
            st.metric("Best F1 so far", f"{one.best_f1:.1f}", width="content")
        _draw_stop(root, one.name)


def _activity(one: Summary) -> str:
    return wording.plain(one.message or "running")


def _progress(one: Summary) -> list[str]:
    """How far it is, how fast, and how long it will take."""
    said = []
    if one.total_steps:
        said.append(f"step {one.step or 0:,} of {one.total_steps:,}")
    if one.epoch is not None and one.settings is not None:
        said.append(f"epoch {one.epoch:.1f} of {one.settings.epochs:g}")
    if one.speed is not None:
        said.append(f"{one.speed:.3g} windows/s")
    if one.seconds is not None:
        said.append(f"{wording.duration(one.seconds)} so far")
    if one.seconds_left:
        said.append(f"**{wording.duration(one.seconds_left)} left**")
    return said


def _draw_stop(root: Path, name: str) -> None:
    stopping = runs.stopping(Experiment(root / name))
    st.button(
        "Stopping …" if stopping else "Stop",
        key=f"stop_{name}",
        icon=":material/stop_circle:",
        disabled=stopping,
        on_click=_stop,
        args=(root, name),
        help="Saves after this step; the experiment can be resumed.",
    )


def _stop(root: Path, name: str) -> None:
    try:
        runs.stop(Experiment(root / name))
    except UserError as error:
        elements.problem(error)
