"""Clusters that change over time, or a cloud that turns, as a film."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from pointcluster._optional import installed_by
from pointcluster.files import replacing
from pointcluster.viz.gif import write_gif
from pointcluster.viz.paint import paint
from pointcluster.viz.scene import Scene

TURNS = 24
"""Pictures of a full turn."""
WIDEST = 960
"""Pixels that a film is wide at most."""


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
    turntable = len(scenes) == 1 and not scenes[0].subject.is_picture
    if turntable:
        frames = [_frame(scenes[0], 35 + 360 * i / TURNS) for i in range(TURNS)]
    else:
        if len(scenes) == 1:
            scenes = [scenes[0]._replace(rows=(row,)) for row in scenes[0].rows]
        if len(scenes) == 1:
            raise ValueError(
                "a picture does not turn: give a mapping of titles to clusters, or a sequence of "
                "clusters over time"
            )
        frames = [_frame(scene, 35) for scene in scenes]
    return _write(path, frames, fps or (8 if turntable else 4), hold=0.0 if turntable else 1.5)


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
        found = [_frame(scene, 35, widest) for scene in scenes]
        tall = max(len(each) for each in found)
        padded = [
            np.pad(each, ((0, tall - len(each)), (0, 0), (0, 0)), constant_values=255)
            for each in found
        ]
        frames.append(np.concatenate(padded, axis=1))
    return _write(path, frames, fps, hold=1.5)


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


def _frame(scene: Scene, turn: float, widest: int = WIDEST) -> np.ndarray:
    return paint(scene, turn=turn, fit=False, widest=widest).array()


def _write_mp4(path: Path, frames: Sequence[np.ndarray], fps: float, hold: float) -> None:
    with installed_by("viz"):
        import imageio_ffmpeg

    height, width = frames[0].shape[:2]
    more = ((0, height % 2), (0, width % 2), (0, 0))  # the codec wants even sizes
    last: Iterable[np.ndarray] = [frames[-1]] * round(hold * fps)
    writer = imageio_ffmpeg.write_frames(
        str(path), (width + width % 2, height + height % 2), fps=fps, macro_block_size=2,
        quality=8, ffmpeg_log_level="error",
    )  # fmt: skip
    writer.send(None)
    try:
        for frame in chain(frames, last):
            writer.send(np.pad(frame, more, constant_values=255).tobytes())
    finally:
        writer.close()
