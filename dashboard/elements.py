"""Pieces that several pages share: pickers, messages, untrusted text, downloads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import streamlit as st

from dashboard import state, wording
from dashboard.charts.looks import DARK, LIGHT, Look
from dashboard.data.experiments import index_of
from qa.errors import UserError
from qa.experiment import Experiment
from qa.hints import for_terminal


@dataclass(frozen=True, slots=True)
class Download:
    """A file to take away.

    Attributes:
        label: on the button, ours.
        name: of the file.
        data: its content, or what makes it when the button is pressed.
        mime: its type.
    """

    label: str
    name: str
    data: bytes | str | Callable[[], bytes | str]
    mime: str


def look() -> Look:
    """The colours of charts for the page as this browser shows it."""
    return DARK if st.context.theme.type == "dark" else LIGHT


def text(content: str) -> None:
    """Untrusted text in the page's own font, exactly as it is."""
    st.html(wording.as_html(content))


def problem(error: UserError | str) -> None:
    """What went wrong, in one line."""
    st.error(wording.plain(str(error)), icon=":material/error:")


def command(*lines: str) -> None:
    """Commands for a terminal, each in a line, that work on the experiments shown."""
    root = state.root()
    st.code("\n".join(for_terminal(line, root) for line in lines), language="bash")


def experiment_picker(
    label: str,
    *,
    name: str = "experiment",
    optional: bool = False,
) -> Experiment | None:
    """A box to choose an experiment; the choice is in the URL under `name`.

    Args:
        label: ours.
        name: experiment or other.
        optional: whether nothing may be chosen; otherwise the first experiment with a model is.

    Returns:
        The chosen one, None if there is none.
    """
    chosen = state.chosen_experiment(name)
    root = state.root()
    # Those that can be asked come first.
    summaries = sorted(index_of(str(root.absolute())).visit(), key=lambda one: not one.has_model)
    if chosen is None and not optional and summaries:
        chosen = Experiment(root / summaries[0].name)
        state.put(**{name: chosen.name})
    key = f"picker_{name}"
    st.session_state[key] = None if chosen is None else chosen.name
    st.selectbox(
        label,
        [one.name for one in summaries],
        key=key,
        index=None,
        placeholder="none" if optional else "no experiment yet",
        on_change=state.bind,
        args=(name, key),
    )
    return chosen


def choice(label: str, labels: Mapping[str, str], key: str) -> str:
    """One of a few, always exactly one, the first to begin with; it stands in the link.

    Args:
        label: what is chosen.
        labels: what can be chosen, and how it is called.
        key: of the widget, and in the link.
    """
    chosen = st.segmented_control(
        label,
        [*labels],
        default=next(iter(labels)),
        format_func=labels.__getitem__,
        key=key,
        required=True,
        bind="query-params",
    )
    return str(chosen)


def no_experiments() -> None:
    """What to do where there is no experiment at all."""
    st.info(
        "There is no experiment yet. Start one on the page Experiments, or run `make demo-experiments`.",
        icon=":material/science:",
    )
    state.link("home", "Start an experiment")


def no_model(experiment: Experiment, error: UserError) -> None:
    """Why this experiment cannot be asked, and what can."""
    st.info(wording.plain(str(error)), icon=":material/cloud_off:")
    state.link("home", "Choose another experiment")
    state.link("compare", f"Compare the scores of {wording.plain(experiment.name)}", runs=experiment.name)


def text_too_long() -> None:
    """Says so where the typed text is too long for a link; draws nothing otherwise."""
    if not state.text_fits():
        st.caption(
            ":material/link_off: The text is too long for a link: it stays in this browser tab, and the "
            "address carries everything else."
        )


def downloads(files: Sequence[Download], *, key: str) -> None:
    """A row of download buttons; nothing runs again when one is pressed."""
    with st.container(horizontal=True):
        for number, file in enumerate(files):
            st.download_button(
                file.label,
                file.data,
                file_name=file.name,
                mime=file.mime,
                key=f"{key}_{number}",
                icon=":material/download:",
                on_click="ignore",
            )
