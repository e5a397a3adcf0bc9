"""Experiments that cannot be paired with the reference: why, and what can be done about it.

What can be done is `python -m qa evaluate` on common data, in a process that the page only watches. The trap:
an experiment without a model can never be evaluated anywhere, so common data for it are only its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import streamlit as st

from dashboard import elements, wording
from dashboard.comparing import scoring
from dashboard.data import evaluating
from dashboard.data.comparison import Candidate
from dashboard.data.evaluating import Evaluation
from qa.errors import UserError

OTHER = "other"
SOURCE, PATH = "compare_source", "compare_path"
SECONDS = 2.0


def reason(one: Candidate, reference: Candidate) -> str:
    """Why an experiment cannot be paired with the reference."""
    if not one.sets:
        return f"it has no scores ({one.state}{'' if not one.problems else ': ' + one.problems[0]})"
    if not reference.sets:
        return f"{reference.name} has no scores"
    return f"it was scored on {', '.join(dict.fromkeys(found.name for found in one.sets.values()))}"


def draw(apart: Sequence[Candidate], candidates: Sequence[Candidate]) -> None:
    """Scores of those that stand apart, the reasons, and the offer to evaluate.

    Args:
        apart: experiments that are not on the data that are compared on.
        candidates: all that were chosen, the reference first.
    """
    st.subheader("On other data")
    reference = wording.plain(candidates[0].name)
    lines = [
        f"- **{wording.plain(one.name)}** cannot be paired with **{reference}** here: "
        f"{wording.plain(reason(one, candidates[0]))}"
        for one in apart
        if one is not candidates[0]
    ]
    st.markdown("\n".join(lines))
    scoring.draw_apart(apart)
    with st.container(border=True):
        st.markdown("**Evaluate on common data**")
        offer(candidates)


def offer(candidates: Sequence[Candidate]) -> None:
    """Evaluate whoever lacks it on data to choose.

    Args:
        candidates: all that were chosen, the reference first.
    """
    known = {sha: found.name for one in candidates for sha, found in one.sets.items()}
    source = _source(candidates, known)
    if not source:
        return
    lacking = [one for one in candidates if source not in one.sets]
    for one in lacking:
        if not one.has_model:
            st.caption(f"{wording.plain(one.name)} has no model, so it cannot be evaluated on other data.")
    with st.container(horizontal=True):
        for one in lacking:
            if one.has_model:
                st.button(
                    f"Evaluate {wording.plain(one.name)}",
                    key=f"compare_evaluate_{one.name}",
                    icon=":material/play_arrow:",
                    on_click=_start,
                    args=(one, source, known.get(source, source)),
                )
    if not lacking:
        st.caption("All of them have scores on these data.")


def _source(candidates: Sequence[Candidate], known: Mapping[str, str]) -> str:
    """What to evaluate on: a fingerprint, or a name or path that was typed; empty for none."""
    # First of all data on which somebody lacks scores and everybody can have them.
    order = sorted(known, key=lambda sha: (not _lacking(candidates, sha), _unable(candidates, sha)))
    some = any(_lacking(candidates, sha) for sha in order)
    source = st.selectbox(
        "Data",
        [*order, OTHER] if some else [OTHER, *order],
        key=SOURCE,
        format_func=lambda one: "other data …" if one == OTHER else f"{known[one]} ({one[:8]})",
        width=420,
    )
    if source != OTHER:
        return source
    typed: str = st.text_input(
        "SQuAD JSON file, hub name or pocket", key=PATH, placeholder="PATH/TO/dev-v1.1.json", width=420
    )
    return typed.strip()


def _lacking(candidates: Sequence[Candidate], sha: str) -> int:
    """How many of them have no scores on these data."""
    return sum(sha not in one.sets for one in candidates)


def _unable(candidates: Sequence[Candidate], sha: str) -> int:
    """How many of them can never have scores on these data."""
    return sum(sha not in one.sets and not one.has_model for one in candidates)


def _start(one: Candidate, source: str, data: str) -> None:
    try:
        evaluating.start(one.experiment, source, data=data)
    except UserError as error:
        elements.problem(error)


def _stop(one: Evaluation) -> None:
    try:
        evaluating.stop(one)
    except UserError as error:
        elements.problem(error)


def draw_running(root: Path) -> None:
    """Evaluations at work, kept up to date; when one ends the whole page is drawn again."""
    running = evaluating.started(root)
    if not running:
        return
    busy = [str(one.note) for one in running if one.alive]
    part = st.fragment(_draw_running, run_every=SECONDS if busy else None)
    part(root, busy)


def _draw_running(root: Path, drawn: list[str]) -> None:
    running = evaluating.started(root)
    if [str(one.note) for one in running if one.alive] != drawn:
        st.rerun(scope="app")
    for one in running:
        _draw_one(one)


def _draw_one(one: Evaluation) -> None:
    title = f"**{wording.plain(one.name)}** on {wording.plain(one.data)}"
    if one.failure is not None:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.error(f"{title}: {wording.plain(one.failure)}", icon=":material/error:")
            st.button("Dismiss", key=f"dismiss_{one.note.name}", on_click=evaluating.forget, args=(one.note,))
        return
    done, total = one.progress or (0, 0)
    share = done / total if total else 0.0
    said = f"{done:,} of {total:,} windows" if total else "loading the model"
    with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
        with st.container(width="stretch"):
            st.progress(min(1.0, share), text=f":material/hourglass_top: Evaluating {title}: {said}")
        st.button(
            "Stop",
            key=f"stop_{one.note.name}",
            icon=":material/stop_circle:",
            on_click=_stop,
            args=(one,),
            help="Ends it without a result; it can be started again.",
        )
