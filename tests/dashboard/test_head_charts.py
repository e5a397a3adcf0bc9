"""Charts of every head and of one head: the right numbers, clicks by name, few marks, words only as words."""

import base64
import io
from dataclasses import replace
from typing import Any

import altair as alt
import numpy as np
import pytest
import vl_convert
from PIL import Image

from dashboard.charts import exact, heads
from dashboard.charts.curves import score_curves
from dashboard.charts.drawing import READABLE, Drawing
from dashboard.charts.looks import DARK, LIGHT
from dashboard.pictures import heads_png
from probes.maps import ANSWER, CLS, CONTEXT, QUESTION, SEP, View

HOSTILE = "'+now()+'</b>${x}\u202e"


def specification(chart) -> dict[str, Any]:
    with alt.data_transformers.disable_max_rows():
        return chart.to_dict()


def rows_of(chart, name):
    """The rows of the layer that has a field of that name."""
    (found,) = [rows for rows in specification(chart)["datasets"].values() if rows and name in rows[0]]
    return found


def selections(chart):
    return [one for one in specification(chart)["params"] if "select" in one]


def view_of(count, seed=0, signed=False):
    values = np.random.default_rng(seed).dirichlet(np.full(count, 0.2), size=count).astype(np.float32)
    regions = [CLS, *[QUESTION] * 5, SEP, *[CONTEXT] * (count - 8), SEP]
    regions[count // 2 : count // 2 + 2] = [ANSWER] * 2
    return View(
        unit="token",
        probabilities=(values - 0.3 if signed else values)[None, None],
        layers=(3,),
        heads=(8,),
        labels=tuple(f"{HOSTILE}{place}" for place in range(count)),
        chars=np.arange(count, dtype=np.int32)[:, None] + [0, 1],
        regions=np.array(regions, dtype=np.int32),
        seen=None,
    )


def drawing(count, *, part="everything", most=None, signed=False):
    return Drawing.of(view_of(count, signed=signed), part=part, most=most, value="score" if signed else "")


def test_a_click_in_the_grid_names_a_head():
    maps = np.random.default_rng(0).random((2, 3, 10, 10), dtype=np.float32)
    chart = heads.head_grid(heads_png(maps, LIGHT.much), range(2), range(3), look=LIGHT)
    (chosen,) = selections(chart)
    assert (chosen["name"], chosen["select"]["fields"]) == (heads.PICKED, ["layer", "head"])
    rows = rows_of(chart, "layer")
    assert [(row["layer"], row["head"]) for row in rows] == list(np.ndindex(2, 3))
    assert all((row["right"], row["below"]) == (row["head"] + 1, row["layer"] + 1) for row in rows)
    image, cells = specification(chart)["layer"]
    assert image["mark"]["aria"] is False, "or the picture's bytes would be read out"
    packed = base64.b64decode(image["mark"]["url"].removeprefix("data:image/png;base64,"))
    with Image.open(io.BytesIO(packed)) as picture:
        assert picture.width == 3 * picture.height / 2
    assert cells["mark"]["fill"] == "transparent"


def test_the_grid_can_be_saved():
    maps = np.random.default_rng(0).random((2, 3, 10, 10), dtype=np.float32)
    chart = heads.head_grid(heads_png(maps, LIGHT.much), range(2), range(3), look=LIGHT)
    svg = vl_convert.vegalite_to_svg(specification(chart), allowed_base_urls=[])
    assert "data:image/png;base64," in svg


def test_numbers_of_heads():
    values = np.arange(6, dtype=np.float32).reshape(2, 3) / 10
    chart = heads.head_map(values, (0, 1), (0, 1, 2), measure="share", look=DARK, words=[HOSTILE] * 6)
    for row in rows_of(chart, "value"):
        assert row["value"] == pytest.approx(values[row["layer"], row["head"]])
        assert row["words"] == HOSTILE
    scale = specification(chart)["layer"][0]["encoding"]["color"]["scale"]
    assert scale["domain"] == [0, pytest.approx(0.5)]
    assert scale["range"] == [DARK.nothing, DARK.much]
    assert selections(chart)[0]["select"]["fields"] == ["layer", "head"]


def test_changes_of_heads_have_two_colours_and_signs():
    values = np.array([[-0.5, 0.25, np.nan]], dtype=np.float32)
    chart = heads.head_map(
        values, (0,), (0, 1, 2), measure="points", look=LIGHT, marked=np.array([[True, False, False]])
    )
    scale = specification(chart)["layer"][0]["encoding"]["color"]["scale"]
    assert scale["domain"] == [-0.5, 0, 0.5]
    assert [row["sign"] for row in rows_of(chart, "value")] == ["≠", "", ""]
    nothing = heads.head_map(np.zeros((1, 2), np.float32), (0,), (0, 1), measure="points", look=LIGHT)
    assert specification(nothing)["layer"][0]["encoding"]["color"]["scale"]["domain"] == [0, 1]


def test_a_measure_without_any_value_has_a_scale():
    empty = np.full((1, 2), np.nan, dtype=np.float32)
    for top in (None, float("nan")):
        chart = heads.head_map(empty, (0,), (0, 1), measure="share", look=LIGHT, top=top)
        assert specification(chart)["layer"][0]["encoding"]["color"]["scale"]["domain"] == [0, 1]


def test_few_units_are_words_and_many_are_a_picture():
    few, many = drawing(READABLE), drawing(READABLE + 1)
    assert not few.is_picture
    assert many.is_picture
    assert len(rows_of(few.chart(LIGHT), "attention")) == READABLE**2
    assert len(rows_of(many.chart(LIGHT), "attention")) == exact.STRONGEST
    for chart in (few.chart(LIGHT), many.chart(LIGHT)):
        (chosen,) = selections(chart)
        assert (chosen["name"], chosen["select"]["fields"]) == ("cell", ["query", "key"])


@pytest.mark.parametrize("count", [90, 91, 92, 93])
def test_the_regions_of_a_picture_have_their_names(count):
    """Wherever the middle of a region is, between two units or on one."""
    drawn = vl_convert.vegalite_to_svg(specification(drawing(count).chart(LIGHT)), allowed_base_urls=[])
    for name in ("question", "context", "answer"):
        assert drawn.count(f">{name}<") >= 2, "on both axes"


@pytest.mark.parametrize("signed", [False, True])
def test_the_strongest_cells_of_a_picture_have_the_numbers_of_the_map(signed):
    shown = drawing(90, part="within the context", signed=signed)
    rows = rows_of(shown.chart(LIGHT), "attention")
    values = shown.values
    inside = np.abs(values[np.ix_(shown.rows, shown.columns)])
    assert min(abs(row["attention"]) for row in rows) >= np.sort(inside.ravel())[-len(rows)] - 1e-6
    for row in rows:
        assert row["attention"] == pytest.approx(values[row["query"], row["key"]])
        assert shown.rows[row["y"]] == row["query"]
        assert shown.columns[row["x"]] == row["key"]
    image = next(
        layer for layer in specification(shown.chart(DARK))["layer"] if layer["mark"]["type"] == "image"
    )
    packed = base64.b64decode(image["mark"]["url"].removeprefix("data:image/png;base64,"))
    with Image.open(io.BytesIO(packed)) as picture:
        assert picture.size == (len(shown.columns), len(shown.rows))


def test_what_is_around_the_answer_knows_what_it_covers():
    whole, part = drawing(200), drawing(200, most=40)
    assert (part.total, part.omitted, whole.omitted) == (200, 160, 0)
    labels = dict(zip(whole.units, whole.view.labels, strict=True))
    assert [labels[unit] for unit in part.units] == list(part.view.labels)
    assert ANSWER in part.view.regions


def test_a_part_without_rows_is_empty():
    view = view_of(20)
    view = replace(view, regions=np.where(view.regions == ANSWER, CONTEXT, view.regions))
    shown = Drawing.of(view, part="answer → question", most=None, value="")
    assert len(shown.rows) == 0
    assert shown.pairs(5) == ()


def test_data_of_a_map():
    shown = drawing(12, part="question → answer")
    head, *lines = shown.csv().splitlines()
    assert head == "row,column,attends,attended to,attention"
    assert len(lines) == 5 * 2
    row, column, *_, value = lines[0].split(",")
    assert (int(row), int(column)) == (shown.rows[0], shown.columns[0])
    assert float(value) == pytest.approx(float(shown.values[1, 6]))
    assert all(HOSTILE in line for line in lines)


@pytest.mark.parametrize("count", [10, 70])
def test_files_of_a_map(count):
    shown = drawing(count)
    assert shown.png("title", ("caption",)).startswith(b"\x89PNG")
    svg = shown.svg("A title", ("caption",))
    assert "A title" in svg
    assert "</b>" not in svg


def test_words_are_never_an_expression():
    for chart in (drawing(10).chart(LIGHT), drawing(80).chart(LIGHT), curves()):
        for text in expressions_of(specification(chart)):
            assert "now()" not in text


def expressions_of(value, key=""):
    if isinstance(value, dict):
        for name, item in value.items():
            if name not in ("datasets", "title", "params"):
                yield from expressions_of(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from expressions_of(item, key)
    elif isinstance(value, str) and ("expr" in key.lower() or key == "test"):
        yield value


def curves(span=(3, 5)):
    scores = np.random.default_rng(0).normal(size=(2, 12)).astype(np.float32)
    return score_curves([HOSTILE] * 12, *scores, span=span, first=100, look=LIGHT)


def test_curves_have_the_scores_of_both_ends():
    scores = np.random.default_rng(0).normal(size=(2, 12)).astype(np.float32)
    rows = rows_of(curves(), "score")
    for name, expected in zip(("start", "end"), scores, strict=True):
        found = [row["score"] for row in rows if row["of"] == name]
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert rows_of(curves(), "first") == [{"first": 2.5, "end": 4.5}]
    assert len(specification(curves(span=(0, 0)))["layer"]) == 2
    svg = vl_convert.vegalite_to_svg(specification(curves()), allowed_base_urls=[])
    assert ">110<" in svg
