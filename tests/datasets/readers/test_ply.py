from __future__ import annotations

import struct
import tracemalloc

import numpy as np
import pytest

from pointcluster.datasets import read_points
from pointcluster.datasets.readers.ply import read_ply

HEAD = "ply\nformat {} 1.0\n"
AXES = "property float x\nproperty float y\nproperty float z\n"
LIST = "property list uchar int vertex_indices\n"
POS = [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [2, 0, 0]]


def rows(polygons):
    return [np.asarray(each).tolist() for each in polygons]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("polygons", [
    [[0, 1, 2], [0, 1, 2, 3]], [[0, 1, 2, 3], [1, 4, 2]], [[0, 1, 2], [0, 2, 3]],
    [[0, 1, 2], [], [0, 1, 2, 3, 4]], [[0, 1, 2], [0, 2, 3], [1, 4, 2, 0]], [[], []],
], ids=str)  # fmt: skip
def test_binary_faces_of_any_length(order, polygons):
    word = {"<": "binary_little_endian", ">": "binary_big_endian"}[order]
    head = HEAD.format(word) + f"element vertex 5\n{AXES}element face {len(polygons)}\n"
    head += f"{LIST}property uchar red\nproperty uchar green\nproperty uchar blue\nend_header\n"
    body = np.array(POS, f"{order}f4").tobytes()
    for number, each in enumerate(polygons):
        body += struct.pack(f"{order}B{len(each)}i3B", len(each), *each, number, 7, 9)
    found = read_ply(head.encode() + body)
    assert found["pos"].tolist() == POS and rows(found["polygons"]) == polygons
    assert found["face_color"].tolist() == [[n, 7, 9] for n in range(len(polygons))]
    with pytest.raises(ValueError, match=f"{len(polygons)} of face announced"):
        read_ply(head.encode() + body[:-1])


def test_vertices_with_lists_of_any_length():
    head = HEAD.format("binary_little_endian") + f"element vertex 3\n{AXES}"
    head += "property list uchar float more\nproperty int label\nend_header\n"
    body = b"".join(struct.pack(f"<3fB{n}fi", *POS[n], n, *range(n), 10 + n) for n in (0, 2, 1))
    found = read_ply(head.encode() + body)
    assert found["pos"].tolist() == [POS[0], POS[2], POS[1]]
    assert found["label"].tolist() == [10, 12, 11]


@pytest.mark.parametrize("text", [True, False])
def test_triangle_strips(text):
    strip = [0, 1, 3, 2, -1, 1, 4, 2]
    head = HEAD.format("ascii" if text else "binary_little_endian")
    head += f"element vertex 5\n{AXES}element tristrips 1\n"
    head += "property list int int vertex_indices\nend_header\n"
    if text:
        body = "\n".join([*(" ".join(map(str, p)) for p in POS), "8 " + " ".join(map(str, strip))])
        body = body.encode()
    else:
        body = np.array(POS, "<f4").tobytes() + struct.pack("<9i", 8, *strip)
    found = read_ply(head.encode() + body)
    assert found["polygons"].tolist() == [[0, 1, 3], [3, 1, 2], [1, 4, 2]]


def test_names_comments_and_blank_lines(tmp_path):
    head = HEAD.format("ascii") + "comment here is end_header\n\nobj_info end_header\n"
    names = "X Y Z normal_x normal_y normal_z scalar_Classification"
    head += "element vertex 2\n" + "".join(f"property float {n}\n" for n in names.split())
    path = tmp_path / "a.ply"
    path.write_text(f"{head}\nend_header\n0 0 0 0 0 1 2\n\n 1 2 3  0 1 0  6 \n")
    data = read_points(path)
    assert data.pos.tolist() == [[0, 0, 0], [1, 2, 3]]
    assert data.normal.tolist() == [[0, 0, 1], [0, 1, 0]]
    assert data.label.tolist() == [2, 6] and data.label.dtype.is_signed


@pytest.mark.parametrize("name", ["label", "class", "scalar_Classification", "Label"])
def test_labels_of_vertices_and_faces_reach_the_surface(tmp_path, name):
    head = HEAD.format("ascii") + f"element vertex 5\n{AXES}element face 2\n{LIST}"
    head += f"property uchar {name}\nend_header\n"
    rows = "\n".join(" ".join(map(str, p)) for p in POS)
    path = tmp_path / "a.ply"
    path.write_text(f"{head}{rows}\n4 0 1 2 3 5\n3 1 4 2 7\n")
    data = read_points(path, mesh_points=300)
    assert set(data.label.tolist()) == {5, 7}
    assert ((data.label == 7) == (data.pos[:, 0] > 1)).all()


