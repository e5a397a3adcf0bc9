"""Attention: every head at a glance, one head to read, and what else can be asked about heads.

Whatever depends on a click is in one fragment, so that the rest of the page is not drawn again, and comes
from captures that are kept: to look at another head, no model runs again. The trap: the picture of all heads
must not depend on which one is chosen, or it would be sent again with every click.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import streamlit as st

from dashboard import asking, elements, looking, sections, state, wording
from dashboard.charts import heads
from dashboard.charts.looks import LIGHT, Look
from dashboard.charts.rendering import png, svg
from dashboard.data import answers
from dashboard.data.answers import Asked, Model
from dashboard.elements import Download
from dashboard.looking import MORE, Looking
from dashboard.marking import inline
from dashboard.pictures import SIDE
from probes.maps import Attention
from probes.overview import first_head, pooled
from qa.exports import as_csv


def page() -> None:
    """The whole page."""
    st.title("Attention")
    experiments = asking.experiments()
    if not experiments:
        elements.no_experiments()
        return
    question, models, asked = asking.opened(experiments)
    if question is not None and asked:
        elements.text(question.question)
        _explore(models, asked)


@st.fragment
def _explore(models: Sequence[Model], asked: Sequence[Asked]) -> None:
    """All that a click changes."""
    said = [f"{inline(model.name)}: {_answer(one)}" for model, one in zip(models, asked, strict=True)]
    st.caption(" · ".join(said))
    window = _window(asked[0])
    with st.spinner("Capturing the attention of every head …"):
        attention = answers.look(models[0], asked[0], window)
    left, right = st.columns([5, 9], gap="medium")
    with left:
        layer, head = _head(models, attention)
        first, *others = (
            Looking(model, one, _in(one, window), layer, head)
            for model, one in zip(models, asked, strict=True)
        )
        _grid(first)
    with right:
        choice = looking.choose(models)
        if others:
            sections.moved_heads(first, others[0])
        else:
            st.subheader(_name(first), anchor=False)
            looking.show(first, choice, left, key="attention_head", pinned=first)
    if others:
        _compare(first, others[0], choice)
    options = sections.offered(first)
    if st.session_state.get(MORE) not in (None, *options):
        st.session_state[MORE] = None
    section = st.segmented_control("More about the heads", options, key=MORE, bind="query-params")
    if section is not None:
        sections.show(section, first, choice)


def _answer(asked: Asked) -> str:
    answer = asked.answer
    return f"**{inline(answer.text) or 'no answer'}** ({wording.share(answer.probability)})"


def _name(look: Looking) -> str:
    return f"Layer {look.layer}, head {look.head}"


def _window(asked: Asked) -> int:
    """The window that is looked at; the one of the answer unless another is chosen."""
    answer = asked.answer
    if answer.windows == 1:
        return 0
    options = range(answer.windows)
    if st.session_state.get("window") not in (None, *options):
        st.session_state["window"] = None
    chosen = st.selectbox(
        f"Window of the context, which is read in {answer.windows}",
        options,
        index=answer.window,
        format_func=lambda number: f"{number + 1}{' (holds the answer)' * (number == answer.window)}",
        key="window",
        width=330,
    )
    return answer.window if chosen is None else int(chosen)


def _in(asked: Asked, window: int) -> int:
    """The same window for a model that may have fewer."""
    return min(window, asked.answer.windows - 1)


def _head(models: Sequence[Model], attention: Attention) -> tuple[int, int]:
    """The head that is read: of the URL, or one that tells something; two boxes to choose another."""
    layers, numbers = min(model.layers for model in models), min(model.heads for model in models)
    layer, head = state.number("layer", below=layers), state.number("head", below=numbers)
    if layer is None or head is None:
        first = first_head(attention.select(layers=range(layers), heads=range(numbers)))
        layer, head = first[0] if layer is None else layer, first[1] if head is None else head
        state.put(layer=layer, head=head)
    boxes = st.columns(2)
    for box, name, value, count in zip(
        boxes, ("layer", "head"), (layer, head), (layers, numbers), strict=True
    ):
        key = f"attention_{name}_box"
        st.session_state[key] = value
        box.selectbox(name.capitalize(), range(count), key=key, on_change=state.bind, args=(name, key))
    return layer, head


def _grid(look: Looking) -> None:
    """Every head as one picture."""
    hides = st.toggle("Hide [CLS] and [SEP]", key="text_only", bind="query-params")
    key = f"attention_grid_{'text' if hides else 'all'}_{look.model.name}"
    layers, numbers = range(look.model.layers), range(look.model.heads)

    def chart(colors: Look) -> heads.Chart:
        picture = answers.picture(look.model, look.asked, look.window, ink=colors.much, special=not hides)
        return heads.head_grid(picture, layers, numbers, look=colors)

    st.altair_chart(
        chart(elements.look()),
        key=key,
        on_select=lambda: sections.choose_head(key),
        selection_mode=heads.PICKED,
        alt=f"The attention maps of all {len(layers) * len(numbers)} heads of {look.model.name}; choose one "
        "with the boxes above",
    )
    st.caption(
        "Every head; click one to read it. Each is scaled by its own largest value, by the square root, and "
        "a pixel shows the largest value of its piece of the map."
    )
    name = f"{look.model.name}_all_heads"
    elements.downloads(
        [
            Download("PNG", f"{name}.png", lambda: png(chart(LIGHT)), "image/png"),
            Download("SVG", f"{name}.svg", lambda: svg(chart(LIGHT)), "image/svg+xml"),
            Download("CSV", f"{name}.csv", lambda: _grid_csv(look, special=not hides), "text/csv"),
        ],
        key=f"{key}_files",
    )


def _grid_csv(look: Looking, *, special: bool) -> str:
    """What the picture shows, unscaled."""
    small = pooled(answers.maps_shown(look.attention, special=special), SIDE)
    rows = [
        (layer, head, row, column, float(small[layer, head, row, column]))
        for layer, head, row, column in np.argwhere(small > 0).tolist()
    ]
    return as_csv(["layer", "head", "row", "column", "largest attention"], rows)


def _compare(first: Looking, second: Looking, choice: looking.Choice) -> None:
    """The same head of both models side by side, and what differs."""
    columns = st.columns(2, gap="large")
    tables = st.columns(2, gap="large")
    for look, column, table, key in zip(
        (first, second), columns, tables, ("attention_head", "attention_other"), strict=True
    ):
        with column:
            st.subheader(f"{inline(look.model.name)}: {_name(look).lower()}", anchor=False)
            looking.show(look, choice, table, key=key, pinned=first)
    st.subheader("Difference", anchor=False)
    sections.difference(first, second, choice)


page()
