"""Frames as a .gif."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pointcluster._optional import installed_by
from pointcluster.viz.palette import PALETTE

COLOURS = 256
"""Colours that a .gif can have."""


def write_gif(path: Path, frames: Sequence[np.ndarray], fps: float, hold: float) -> None:
    """Write frames, shown again and again.

    Args:
        path: The file.
        frames: Red, green and blue of type uint8, all of one size.
        fps: Frames a second.
        hold: Seconds that the last stays longer.

    Shapes and units:
        Frames are ``[H, W, 3]``.

    Raises:
        ImportError: Pillow is not installed.
    """
    with installed_by("viz"):
        from PIL import Image

    # One palette for all, so that what stands still does not flicker.
    packed = [_packed(frame) for frame in frames]
    palette, number = _palette(packed)
    images = []
    for each in packed:
        image = Image.fromarray(number[each])
        image.putpalette(palette.flatten().tolist())
        images.append(image)
    first, *rest = images
    each_ms = round(1000 / fps)
    times = [each_ms] * (len(frames) - 1) + [each_ms + round(1000 * hold)]
    first.save(path, save_all=True, append_images=rest, duration=times, loop=0, optimize=True)


def _packed(frame: np.ndarray) -> np.ndarray:
    """Colours as single numbers."""
    red, green, blue = np.moveaxis(frame.astype(np.int32), -1, 0)
    return red << 16 | green << 8 | blue


def _palette(packed: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The palette, and by packed colour the number of the nearest in it. [256, 3] and [2^24]"""
    from PIL import Image
    from scipy.spatial import cKDTree

    found = [np.unique(each, return_counts=True) for each in packed]
    colour, owner = np.unique(np.concatenate([each for each, _ in found]), return_inverse=True)
    count = np.bincount(owner, np.concatenate([counts for _, counts in found]))
    chosen = _unpacked(colour)
    if len(colour) > COLOURS:
        # White and the clusters' own colours stay what they are; the rest is shared by the others,
        # of which frequent ones do not push out those that are in few frames.
        kept = np.concatenate([[[255] * 3], np.rint(255 * PALETTE)]).astype(np.uint8)
        kept = _unpacked(np.intersect1d(_packed(kept), colour))
        sample = np.repeat(_unpacked(colour), np.ceil(np.sqrt(count)).astype(np.int64), axis=0)
        image = Image.fromarray(sample[None]).quantize(
            COLOURS - len(kept), method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE
        )
        others = np.array(image.getpalette(), dtype=np.uint8).reshape(-1, 3)
        chosen = np.concatenate([kept, others[: COLOURS - len(kept)]])
    number = np.zeros(1 << 24, dtype=np.uint8)
    number[colour] = cKDTree(chosen.astype(np.float64)).query(_unpacked(colour))[1]
    return chosen, number


def _unpacked(colour: np.ndarray) -> np.ndarray:
    return np.stack([colour >> 16, colour >> 8 & 255, colour & 255], axis=-1).astype(np.uint8)
