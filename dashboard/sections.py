"""What else can be asked about heads: one word in all of them, what each is good for, how two models differ.

The trap: these are the slow ones. Switching every head off reads the context once for each, so it waits for a
button, shows how far it is, and is kept; all the rest comes from what was captured.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from dashboard import elements, readings, state
from dashboard.charts import heads
from dashboard.charts.looks import LIGHT, Look
from dashboard.charts.rendering import png, svg
from dashboard.data import answers
from dashboard.elements import Download
from dashboard.looking import (
    DIFFERENCE,
    PIN,
    PINS,
    TOWARD,
    UNITS,
    Choice,
    Looking,
    draw,
    drawing_of,
    files,
    pairs,
    view_of,
    what_is_shown,
)
from dashboard.marking import in_cell, inline
from dashboard.measures import TERM_NAMES
from probes.knockout import Effects
from probes.maps import Bool, Float, View
from probes.overview import matched, pinned
from probes.terms import TERMS
from qa.errors import UserError
from qa.exports import as_csv
from qa.printing import cut

OFF, SCORES = "heads switched off", "what the scores are made of"
HOWS = {"zero": "put 0 in its place", "mean": "put its mean over the tokens in its place"}
TOP = 12  # heads in a table
LONGEST = 40  # characters of a word in a list


def offered(looking: Looking) -> list[str]:
    """The sections that there are for a model."""
    return [PINS, OFF, *([SCORES] if looking.model.terms else [])]


def show(section: str, looking: Looking, choice: Choice) -> None:
    """One of them."""
    {PINS: _pins, OFF: _switched_off, SCORES: _scores}[section](looking, choice)


def _pins(looking: Looking, choice: Choice) -> None:
    """The row and the column of one word in every head."""
    view = looking.units(choice.unit)
    unit = UNITS[choice.unit].removesuffix("s")
    with st.container(horizontal=True):
        place = _word_box(f"This {unit}", PIN.format(choice.unit), view, width=300)
        toward = _word_box(
            "attends to", TOWARD.format(choice.unit), view, width=300, none="what it attends to most"
        )
    if place is None:
        st.caption(f"Choose a {unit}, or click a cell of the map.")
        return
    found = pinned(looking.attention, choice.unit, place)
    most, least = found.gives.argmax(-1), found.gets.argmax(-1)
    gives = found.gives.max(-1) if toward is None else found.gives[:, :, toward]
    gets = np.delete(found.gets, place, axis=-1).mean(-1)
    word, other = inline(_label(view, place)), None if toward is None else inline(_label(view, toward))
    left, right = st.columns(2, gap="large")
    with left:
        st.markdown(f"**{word}** attends to {f'**{other}**' if other else 'its strongest'}")
        _head_map(
            gives,
            looking,
            measure="attention",
            key="attention_gives",
            words=[_label(view, at) for at in most.ravel()] if toward is None else None,
            said=f"Attention of {_label(view, place)} in each head",
        )
    with right:
        st.markdown(f"**{word}** gets from the others")
        _head_map(
            gets,
            looking,
            measure="attention, mean",
            key="attention_gets",
            words=[_label(view, at) for at in least.ravel()],
            said=f"Mean attention that {_label(view, place)} gets from the others in each head",
        )
    st.caption(
        f"Left: the row of the {unit} in every head; right: its column, the mean over all other rows. The "
        "tooltips name the other end of the strongest cell. Click a head to read it above."
    )


def _word_box(label: str, key: str, view: View, *, width: int, none: str = "none") -> int | None:
    """A box to choose a word of the window by its place."""
    count = len(view.labels)
    if st.session_state.get(key) not in range(count):
        st.session_state[key] = None
    chosen: int | None = st.selectbox(
        label,
        range(count),
        format_func=lambda place: f"{place}: {_label(view, place)}",
        index=None,
        placeholder=none,
        key=key,
        width=width,
    )
    return chosen


def _label(view: View, place: int) -> str:
    return in_cell(view.labels[int(place)], LONGEST)


def _switched_off(looking: Looking, choice: Choice) -> None:
    """What happens to the answer without a head."""
    model, asked, head = looking.model, looking.asked, (looking.layer, looking.head)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        how = st.segmented_control(
            "A head that is off",
            [*HOWS],
            format_func=HOWS.__getitem__,
            default="zero",
            required=True,
            key="off",
            bind="query-params",
        )
        one = st.button(f"Switch off layer {head[0]}, head {head[1]}", key="off_one")
        every = st.button("Switch off every head, one at a time", key="off_all", type="primary")
    how = how or "zero"
    try:
        effects = answers.known_effects(model, asked, how=how)
        if every and effects is None:
            effects = _all_off(looking, how)
        if effects is not None:
            st.markdown(readings.switched_off(effects, head))
        elif one:
            st.markdown(readings.switched_off(answers.knock_out_one(model, asked, head, how=how), (0,)))
    except UserError as error:
        elements.problem(error)
        return
    if effects is not None:
        _effects(effects, looking)


def _all_off(looking: Looking, how: str) -> Effects:
    bar = st.progress(0.0, "Reading the context once for each head …")

    def at(done: int, count: int) -> None:
        bar.progress(done / count, f"Heads switched off in turn: {done / count:.0%}")

    effects = answers.knock_out_all(looking.model, looking.asked, how=how, progress=at)
    bar.empty()
    return effects


def _effects(effects: Effects, looking: Looking) -> None:
    changes = (100 * effects.probability).astype(np.float32)
    left, right = st.columns([3, 2], gap="large")
    with left:
        _head_map(
            changes,
            looking,
            measure="points of probability",
            key="attention_off",
            words=[in_cell(answer.text or "(no answer)", LONGEST) for answer in effects.answers.ravel()],
            marked=effects.changed,
            said="Change of the answer's probability without each head",
        )
    span, count = inline(effects.span.text, LONGEST), int(effects.changed.sum())
    heads_said = "no head changes" if count == 0 else f"{count} of {effects.changed.size} heads change"
    with right:
        st.markdown(
            f"How the probability of “{span}” changes without each head: **{heads_said}** the answer "
            "(marked ≠). Heads stand in for each other, so effects do not add up."
        )
        order = np.argsort(-np.abs(changes).ravel(), kind="stable")[:TOP]
        places = [divmod(int(place), changes.shape[1]) for place in order]
        st.dataframe(
            pd.DataFrame(
                {
                    "layer": [layer for layer, _ in places],
                    "head": [head for _, head in places],
                    "points": [float(changes[place]) for place in places],
                    "answer without it": [
                        in_cell(effects.answers[place].text) or "(no answer)" for place in places
                    ],
                }
            ),
            hide_index=True,
            column_config={"points": st.column_config.NumberColumn(format="%+.2f")},
            key="attention_off_table",
            alt=f"The {len(places)} heads with the largest effect on the answer",
        )


def _scores(looking: Looking, choice: Choice) -> None:
    """How much each of DeBERTa's terms has to say in each head."""
    with st.spinner("Reading the terms of every head …"):
        shares = answers.term_shares(looking.model, looking.asked, looking.window).overall()
    names = [term for term in TERMS if term in looking.model.terms]
    for column, term in zip(st.columns(len(names)), names, strict=True):
        with column:
            st.markdown(f"**{TERM_NAMES[term]}**")
            _head_map(
                shares[:, :, TERMS.index(term)],
                looking,
                measure="share",
                key=f"attention_share_{term}",
                said=f"Share of {TERM_NAMES[term]} in the scores of each head",
                top=1.0,
                width=300,
            )
    own = ", ".join(
        f"{TERM_NAMES[term]} {shares[looking.layer, looking.head, TERMS.index(term)]:.0%}" for term in names
    )
    st.caption(
        f"How much of what tells keys apart each term says (mean size less the mean of its row); here {own}. "
        "The maps of single terms are under “What”, above."
    )


