"""One head of one model, as it is looked at: which, what of it, and how it is drawn, said and saved.

The trap: what a map shows of a window may be a part (the words around the answer, one region's rows), and
rows of a part do not sum to 1; every map says below it what it shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from dashboard import elements, readings
from dashboard.charts.drawing import Drawing
from dashboard.charts.heatmaps import PICKED
from dashboard.data import answers
from dashboard.data.answers import Asked, Model
from dashboard.elements import Download
from dashboard.measures import MEASURES, Measure, measured, offered
from dashboard.wording import plain
from probes.maps import Attention, View
from probes.overview import PARTS, habits, units_of
from qa.printing import cut, decimal

UNITS = {"word": "words", "token": "tokens", "sentence": "sentences"}
AROUND, WHOLE = "around the answer", "the whole window"
MOST, MOST_BESIDE = 44, 34  # words around the answer, of one model and of one beside another
PAIRS = 20
DIFFERENCE = "difference"  # what the numbers of a map of differences are
TABLE = 430  # pixels of a table's height at most
PIN, TOWARD = "pin_{}", "toward_{}"  # widgets: a word, and the word that it attends to; by unit
MORE, PINS = "more", "one word in every head"  # the widget that opens a section, and a section


@dataclass(frozen=True, slots=True)
class Looking:
    """What is looked at.

    Attributes:
        model: whose attention.
        asked: the question it answered.
        window: the ordinal of a window of the context.
        layer: the number of a layer.
        head: of a head in it.
    """

    model: Model
    asked: Asked
    window: int
    layer: int
    head: int

    @property
    def attention(self) -> Attention:
        """Every head's attention in the window."""
        return answers.look(self.model, self.asked, self.window)

    def units(self, unit: str) -> View:
        """The head's attention by tokens, words or sentences [1, 1, N, N]."""
        return self.attention.select(layers=[self.layer], heads=[self.head]).by(unit)

    @property
    def name(self) -> str:
        """For files."""
        return f"{self.model.name}_layer_{self.layer}_head_{self.head}"

    def caption(self) -> tuple[str, ...]:
        """What a saved picture is of."""
        answer = self.asked.answer
        lines = [
            f"Question: {self.asked.question}",
            f"Answer: {answer.text or '(no answer)'} (probability {decimal(answer.probability, 3)})",
        ]
        if answer.windows > 1:
            lines.append(f"Window {self.window + 1} of the {answer.windows} that the context is read in")
        return tuple(lines)


@dataclass(frozen=True, slots=True)
class Choice:
    """What to show of a head.

    Attributes:
        measure: one of `dashboard.measures.MEASURES`.
        unit: word, token or sentence.
        part: one of `probes.overview.PARTS`.
        most: words around the answer; None: the whole window.
    """

    measure: str
    unit: str
    part: str
    most: int | None

    @property
    def of(self) -> Measure:
        """The measure itself."""
        return MEASURES[self.measure]


def choose(models: Sequence[Model]) -> Choice:
    """The boxes that say what to show; the choice is in the URL."""
    common = [name for name in offered(models[0]) if all(name in offered(model) for model in models)]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        measure = st.selectbox(
            "What",
            common,
            format_func=lambda name: MEASURES[name].label,
            key="map",
            bind="query-params",
            width=290,
        )
        part = st.selectbox("Part of the map", [*PARTS], key="part", bind="query-params", width=210)
        unit = st.segmented_control(
            "Between",
            [*UNITS],
            format_func=UNITS.__getitem__,
            default="word",
            required=True,
            key="unit",
            bind="query-params",
        )
        extent = st.segmented_control(
            "Of", [AROUND, WHOLE], default=AROUND, required=True, key="extent", bind="query-params"
        )
    most = MOST if len(models) == 1 else MOST_BESIDE
    return Choice(
        measure or common[0],
        unit or "word",
        part or next(iter(PARTS)),
        None if extent == WHOLE else most,
    )


def view_of(looking: Looking, choice: Choice) -> View:
    """What is shown, by tokens, words or sentences, of the whole window [1, 1, N, N]."""
    shown, _ = measured(
        choice.measure,
        looking.model,
        looking.asked,
        window=looking.window,
        layer=looking.layer,
        head=looking.head,
    )
    return shown.by(choice.unit)


def drawing_of(view: View, choice: Choice, *, value: str | None = None) -> Drawing:
    """The part of it that is shown."""
    return Drawing.of(
        view, part=choice.part, most=choice.most, value=choice.of.value if value is None else value
    )


