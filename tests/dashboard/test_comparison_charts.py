"""Charts of Compare: their numbers are the data's, their texts are only texts, and colours can be seen."""

import json
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from PIL import ImageColor

from dashboard.charts import intervals, series
from dashboard.charts.intervals import Dot
from dashboard.charts.learning import POINTS, learning_curves, thinned
from dashboard.charts.looks import DARK, LIGHT
from dashboard.charts.parallel import MOST_AXES, parallel_coordinates, places_of
from dashboard.charts.quadrants import CELL, quadrants
from dashboard.charts.rendering import svg
from qa.comparison import CELLS
from qa.differing import setting_rows

HOSTILE = ("datum.value", "'+now()+'", "<script>alert(1)</script>", "{{x}}${y}", "\u202eabc\ud83d")
PAGES = ("#ffffff", "#0e1117", "#191815")  # light and dark pages


def rows_of(chart, *, having: str) -> list[dict[str, Any]]:
    """The data set with that column."""
    sets = chart.to_dict()["datasets"].values()
    return next(rows for rows in sets if having in rows[0])


def expressions_of(value: Any, key: str = "") -> Iterator[str]:
    """Every text of a specification that Vega would run: all but data and titles."""
    if isinstance(value, dict):
        for name, item in value.items():
            if name not in ("datasets", "title"):
                yield from expressions_of(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from expressions_of(item, key)
    elif isinstance(value, str) and re.search("expr|test|signal|filter|calculate", key, re.IGNORECASE):
        yield value


def luminance(color: str) -> float:
    """As WCAG defines it."""
    parts = [value / 255 for value in ImageColor.getrgb(color)[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("color", series.COLORS)
def test_every_colour_stands_out_from_both_pages(color, page):
    high, low = sorted((luminance(color), luminance(page)), reverse=True)
    assert (high + 0.05) / (low + 0.05) >= 3


def test_many_experiments_have_marks_of_their_own():
    names = [f"e{number}" for number in range(24)]
    colors = series.color(names).to_dict()["scale"]
    dashes = series.dash(names).to_dict()["scale"]
    assert colors["domain"] == dashes["domain"] == names
    assert len({(color, *dash) for color, dash in zip(colors["range"], dashes["range"], strict=True)}) == 24


DOTS = [
    Dot("what (3)", "one", 50.0, (40.0, 60.0), 3),
    Dot("what (3)", "two", 55.5, None, 3),
    Dot(HOSTILE[2], "two", -1.25, (-2.0, 1.0), 4),
]


def test_dots_have_their_values_and_intervals():
    for chart in (
        intervals.scores(DOTS, ["one", "two"], title="F1"),
        intervals.differences(DOTS, ["one", "two"], title="points", look=LIGHT),
    ):
        found = rows_of(chart, having="series")
        assert [(row["value"], row["low"], row["high"], row["count"]) for row in found] == [
            (50, 40, 60, 3),
            (55.5, 55.5, 55.5, 3),
            (-1.25, -2, 1, 4),
        ]
        assert [row["row"] for row in found] == ["what (3)", "what (3)", HOSTILE[2]]
    zero = rows_of(intervals.differences(DOTS, ["one", "two"], title="", look=LIGHT), having="zero")
    assert zero == [{"zero": 0.0}]


def test_a_series_keeps_its_place_without_a_dot():
    both, fewer = (
        intervals.differences(DOTS[:count], ["one", "two"], title="", look=LIGHT).to_dict()
        for count in (3, 1)
    )
    for chart in (both, fewer):
        encoding = chart["layer"][1]["encoding"]
        assert (
            encoding["yOffset"]["scale"]["domain"] == encoding["color"]["scale"]["domain"] == ["one", "two"]
        )


def test_curves_are_thinned_evenly_with_both_ends():
    curve = [(float(place), place**0.5) for place in range(5 * POINTS)]
    kept = thinned(curve)
    assert len(kept) == POINTS
    assert (kept[0], kept[-1]) == (curve[0], curve[-1])
    assert max(b[0] - a[0] for a, b in pairwise(kept)) <= 6
    assert thinned(curve[:10]) == curve[:10]
    chart = learning_curves({"a": curve, "b": [(1.0, 2.0)]}, ["b", "c", "a"], x="step", y="F1 (%)")
    found = rows_of(chart, having="experiment")
    assert len(found) == POINTS + 1
    assert found[-1] == {"experiment": "b", "place": 1.0, "value": 2.0}
    color = chart.to_dict()["layer"][0]["encoding"]["color"]
    assert (color["scale"]["domain"], color["legend"]["values"]) == (["b", "c", "a"], ["a", "b"])
    assert learning_curves({}, [], x="step", y="F1").to_dict()


def test_quadrants_have_counts_and_shares_of_each_cell():
    chart = quadrants((60, 10, 25, 5), ("one", "two"), look=DARK)
    found = {row[CELL]: row for row in rows_of(chart, having=CELL)}
    assert [*found] == [*CELLS]
    assert [row["count"] for row in found.values()] == [60, 10, 25, 5]
    assert (found["first"]["first"], found["first"]["second"]) == ("right", "wrong")
    assert (found["second"]["first"], found["second"]["second"]) == ("wrong", "right")
    assert found["neither"]["percent"] == "5.0%"
    assert quadrants((0, 0, 0, 0), ("one", "two"), look=DARK).to_dict()


@pytest.mark.parametrize(
    ("chosen", "places"),
    [
        ((1, 2, 3), [0, 0.5, 1]),
        ((1e-5, 1e-4, 1e-3), [0, 0.5, 1]),  # by the logarithm
        ((0, 50, 100), [0, 0.5, 1]),  # which zero has none of
        ((5, 5), [0.5, 0.5]),
        (("b", "a", "b"), [0, 1, 0]),
        ((True, False), [0, 1]),
        ((None, 3), [0, 1]),
    ],
)
def test_where_values_stand(chosen, places):
    (row,) = setting_rows([{"key": value} for value in chosen])
    assert places_of(row.chosen, row.values) == pytest.approx(places)


def test_parallel_coordinates_hold_every_setting_and_the_score():
    names = ["one", "two", "three"]
    settings = [{"lr": 10.0**-n, "model": HOSTILE[n], "seed": n} for n in range(3)]
    chart = parallel_coordinates(names, setting_rows(settings), [50.0, 60.0, 55.0], look=LIGHT)
    found = rows_of(chart, having="setting")
    assert len(found) == 3 * 4
    score = [row["place"] for row in found if row["axis"] == "F1 (%)"]
    assert score == [0, 1, 0.5]
    assert {row["f1"] for row in found if row["experiment"] == "two"} == {60}
    many = setting_rows([{f"key{n}": (n, run) for n in range(30)} for run in names])
    axes = {
        row["axis"]
        for row in rows_of(parallel_coordinates(names, many, [1, 2, 3], look=LIGHT), having="setting")
    }
    assert len(axes) == MOST_AXES + 1


def test_hostile_texts_never_become_expressions():
    settings = setting_rows([{text: text for text in HOSTILE}, {}])
    charts = [
        parallel_coordinates(["one", "two"], settings, [1.0, 2.0], look=DARK),
        intervals.scores(
            [Dot(text, text, 1.0, None, 1) for text in HOSTILE[:4]], HOSTILE[:4], title=HOSTILE[0]
        ),
        learning_curves(
            {text: [(0.0, 1.0)] for text in HOSTILE[:4]}, HOSTILE[:4], x=HOSTILE[0], y=HOSTILE[1]
        ),
        quadrants((1, 2, 3, 4), (HOSTILE[0], HOSTILE[2]), look=LIGHT),
    ]
    for chart in charts:
        specification = chart.to_dict()
        assert not any(text in code for text in HOSTILE for code in expressions_of(specification))
        assert "transform" not in json.dumps(specification)
        assert "<script>" not in svg(chart)
