from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pointcluster.datasets import read_points
from pointcluster.datasets.read_points import SUFFIXES


def save(path, points):
    np.save(path, np.asarray(points))
    return path


@given(arrays.arrays(np.float64, (5, 3), elements=st.floats(-1e9, 1e9)))
def test_positions_and_origin_give_the_file_back(tmp_path_factory, points):
    path = tmp_path_factory.getbasetemp() / "hypothesis.npy"
    data = read_points(save(path, points))
    extent = np.ptp(points, axis=0).max()
    world = data.pos.double().numpy() + np.array(data.origin)
    # Of the extent, what a float32 rounds; of what is far away, what a float64 does.
    assert np.abs(world - points).max() <= 1.1e-6 * extent + 1e-15 * np.abs(points).max() + 1e-37


def test_near_positions_stay_as_they_are(tmp_path):
    points = np.random.default_rng(0).uniform(-3, 5, (20, 3)).astype(np.float32)
    data = read_points(save(tmp_path / "a.npy", points))
    assert torch.equal(data.pos, torch.from_numpy(points)) and data.origin == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinite_positions(tmp_path, value):
    points = np.arange(18.0).reshape(6, 3)
    points[[2, 5], 1] = value
    points = np.hstack([points, np.tile([0.0, 0, 1], (6, 1))])
    path = save(tmp_path / "a.npy", points)
    with pytest.raises(ValueError, match=r"a\.npy: 2 of 6 points have a NaN .*first point 2"):
        read_points(path)
    data = read_points(path, drop_invalid=True)
    assert data.pos.tolist() == points[[0, 1, 3, 4], :3].tolist() and len(data.normal) == 4
    points[:, 0] = value
    with pytest.raises(ValueError, match="holds no points"):
        read_points(save(path, points), drop_invalid=True)


def test_nan_normals_and_far_positions(tmp_path):
    path = tmp_path / "a.xyzn"
    path.write_text("1 2 3 nan 0 1\n")
    with pytest.raises(ValueError, match=r"a\.xyzn: a normal is NaN"):
        read_points(path)
    with pytest.raises(ValueError, match="reach beyond float32"):
        read_points(save(tmp_path / "a.npy", [[1e300, 0, 0], [-1e300, 0, 0]]))


def test_normals_of_length_zero_stay(tmp_path):
    (tmp_path / "a.xyzn").write_text("1 2 3 0 0 0\n4 5 6 0 3 4\n")
    normal = read_points(tmp_path / "a.xyzn").normal
    torch.testing.assert_close(normal, torch.tensor([[0, 0, 0], [0, 0.6, 0.8]]))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_empty_files(tmp_path, suffix):
    (tmp_path / f"a{suffix}").touch()
    with pytest.raises(ValueError, match=rf"a\{suffix} is empty"):
        read_points(tmp_path / f"a{suffix}")


def test_other_paths(tmp_path):
    for name in ("a.docx", "a", "a.ply.gz"):
        with pytest.raises(ValueError, match="is of an unknown kind, expected one of .ply"):
            read_points(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.ply"):
        read_points(tmp_path / "nowhere.ply")
    (tmp_path / "folder.xyz").mkdir()
    with pytest.raises(OSError, match=r"folder\.xyz"):
        read_points(tmp_path / "folder.xyz")
    with pytest.raises(ValueError, match="mesh_points is 0"):
        read_points(tmp_path / "a.xyz", mesh_points=0)
