from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from pointcluster.viz import figure_3d, save
from pointcluster.viz.colours import PALETTE
from pointcluster.viz.film import TURNS, write_films, write_gif
from pointcluster.viz.paint import paint
from pointcluster.viz.scene import make_scenes

from .conftest import cluster


def test_a_cloud_turns_once(tmp_path, cloud):
    path = save(tmp_path / "a.gif", *cloud, head=0, fps=10)
    with Image.open(path) as film:
        assert film.n_frames == TURNS and film.info["duration"] == 100
        assert film.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
        first = np.asarray(film.convert("RGB"))
        film.seek(TURNS // 2)
        assert (np.asarray(film.convert("RGB")) != first).any()


def test_steps_over_time_follow_one_another(tmp_path, picture):
    image, found = picture
    steps = [{f"epoch {i}": found._replace(index=(found.index + i) % 4)} for i in range(3)]
    with Image.open(save(tmp_path / "a.gif", image, steps, centers=False)) as film:
        # Renamed clusters keep their colours: nothing but the title changes.
        assert film.n_frames == 3
        frames = []
        for i in range(3):
            film.seek(i)
            frames.append(np.asarray(film.convert("RGB"))[60:])
    assert (frames[0] == frames[1]).all() and (frames[0] == frames[2]).all()
    figure = figure_3d(image, steps)
    assert [step.label for step in figure.layout.sliders[0].steps] == [
        "the picture", "epoch 0", "epoch 1", "epoch 2",
    ]  # fmt: skip


def test_films_beside_each_other(tmp_path, picture):
    image, found = picture
    scenes = make_scenes(image, [{"a": found}, {"b": found}], title="so")
    path = write_films(tmp_path / "a.gif", [scenes, scenes])
    with Image.open(path) as film:
        assert film.n_frames == 2
        pixels = np.asarray(film.convert("RGB"))
    half = pixels.shape[1] // 2
    assert (pixels[:, :half] == pixels[:, half:]).all()
    with pytest.raises(ValueError, match=r"films of \[2, 1\] scenes"):
        write_films(tmp_path / "a.gif", [scenes, scenes[:1]])
    with pytest.raises(ValueError, match=r"films of \[\] scenes"):
        write_films(tmp_path / "a.gif", [])


def frames_of(path):
    with Image.open(path) as film:
        for i in range(film.n_frames):
            film.seek(i)
            yield np.asarray(film.convert("RGB")).astype(int)


@pytest.mark.parametrize("original", [False, True])
def test_every_frame_shows_its_clusters_in_their_colours(tmp_path, original):
    # Of five frames the first, middle and last have one cluster or two, the others eight.
    height, width = 20, 32
    column = torch.arange(height * width) % width
    counts = [1, 8, 2, 8, 1]
    steps = [
        {f"epoch {i}": cluster(column // (width // count), None, np.zeros((8, 2)))}
        for i, count in enumerate(counts)
    ]
    image = torch.rand(3, height, width)
    look = {"opacity": 1, "centers": False, "original": original}
    frames = list(frames_of(save(tmp_path / "a.gif", image, steps, **look)))
    scenes = make_scenes(image, steps, **look)
    assert len(frames) == 5
    for frame, scene, count in zip(frames, scenes, counts, strict=True):
        (panel,) = paint(scene, widest=960).panels
        seen = set()
        for point in range(10 * width + 1, 11 * width, 2):  # a row, away from the edges
            row, column = np.rint(panel.where[point]).astype(int)
            expected = np.rint(255 * panel.colour[point]).astype(int)
            assert (frame[row, column] == expected).all()
            seen.add(tuple(expected))
        assert len(seen) == count
        assert (frame[0, 0] == 255).all()


def test_colours_of_all_frames_and_the_clusters_own(tmp_path):
    # Noise with far more colours than a file can have, and one frame of few pixels in each.
    rng = np.random.default_rng(0)
    own = np.rint(255 * PALETTE).astype(np.uint8)
    frames = [rng.integers(0, 256, (60, 80, 3), dtype=np.uint8) for _ in range(9)]
    for frame, colour in zip(frames, own, strict=False):
        frame[10, 10] = colour
        frame[20] = 255
    write_gif(tmp_path / "a.gif", frames, 4, 0)
    found = list(frames_of(tmp_path / "a.gif"))
    for frame, seen, colour in zip(frames, found, own, strict=False):
        assert (seen[10, 10] == colour).all() and (seen[20] == 255).all()
        assert np.abs(seen - frame).mean() < 25
    assert len({tuple(each) for frame in found for each in frame.reshape(-1, 3)}) <= 256


def test_few_colours_stay_as_they_are(tmp_path):
    rng = np.random.default_rng(1)
    colours = rng.integers(0, 256, (256, 3), dtype=np.uint8)
    frames = [colours[rng.integers(0, 256, (30, 40))] for _ in range(4)]
    write_gif(tmp_path / "a.gif", frames, 4, 0)
    assert (np.stack(list(frames_of(tmp_path / "a.gif"))) == np.stack(frames)).all()
