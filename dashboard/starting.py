"""The form that starts an experiment: a name and settings as text, checked before anything runs."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from dashboard import elements, wording
from dashboard.data import runs
from dashboard.data.experiments import Summary
from qa.config import settings_text
from qa.errors import UserError

NAME, SEEDS, TEXT = "start_name", "start_seeds", "start_settings"
TEMPLATE, STARTED = "start_template", "_started"


def form(root: Path, *, chosen: Summary | None, expanded: bool) -> None:
    """Draw the form.

    Args:
        root: the folder of experiments.
        chosen: an experiment whose settings can be taken.
        expanded: whether it is open from the start.
    """
    with st.expander("Start an experiment", icon=":material/add_circle:", expanded=expanded):
        st.caption(
            "It runs as a process of its own: the page may be closed, and the server stopped. "
            "Experiments take minutes on a laptop (bundled) to hours on a GPU."
        )
        _template(chosen)
        with st.form("start", border=False):
            with st.container(horizontal=True):
                name = st.text_input("Name", key=NAME, max_chars=64, placeholder="my-run", width=320)
                seeds = st.text_input(
                    "Seeds",
                    key=SEEDS,
                    max_chars=200,
                    placeholder="the one of the settings",
                    help="For example `1 2 3`: one experiment for each, after one another, named "
                    "my-run-seed-1 and so on; Compare shows their mean ± standard deviation.",
                    width=320,
                )
            text = st.text_area(
                "Settings (YAML; the README explains each)", key=TEXT, height=280, max_chars=20_000
            )
            sent = st.form_submit_button("Start", type="primary", icon=":material/play_arrow:")
        started = st.session_state.pop(STARTED, None)
        if started is not None:
            st.toast(
                f"{wording.plain(started)} is starting: see the top of the page",
                icon=":material/rocket_launch:",
            )
        if sent:
            _start(root, name=name.strip(), text=text, seeds=seeds)


def _template(chosen: Summary | None) -> None:
    """Where the settings begin; another choice replaces the text."""
    texts = {label: file.read_text(encoding="utf-8") for label, file in runs.TEMPLATES.items()}
    if chosen is not None and chosen.settings is not None:
        texts[f"As {chosen.name}"] = settings_text(chosen.settings)
    if TEXT not in st.session_state:
        st.session_state[TEXT] = next(iter(texts.values()))
    st.segmented_control(
        "Begin with",
        [*texts],
        key=TEMPLATE,
        default=next(iter(texts)),
        format_func=wording.plain,
        on_change=_take,
        args=(texts,),
    )


def _take(texts: dict[str, str]) -> None:
    label = st.session_state[TEMPLATE]
    if label in texts:
        st.session_state[TEXT] = texts[label]


def _start(root: Path, *, name: str, text: str, seeds: str) -> None:
    try:
        runs.start(text, root=root, name=name, seeds=_seeds(seeds))
    except UserError as error:
        elements.problem(error)
        return
    st.session_state[STARTED] = name
    st.rerun()


def _seeds(text: str) -> list[int]:
    try:
        return [int(one) for one in text.replace(",", " ").split()]
    except ValueError as error:
        raise UserError(f"seeds: {text!r} is not allowed; use whole numbers, such as 1 2 3") from error
