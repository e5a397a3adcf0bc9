"""The question that Ask and Attention (and whoever else) are about: chosen, typed, pasted or picked.

The question is in the URL: its texts if they were typed, its id if it was picked from the validation data.
The trap: text boxes remember what was typed into them, so they are told the question of the URL whenever that
changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import streamlit as st

from dashboard import elements, marking, state
from dashboard.data import answers
from dashboard.data.answers import Asked, Model
from dashboard.data.validation import Known, search, validation
from qa.errors import UserError
from qa.experiment import Experiment

QUESTION_BOX, CONTEXT_BOX, SHOWN = "asking_question", "asking_context", "asking_shown"
WRITE, PICK = "Write or paste", "Pick from the validation data"
MOST_ROWS = 50
MOST_CHARACTERS = 90  # of a text in the list


@dataclass(frozen=True, slots=True)
class Asking:
    """The question a page is about.

    Attributes:
        question: any text that is not blank.
        context: likewise.
        known: what the validation data say of it; None for a question that was typed.
    """

    question: str
    context: str
    known: Known | None


def experiments() -> list[Experiment]:
    """The experiment to ask, and the one beside it if there is one, as chosen in two boxes."""
    left, right = st.columns(2)
    with left:
        first = elements.experiment_picker("Experiment")
    with right:
        second = elements.experiment_picker("Beside it", name="other", optional=True)
    return [one for one in (first, second) if one is not None and first is not None]


def models(experiments: Sequence[Experiment]) -> list[Model]:
    """Their models; says so of those that have none. One that is beside itself is loaded once."""
    found = {}
    for experiment in experiments:
        try:
            found[experiment.name] = answers.load(experiment)
        except UserError as error:
            elements.no_model(experiment, error)
    return [*found.values()]


def current(experiment: Experiment) -> Asking | None:
    """The question of the URL; one of the validation data if there is none yet, None if there are no data."""
    question, context, id_ = (state.get(name) for name in ("question", "context", "id"))
    if question and context:
        return Asking(question, context, None)
    try:
        known = validation(experiment)
    except UserError:
        known = {}
    if id_ is not None and id_ not in known:
        state.drop("id", f"This experiment's validation data hold no question {id_!r}.")
        id_ = None
    if id_ is None:
        if question or context or not known:
            return None
        id_ = _first(known)
        state.put(id=id_)
    return Asking(known[id_].question.question, known[id_].question.context, known[id_])


def _first(known: Mapping[str, Known]) -> str:
    """The first question that was answered rather than refused, or else the first."""
    return next((id_ for id_, one in known.items() if one.prediction), next(iter(known)))


def opened(experiments: Sequence[Experiment]) -> tuple[Asking | None, list[Model], list[Asked]]:
    """The question a page is about, with a form for another one, the models, and what each answered.

    No model has answered while there is no question or none has a model; the page says why.
    """
    loaded, question = models(experiments), current(experiments[0])
    with st.expander("Ask something else", icon=":material/edit:", key="ask_else", on_change="rerun") as form:
        if form.open or question is None:
            editor(experiments[0], question)
    if question is None:
        st.info("Type or paste a question and a context above, and press Ask.", icon=":material/chat:")
        return None, loaded, []
    with st.spinner("Reading …"):
        return question, loaded, [answers.ask(model, question.question, question.context) for model in loaded]


def editor(experiment: Experiment, asking: Asking | None) -> None:
    """The form for another question."""
    way = st.segmented_control(
        "Where the question comes from",
        [WRITE, PICK],
        default=WRITE,
        key="asking_way",
        required=True,
        label_visibility="collapsed",
    )
    if way == PICK:
        _picker(experiment, asking)
    else:
        _form(asking)


def _form(asking: Asking | None) -> None:
    shown = None if asking is None else (asking.question, asking.context)
    if QUESTION_BOX not in st.session_state or shown not in (None, st.session_state.get(SHOWN)):
        st.session_state[SHOWN] = shown
        st.session_state[QUESTION_BOX], st.session_state[CONTEXT_BOX] = shown or ("", "")
    with st.form("asking", border=False):
        st.text_input("Question", key=QUESTION_BOX, placeholder="Who, what, when, where, why, how …")
        st.text_area("Context", key=CONTEXT_BOX, height=115, placeholder="The text to look for the answer in")
        st.form_submit_button("Ask", type="primary", icon=":material/send:", on_click=_ask)
    elements.text_too_long()


def _ask() -> None:
    texts = st.session_state[QUESTION_BOX], st.session_state[CONTEXT_BOX]
    if texts != st.session_state.get(SHOWN):  # one that was picked stays the one of the validation data
        st.session_state[SHOWN] = texts
        state.put(question=texts[0], context=texts[1])


def _picker(experiment: Experiment, asking: Asking | None) -> None:
    try:
        known = validation(experiment)
    except UserError as error:
        elements.problem(error)
        return
    wanted = st.text_input(
        "Search", key="asking_search", placeholder="Words of the question, its text, its answers, or an id"
    )
    found = search(known, wanted)
    rows = found[:MOST_ROWS]
    more = f", the first {len(rows)} are shown" if len(rows) < len(found) else ""
    st.caption(f"{len(found)} of {len(known)} questions{more}; wrong answers first. Choose a row to ask it.")
    table = pd.DataFrame(
        {
            "F1": [one.f1 for one in rows],
            "question": [marking.in_cell(one.question.question, MOST_CHARACTERS) for one in rows],
            "answered": [_said(one.prediction) for one in rows],
            "gold": [_said(next(iter(one.question.answers), "")) for one in rows],
            "title": [marking.in_cell(one.question.title, MOST_CHARACTERS) for one in rows],
            "id": [one.question.id for one in rows],
        }
    )
    st.dataframe(
        table,
        hide_index=True,
        height=260,
        key="asking_rows",
        on_select=lambda: _choose([one.question.id for one in rows]),
        selection_mode="single-row",
        column_config={
            "F1": st.column_config.NumberColumn(format="%.2f", width="small"),
            "question": st.column_config.TextColumn(width="large"),
        },
        alt="Validation questions with the answer given, the gold answer and F1, wrong answers first",
    )


def _said(text: str | None) -> str:
    return "–" if text is None else marking.in_cell(text, MOST_CHARACTERS) or "(no answer)"


def _choose(ids: list[str]) -> None:
    chosen = st.session_state["asking_rows"]["selection"]["rows"]
    if chosen:
        state.put(id=ids[chosen[0]])


def gold(asking: Asking) -> str | None:
    """The gold answers in Markdown; None for a question that was typed."""
    if asking.known is None:
        return None
    answers = dict.fromkeys(asking.known.question.answers)
    return ", ".join(marking.inline(answer) for answer in answers) or "none: the text does not say"