def _head_map(
    values: Float,
    looking: Looking,
    *,
    measure: str,
    key: str,
    said: str,
    words: list[str] | None = None,
    marked: Bool | None = None,
    top: float | None = None,
    width: int = heads.MAP_WIDTH,
) -> None:
    """A number for each head; a click chooses the head."""
    layers, numbers = looking.attention.layers, looking.attention.heads

    def chart(look: Look) -> Any:
        return heads.head_map(
            values,
            layers,
            numbers,
            measure=measure,
            look=look,
            words=words,
            marked=marked,
            top=top,
            width=width,
        )

    st.altair_chart(
        heads.on_page(chart(elements.look())),
        key=key,
        on_select=lambda: choose_head(key),
        selection_mode=heads.PICKED,
        alt=cut(said, 300),
    )
    rows = [
        (layer, head, float(values[row, column]), words[row * len(numbers) + column] if words else None)
        for row, layer in enumerate(layers)
        for column, head in enumerate(numbers)
    ]
    elements.downloads(
        [
            Download("PNG", f"{key}.png", lambda: png(chart(LIGHT)), "image/png"),
            Download("SVG", f"{key}.svg", lambda: svg(chart(LIGHT)), "image/svg+xml"),
            Download("CSV", f"{key}.csv", as_csv(["layer", "head", measure, "word"], rows), "text/csv"),
        ],
        key=f"{key}_files",
    )


