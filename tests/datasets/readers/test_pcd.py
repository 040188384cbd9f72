from __future__ import annotations

import re
import struct
import tracemalloc

import numpy as np
import pytest
import torch

from pointcluster.datasets import read_points

POINTS = np.random.default_rng(0).uniform(-1, 1, (50, 3)).astype(np.float32)
COLORS = np.random.default_rng(1).integers(0, 256, (50, 3))
NORMALS = np.random.default_rng(2).normal(size=(50, 3))
NORMALS /= np.linalg.norm(NORMALS, axis=1, keepdims=True)


def close(found, expected, atol=1e-6):
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=atol)


@pytest.fixture
def pcd(tmp_path):
    package = pytest.importorskip("pypcd4")

    def write(encoding="binary", normals=False, colors=False, points=POINTS):
        names, columns = ["x", "y", "z"], list(points.T)
        if normals:
            names += ["normal_x", "normal_y", "normal_z"]
            columns += list(NORMALS.T.astype("f4"))
        if colors:
            names.append("rgb")
            word = COLORS.astype("u4") @ np.array([1 << 16, 1 << 8, 1], "u4")
            columns.append(word.astype("u4").view("f4"))
        types = [np.float32] * len(names)
        cloud = package.PointCloud.from_points(columns, names, types)
        cloud.save(tmp_path / "a.pcd", encoding=package.Encoding(encoding))
        return tmp_path / "a.pcd"

    return write


@pytest.mark.parametrize("encoding", ["ascii", "binary", "binary_compressed"])
def test_pcd(pcd, encoding):
    data = read_points(pcd(encoding, normals=True, colors=encoding != "ascii"))
    close(data.pos, POINTS, 1e-5)
    close(data.normal, NORMALS, 1e-5)
    if encoding != "ascii":
        close(data.color, COLORS / 255)


def test_pcd_of_one_point(pcd):
    for encoding in ("ascii", "binary"):
        assert read_points(pcd(encoding, points=POINTS[:1])).pos.shape == (1, 3)


