from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from pointcluster.viz import KINDS, draw, save
from pointcluster.viz.scene import make_scene, painted, positions


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