def choose_head(key: str) -> None:
    """A head was clicked: it is the one to read."""
    cells = st.session_state[key]["selection"][heads.PICKED]
    if cells:
        state.put(layer=int(cells[0]["layer"]), head=int(cells[0]["head"]))


def moved_heads(first: Looking, second: Looking) -> None:
    """How far each head's attention moved from one model to the other."""
    st.markdown(f"**How far each head moved** to {inline(second.model.name)}")
    try:
        distances = answers.moved(
            first.model, first.asked, first.window, than=second.model, other=second.asked
        )
    except UserError as error:
        st.caption(f"Not shown: {inline(str(error))}.")
        return
    _head_map(
        distances,
        first,
        measure="attention moved",
        key="attention_moved",
        said=f"Share of attention that goes elsewhere in {second.model.name}, for each head",
    )
    layer, head = np.unravel_index(int(distances.argmax()), distances.shape)
    st.caption(
        f"Share of the attention that goes elsewhere, mean over tokens; most in layer {layer}, head {head} "
        f"({distances.max():.0%}), on average {distances.mean():.0%}."
    )


def difference(first: Looking, second: Looking, choice: Choice) -> None:
    """The second model's map less the first one's, of the words they have in common."""
    own, other = matched(view_of(first, choice), view_of(second, choice))
    if not choice.of.shares and choice.of.term == "":
        st.caption("The two models' weights are in units of their own, so their difference says little.")
    view = replace(own, probabilities=other.probabilities - own.probabilities)
    drawing = drawing_of(view, choice, value=DIFFERENCE)
    (strongest,) = drawing.pairs(1) or (None,)
    if strongest is None:
        st.caption("The two maps are the same.")
        return
    names = inline(second.model.name), inline(first.model.name)
    title = f"{second.model.name} less {first.model.name}: layer {first.layer}, head {first.head}"
    said = readings.difference(drawing.view, strongest, first.model.name, second.model.name)
    left, right = st.columns([9, 5], gap="medium")
    with left:
        st.markdown(said)
        draw(drawing, choice, key="attention_difference", pinned=first, alternative=said)
        st.caption(" ".join([f"{names[0]} less {names[1]}.", *what_is_shown(drawing, choice)]))
        name = f"{second.model.name}_less_{first.name}"
        files(drawing, name=name, title=title, caption=first.caption()[:1], key="attention_difference")
    with right:
        pairs(drawing, drawing.value, title=title, key="attention_difference")
