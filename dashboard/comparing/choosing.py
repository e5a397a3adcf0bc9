"""Which experiments are compared, and on which data: boxes at the top of the page, and the URL.

The URL names the experiments, the first being the reference. The trap: a link may name experiments that are
gone, twice, or a thousand of them; what cannot be used is said and left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import streamlit as st

from dashboard import state, wording
from dashboard.data.comparison import MOST, Candidate, candidate, common_data
from dashboard.data.experiments import Summary, index_of
from qa.experiment import Experiment

RUNS, REFERENCE, DATA = "compare_runs", "compare_reference", "compare_data"
MOST_NAMED = 5


def summaries_of(root: Path) -> tuple[Summary, ...]:
    """Every experiment of the folder; those that are broken are named."""
    with st.spinner("Reading the experiments …", show_time=True):
        found = index_of(str(root)).visit()
    troubled = [one for one in found if one.problems]
    if troubled:
        title = f"{wording.counted(len(troubled), 'folder')} of {len(found):,} with a problem"
        with st.expander(title, icon=":material/folder_off:"):
            rows = [{"Experiment": one.name, "Problem": line} for one in troubled for line in one.problems]
            st.dataframe(rows, hide_index=True, alt="Folders with a problem, and what it is")
    return found


def names_of(known: Sequence[str]) -> list[str]:
    """The experiments that the URL names, once each; at most MOST."""
    given = dict.fromkeys(name for name in (state.get("runs") or "").split(",") if name)
    there = set(known)
    unknown = [name for name in given if name not in there]
    if unknown:
        named = ", ".join(wording.plain(name[:64]) for name in unknown[:MOST_NAMED])
        more = f" and {len(unknown) - MOST_NAMED} more" if len(unknown) > MOST_NAMED else ""
        st.warning(f"Not in this folder, and left out: {named}{more}.", icon=":material/link_off:")
    names = [name for name in given if name in there]
    if len(names) > MOST:
        st.warning(
            f"The first {MOST} of {len(names):,} experiments are compared; choose fewer to see the others.",
            icon=":material/filter_alt:",
        )
    return names[:MOST]


def suggested(summaries: Sequence[Summary]) -> list[str]:
    """Two experiments to begin with: the two on the same data that ended last, the older one first."""
    scored = [one for one in summaries if one.f1 is not None and one.data_sha and not one.problems]
    newest = sorted(scored, key=_ended, reverse=True)
    for index, one in enumerate(newest):
        older = next((other for other in newest[index + 1 :] if other.data_sha == one.data_sha), None)
        if older is not None:
            return [older.name, one.name]
    return [one.name for one in newest[:1]]


def _ended(one: Summary) -> tuple[float, str]:
    return (one.updated.timestamp() if one.updated else 0.0, one.name)


def chosen(root: Path, summaries: Sequence[Summary]) -> list[Candidate]:
    """The boxes to choose with, and what is chosen; the reference first."""
    known = [one.name for one in summaries]
    if state.get("runs") is None:
        state.put(runs=",".join(suggested(summaries)))
    names = names_of(known)
    st.session_state[RUNS] = names
    many, one = st.columns([3, 1], vertical_alignment="bottom")
    with many:
        st.multiselect(
            "Experiments",
            known,
            key=RUNS,
            on_change=_choose,
            max_selections=MOST,
            select_all=False,
            placeholder="choose two or more",
        )
    with one:
        st.session_state[REFERENCE] = names[0] if names else None
        st.selectbox(
            "Reference",
            names,
            key=REFERENCE,
            on_change=_refer,
            disabled=len(names) < 2,
            placeholder="none",
            help="Differences are of the other experiments to this one.",
        )
    return [candidate(Experiment(root / name)) for name in names]


def _choose() -> None:
    state.put(runs=",".join(st.session_state[RUNS]) or ",")


def _refer() -> None:
    reference = st.session_state[REFERENCE]
    others = [name for name in st.session_state[RUNS] if name != reference]
    state.put(runs=",".join([reference, *others]))


def data_set(candidates: Sequence[Candidate]) -> str | None:
    """Fingerprint of the data to compare on: the one set that is shared, or a box to choose one."""
    common = common_data(candidates)
    if len(common) < 2:
        return next(iter(common), None)
    sharing = {sha: sum(sha in one.sets for one in candidates) for sha in common}
    chosen: str | None = st.selectbox(
        "Data",
        [*common],
        key=DATA,
        format_func=lambda sha: f"{common[sha]} ({sha[:8]}, {sharing[sha]} of {len(candidates)} experiments)",
        help="Data that the reference shares with another experiment, by the fingerprint of the questions.",
        width=520,
    )
    return chosen if chosen in common else next(iter(common))
