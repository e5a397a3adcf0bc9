"""Pictures of attention, read back pixel by pixel: darker is more, words fit, and files stay small."""

import io
from dataclasses import replace

import altair as alt
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dashboard.charts.rendering import MOST_PIXELS, _packed, attention_png, png, svg
from probes.maps import ANSWER, CLS, CONTEXT, QUESTION, SEP, View
from qa.errors import UserError

DARK, LIGHT = np.array([0x08, 0x30, 0x6B]), np.array([255, 255, 255])
TOLERANCE = 3  # of 255: cells are rounded once to 8 bit, and once to 256 colours


def view_of(maps, *, answer=1):
    """A view of one layer, 7, of as many heads as there are maps [H, N, N]; half of the words are context."""
    words = maps.shape[-1]
    half = words // 2
    regions = [CLS, *[QUESTION] * (half - 2), SEP, *[CONTEXT] * (words - half - 1), SEP]
    regions[half + 1 : half + 1 + answer] = [ANSWER] * answer
    return View(
        unit="word",
        probabilities=maps[None].astype(np.float32),
        layers=(7,),
        heads=tuple(range(len(maps))),
        labels=tuple(f"word{place}" for place in range(words)),
        chars=np.zeros((words, 2), dtype=np.int32),
        regions=np.array(regions, dtype=np.int32),
        seen=None,
    )


def attention(heads, words, seed=0):
    return np.random.default_rng(seed).dirichlet(np.full(words, 0.2), size=(heads, words))