@pytest.mark.parametrize(("text", "message"), [
    ("ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\n", "does not end with end_header"),
    ("ply\nelement vertex 0\nend_header\n", "names none of the formats"),
    ("ply\nformat ascii 1.0\nelement vertex -1\nend_header\n", "has a line 'element vertex -1'"),
    ("ply\nformat ascii 1.0\nelement vertex 1\nproperty real x\nend_header\n", "has a line"),
    (HEAD.format("ascii") + f"element vertex 2\n{AXES}end_header\n0.25 0.5 0\n1.5 2\n",
     "2 of vertex announced, 1 there"),
    (HEAD.format("ascii") + f"element vertex 1\n{AXES}element face 1\n{LIST}end_header\n"
     "0 0 0\n3 0 0\n", "1 of face announced, 0 there"),
    (HEAD.format("ascii") + "element vertex 1\nproperty float x\nend_header\n0\n", "expected x, y"),
], ids=str)  # fmt: skip
def test_damaged(text, message):
    with pytest.raises(ValueError, match=message):
        read_ply(text.encode())


def test_ragged_colours_name_the_file(tmp_path):
    head = HEAD.format("ascii") + f"element vertex 2\n{AXES}"
    head += "".join(f"property uchar {n}\n" for n in ("red", "green", "blue"))
    (tmp_path / "a.ply").write_text(f"{head}end_header\n0.5 0.5 0.5 1 2 3\n1 1 1 1 2\n")
    with pytest.raises(ValueError, match=r"a\.ply is damaged.*2 of vertex announced, 1 there"):
        read_points(tmp_path / "a.ply")


def test_faces_all_of_different_length_take_little_memory():
    lengths = range(3, 300)
    polygons = [" ".join(map(str, [n, *range(n)])) for n in lengths]
    angle = np.arange(300) * 2 * np.pi / 300
    pos = "\n".join(f"{x:.6f} {y:.6f} 0" for x, y in zip(np.cos(angle), np.sin(angle), strict=True))
    text = f"OFF\n300 {len(polygons)} 0\n{pos}\n" + "\n".join(polygons)
    from pointcluster.datasets.readers.off import read_off
    from pointcluster.datasets.readers.polygons import triangulate

    tracemalloc.start()
    found = read_off(text.encode())
    faces, _ = triangulate(found["pos"], found["polygons"])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(faces) == sum(n - 2 for n in lengths)
    assert peak < 80 * len(text)


@pytest.mark.parametrize("order", ["ascii", "binary_little_endian"])
@pytest.mark.parametrize("end", ["\r", "\r\n", "\n"])
def test_any_end_of_a_line(tmp_path, order, end):
    head = HEAD.format(order) + f"comment a {order}\nelement vertex 5\n{AXES}end_header\n"
    body = np.array(POS, "<f4").tobytes()
    if order == "ascii":
        body = "\n".join(" ".join(map(str, row)) for row in POS).replace("\n", end).encode()
    (tmp_path / "a.ply").write_bytes(head.replace("\n", end).encode() + body)
    assert read_points(tmp_path / "a.ply").pos.tolist() == POS


def test_rows_of_text_over_several_lines():
    head = HEAD.format("ascii") + f"element vertex 5\n{AXES}property uchar label\n"
    head += f"element face 2\n{LIST}property uchar red\nproperty uchar green\nproperty uchar blue\n"
    text = "0 0\n0 1\n\n1 0 0 2\n1\n1\n0\n3\n0 1 0 4\n2 0 0 5\n4 0 1\n2 3 7\n8 9\n3\n1 4 2\n4 5 6\n"
    found = read_ply((head + "end_header\n" + text).encode())
    assert found["pos"].tolist() == POS and found["label"].tolist() == [1, 2, 3, 4, 5]
    assert rows(found["polygons"]) == [[0, 1, 2, 3], [1, 4, 2]]
    assert found["face_color"].tolist() == [[7, 8, 9], [4, 5, 6]]
    # A row ends where a line does: one number too few moves no other into its place.
    damaged = head + "end_header\n" + text.replace("1\n1\n0\n3\n", "1\n1\n0\n")
    with pytest.raises(ValueError, match="row 2 of vertex does not end where its line does"):
        read_ply(damaged.encode())