@pytest.mark.parametrize("encoding", ["ascii", "binary", "binary_compressed"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated_pcd(pcd, encoding, share):
    path = pcd(encoding)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(ValueError, match=r"a\.pcd (is damaged|announces 50 points)"):
        read_points(path)


@pytest.mark.parametrize(
    ("encoding", "header", "block", "message"),
    [
        ("binary", "POINTS 1000000000000", None, "announces 1,000,000,000,000 points and holds 50"),
        ("binary", "POINTS 51", None, "announces 51 points and holds 50"),
        ("binary_compressed", "POINTS 1000000000000", None, "points and holds 50"),
        ("binary_compressed", None, 2**32 - 1, "4,294,967,295 bytes announced in .* compressed"),
        ("binary", "COUNT 1 1 1000000000", None, "1,000,000,002 numbers a point announced in"),
        ("ascii", "COUNT 1 1 1000000000", None, "1,000,000,002 numbers a point announced in"),
    ],
)
def test_a_pcd_header_that_cannot_be_true_takes_no_memory(pcd, encoding, header, block, message):
    path = pcd(encoding, points=np.floor(POINTS))  # which compresses; random numbers do not
    content = path.read_bytes()
    if block:
        place = re.search(rb"DATA binary\w+\n", content).end() + 4
        content = content[:place] + struct.pack("<I", block) + content[place + 4 :]
    else:
        name = header.split()[0].encode()
        content = re.sub(rb"(?m)^" + name + rb" .*$", header.encode(), content, count=1)
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=rf"a\.pcd is damaged, .*{message}"):
            read_points(path)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


def test_pcd_of_zeros_is_compressed_as_far_as_it_goes(pcd):
    points = np.zeros((100_000, 3), np.float32)
    assert read_points(pcd("binary_compressed", points=points)).num_nodes == 100_000


@pytest.mark.parametrize("encoding", ["ascii", "binary", "binary_compressed"])
@pytest.mark.parametrize("double", ["x", "X"])
def test_a_pcd_that_names_a_field_twice(pcd, encoding, double):
    path = pcd(encoding, normals=True)
    path.write_bytes(path.read_bytes().replace(b"z normal_x", f"z {double}".encode()))
    with pytest.raises(
        ValueError, match=r"a\.pcd (is damaged.*more than once|names two columns x)"
    ):
        read_points(path)


def test_pcd_without_z_and_no_pcd(pcd):
    path = pcd("ascii")
    path.write_text(path.read_text().replace("FIELDS x y z", "FIELDS x y w"))
    with pytest.raises(ValueError, match="columns x, y, w, expected x, y and z"):
        read_points(path)
    path.write_text("hello\n" * 20)
    with pytest.raises(ValueError, match=r"a\.pcd is damaged"):
        read_points(path)


@pytest.mark.parametrize("text", [
    "VERSION .7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nWIDTH 2\nHEIGHT 1\n"
    "VIEWPOINT 9 9 9 1 0 0 0\nPOINTS 2\nDATA ascii\n1  2 3 \n4\t5 6\t\n",
    "# .PCD v.6\nVERSION .6\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nWIDTH 2\nHEIGHT 1\n"
    "POINTS 2\nDATA ascii\n1 2 3\n4 5 6\n",
    "VERSION .5\nCOLUMNS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 0 0 0\nWIDTH 2\nHEIGHT 1\n"
    "POINTS 2\nDATA ascii\n1 2 3\n4 5 6\n",
    "FIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nPOINTS 2\nDATA ascii\n1 2 3\n4 5 6\n",
    "FIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nWIDTH 1\nHEIGHT 2\nDATA ASCII\n1 2 3\n4 5 6\n",
], ids=["spaces", "0.6", "0.5", "no width", "no points"])  # fmt: skip
def test_pcd_of_older_writers_and_with_spaces(tmp_path, text):
    pytest.importorskip("pypcd4")
    (tmp_path / "a.pcd").write_text(text)
    assert read_points(tmp_path / "a.pcd").pos.tolist() == [[1, 2, 3], [4, 5, 6]]


def test_a_colour_of_pcd_that_is_no_number(tmp_path):
    pytest.importorskip("pypcd4")
    head = "VERSION .7\nFIELDS x y z rgb\nSIZE 4 4 4 4\nTYPE F F F F\nCOUNT 1 1 1 1\nWIDTH 2\n"
    head += "HEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS 2\nDATA {}\n"
    red = np.array([255 << 16], "<u4").view("<f4")
    path = tmp_path / "a.pcd"
    path.write_text(head.format("ascii") + f"0 0 0 nan\n1 1 1 {red[0]:.9g}\n")
    assert read_points(path).color.tolist() == [[0, 0, 0], [1, 0, 0]]
    path.write_text(head.format("ascii") + f"0 0 0 -nan\n1 1 1 {red[0]:.9g}\n")
    assert read_points(path).color.tolist() == [[0, 0, 0], [1, 0, 0]]
    # A whole number of the same bytes is a colour.
    whole = head.replace("TYPE F F F F", "TYPE F F F U").format("ascii")
    path.write_text(whole + f"0 0 0 {0x7FC00000}\n1 1 1 0\n")
    assert read_points(path).color[:, 0].tolist() == [torch.tensor(192 / 255).item(), 0]
    path.write_text(head.format("ascii") + "0 0 0 nan\n1 1 1 nan\n")
    assert "color" not in read_points(path)
    # Opaque red in four bytes is no number as a float, and red all the same.
    body = np.zeros((2, 4), "<f4")
    body[:, 3] = np.array([0xFFFF0000, 0xFF00FF00], "<u4").view("<f4")
    path.write_bytes(head.format("binary").encode() + body.tobytes())
    assert read_points(path).color.tolist() == [[1, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize("key", ["FIELDS", "SIZE", "TYPE", "DATA", "POINTS"])
def test_a_pcd_header_that_lacks_a_line(pcd, key):
    path = pcd("ascii")
    lines = path.read_text().splitlines(keepends=True)
    lacking = (key, "WIDTH") if key == "POINTS" else (key,)
    path.write_text("".join(line for line in lines if not line.startswith(lacking)))
    said = "WIDTH" if key == "POINTS" else key
    with pytest.raises(ValueError, match=rf"a\.pcd is damaged.*its header has no {said}$"):
        read_points(path)


def test_labels_of_pcd_beside_points_without_a_position(tmp_path):
    pytest.importorskip("pypcd4")
    head = "FIELDS x y z label\nSIZE 4 4 4 4\nTYPE F F F F\nPOINTS 2\nDATA ascii\n"
    (tmp_path / "a.pcd").write_text(head + "nan nan nan nan\n4 5 6 255\n")
    data = read_points(tmp_path / "a.pcd", drop_invalid=True)
    assert data.origin == (4, 5, 6) and data.pos.tolist() == [[0, 0, 0]]
    assert data.label.tolist() == [255]
