"""A heatmap's numbers are the attention's, its words are only ever words, and darker is more."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import altair as alt
import numpy as np
import pytest
import vl_convert

from dashboard.charts.heatmaps import (
    ANSWERS,
    LONGEST_WORD,
    PICKED,
    WORDS,
    Style,
    _step,
    columns_of,
    head_heatmap,
    layer_heatmaps,
    selectable,
)
from dashboard.charts.looks import DARK, LIGHT
from probes.maps import ALL_HEADS, View
from probing import small_attention
from qa.errors import UserError

L, H, T = 2, 3, 8
HOSTILE = (
    "datum.value",
    "'+now()+'",
    WORDS,
    "<script>alert(1)</script>",
    "&amp;\x00\x1b[2J",
    "\u202eabc\ud83d",
    "{{x}}\\n${y}",
)


@pytest.fixture
def view() -> View:
    """Seven words in two layers of three heads: [CLS] Who sat [SEP] The cat [SEP]; "cat" is the answer."""
    maps = np.random.default_rng(0).dirichlet(np.full(T, 0.3), size=(L, H, T)).astype(np.float32)
    view = small_attention(maps).by("word")
    return replace(view, layers=(4, 6), heads=(0, 2, 5))


def specification(chart) -> dict[str, Any]:
    with alt.data_transformers.disable_max_rows():
        return chart.to_dict()


def rows_of(chart) -> list[dict[str, Any]]:
    (rows,) = specification(chart)["datasets"].values()
    return rows


def texts_of(chart) -> list[ElementTree.Element]:
    """Every line of text in the picture."""
    svg = vl_convert.vegalite_to_svg(specification(chart), allowed_base_urls=[])
    found = ElementTree.fromstring(svg).iter()
    return [element for element in found if element.tag.endswith(("}text", "}tspan"))]


def words_drawn(chart) -> list[str]:
    return [element.text or "" for element in texts_of(chart)]


def expressions_of(value: Any, key: str = "") -> Iterator[str]:
    """Every text in a specification that Vega would run: all but data, words and headings."""
    if isinstance(value, dict):
        for name, item in value.items():
            if name not in ("datasets", "title", "params"):
                yield from expressions_of(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from expressions_of(item, key)
    elif isinstance(value, str) and re.search("expr|test|signal|filter|calculate", key, re.IGNORECASE):
        yield value


def test_a_head_has_the_numbers_of_the_attention(view):
    rows = rows_of(head_heatmap(view, 6, 2, title="t"))
    assert len(rows) == 7 * 7
    for row in rows:
        expected = view.probabilities[1, 1, row["query"], row["key"]]
        assert row["attention"] == pytest.approx(expected, abs=6e-6)
        assert row["head"] == 2


def test_a_cell_is_told_by_words_that_are_looked_up(view):
    mark = specification(head_heatmap(view, 4, 0, title="t"))["mark"]
    assert mark["tooltip"]["expr"] == (
        f"{{'attends': {WORDS}[datum.query], 'attended to': {WORDS}[datum.key], "
        "'attention': format(datum.attention, '.4f')}"
    )


def test_a_part_of_a_map(view):
    style = Style(rows=np.array([1, 2], np.int32), columns=np.array([4, 5, 6], np.int32))
    chart = head_heatmap(view, 4, 0, title="t", style=style)
    assert {(row["query"], row["key"]) for row in rows_of(chart)} == {
        (query, key) for query in (1, 2) for key in (4, 5, 6)
    }
    assert sorted(set(words_drawn(chart)) & set(view.labels)) == sorted(
        {view.labels[n] for n in (1, 2, 4, 5, 6)}
    )
    assert specification(chart)["view"]["fill"] == LIGHT.grid, "nothing is missing"


def test_values_with_a_sign_have_two_colours_around_nothing(view):
    signed = replace(view, probabilities=view.probabilities - 0.25)
    style = Style(measure="difference", look=DARK)
    color = specification(head_heatmap(signed, 4, 0, title="t", style=style))["encoding"]["color"]
    top = float(np.abs(signed.probabilities).max())
    assert color["scale"]["domain"] == [-top, 0, top]
    assert color["scale"]["range"] == [DARK.less, DARK.nothing, DARK.more]
    assert color["legend"]["title"] == "difference"


def test_a_click_chooses_a_cell(view):
    (chosen,) = (
        one
        for one in specification(selectable(head_heatmap(view, 4, 0, title="t")))["params"]
        if one["name"] == PICKED
    )
    assert chosen["select"]["fields"] == ["query", "key"]


def test_a_layer_has_the_numbers_of_all_its_heads(view):
    rows = rows_of(layer_heatmaps(view, 4, title="t"))
    assert len(rows) == 3 * 7 * 7
    for row in rows:
        expected = view.probabilities[0, view.heads.index(row["head"]), row["query"], row["key"]]
        assert row["attention"] == pytest.approx(expected, abs=6e-6)


def test_a_word_that_occurs_twice_is_two_rows(view):
    twice = replace(view, labels=("the",) * 7)
    assert len({(row["query"], row["key"]) for row in rows_of(head_heatmap(twice, 4, 0, title="t"))}) == 49
    assert words_drawn(head_heatmap(twice, 4, 0, title="t")).count("the") == 14


def test_words_stand_on_both_axes_of_every_head(view):
    drawn = words_drawn(layer_heatmaps(view, 4, title="Title", caption=["Question: Who sat", "two"]))
    for label in set(view.labels):
        assert drawn.count(label) == 2 * 3 * view.labels.count(label)
    for text in ("Title", "Question: Who sat", "two", "head 0", "head 2", "head 5", "attends (query)"):
        assert text in drawn


def test_all_heads_in_one_are_called_so(view):
    mean = replace(view, probabilities=view.probabilities.mean(1, keepdims=True), heads=(ALL_HEADS,))
    drawn = words_drawn(layer_heatmaps(mean, 4, title="t"))
    assert "all heads" in drawn
    assert not any(re.fullmatch(r"head \S+", text) for text in drawn)


def test_words_of_the_answer_are_bold_and_red(view):
    texts = texts_of(head_heatmap(view, 4, 0, title="t"))
    marked = {text.text for text in texts if text.get("fill") == "#b91c1c"}
    assert marked == {"cat"}
    assert {text.get("font-weight") for text in texts if text.text == "cat"} == {"bold"}
    assert {text.get("font-weight") for text in texts if text.text == "Who"} <= {None, "normal"}


def test_cells_about_which_nothing_is_said_are_left_out_and_grey(view):
    seen = np.ones((7, 7), dtype=bool)
    seen[1, 5] = seen[5, 1] = False
    maps = view.probabilities.copy()
    maps[:, :, 6] = np.nan
    chart = head_heatmap(replace(view, probabilities=maps, seen=seen), 4, 0, title="t")
    places = {(row["query"], row["key"]) for row in rows_of(chart)}
    assert places == {(q, k) for q in range(6) for k in range(7)} - {(1, 5), (5, 1)}
    assert words_drawn(chart).count("[SEP]") == 4, "the empty row has its place"
    assert specification(chart)["view"]["fill"] == "#d9d9d9"
    assert specification(head_heatmap(view, 4, 0, title="t"))["view"]["fill"] != "#d9d9d9"


def test_all_attention_shares_one_scale_and_larger_weights_get_their_own(view):
    faint = replace(view, probabilities=view.probabilities / 100)
    for chart in (head_heatmap(view, 4, 0, title="t"), layer_heatmaps(faint, 4, title="t")):
        color = specification(chart).get("spec", specification(chart))["encoding"]["color"]
        assert color["scale"]["domain"] == [0, 1]
        assert color["legend"]["title"][0] == "attention"
    weights = replace(view, probabilities=view.probabilities * 12)
    color = specification(head_heatmap(weights, 4, 0, title="t"))["encoding"]["color"]
    largest = float(weights.probabilities.max())
    assert color["scale"]["domain"] == [0, largest]
    assert color["legend"]["values"][-1] == largest
    assert color["legend"]["title"][0] == "weight"


def test_hostile_words_are_words(view):
    hostile = replace(view, labels=HOSTILE)
    for chart in (
        head_heatmap(hostile, 4, 0, title=HOSTILE[1], caption=HOSTILE),
        layer_heatmaps(hostile, 4, title=HOSTILE[0], caption=HOSTILE),
    ):
        expressions = set(expressions_of(specification(chart)))
        assert expressions >= {f"{WORDS}[datum.value]", f"{ANSWERS}[datum.value]"}
        assert not any(word in code for word in {*HOSTILE} - {"datum.value", WORDS} for code in expressions)
        drawn = words_drawn(chart)
        for shown in ("datum.value", "'+now()+'", WORDS, "<script>alert…", r"&amp;\x00\x1b…"):
            assert drawn.count(shown) >= 2
        assert "<script>alert(1)</script>" in drawn
        assert r"\u202eabc\ud83d" in drawn
        json.dumps(specification(chart), ensure_ascii=False).encode("utf-8")


def test_long_words_and_captions_are_cut(view):
    long = replace(view, labels=("Donaudampfschifffahrt" * 9,) * 7)
    drawn = words_drawn(head_heatmap(long, 4, 0, title="word " * 900, caption=["and " * 900, ""]))
    assert max(map(len, drawn)) <= 100
    assert sum(text.startswith("and") for text in drawn) == 3
    assert any(text.endswith("…") and len(text) == LONGEST_WORD for text in drawn)


@pytest.mark.parametrize(("layer", "head"), [(5, 0), (4, 1), (0, 0)])
def test_a_layer_or_head_that_is_not_there(view, layer, head):
    with pytest.raises(UserError, match=r"this view holds \[(4, 6|0, 2, 5)\]$"):
        head_heatmap(view, layer, head, title="t")


@pytest.mark.parametrize(("heads", "columns"), [(1, 1), (2, 2), (4, 2), (6, 3), (12, 4), (16, 4), (17, 5)])
def test_columns(heads, columns):
    assert columns_of(heads) == columns


def test_cells_are_whole_pixels_and_no_smaller_than_a_label():
    steps = [_step(words, 10, 20) for words in range(1, 200)]
    assert (max(steps), min(steps)) == (20, 10)
    assert steps == sorted(steps, reverse=True)
    assert all(type(step) is int for step in steps)
