"""One head's map as it is shown and saved: with words where they can be read, else as a picture.

The trap: what is left out of a map (the words far from the answer, the other regions) was attended to as
well, and the page must say so; `Drawing.omitted` is for that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np

from dashboard.charts.exact import STRONGEST, exact_map
from dashboard.charts.heatmaps import Style, head_heatmap, selectable
from dashboard.charts.looks import LIGHT, Look
from dashboard.charts.rendering import png, svg
from dashboard.pictures import map_png, signed_png
from probes.maps import Float, View
from probes.overview import Pair, Unit, part_of, strongest, units_of
from probes.readable import at_places, places_around_answer
from probes.words import Int
from qa.exports import as_csv

READABLE = 60  # words on an axis
SIZES = (13, 26)  # pixels from word to word
BESIDE = 195  # pixels that axes and legend take of a chart's height


@dataclass(frozen=True, slots=True, eq=False)
class Drawing:
    """A part of one head's map.

    Attributes:
        view: of as many units as are shown [1, 1, N, N].
        rows: places of the rows.
        columns: likewise.
        value: what the numbers are; empty for attention.
        total: how many units the whole window's view has.
        units: what each of those shown covers [N].
    """

    view: View
    rows: Int
    columns: Int
    value: str
    total: int
    units: tuple[Unit, ...]

    @staticmethod
    def of(view: View, *, part: str, most: int | None, value: str) -> Drawing:
        """What to show of a view of one head.

        Args:
            view: of tokens, words or sentences [1, 1, N, N].
            part: one of `probes.overview.PARTS`.
            most: units around the answer; None: all.
            value: what the numbers are; empty for attention.

        Raises:
            UserError: another part.
        """
        kept = places_around_answer(view, len(view.labels) if most is None else most)
        shown = at_places(view, kept)
        whole = units_of(view)
        units = tuple(whole[place] for place in kept.tolist())
        return Drawing(shown, *part_of(shown, part), value, len(whole), units)

    @property
    def values(self) -> Float:
        """The map [N, N]."""
        values: Float = self.view.probabilities[0, 0]
        return values

    @property
    def is_empty(self) -> bool:
        """Whether the window has no such part."""
        return not len(self.rows) or not len(self.columns)

    @property
    def is_picture(self) -> bool:
        """Whether there are too many units to be read."""
        return max(len(self.rows), len(self.columns)) > READABLE

    @property
    def omitted(self) -> int:
        """How many units are not shown."""
        return self.total - len(self.view.labels)

    def pairs(self, count: int) -> tuple[Pair, ...]:
        """The strongest pairs of what is shown."""
        return strongest(self.values, count, rows=self.rows, columns=self.columns)

    def chart(self, look: Look) -> Any:
        """For the page: without a title, and a click chooses a cell."""
        drawn = self._drawn(look, title="", caption=())
        # Streamlit takes the height for that of the whole chart, and fits the map between axes and legend.
        drawn = drawn.properties(height=drawn.height + BESIDE)
        drawn = drawn.configure_legend(orient="bottom", direction="horizontal", titleLimit=300)
        return drawn if self.is_picture else selectable(drawn)

    def png(self, title: str, caption: tuple[str, ...]) -> bytes:
        """For a file, on white."""
        return png(self._drawn(LIGHT, title=title, caption=caption))

    def svg(self, title: str, caption: tuple[str, ...]) -> str:
        """Likewise."""
        return svg(self._drawn(LIGHT, title=title, caption=caption))

    def csv(self) -> str:
        """Every cell that is shown, with its words."""
        labels, values = self.view.labels, self.values
        return as_csv(
            ["row", "column", "attends", "attended to", self.value or "attention"],
            [
                (row, column, labels[row], labels[column], float(values[row, column]))
                for row in self.rows.tolist()
                for column in self.columns.tolist()
            ],
        )

    def _drawn(self, look: Look, *, title: str, caption: tuple[str, ...]) -> alt.Chart | alt.LayerChart:
        style = Style(look, self.value, self.rows, self.columns, SIZES)
        if not self.is_picture:
            (layer,), (head,) = self.view.layers, self.view.heads
            return head_heatmap(self.view, layer, head, title=title, caption=caption, style=style)
        part = self.values[np.ix_(self.rows, self.columns)]
        if np.nanmin(part) < 0:
            picture = signed_png(part, look.less, look.more, top=float(np.nanmax(np.abs(part))))
        else:
            picture = map_png(part, look.much, top=max(1.0, float(np.nanmax(part))))
        return exact_map(self.view, picture, self.pairs(STRONGEST), title=title, caption=caption, style=style)