def show(looking: Looking, choice: Choice, table: DeltaGenerator, *, key: str, pinned: Looking) -> None:
    """One head: what it does in words, its map, its strongest pairs, and files to take away.

    Args:
        looking: which.
        choice: what of it.
        table: where the table of pairs goes.
        key: of this map on the page.
        pinned: whose words a click pins.
    """
    view = view_of(looking, choice)
    drawing = drawing_of(view, choice)
    (strongest,) = drawing.pairs(1) or (None,)
    said = [readings.habit(habits(view, view.probabilities[0, 0]))] if choice.of.shares else []
    if strongest is not None:
        said.append(readings.pair(drawing.view, strongest, value=choice.of.value))
    st.markdown(" ".join(said) or "Nothing here is attended to.")
    draw(drawing, choice, key=key, pinned=pinned, alternative=" ".join(said))
    if drawing.is_empty:
        return  # nothing that could be saved
    st.caption(" ".join([choice.of.note, *what_is_shown(drawing, choice)]))
    title = f"{looking.model.name}: layer {looking.layer}, head {looking.head}, {choice.of.label}"
    caption = (*looking.caption(), " ".join([choice.of.note, *what_is_shown(drawing, choice)]))
    name = f"{looking.name}_{choice.measure}_{choice.unit}s"
    files(drawing, name=name, title=title, caption=caption, key=key)
    with table:
        pairs(drawing, choice.of.value, title=title, key=key)


def draw(drawing: Drawing, choice: Choice, *, key: str, pinned: Looking, alternative: str) -> None:
    """The map; a click on a cell pins its two words of `pinned`."""
    if drawing.is_empty:
        st.info("This window has no such part: there is no answer in it.", icon=":material/crop_free:")
        return
    st.altair_chart(
        drawing.chart(elements.look()),
        key=key,
        on_select=lambda: pin(key, drawing, pinned, choice.unit),
        selection_mode=PICKED,
        alt=cut(alternative, 300),
    )


def what_is_shown(drawing: Drawing, choice: Choice) -> list[str]:
    """Sentences about what a map leaves out."""
    said = []
    if drawing.omitted:
        count = len(drawing.view.labels)
        said.append(
            f"{count} of {drawing.total} {UNITS[choice.unit]}: the question and those around the answer."
        )
    if drawing.is_picture:
        said.append("A picture, as so many labels could not be read; point at one of its strongest cells.")
    return said


def pairs(drawing: Drawing, value: str, *, title: str, key: str) -> None:
    """The strongest pairs as a table."""
    rows = readings.rows_of_pairs(drawing.view, drawing.pairs(PAIRS), value=value)
    st.markdown(f"**The {len(rows)} {'largest differences' if value == DIFFERENCE else 'strongest pairs'}**")
    st.dataframe(
        pd.DataFrame(rows),
        hide_index=True,
        height=min(36 * (len(rows) + 1) + 2, TABLE),
        column_config={value or "attention": st.column_config.NumberColumn(format="%.3f")},
        key=f"{key}_pairs",
        alt=f"Strongest pairs of {title}",
    )


def files(drawing: Drawing, *, name: str, title: str, caption: tuple[str, ...], key: str) -> None:
    """The map as PNG, SVG and data."""
    elements.downloads(
        [
            Download("PNG", f"{name}.png", lambda: drawing.png(title, caption), "image/png"),
            Download("SVG", f"{name}.svg", lambda: drawing.svg(title, caption), "image/svg+xml"),
            Download("CSV", f"{name}.csv", drawing.csv, "text/csv"),
        ],
        key=f"{key}_files",
    )


def pin(key: str, drawing: Drawing, looking: Looking, unit: str) -> None:
    """Keep the two words of the cell that was clicked, and show them in every head of the first model.

    The map may be of another model, or of what two have in common: words are found by what they cover.
    """
    cells = st.session_state[key]["selection"][PICKED]
    if not cells:
        return
    places = {covered: place for place, covered in enumerate(units_of(looking.units(unit)))}
    clicked = [drawing.units[int(cells[0][axis])] for axis in ("query", "key")]
    if not all(covered in places for covered in clicked):
        st.toast(f"{plain(looking.model.name)} cuts the text elsewhere and has no such {unit}.")
        return
    st.session_state[PIN.format(unit)], st.session_state[TOWARD.format(unit)] = map(places.get, clicked)
    st.session_state[MORE] = PINS
