"""Thumbnails, parts, strongest pairs and one word in every head: against plain loops and the whole view."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from probes.attend import attend
from probes.maps import ANSWER, CLS, CONTEXT, QUESTION, SEP
from probes.overview import PARTS, habits, matched, moved, part_of, pinned, pooled, strongest
from probing import CONTEXT as TEXT
from probing import QUESTION as ASKED
from probing import small_attention
from qa.errors import UserError


def random_maps(*shape, dtype=np.float32):
    return np.random.default_rng(0).dirichlet(np.full(shape[-1], 0.2), size=shape[:-1]).astype(dtype)


@pytest.fixture(scope="module")
def attention(reader_of):
    return attend(reader_of("deberta-v3"), ASKED, TEXT, windows=[0], dtype=torch.float32).window(0)


@pytest.fixture
def small():
    """[CLS] Who sat [SEP] The cat [SEP] by words; "cat" is the answer."""
    return small_attention(random_maps(2, 3, 8, 8))


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("side", [1, 3, 7, 10])
def test_a_thumbnail_has_the_largest_value_of_each_piece(dtype, side):
    maps = random_maps(2, 3, 10, 10, dtype=dtype)
    edges = [place * 10 // side for place in range(side)] + [10]
    small = pooled(maps, side)
    assert small.shape == (2, 3, side, side)
    assert small.dtype == np.float32
    for row in range(side):
        for column in range(side):
            piece = maps[:, :, edges[row] : edges[row + 1], edges[column] : edges[column + 1]]
            np.testing.assert_array_equal(small[:, :, row, column], piece.max((-2, -1)))


def test_a_small_map_is_its_own_thumbnail():
    maps = random_maps(1, 1, 4, 4)
    np.testing.assert_array_equal(pooled(maps, 9), maps)


def test_parts_are_rows_and_columns_of_regions(small):
    view = small.by("word")
    regions = [CLS, QUESTION, QUESTION, SEP, CONTEXT, ANSWER, SEP]
    assert view.regions.tolist() == regions
    for part, (of_rows, of_columns) in PARTS.items():
        rows, columns = part_of(view, part)
        assert rows.tolist() == [place for place, region in enumerate(regions) if region in of_rows]
        assert columns.tolist() == [place for place, region in enumerate(regions) if region in of_columns]
    with pytest.raises(UserError, match="part: 'all'; choose everything, "):
        part_of(view, "all")


def test_the_strongest_pairs_of_a_part():
    values = np.array([[0.5, -0.9, 0], [0.1, np.nan, 0.2], [0.3, 0.05, 0.2]], dtype=np.float32)
    every = np.arange(3, dtype=np.int32)
    found = strongest(values, 4, rows=every, columns=every)
    assert [(pair.query, pair.key) for pair in found] == [(0, 1), (0, 0), (2, 0), (1, 2)]
    assert [pair.weight for pair in found] == pytest.approx([-0.9, 0.5, 0.3, 0.2])
    part = strongest(values, 9, rows=every[:2], columns=every[1:])
    assert [(pair.query, pair.key) for pair in part] == [(0, 1), (1, 2)], "neither 0 nor unknown"
    assert strongest(values, 9, rows=every[:0], columns=every) == ()


@pytest.mark.parametrize("unit", ["token", "word", "sentence"])
def test_a_pinned_unit_is_its_row_and_column_of_the_whole_view(attention, unit):
    view = attention.by(unit)
    for place in (0, len(view.labels) // 2, len(view.labels) - 1):
        found = pinned(attention, unit, place)
        np.testing.assert_allclose(found.gives, view.probabilities[:, :, place], rtol=0, atol=2e-6)
        np.testing.assert_allclose(found.gets, view.probabilities[:, :, :, place], rtol=0, atol=2e-6)


def test_what_cannot_be_pinned(small):
    with pytest.raises(UserError, match="unit: 'region'; choose token, word, sentence"):
        pinned(small, "region", 0)
    with pytest.raises(UserError, match="word: 7; this window has 0 to 6"):
        pinned(small, "word", 7)


def test_habits_by_hand(small):
    view = small.by("word")
    values = np.zeros((7, 7), dtype=np.float32)
    values[1] = [0.25, 0.5, 0.25, 0, 0, 0, 0]
    values[2] = [0, 0.5, 0, 0.5, 0, 0, 0]
    values[4] = [0, 0, 0, 0.25, 0, 0.75, 0]
    values[5] = [0, 0, 0, 0, 0, 0.5, 0.5]
    found = habits(view, values)
    assert found.sinks == pytest.approx((0.25 + 0.5 + 0.25 + 0.5) / 4)
    assert found.itself == pytest.approx((0.5 + 0 + 0 + 0.5) / 4)
    assert found.previous == pytest.approx((0.25 + 0.5 + 0.25 + 0) / 4)
    assert found.following == pytest.approx((0.25 + 0.5 + 0.75 + 0.5) / 4)
    assert (found.question, found.context, found.answer) == pytest.approx((1.25 / 4, 0, 1.25 / 4))
    assert found.sinks + found.question + found.context + found.answer == pytest.approx(1)


def test_units_meet_where_they_cover_the_same_text(small):
    words = small.by("word")
    tokens = small_attention(random_maps(1, 1, 7, 7), tokens=[0, 1, 2, 4, 5, 6, 7]).by("token")
    first, second = matched(
        words, replace(tokens, regions=np.where(tokens.regions == ANSWER, CONTEXT, tokens.regions))
    )
    assert first.labels == ("[CLS]", "Who", "[SEP]", "The", "cat", "[SEP]")
    assert second.labels == ("[CLS]", "who", "[SEP]", "the", "cat", "[SEP]")
    assert (first.regions[4], second.regions[4]) == (ANSWER, CONTEXT)
    kept = [0, 1, 3, 4, 5, 6]
    np.testing.assert_array_equal(first.probabilities, words.probabilities[:, :, kept][..., kept])


def test_how_far_heads_moved_against_a_loop(small):
    other = replace(small, probabilities=random_maps(2, 3, 8, 8)[::-1].copy())
    found = moved(small, other)
    for layer, head in np.ndindex(2, 3):
        rows = [
            np.abs(small.probabilities[layer, head, row] - other.probabilities[layer, head, row]).sum() / 2
            for row in range(8)
        ]
        assert found[layer, head] == pytest.approx(np.mean(rows), abs=1e-6)
    assert not moved(small, small).any()
    with pytest.raises(UserError, match="cut the text into other tokens"):
        moved(small, replace(small, tokens=("x", *small.tokens[1:])))
