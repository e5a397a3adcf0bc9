"""Charts as PNG files; nothing is fetched for them.

The renderer brings a font for Latin, Greek and Cyrillic. Letters of other scripts come from the machine's own
fonts, and are empty boxes where it has none. The traps: what altair does with data frames, such as refusing
more than 5,000 rows, is a setting of the whole process, which Streamlit changes while it draws in another
thread, so the rows are in the chart before altair sees it; and the renderer hardly compresses its pictures.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
import vl_convert
from PIL import Image

from dashboard.charts.heatmaps import (
    HEAD_WORDS,
    LAYER_WORDS,
    ROUNDING,
    columns_of,
    head_heatmap,
    layer_heatmaps,
)
from probes.maps import ANSWER, QUESTION, View
from probes.readable import around_answer

SCALES = (2.0, 1.5, 1.0)  # at these, cells begin and end with a pixel, which keeps them sharp and files small
MOST_PIXELS = 4400  # of a side
SIZE = re.compile(r'<svg[^>]*? width="(?P<width>[\d.]+)" height="(?P<height>[\d.]+)"')


def attention_png(view: View, layer: int, head: int | None, *, title: str, caption: Sequence[str]) -> bytes:
    """A picture of a head, or of all heads of a layer, with as many words as can be read.

    Args:
        view: of words.
        layer: its number in the model.
        head: likewise; None: all that the view has.
        title: any text.
        caption: any texts; what is shown is added.

    Raises:
        UserError: a layer or head that the view does not hold.
    """
    if head is None:
        shown = around_answer(view, min(HEAD_WORDS, LAYER_WORDS // columns_of(len(view.heads))))
        return png(layer_heatmaps(shown, layer, title=title, caption=[*caption, _what(shown, view)]))
    shown = around_answer(view, HEAD_WORDS)
    return png(head_heatmap(shown, layer, head, title=title, caption=[*caption, _what(shown, view)]))


def _what(shown: View, view: View) -> str:
    """What a picture shows of a view; that rows sum to 1 is said of those that do."""
    said = []
    sums = view.probabilities.sum(-1)
    shares = np.allclose(sums[np.isfinite(sums)], 1, rtol=0, atol=ROUNDING)
    if shown is view:
        said.append("Each row sums to 1." if shares else "Weights: the rows do not sum to 1.")
    else:
        cut = np.sum(shown.regions == QUESTION) < np.sum(view.regions == QUESTION)
        question = "the beginning of the question" if cut else "the question"
        place = "around the answer" if ANSWER in shown.regions else "at the beginning"
        rest = "what is missing of a row's 1 goes to the others" if shares else "the others have weights too"
        said.append(f"{len(shown.labels)} of {len(view.labels)} words: {question} and those {place}; {rest}.")
    if ANSWER in shown.regions:
        said.append("Words of the answer are bold and red.")
    if shown.seen is not None and not shown.seen.all():
        said.append("Grey: never in one window.")
    return " ".join(said)


def png(chart: alt.TopLevelMixin) -> bytes:
    """The chart at twice its size, or as far as `MOST_PIXELS` allow."""
    drawn = svg(chart)
    size = SIZE.match(drawn)
    assert size is not None, drawn[:200]
    longest = max(float(size["width"]), float(size["height"]))
    scale = next((scale for scale in SCALES if scale * longest <= MOST_PIXELS), SCALES[-1])
    return _packed(vl_convert.svg_to_png(drawn, scale=scale))


def svg(chart: alt.TopLevelMixin) -> str:
    """The chart as SVG: text stays text, in the reader's own font."""
    return vl_convert.vegalite_to_svg(_with_rows(chart).to_dict(), allowed_base_urls=[])


def _with_rows(chart: alt.TopLevelMixin) -> Any:
    """The same chart with rows in the place of its data frames, and of those of its parts."""
    own: Any = chart
    copied = own.copy(deep=False)
    for parts in ("layer", "hconcat", "vconcat", "concat"):
        if isinstance(inner := own._get(parts), list):
            copied[parts] = [_with_rows(part) for part in inner]
    if isinstance(data := own._get("data"), pd.DataFrame):
        copied["data"] = alt.InlineData(values=alt.to_values(data)["values"])
    return copied


def _packed(picture: bytes) -> bytes:
    """The same picture in 256 colours, each at most a shade off, in about a fifth of the bytes."""
    with Image.open(io.BytesIO(picture)) as image, io.BytesIO() as packed:
        few = image.convert("RGB").quantize(method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        few.save(packed, "PNG", optimize=True)
        return packed.getvalue()
