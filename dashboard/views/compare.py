"""Compare: chosen experiments against a reference: scores, questions, slices, curves, settings, seeds."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from dashboard import elements, state, wording
from dashboard.comparing import (
    asked,
    choosing,
    configured,
    curved,
    exporting,
    offering,
    scoring,
    sliced,
)
from dashboard.data import comparison
from dashboard.data.comparison import Board, Candidate
from qa.errors import UserError

# Only the part that is looked at is worked out and sent.
PARTS = ("Scores", "Questions", "Slices", "Curves", "Settings", "Seeds", "Export")
PAIRED = ("Questions", "Slices", "Export")


def draw() -> None:
    """The page."""
    root = state.root().absolute()
    st.title("Compare")
    summaries = choosing.summaries_of(root)
    if not summaries:
        elements.no_experiments()
        return
    candidates = choosing.chosen(root, summaries)
    if not candidates:
        st.info(
            "Choose two experiments or more: the first is the reference.", icon=":material/compare_arrows:"
        )
        return
    offering.draw_running(root)
    sha = choosing.data_set(candidates)
    board = _board(candidates, sha)
    part = st.segmented_control(
        "Part",
        PARTS,
        default="Scores",
        required=True,
        key="part",
        bind="query-params",
        label_visibility="collapsed",
    )
    _draw_part(part or "Scores", candidates, board)


def _board(candidates: Sequence[Candidate], sha: str | None) -> Board | None:
    """The experiments that can be paired; what cannot be read is said."""
    for one in candidates:
        for problem in one.problems[:1]:
            st.warning(f"{wording.plain(one.name)}: {wording.plain(problem)}", icon=":material/folder_off:")
    if sha is None:
        return None
    try:
        found = comparison.board(candidates, sha)
    except UserError as error:
        elements.problem(error)
        return None
    for name, why in found.unreadable.items():
        st.warning(f"{wording.plain(name)} is left out: {wording.plain(why)}", icon=":material/folder_off:")
    if found.names and found.names[0] != candidates[0].name:
        st.warning(f"The reference is now {wording.plain(found.names[0])}.", icon=":material/swap_horiz:")
    return found if found.names else None


def _draw_part(part: str, candidates: Sequence[Candidate], board: Board | None) -> None:
    if board is not None and part in PAIRED:
        _say_who_is_missing(candidates, board)
    if board is None and part in PAIRED:
        st.info("The reference has no scores: choose another one.", icon=":material/block:")
    elif part == "Scores":
        _draw_scores(candidates, board)
    elif part == "Questions" and board is not None:
        asked.draw(board)
    elif part == "Slices" and board is not None:
        sliced.draw(board)
    elif part == "Curves":
        curved.draw(candidates)
    elif part == "Settings":
        configured.draw(candidates, None if board is None else board.sha)
    elif part == "Seeds":
        configured.draw_seeds(candidates)
    elif board is not None:
        exporting.draw(candidates, board)


def _apart(candidates: Sequence[Candidate], board: Board | None) -> list[Candidate]:
    """Those without scores on the data that are compared on."""
    there = () if board is None else (*board.names, *board.unreadable)
    return [one for one in candidates if one.name not in there]


def _say_who_is_missing(candidates: Sequence[Candidate], board: Board) -> None:
    apart = ", ".join(wording.plain(one.name) for one in _apart(candidates, board))
    if apart:
        st.caption(f"Not here, for want of scores on {wording.plain(board.data)} (see Scores): {apart}.")


def _draw_scores(candidates: Sequence[Candidate], board: Board | None) -> None:
    if board is not None:
        scoring.draw(board)
    apart = _apart(candidates, board)
    if apart:
        offering.draw(apart, candidates)
    elif any(one.has_model for one in candidates):
        with st.expander("Compare on other data", icon=":material/dataset:"):
            offering.offer(candidates)


draw()
