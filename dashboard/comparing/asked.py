"""The questions behind the scores: the two by two of right and wrong, and every answer side by side.

A click on a cell shows its questions; the same choice stands beside it for the keyboard. The trap: filters
remember a page number that the next filter does not have, so each filter counts its pages anew.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from dashboard import elements, state, wording
from dashboard.charts.quadrants import CELL, quadrants
from dashboard.comparing import cards
from dashboard.data.comparison import Board
from qa.comparison import CELLS, cells_of
from qa.scored import Answers
from qa.squad import Question

PER_PAGE = 8
ROWS = 48  # answers on a page: with more experiments a page has fewer questions

ALL, DIFFERENT = "all", "different"
CHART, SHOWN, OTHER = "compare_quadrants", "compare_cell", "compare_other"
ORDERS = {"data": "as in the data", "gain": "largest gain in F1 first", "loss": "largest loss in F1 first"}
ALONE = {"data": "as in the data", "low": "lowest F1 first"}
RESULTS = ("any", "right", "wrong")

Numbers = NDArray[np.int64]


def draw(board: Board) -> None:
    """Cells, filters, and a page of questions."""
    second = _other(board)
    shown = np.ones(len(board.questions), dtype=np.bool_)
    if second is not None:
        shown &= _by_cell(board.answers[0], second)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        wanted = st.text_input(
            "Search",
            key="compare_search",
            persist_state="session",
            placeholder="words of a question, its text, its answers, or an id",
            icon=":material/search:",
            width=360,
        )
        orders = ALONE if second is None else ORDERS
        order = st.selectbox(
            "Order",
            [*orders],
            format_func=orders.__getitem__,
            key="compare_order" if second is not None else "compare_order_alone",
            persist_state="session",
            width=260,
        )
        shown &= _by_result(board)
    shown &= matches(board, wanted or "")
    numbers = in_order(np.flatnonzero(shown), board.answers[0], second, order or "data")
    _page(board, numbers, second)


def _link(board: Board, question: Question, second: Answers | None) -> None:
    """The way to ask it; none for texts that no address can hold (half a surrogate pair)."""
    # An id is looked up in the experiment's own validation data.
    typed = {"question": question.question, "context": question.context}
    texts = {"id": question.id} if board.own else typed
    try:
        "".join([question.id, *texts.values()]).encode("utf-8")
    except UnicodeEncodeError:
        return
    other = None if second is None else second.name
    label, icon = "Ask this question", state.PAGES["ask"].icon
    if state.fits(texts):
        state.link("ask", label, experiment=board.names[0], other=other, **texts)
    elif st.button(label, key=f"compare_ask_{question.id}", icon=icon, type="tertiary"):
        state.go("ask", experiment=board.names[0], other=other, **texts)


def _other(board: Board) -> Answers | None:
    """Which experiment stands against the reference; None if there is only the reference."""
    others = {answers.name: answers for answers in board.answers[1:]}
    if len(others) < 2:
        return next(iter(others.values()), None)
    name = st.selectbox(
        f"Compared with {wording.plain(board.names[0])}",
        [*others],
        key=OTHER,
        persist_state="session",
        width=360,
    )
    return others.get(name or "", next(iter(others.values())))


def _by_cell(first: Answers, second: Answers) -> NDArray[np.bool_]:
    """The questions of the cell that is chosen, by a click or in the list."""
    cells = cells_of(first, second)
    counts = [int((cells == cell).sum()) for cell in range(len(CELLS))]
    left, right = st.columns([2, 3], gap="large", vertical_alignment="center")
    with left:
        st.altair_chart(
            quadrants(counts, (first.name, second.name), look=elements.look()),
            key=CHART,
            on_select=_click,
            selection_mode=CELL,
            width="content",
            alt=f"Right and wrong of {first.name} and {second.name}: {_said(counts, first, second)}",
        )
    one, other = (wording.plain(answers.name) for answers in (first, second))
    labels = {
        ALL: f"all questions ({sum(counts):,})",
        "both": f"right in both ({counts[0]:,})",
        "first": f"right only in {one} ({counts[1]:,})",
        "second": f"right only in {other} ({counts[2]:,})",
        "neither": f"right in neither ({counts[3]:,})",
        DIFFERENT: "answered differently",
    }
    with right:
        chosen = st.radio(
            "Questions", [*labels], format_func=labels.__getitem__, key=SHOWN, persist_state="session"
        )
        st.caption("Right: an exact match with a gold answer. A click on a cell chooses its questions.")
    if chosen in CELLS:
        found: NDArray[np.bool_] = cells == CELLS.index(chosen)
        return found
    if chosen == DIFFERENT:
        return np.array([a != b for a, b in zip(first.texts, second.texts, strict=True)])
    return np.ones(len(cells), dtype=np.bool_)


def _said(counts: Sequence[int], first: Answers, second: Answers) -> str:
    only = f"only {first.name} {counts[1]}, only {second.name} {counts[2]}"
    return f"both {counts[0]}, {only}, neither {counts[3]}"


def _click() -> None:
    chosen = st.session_state[CHART]["selection"].get(CELL, [])
    cell = chosen[0].get(CELL) if chosen else ALL
    st.session_state[SHOWN] = cell if cell in CELLS else ALL


def _by_result(board: Board) -> NDArray[np.bool_]:
    """Filter of right and wrong for each experiment."""
    shown = np.ones(len(board.questions), dtype=np.bool_)
    with st.popover("Right or wrong by experiment", icon=":material/filter_alt:"):
        for index, answers in enumerate(board.answers):
            result = st.segmented_control(
                wording.plain(answers.name),
                RESULTS,
                default="any",
                required=True,
                key=f"compare_result_{index}",
            )
            if result != "any":
                shown &= answers.right == (result == "right")
    return shown


def matches(board: Board, wanted: str) -> NDArray[np.bool_]:
    """The questions in which all words occur: in id, title, text, context, gold or given answers."""
    words = wanted.casefold().split()
    if not words:
        return np.ones(len(board.questions), dtype=np.bool_)
    texts = [_text(board, number) for number in range(len(board.questions))]
    return np.array([all(word in text for word in words) for text in texts])


def _text(board: Board, number: int) -> str:
    question = board.questions[number]
    given = [answers.texts[number] or "" for answers in board.answers]
    parts = (question.id, question.title, question.question, question.context, *question.answers, *given)
    return "\n".join(parts).casefold()


def in_order(numbers: Numbers, first: Answers, second: Answers | None, order: str) -> Numbers:
    """The numbers of questions in one of ORDERS or ALONE."""
    change = first.f1s if second is None else second.f1s - first.f1s
    keys = {"gain": -change, "loss": change, "low": change}
    if order not in keys:
        return numbers
    return numbers[np.argsort(keys[order][numbers], kind="stable")]


def _page(board: Board, numbers: Numbers, second: Answers | None) -> None:
    if not len(numbers):
        st.info("No question is like that.", icon=":material/search_off:")
        return
    each = max(2, min(PER_PAGE, ROWS // len(board.answers)))
    pages = -(-len(numbers) // each)
    page = 1
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.caption(f"{wording.counted(len(numbers), 'question')} of {len(board.questions):,}")
        if pages > 1:
            # A list of another length is another list: its pages begin at 1.
            page = st.pagination(pages, key=f"compare_page_{zlib.crc32(numbers.tobytes())}")
    for number in numbers[(page - 1) * each : page * each]:
        with st.container(border=True):
            st.html(cards.card(board, int(number)))
            _link(board, board.questions[number], second)