def pixels(picture):
    with Image.open(io.BytesIO(picture)) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def cells_of(picture, size, step=50):
    """The colour in the middle of each cell [N, N, 3]; the first and the last word attend to themselves."""
    image = pixels(picture)
    dark = (np.abs(image - DARK) <= TOLERANCE).all(-1)
    rows, columns = np.nonzero(dark)
    top, left = rows.min(), columns[rows < rows.min() + step // 2].min()
    centres = np.arange(size) * step + step // 2
    return image[np.ix_(top + centres, left + centres)]


def test_darker_is_more():
    maps = attention(1, 10)
    maps[0, [0, -1]] = np.eye(10)[[0, -1]]
    picture = attention_png(view_of(maps), 7, 0, title="layer 7, head 0", caption=["Question: Who?"])
    cells = cells_of(picture, 10)
    share = np.sqrt(maps[0])[..., None]
    np.testing.assert_allclose(cells, LIGHT + share * (DARK - LIGHT), rtol=0, atol=TOLERANCE)
    by_weight = cells.sum(-1).ravel()[np.argsort(maps[0].ravel())]
    assert (np.diff(by_weight) <= 2 * TOLERANCE).all()
    assert by_weight[0] - by_weight[-1] > 500


def test_every_head_of_a_layer_is_there():
    maps = np.zeros((5, 6, 6))
    maps[:, :, 2] = 1
    picture = pixels(attention_png(view_of(maps), 7, None, title="t", caption=[]))
    dark = (np.abs(picture - DARK) <= TOLERANCE).all(-1)
    cell = (
        2 * 20 - 2
    ) ** 2  # twenty pixels from cell to cell, drawn at twice the size, less the line between
    legend = 200
    assert 5 * 6 * cell <= dark.sum() <= 5 * 6 * cell + legend


def caption_of(monkeypatch, view, head=None):
    """What attention_png adds to the caption."""
    captions = []
    for name in ("head_heatmap", "layer_heatmaps"):

        def keep(*arguments, title, caption):
            captions.append(caption)

        monkeypatch.setattr(f"dashboard.charts.rendering.{name}", keep)
    monkeypatch.setattr("dashboard.charts.rendering.png", lambda chart: b"")
    attention_png(view, 7, head, title="t", caption=["given"])
    assert captions[0][0] == "given"
    return captions[0][1]


def test_rows_are_said_to_sum_to_1_where_they_do(monkeypatch):
    view = view_of(attention(2, 10))
    assert caption_of(monkeypatch, view) == "Each row sums to 1. Words of the answer are bold and red."
    half = replace(view, probabilities=view.probabilities.astype(np.float16).astype(np.float32))
    assert caption_of(monkeypatch, half, 1).startswith("Each row sums to 1.")
    for factor in (0.5, 3):
        weights = replace(view, probabilities=view.probabilities * np.float32(factor))
        assert caption_of(monkeypatch, weights).startswith("Weights: the rows do not sum to 1.")
    one_row = view.probabilities.copy()
    one_row[0, 1, 3] = 0
    one_zero = replace(view, probabilities=one_row)
    assert caption_of(monkeypatch, one_zero).startswith("Weights: the rows do not sum to 1.")
    empty = view.probabilities.copy()
    empty[:, :, 3] = np.nan
    assert caption_of(monkeypatch, replace(view, probabilities=empty)).startswith("Each row sums to 1.")
    assert caption_of(monkeypatch, view_of(attention(2, 10), answer=0)) == "Each row sums to 1."


def test_what_was_left_out_is_said(monkeypatch):
    view = view_of(attention(12, 50))
    assert caption_of(monkeypatch, view) == (
        "40 of 50 words: the beginning of the question and those around the answer; what is missing of a "
        "row's 1 goes to the others. Words of the answer are bold and red."
    )
    assert caption_of(monkeypatch, view, 3).startswith("Each row sums to 1.")
    refused = view_of(attention(1, 62), answer=0)
    assert caption_of(monkeypatch, refused, 0) == (
        "60 of 62 words: the question and those at the beginning; what is missing of a row's 1 goes to the "
        "others."
    )
    weights = replace(refused, probabilities=refused.probabilities * 9)
    assert caption_of(monkeypatch, weights, 0).endswith("; the others have weights too.")
    seen = np.tri(62, dtype=bool)
    assert caption_of(monkeypatch, replace(refused, seen=seen), 0).endswith("Grey: never in one window.")


@pytest.mark.parametrize("words", [10, pytest.param(300, marks=pytest.mark.slow)])
def test_a_layer_of_twelve_heads_is_a_small_file_of_a_size_that_can_be_read(words):
    picture = attention_png(view_of(attention(12, words)), 7, None, title="t", caption=["Who? " * 12])
    assert len(picture) <= 300_000
    height, width, _ = pixels(picture).shape
    assert max(height, width) <= MOST_PIXELS
    assert min(height, width) >= 1200


def test_a_head_is_a_small_file():
    assert len(attention_png(view_of(attention(12, 300)), 7, 11, title="t", caption=[])) <= 150_000


def test_packing_loses_no_more_than_a_shade():
    rng = np.random.default_rng(1)
    ramp = LIGHT + np.sqrt(rng.random((40, 40, 1))) * (DARK - LIGHT)
    grey = np.repeat(rng.integers(0, 256, (40, 40, 1)), 3, axis=2)
    picture = np.kron(np.where(rng.random((40, 40, 1)) < 0.5, ramp, grey), np.ones((8, 8, 1)))
    alpha = np.full((*picture.shape[:2], 1), 255)
    file = io.BytesIO()
    Image.fromarray(np.concatenate([picture, alpha], axis=-1).astype(np.uint8)).save(file, "PNG")
    packed = _packed(file.getvalue())
    assert np.abs(pixels(packed) - picture.astype(int)).max() <= TOLERANCE
    assert len(packed) < len(file.getvalue())


def test_a_huge_chart_is_drawn_smaller():
    chart = alt.Chart(alt.Data(values=[{"x": 1}])).mark_point().properties(width=4000, height=20)
    assert pixels(png(chart)).shape[1] <= MOST_PIXELS


def test_the_limit_of_rows_is_as_before():
    before = alt.data_transformers.active, dict(alt.data_transformers.options)
    attention_png(view_of(attention(4, 40)), 7, None, title="t", caption=[])
    assert (alt.data_transformers.active, dict(alt.data_transformers.options)) == before


def test_what_another_thread_tells_altair_changes_nothing():
    """Streamlit takes the rows out of every chart that is drawn while its own are."""
    rows = pd.DataFrame({"x": range(6000), "y": range(6000)})
    chart = alt.Chart(rows).mark_point().encode(x="x:Q", y="y:Q")
    layered = alt.layer(chart, chart.mark_rule(), data=rows)

    def empty(data):
        return {"url": "elsewhere"}

    before = [svg(chart), svg(layered)]
    alt.data_transformers.register("empty", empty)
    try:
        with alt.data_transformers.enable("empty"):
            assert [svg(chart), svg(layered)] == before
    finally:
        alt.data_transformers.register("empty", None)
    assert all(drawn.count("<path") >= len(rows) for drawn in before)
    assert chart.data is rows


def test_a_layer_that_is_not_there():
    with pytest.raises(UserError, match=r"^layer: \[3\]; this view holds \[7\]$"):
        attention_png(view_of(attention(1, 5)), 3, None, title="t", caption=[])
