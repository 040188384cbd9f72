from __future__ import annotations

import struct
import tracemalloc

import numpy as np
import pytest
import torch

from pointcluster.datasets import read_points
from pointcluster.datasets.readers import las as module

POINTS = np.random.default_rng(0).uniform(-1, 1, (50, 3)).astype(np.float32)
COLORS = np.random.default_rng(1).integers(0, 256, (50, 3))


def close(found, expected, atol=1e-6):
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=atol)


@pytest.fixture
def las(tmp_path):
    laspy = pytest.importorskip("laspy")
    pytest.importorskip("lazrs")

    def write(suffix=".las", shift=(0, 0, 0), colors=None, points=POINTS, version="1.2"):
        header = laspy.LasHeader(point_format={"1.2": 2, "1.4": 7}[version], version=version)
        header.scales, header.offsets = [0.0001] * 3, np.floor(shift)
        file = laspy.LasData(header)
        file.x, file.y, file.z = (points.astype(np.float64) + shift).T
        if colors is not None:
            file.red, file.green, file.blue = colors.T.astype(np.uint16)
        file.write(tmp_path / f"a{suffix}")
        return tmp_path / f"a{suffix}"

    return write


@pytest.mark.parametrize("suffix", [".las", ".laz"])
def test_coordinates_of_the_earth_keep_their_millimetres(las, suffix):
    shift = np.array([412_345.5, 5_812_345.25, 81.0])
    data = read_points(las(suffix, shift))
    assert data.pos.dtype == torch.float32
    world = data.pos.double().numpy() + np.array(data.origin)
    # What float32 alone would make of it is wrong by decimetres.
    assert np.abs((POINTS + shift).astype(np.float32) - (POINTS + shift)).max() > 0.1
    assert np.abs(world - (POINTS + shift)).max() < 1e-4
    assert "color" not in data and float(data.pos.abs().max()) <= 2.01


@pytest.mark.parametrize("most", [255, 65535])
def test_colours_of_las(las, most):
    colors = (COLORS * (most // 255)).clip(0, most)
    close(read_points(las(colors=colors)).color, COLORS / 255, 1e-4)
    close(read_points(las(colors=colors * 0 + 1)).color, np.full((50, 3), 1 / 255), 1e-6)


@pytest.mark.parametrize("suffix", [".las", ".laz"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_truncated_las(las, suffix, share):
    path = las(suffix)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(ValueError, match=rf"a\{suffix} (is damaged|announces)"):
        read_points(path)


def damage(path, place, form, *values):
    content = bytearray(path.read_bytes())
    struct.pack_into(form, content, place, *values)
    path.write_bytes(content)


@pytest.mark.parametrize("suffix", [".las", ".laz"])
@pytest.mark.parametrize("version", ["1.2", "1.4"])
@pytest.mark.parametrize(
    ("place", "form", "value", "message"),
    [
        (94, "<H", 60_000, "its points begin at byte"),
        (96, "<I", 10**9, "its points begin at byte"),
        (96, "<I", 0, "its points begin at byte"),
        (100, "<I", 2**32 - 1, "4,294,967,295 records of variable length announced"),
        (100, "<I", 3, "3 records of variable length announced"),
        ("count", None, 10**9, "is damaged|announces"),
        ("count", None, 51, "is damaged|announces"),
    ],
)
def test_a_las_header_that_cannot_be_true(las, suffix, version, place, form, value, message):
    path = las(suffix, version=version)
    if place == "count":
        place, form = (247, "<Q") if version == "1.4" else (107, "<I")
    damage(path, place, form, value)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=rf"a\{suffix} .*({message})"):
            read_points(path)
        assert tracemalloc.get_traced_memory()[1] < 200e6
    finally:
        tracemalloc.stop()


def test_a_table_of_pieces_that_cannot_be_true(las):
    path = las(".laz")
    (start,) = struct.unpack_from("<I", path.read_bytes(), 96)
    (table,) = struct.unpack_from("<q", path.read_bytes(), start)
    damage(path, table + 4, "<I", 2**32 - 1)
    with pytest.raises(ValueError, match=r"a\.laz is damaged.*4,294,967,295 pieces announced"):
        read_points(path)


@pytest.mark.parametrize("layer", [0, 8, 9])
def test_a_layer_that_cannot_be_true_takes_no_memory(las, layer):
    path = las(".laz", version="1.4", colors=COLORS)
    (start,) = struct.unpack_from("<I", path.read_bytes(), 96)
    damage(path, start + 8 + 36 + 4 + 4 * layer, "<I", 2**32 - 1)  # behind a point and a count
    with pytest.raises(ValueError, match=r"a\.laz is damaged.*layers of 4,294,96\d,\d+ bytes"):
        read_points(path)


def test_extended_records_that_cannot_be_true_are_passed_over(las):
    for suffix in (".las", ".laz"):
        path = las(suffix, version="1.4")
        damage(path, 243, "<I", 10**9)
        assert read_points(path).num_nodes == 50
        damage(path, 243, "<I", 1)
        start = path.stat().st_size
        path.write_bytes(path.read_bytes() + bytes(60))
        damage(path, 235, "<Q", start)
        damage(path, start + 20, "<Q", 2**40)
        assert read_points(path).num_nodes == 50


@pytest.mark.parametrize("version", ["1.2", "1.4"])
def test_no_points_in_pieces(las, version):
    with pytest.raises(ValueError, match=r"a\.laz holds no points"):
        read_points(las(".laz", points=POINTS[:0], version=version))


def test_a_size_of_pieces_that_cannot_be_true_takes_no_memory(las):
    path = las(".laz")
    damage(path, 227 + 54 + 12, "<I", 2**31 - 1)  # one piece holds all points: the same file
    assert read_points(path).num_nodes == 50


@pytest.mark.parametrize("suffix", [".las", ".laz"])
@pytest.mark.parametrize("version", ["1.2", "1.4"])
def test_las_of_many_points_is_read_in_pieces(las, suffix, version, monkeypatch):
    monkeypatch.setattr(module, "PIECE", 1000)
    points = np.random.default_rng(3).uniform(-1, 1, (2003, 3))
    colors = 20 * np.arange(6009).reshape(-1, 3) % 65_536
    data = read_points(las(suffix, colors=colors, points=points, version=version))
    close(data.pos.double() + torch.tensor(data.origin), points, 1e-4)
    close(data.color, colors / 65_535)


def test_no_las_and_no_points(las, tmp_path):
    with pytest.raises(ValueError, match=r"a\.las holds no points"):
        read_points(las(points=POINTS[:0]))
    (tmp_path / "b.laz").write_text("hello\n" * 99)
    with pytest.raises(ValueError, match=r"b\.laz is damaged"):
        read_points(tmp_path / "b.laz")


def test_las_keeps_classes(tmp_path):
    laspy = pytest.importorskip("laspy")
    las = laspy.create(point_format=3, file_version="1.2")
    las.x = las.y = las.z = np.arange(4.0)
    las.classification = np.array([2, 6, 0, 5], np.uint8)
    las.write(tmp_path / "a.las")
    assert read_points(tmp_path / "a.las").label.tolist() == [2, 6, 0, 5]
    las.classification = np.zeros(4, np.uint8)
    las.write(tmp_path / "b.las")
    assert "label" not in read_points(tmp_path / "b.las")
