"""Pictures of maps, read back pixel by pixel: heads in their places, more is more opaque, files are small."""

import io

import numpy as np
import pytest
from PIL import Image

from dashboard.pictures import FEW, GAP, MANY, SIDE, heads_png, map_png, signed_png
from probes.overview import pooled

INK = "#08306b"


def pixels(picture):
    with Image.open(io.BytesIO(picture)) as image:
        return np.asarray(image.convert("RGBA")).astype(int)


def opacity_of(picture, layer, head):
    """Of one head [SIDE, SIDE], as shares of 1."""
    size = SIDE + GAP
    top, left = layer * size + GAP // 2, head * size + GAP // 2
    return pixels(picture)[top : top + SIDE, left : left + SIDE, 3] / 255


def maps_of(L, H, T, dtype=np.float16):
    return np.random.default_rng(0).dirichlet(np.full(T, 0.1), size=(L, H, T)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("T", [5, SIDE, 130])
def test_every_head_is_in_its_place_scaled_by_its_largest_value(T, dtype):
    maps = maps_of(2, 3, T, dtype)
    maps[1, 2] /= 50  # a faint head is as visible as any
    picture = heads_png(maps, INK)
    assert pixels(picture).shape == (2 * (SIDE + GAP), 3 * (SIDE + GAP), 4)
    nearest = np.arange(SIDE) * min(T, SIDE) // SIDE
    for layer, head in np.ndindex(2, 3):
        small = pooled(maps, SIDE)[layer, head]
        expected = np.sqrt(small / small.max())[nearest[:, None], nearest]
        found = opacity_of(picture, layer, head)
        np.testing.assert_allclose(found, expected, rtol=0, atol=0.5 / (FEW - 1) + 1 / 255)
        assert found.max() == 1


def test_a_head_that_attends_to_nothing_is_empty():
    maps = maps_of(1, 2, 20)
    maps[0, 1] = 0
    picture = heads_png(maps, INK)
    assert not opacity_of(picture, 0, 1).any()
    assert opacity_of(picture, 0, 0).any()


def test_there_is_one_ink():
    seen = pixels(heads_png(maps_of(2, 2, 70), INK))
    assert {tuple(pixel) for pixel in seen.reshape(-1, 4)[:, :3]} == {(0x08, 0x30, 0x6B)}


def test_all_heads_of_a_large_model_are_a_small_file():
    # Noise, which no packing makes smaller; real heads take less.
    maps = np.random.default_rng(0).random((12, 12, 384, 384), dtype=np.float32)
    assert len(heads_png(maps, INK)) < 300_000


def test_one_map_exactly():
    values = maps_of(1, 1, 90, np.float32)[0, 0]
    values[3, 4] = np.nan
    found = pixels(map_png(values, INK, top=0.5))[..., 3] / 255
    expected = np.sqrt(np.clip(np.nan_to_num(values) / 0.5, 0, 1))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1 / (MANY - 1))


def test_a_sign_is_a_colour():
    values = np.array([[-2.0, -1.0, 0.0], [0.5, 2.0, np.nan]], dtype=np.float32)
    found = pixels(signed_png(values, "#ff0000", "#0000ff", top=2.0))
    np.testing.assert_allclose(found[..., 3] / 255, [[1, 0.5, 0], [0.25, 1, 0]], rtol=0, atol=1 / 126)
    assert found[0, 0].tolist()[:3] == found[0, 1].tolist()[:3] == [255, 0, 0]
    assert found[1, 0].tolist()[:3] == found[1, 1].tolist()[:3] == [0, 0, 255]
