"""Clusters that change over time, or a cloud that turns, as a film: .gif or .mp4."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pointcluster._optional import installed_by
from pointcluster.files import replacing
from pointcluster.viz.camera import FRONT
from pointcluster.viz.colours import PALETTE
from pointcluster.viz.paint import paint
from pointcluster.viz.scene import Scene

TURNS = 24
"""Pictures of a full turn."""
WIDEST = 960
"""Pixels that a film is wide at most."""
COLOURS = 256
"""Colours that a .gif can have."""


def write_film(
    path: str | os.PathLike[str], scenes: Sequence[Scene], *, fps: float | None = None
) -> Path:
    """Write scenes one after the other as .gif or .mp4; a single one of a cloud makes a full turn.

    Of a single scene of a picture, its clusterings are shown one after the other.

    Args:
        path: The film.
        scenes: What is shown.
        fps: Pictures a second; by default 8 for a turn, 4 for others.

    Raises:
        ImportError: What writes films is not installed.
        ValueError: A picture has one clustering alone, or pictures are of different sizes.
    """
    if fps is not None and not 0 < fps <= 60:
        raise ValueError(f"fps is {fps}, expected above 0 and at most 60")
    if len(scenes) == 1 and not scenes[0].subject.is_picture:
        turns = [FRONT.turn + 360 * i / TURNS for i in range(TURNS)]
        frames = [paint(scenes[0], turn=turn, widest=WIDEST).array() for turn in turns]
        return _write(path, frames, fps or 8, hold=0.0)
    if len(scenes) == 1:
        scenes = [scenes[0]._replace(rows=(row,)) for row in scenes[0].rows]
    if len(scenes) == 1:
        raise ValueError(
            "a picture does not turn: give a mapping of titles to clusters, or a sequence of "
            "clusters over time"
        )
    frames = [paint(scene, widest=WIDEST).array() for scene in scenes]
    return _write(path, frames, fps or 4, hold=1.5)


def write_films(
    path: str | os.PathLike[str], films: Sequence[Sequence[Scene]], *, fps: float = 4
) -> Path:
    """Write several films of equal length as one .gif or .mp4, beside each other.

    Args:
        path: The film.
        films: The scenes of each.
        fps: Pictures a second.

    Raises:
        ImportError: What writes films is not installed.
        ValueError: There are no films, or they differ in length.
    """
    if len({len(film) for film in films}) != 1:
        lengths = [len(film) for film in films]
        raise ValueError(f"films of {lengths} scenes, expected at least one, all equally long")
    widest = WIDEST // len(films)
    frames = []
    for scenes in zip(*films, strict=True):
        beside = [paint(scene, widest=widest).array() for scene in scenes]
        tall = max(map(len, beside))
        frames.append(np.concatenate([_padded(f, tall, f.shape[1]) for f in beside], axis=1))
    return _write(path, frames, fps, hold=1.5)


def _padded(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    """A frame with white below and to the right."""
    room = ((0, height - frame.shape[0]), (0, width - frame.shape[1]), (0, 0))
    return np.pad(frame, room, constant_values=255)


def _write(path: str | os.PathLike[str], frames: list[np.ndarray], fps: float, hold: float) -> Path:
    if len({frame.shape for frame in frames}) > 1:
        raise ValueError(
            "the pictures of a film must be of one size: give every step as many clusterings and "
            "heads"
        )
    write = write_gif if Path(path).suffix.lower() == ".gif" else _write_mp4
    with replacing(path) as temporary:
        write(temporary, frames, fps, hold)
    return Path(path)


def _write_mp4(path: Path, frames: Sequence[np.ndarray], fps: float, hold: float) -> None:
    with installed_by("viz"):
        import imageio_ffmpeg

    height, width = (side + side % 2 for side in frames[0].shape[:2])  # the codec wants even sizes
    writer = imageio_ffmpeg.write_frames(
        str(path),
        (width, height),
        fps=fps,
        macro_block_size=2,
        quality=8,
        ffmpeg_log_level="error",
    )
    writer.send(None)
    try:
        for frame in [*frames, *[frames[-1]] * round(hold * fps)]:
            writer.send(_padded(frame, height, width).tobytes())
    finally:
        writer.close()


def write_gif(path: Path, frames: Sequence[np.ndarray], fps: float, hold: float) -> None:
    """Write frames [H, W, 3] of type uint8, shown again and again.

    Args:
        path: The file.
        frames: All of one size.
        fps: Frames a second.
        hold: Seconds that the last stays longer.

    Raises:
        ImportError: Pillow is not installed.
    """
    with installed_by("viz"):
        from PIL import Image

    # One palette for all, so that what stands still does not flicker.
    packed = [_packed(frame) for frame in frames]
    palette, number = _palette(packed)
    images = [Image.fromarray(number[colours]) for colours in packed]
    for image in images:
        image.putpalette(palette.flatten().tolist())
    shown = round(1000 / fps)  # milliseconds
    times = [shown] * (len(frames) - 1) + [shown + round(1000 * hold)]
    images[0].save(
        path, save_all=True, append_images=images[1:], duration=times, loop=0, optimize=True
    )


def _packed(frame: np.ndarray) -> np.ndarray:
    """Colours as single numbers."""
    return frame.astype(np.int32) @ np.array([65536, 256, 1], dtype=np.int32)


def _unpacked(colour: np.ndarray) -> np.ndarray:
    return np.stack([colour >> 16, colour >> 8 & 255, colour & 255], axis=-1).astype(np.uint8)


def _palette(packed: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The palette, and by packed colour the number of the nearest in it. [256, 3] and [2^24]"""
    from PIL import Image
    from scipy.spatial import cKDTree

    seen = [np.unique(colours, return_counts=True) for colours in packed]
    colour, owner = np.unique(np.concatenate([colours for colours, _ in seen]), return_inverse=True)
    count = np.bincount(owner, np.concatenate([counts for _, counts in seen]))
    chosen = _unpacked(colour)
    if len(colour) > COLOURS:
        # White and the clusters' own colours stay what they are; the rest is shared by the others,
        # of which frequent ones do not push out those that are in few frames.
        kept = np.concatenate([[[255] * 3], np.rint(255 * PALETTE)])
        kept = _unpacked(np.intersect1d(_packed(kept), colour))
        sample = np.repeat(chosen, np.ceil(np.sqrt(count)).astype(np.int64), axis=0)
        image = Image.fromarray(sample[None]).quantize(
            COLOURS - len(kept), method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE
        )
        others = np.array(image.getpalette(), dtype=np.uint8).reshape(-1, 3)
        chosen = np.concatenate([kept, others[: COLOURS - len(kept)]])
    number = np.zeros(1 << 24, dtype=np.uint8)
    number[colour] = cKDTree(chosen.astype(np.float64)).query(_unpacked(colour))[1]
    return chosen, number
