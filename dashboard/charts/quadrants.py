"""The two by two of right and wrong: four cells to click, of two experiments on the same questions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import altair as alt
import pandas as pd

from dashboard.charts import series
from dashboard.charts.heatmaps import FONT
from dashboard.charts.looks import Look
from qa.comparison import CELLS

CELL = "cell"  # the selection's name, and its field
SIDE = 96
# Where a cell stands: by the first experiment down, by the second across.
PLACES = {"both": (0, 0), "first": (0, 1), "second": (1, 0), "neither": (1, 1)}
RIGHT, WRONG = "right", "wrong"


def quadrants(counts: Sequence[int], names: tuple[str, str], *, look: Look) -> alt.LayerChart:
    """Counts and shares as a clickable table; agreement is pale, disagreement strong.

    Args:
        counts: questions in each of CELLS.
        names: of the first and the second experiment.
        look: colours.
    """
    total = max(1, sum(counts))
    words = (RIGHT, WRONG)
    frame = pd.DataFrame(
        {
            "cell": CELLS,
            "first": [words[PLACES[cell][0]] for cell in CELLS],
            "second": [words[PLACES[cell][1]] for cell in CELLS],
            "count": counts,
            "share": [count / total for count in counts],
            "number": [f"{count:,}" for count in counts],
            "percent": [f"{count / total:.1%}" for count in counts],
            "agree": [cell in ("both", "neither") for cell in CELLS],
        }
    )
    click = alt.selection_point(name=CELL, fields=[CELL], on="click", clear="dblclick")
    axis = partial(alt.Axis, labelAngle=0, ticks=False, domain=False, labelFontSize=12, labelPadding=8)
    base = alt.Chart(frame).encode(
        x=alt.X("second:N", sort=[*words], title=names[1], axis=axis(orient="top")),
        y=alt.Y("first:N", sort=[*words], title=names[0], axis=axis()),
        tooltip=[
            alt.Tooltip("first:N", title=names[0]),
            alt.Tooltip("second:N", title=names[1]),
            alt.Tooltip("count:Q", title="questions", format=","),
            alt.Tooltip("share:Q", title="of all", format=".1%"),
        ],
    )
    cells = base.mark_rect(cornerRadius=6, strokeWidth=2, cursor="pointer").encode(
        color=alt.condition(
            alt.datum.agree == True,  # noqa: E712  # Vega's comparison, not Python's
            alt.value(look.grid),
            alt.value(look.more),
        ),
        opacity=alt.condition(click, alt.value(1.0), alt.value(0.45)),
    )
    ink = alt.condition(alt.datum.agree == True, alt.value(look.ink), alt.value(look.nothing))  # noqa: E712
    number = base.mark_text(fontSize=20, fontWeight="bold", dy=-7).encode(text="number:N", color=ink)
    share = base.mark_text(fontSize=12, dy=14).encode(text="percent:N", color=ink)
    chart: alt.LayerChart = (
        alt.layer(cells.add_params(click), number, share)
        .properties(width=2 * SIDE * 1.35, height=2 * SIDE, padding=series.PADDING)
        .configure(font=FONT)
        .configure_view(stroke=None)
    )
    return chart
