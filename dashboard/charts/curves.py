"""Start and end scores of every token of a context, in the order of the text.

Both are what the model says of each token, in logits; the answer is the stretch from a high start to a high
end. The trap: a token in several windows has a score in each; what is drawn is the highest, as the best span
is the best of any window.
"""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import numpy as np
import pandas as pd

from dashboard.charts.heatmaps import FONT
from dashboard.charts.looks import Look
from probes.maps import Float
from qa.printing import cut, visible

HEIGHT = 230
LONGEST = 24  # characters of a token in a tooltip
WORDS = "words_of_curve"


def score_curves(
    words: Sequence[str], start: Float, end: Float, *, span: tuple[int, int], first: int, look: Look
) -> alt.LayerChart:
    """Two curves over the text, with the best span shaded.

    Args:
        words: what each of N tokens covers, untrusted text [N].
        start: start scores [N].
        end: end scores [N].
        span: place of the first token of the best span and one past its last; equal if there is none.
        first: the number of the first token in the text.
        look: colours.
    """
    places = np.arange(len(words), dtype=np.int16)
    rows = pd.DataFrame(
        {
            "place": np.tile(places, 2),
            "score": np.concatenate([start, end]).astype(np.float32),
            "of": np.repeat(["start", "end"], len(words)),
        }
    )
    texts = alt.param(name=WORDS, value=[cut(visible(word), LONGEST) for word in words])
    tooltip = (
        f"{{'token': {WORDS}[datum.place], 'of': datum.of, 'score (logit)': format(datum.score, '.2f')}}"
    )
    scale = alt.Scale(domain=["start", "end"], range=[look.start, look.end])
    x = alt.X(
        "place:Q",
        title="token of the context",
        scale=alt.Scale(domain=[0, max(1, len(words) - 1)], nice=False),
        axis=alt.Axis(grid=False, format="d", tickMinStep=1, labelExpr=f"datum.value + {first}"),
    )
    y = alt.Y("score:Q", title="score (logit)")
    dash = alt.StrokeDash(
        "of:N", scale=alt.Scale(domain=["start", "end"], range=[[1, 0], [5, 3]]), legend=None
    )
    # The points, which are there to be pointed at, are all but invisible; the legend must not be.
    legend = alt.Legend(
        orient="top", symbolType="stroke", symbolOpacity=1, symbolStrokeWidth=2, symbolSize=300
    )
    base = alt.Chart(rows).encode(x=x, y=y, color=alt.Color("of:N", title=None, scale=scale, legend=legend))
    lines = base.mark_line(strokeWidth=1.5, tooltip=None).encode(strokeDash=dash)
    points = base.mark_point(filled=True, size=60, opacity=0.001, tooltip=alt.ExprRef(tooltip))
    layers: list[alt.Chart] = [lines, points]
    if span[0] < span[1]:
        stretch = pd.DataFrame({"first": [span[0] - 0.5], "end": [span[1] - 0.5]})
        shade = alt.Chart(stretch).mark_rect(color=look.answer, opacity=0.18, tooltip=None)
        layers.insert(0, shade.encode(x="first:Q", x2="end:Q"))
    chart: alt.LayerChart = (
        alt.layer(*layers).properties(height=HEIGHT).configure(font=FONT).add_params(texts)
    )
    return chart
