"""Maps as PNG pictures: every head in one, or one head exactly, a pixel a cell.

A browser draws one picture at once and hundreds of thousands of rectangles hardly at all. A picture is one
ink of varying opacity, so that it lies on a light page as well as on a dark one, and it says nothing but how
much: by the square root, because most attention is small. The trap: what is seen is rounded to a few levels
(and pooled); numbers are taken from the maps, never from here.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor

from probes.maps import Float
from probes.overview import pooled

Levels = NDArray[np.uint8]

SIDE = 56  # pixels of a head
GAP = 2  # between heads
FEW = 16  # levels of a thumbnail: half a byte a pixel
MANY = 256


def heads_png(maps: NDArray[np.float16] | Float, ink: str) -> bytes:
    """Every head as a thumbnail, each scaled by its largest value; a row a layer, a column a head.

    Args:
        maps: none below 0 [L, H, T, T].
        ink: a colour, such as #08306b.
    """
    small = pooled(maps, SIDE)
    tops = small.max((-2, -1), keepdims=True)
    shares = np.sqrt(small / np.where(tops > 0, tops, 1))
    return _png(_side_by_side(_levels(shares, FEW)), ink, FEW)


def map_png(values: Float, ink: str, *, top: float) -> bytes:
    """One map, a pixel a cell.

    Args:
        values: none below 0 [rows, columns].
        ink: a colour.
        top: the value that is drawn in full.
    """
    shares = np.sqrt(np.clip(np.nan_to_num(values) / top, 0, 1))
    return _png(_levels(shares, MANY), ink, MANY)


def signed_png(values: Float, less: str, more: str, *, top: float) -> bytes:
    """One map with a sign, a pixel a cell: one ink for values below 0, one for those above.

    Args:
        values: [rows, columns].
        less: the colour of negative values.
        more: of positive ones.
        top: the size that is drawn in full.
    """
    shares = np.clip(np.nan_to_num(values) / top, -1, 1)
    levels = np.rint((shares + 1) / 2 * (MANY - 2)).astype(
        np.uint8
    )  # an odd number, so that one of them is 0
    middle = (MANY - 2) // 2
    inks = [less] * middle + [more] * (MANY - middle)
    opacities = bytes(min(255, round(255 * abs(level - middle) / middle)) for level in range(MANY))
    return _palette_png(levels, inks, opacities)


def _levels(shares: Float, count: int) -> Levels:
    levels: Levels = np.rint(shares * (count - 1)).astype(np.uint8)
    return levels


def _side_by_side(heads: Levels) -> Levels:
    """Thumbnails [L, H, s, s] of SIDE pixels, cells of small maps being larger, with gaps between them."""
    L, H, s, _ = heads.shape
    nearest = np.arange(SIDE) * s // SIDE
    framed = np.zeros((L, H, SIDE + GAP, SIDE + GAP), dtype=np.uint8)
    framed[:, :, GAP // 2 : -(GAP // 2), GAP // 2 : -(GAP // 2)] = heads[:, :, nearest[:, None], nearest]
    return framed.swapaxes(1, 2).reshape(L * (SIDE + GAP), H * (SIDE + GAP))


def _png(levels: Levels, ink: str, count: int) -> bytes:
    """Levels [rows, columns] as opacities of one ink."""
    return _palette_png(levels, [ink] * count, bytes(round(255 * n / (count - 1)) for n in range(count)))


def _palette_png(levels: Levels, inks: Sequence[str], opacities: bytes) -> bytes:
    """A picture of numbers of a palette [rows, columns], in as few bits as its size needs."""
    height, width = levels.shape
    picture = Image.frombytes("P", (width, height), np.ascontiguousarray(levels).tobytes())
    picture.putpalette([part for ink in inks for part in ImageColor.getrgb(ink)[:3]])
    with io.BytesIO() as file:
        picture.save(file, "PNG", transparency=opacities, bits=(len(inks) - 1).bit_length())
        return file.getvalue()
