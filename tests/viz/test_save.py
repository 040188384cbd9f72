from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from PIL import Image

from pointcluster.viz import draw, figure_3d, save
from pointcluster.viz.animation import TURNS, write_films
from pointcluster.viz.cloud_file import positions
from pointcluster.viz.save import KINDS
from pointcluster.viz.scene import make_scene, make_scenes, painted


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", ["cloud", "picture"])
def test_every_kind_of_file(tmp_path, request, kind, what):
    if kind in (".ply", ".pcd"):
        request.getfixturevalue("open3d")
    data, found = request.getfixturevalue(what)
    clusters = {"a": found, "b": found} if what == "picture" else found
    path = tmp_path / "new" / f"clusters{kind.upper()}"
    assert save(path, data, clusters, head=0, title="so") == path
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    start = path.read_bytes()[:12]
    expected = {
        ".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF", ".html": b"<!doctype",
        ".ply": b"ply", ".pcd": b"# .PCD", ".gif": b"GIF89a",
    }  # fmt: skip
    assert start[4:8] == b"ftyp" if kind == ".mp4" else start.startswith(expected[kind])


def test_a_picture_is_the_drawn_one_and_the_same_each_time(tmp_path, picture):
    for kind in (".png", ".svg", ".pdf"):
        first, second = (save(tmp_path / f"{name}{kind}", *picture) for name in "ab")
        assert first.read_bytes() == second.read_bytes()
    saved = np.rint(255 * imread(tmp_path / "a.png")[..., :3])
    assert np.abs(saved - draw(*picture).array()).max() <= 1


@pytest.mark.parametrize("kind", [".ply", ".pcd"])
def test_points_come_back_in_their_colours(tmp_path, cloud, kind, open3d):
    data, found = cloud
    path = save(tmp_path / f"a{kind}", data, found)
    back = open3d.io.read_point_cloud(str(path))
    scene = make_scene(data, found)
    expected = np.concatenate([painted(scene, panel) for panel in scene.panels])
    np.testing.assert_allclose(np.asarray(back.colors), expected, atol=1 / 255)
    points = np.asarray(back.points)
    np.testing.assert_allclose(points[:300], data.pos, atol=1e-6)
    shift = points[300:] - points[:300]
    assert np.ptp(shift, axis=0).max() < 1e-5 and shift[0, 0] > np.ptp(points[:300, 0])


def test_a_picture_lies_upright_in_space(picture):
    scene = make_scene(*picture)
    pos = positions(scene).reshape(20, 30, 3)
    assert (pos[0, 0] == 0).all() and pos[-1, -1].tolist() == [29, -19, 0]


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


def test_a_page_needs_no_network(tmp_path, cloud):
    text = save(tmp_path / "a.html", *cloud, title="a < b").read_text()
    assert "<title>a &lt; b</title>" in text
    assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=[\"']?(?:https?:)?//", text)
    assert "Plotly.newPlot" in text and len(text) > 1_000_000


@pytest.mark.parametrize("up", ["x", "y", "z", "-x", "-y", "-z"])
def test_a_turnable_cloud(cloud, up):
    data, found = cloud
    figure = figure_3d(data, {"a": found, "b": found}, up=up, highlight=4, title="so")
    seen = [trace for trace in figure.data if trace.visible]
    assert len(seen) == 3  # points, centres, the chosen one
    np.testing.assert_allclose(np.stack([seen[0].x, seen[0].y, seen[0].z], 1), data.pos, atol=1e-6)
    scene = make_scene(data, {"a": found, "b": found}, up=up, highlight=4)
    first = np.rint(255 * painted(scene, scene.panels[0])[7]).astype(int)
    assert seen[0].marker.color[7] == "#{:02x}{:02x}{:02x}".format(*first)
    buttons = figure.layout.updatemenus[0].buttons
    assert [b.label for b in buttons] == ["a, head 0", "a, head 1", "b, head 0", "b, head 1"]
    for button in buttons:
        assert sum(button.args[0]["visible"]) == 3
    camera = figure.layout.scene.camera
    axis = "xyz".index(up[-1])
    sign = -1 if up[0] == "-" else 1
    assert [camera.up.x, camera.up.y, camera.up.z][axis] == pytest.approx(sign)
    assert seen[0].customdata.shape == (300, 3)


def test_a_picture_in_a_browser(picture):
    image, found = picture
    figure = figure_3d(image, found, highlight=3)
    kinds = [trace.type for trace in figure.data if trace.visible]
    assert kinds == ["image", "heatmap", "scatter", "scatter", "scatter"]
    assert (figure.data[2].z == found.index.view(20, 30).numpy()).all()


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("a.jpg", {}, ValueError, r"written as \.png \.svg"),
        ("a", {}, ValueError, r"written as \.png"),
        ("a.png", {"fps": 3}, ValueError, r"fps is for \.gif and \.mp4"),
        ("a.gif", {"fps": 0}, ValueError, "fps is 0, expected above 0"),
        ("a.png", {"head": 7}, IndexError, "choose 0 to 1"),
        ("a.png", {"colour": 7}, TypeError, "colour"),
    ],
)
def test_what_cannot_be_saved(tmp_path, cloud, name, options, error, message):
    with pytest.raises(error, match=message):
        save(tmp_path / name, *cloud, **options)
    assert not list(tmp_path.iterdir())


def test_sequences_that_cannot_be_saved(tmp_path, picture):
    image, found = picture
    with pytest.raises(ValueError, match="a picture does not turn"):
        save(tmp_path / "a.gif", image, found)
    with pytest.raises(ValueError, match="a sequence over time is written as"):
        save(tmp_path / "a.png", image, [found, found])
    with pytest.raises(ValueError, match="no clusters"):
        save(tmp_path / "a.gif", image, [])
    with pytest.raises(TypeError, match="found Tensor"):
        save(tmp_path / "a.png", image, torch.zeros(3))
    with pytest.raises(ValueError, match="of one size"):
        save(tmp_path / "a.gif", image, [found, {"a": found, "b": found}])
    assert not list(tmp_path.iterdir())
