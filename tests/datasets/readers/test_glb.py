from __future__ import annotations

import json
import struct
import tracemalloc

import numpy as np
import pytest

from pointcluster.datasets import read_points
from pointcluster.datasets.readers.glb import read_glb

TRIANGLE = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], "<f4")


def glb(tree, *tables):
    """A file of a tree and a binary part that holds tables, each a buffer view."""
    views, binary = [], b""
    for table in tables:
        views.append({"buffer": 0, "byteOffset": len(binary), "byteLength": table.nbytes})
        binary += table.tobytes() + bytes(-table.nbytes % 4)
    tree = {"asset": {"version": "2.0"}, "buffers": [{"byteLength": len(binary)}],
            "bufferViews": views, **tree}  # fmt: skip
    text = json.dumps(tree).encode()
    text += b" " * (-len(text) % 4)
    parts = struct.pack("<I4s", len(text), b"JSON") + text
    parts += struct.pack("<I4s", len(binary), b"BIN\0") + binary
    return struct.pack("<4sII", b"glTF", 2, 12 + len(parts)) + parts


def accessor(view, count, kind=5126, form="VEC3", **more):
    about = {"count": count, "componentType": kind, "type": form, **more}
    return about if view is None else about | {"bufferView": view}


def one(attributes, accessors, *tables, **more):
    mesh = {"primitives": [{"attributes": attributes, **more}]}
    return glb({"accessors": accessors, "meshes": [mesh], "nodes": [{"mesh": 0}],
                "scenes": [{"nodes": [0]}]}, *tables)  # fmt: skip


@pytest.mark.parametrize(("kind", "dtype", "most"), [
    (5121, "<u1", 255), (5123, "<u2", 65535), (5126, "<f4", 1),
])  # fmt: skip
@pytest.mark.parametrize("wide", [3, 4])
def test_colours_of_vertices(kind, dtype, most, wide):
    share = np.array([1, 32768 / 65535, 16384 / 65535, 1])[:wide]
    colors = np.tile(share * most, (3, 1))
    colors = colors.astype(dtype) if most == 1 else np.round(colors).astype(dtype)
    if dtype == "<u2":
        assert colors[0, :3].tolist() == [65535, 32768, 16384]
    data = one({"POSITION": 0, "COLOR_0": 1}, [
        accessor(0, 3), accessor(1, 3, kind, f"VEC{wide}", normalized=most > 1),
    ], TRIANGLE, colors)  # fmt: skip
    found = read_glb(data)["color"]
    np.testing.assert_allclose(found, np.tile(share[:3], (3, 1)), atol=0.5 / most + 1e-6)


def test_an_uncoloured_mesh_beside_a_coloured_one():
    meshes = [{"primitives": [{"attributes": {"POSITION": 0, "COLOR_0": 1}}]},
              {"primitives": [{"attributes": {"POSITION": 0}}]}]  # fmt: skip
    tree = {"accessors": [accessor(0, 3), accessor(1, 3)], "meshes": meshes}
    tree |= {"nodes": [{"mesh": 0}, {"mesh": 1}], "scenes": [{"nodes": [0, 1]}]}
    found = read_glb(glb(tree, TRIANGLE, np.ones((3, 3), "<f4")))
    assert len(found["pos"]) == 6 and "color" not in found


def test_sparse_and_normalised_positions():
    values, rows = np.array([[7, 8, 9]], "<f4"), np.array([1], "<u2")
    sparse = {"count": 1, "indices": {"bufferView": 1, "componentType": 5123},
              "values": {"bufferView": 2}}  # fmt: skip
    for base in (0, None):
        found = read_glb(one({"POSITION": 0}, [accessor(base, 3, sparse=sparse)],
                             TRIANGLE, rows, values))["pos"]  # fmt: skip
        expected = TRIANGLE.copy() if base == 0 else 0 * TRIANGLE
        expected[1] = [7, 8, 9]
        assert found.tolist() == expected.tolist()
    whole = np.array([[32767, 0, -32768], [16384, 0, 0], [0, 1, 0]], "<i2")
    table = np.zeros((3, 4), "<i2")  # a stride of eight bytes
    table[:, :3] = whole
    made = glb({"accessors": [accessor(0, 3, 5122, normalized=True)],
                "bufferViews": [{"buffer": 0, "byteLength": 24, "byteStride": 8}],
                "meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}]}, table)  # fmt: skip
    expected = np.maximum(whole / 32767, -1)
    np.testing.assert_allclose(read_glb(made)["pos"], expected, atol=1e-9)


def test_nodes_put_meshes_in_their_place():
    half = np.sqrt(0.5)
    nodes = [{"translation": [10, 0, 0], "children": [1]},
             {"rotation": [0, 0, half, half], "scale": [2, 1, 1], "mesh": 0}]  # fmt: skip
    tree = {"accessors": [accessor(0, 3)], "nodes": nodes, "scenes": [{"nodes": [0]}]}
    tree["meshes"] = [{"primitives": [{"attributes": {"POSITION": 0}}]}]
    found = read_glb(glb(tree, TRIANGLE))["pos"]
    np.testing.assert_allclose(found, [[10, 0, 0], [10, 2, 0], [9, 0, 0]], atol=1e-9)


@pytest.mark.parametrize(("mode", "expected"), [
    (4, [[0, 1, 2]]), (5, [[0, 1, 2], [2, 1, 3]]), (6, [[0, 1, 2], [0, 2, 3]]), (0, []),
])  # fmt: skip
def test_strips_fans_and_points(mode, expected):
    pos = np.arange(12, dtype="<f4").reshape(4, 3)
    data = one({"POSITION": 0}, [accessor(0, 4)], pos, mode=mode)
    assert read_glb(data)["polygons"].tolist() == expected


def memory(call):
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("way", [
    "no view", "nodes", "primitives", "meshes", "sparse", "strip", "fan", "short strips", "empty",
])  # fmt: skip
def test_a_small_file_takes_little_memory(tmp_path, way):
    pytest.importorskip("trimesh")
    tables = [np.zeros((4000, 3), "<f4")]
    accessors = [accessor(0, 4000)]
    part = {"attributes": {"POSITION": 0}}
    meshes, nodes = [{"primitives": [part]}], [{"mesh": 0}]
    if way == "no view":
        accessors, tables = [accessor(None, 200_000_000)], []
    elif way == "sparse":
        zero = {"count": 0, "indices": {"bufferView": 0, "componentType": 5123},
                "values": {"bufferView": 0}}  # fmt: skip
        accessors = [accessor(None, 200_000_000, sparse=zero)]
    elif way in ("strip", "fan"):  # a triangle for each corner, and all corners alike
        accessors = [accessor(0, 4000), accessor(None, 4_000_000, 5121, "SCALAR")]
        part |= {"indices": 1, "mode": 5 if way == "strip" else 6}
    elif way == "short strips":
        tables.append(np.tile(np.array([0, 1, 2], "<u1"), 2000))
        accessors.append(accessor(1, 6000, 5121, "SCALAR"))
        part |= {"indices": 1, "mode": 5}
        nodes = [{"mesh": 0}] * 2000
    elif way == "empty":  # as many parts as nodes times primitives
        accessors, tables = [accessor(0, 0)], [np.zeros((1, 3), "<f4")]
        meshes, nodes = [{"primitives": [part] * 1000}], [{"mesh": 0}] * 1000
    elif way == "nodes":
        nodes = [{"mesh": 0}] * 4_000
    elif way == "primitives":
        meshes = [{"primitives": [part] * 4_000}]
    else:
        meshes, nodes = [{"primitives": [part]}] * 4_000, [{"mesh": i} for i in range(4_000)]
    tree = {"accessors": accessors, "meshes": meshes, "nodes": nodes}
    tree["scenes"] = [{"nodes": list(range(len(nodes)))}]
    path = tmp_path / "a.glb"
    path.write_bytes(glb(tree, *tables))

    def read():
        with pytest.raises(ValueError, match=r"a\.glb .* unfold to far more than its"):
            read_points(path)

    assert memory(read) < 200e6


def test_parts_that_share_a_table_of_vertices():
    # 3,000 squares, each of four vertices of one table: the table is read and counted once.
    corners = (np.arange(3000)[:, None] * 4 + [0, 1, 2, 0, 2, 3]).astype("<u2")
    square = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], "<f4")
    pos = (square + np.arange(3000)[:, None, None] * [0, 0, 1]).reshape(-1, 3).astype("<f4")
    color = (pos[:, 2:] % 2 * [1, 0, 0]).astype("<f4")
    tree: dict = {"accessors": [accessor(0, 12_000), accessor(1, 12_000)]}
    tree["accessors"] += [accessor(2, 6, 5123, "SCALAR", byteOffset=12 * n) for n in range(3000)]
    tree["meshes"] = [{"primitives": [
        {"attributes": {"POSITION": 0, "COLOR_0": 1}, "indices": 2 + n} for n in range(3000)
    ]}]  # fmt: skip
    found = read_glb(glb(tree, pos, color, corners))
    np.testing.assert_array_equal(found["pos"], pos)
    np.testing.assert_array_equal(found["color"], color)
    np.testing.assert_array_equal(found["polygons"], corners.reshape(-1, 3))


def test_colours_brighter_than_white_are_white(tmp_path):
    pytest.importorskip("trimesh")
    bright = np.tile(np.array([1.5, 0.5, 0], "<f4"), (3, 1))
    data = one({"POSITION": 0, "COLOR_0": 1}, [accessor(0, 3), accessor(1, 3)], TRIANGLE, bright)
    (tmp_path / "a.glb").write_bytes(data)
    color = read_points(tmp_path / "a.glb", mesh_points=5).color
    np.testing.assert_allclose(color, np.tile([1, 0.5, 0], (5, 1)), atol=1e-6)


@pytest.mark.parametrize(("change", "message"), [
    ({"bufferViews": [{"buffer": 0, "byteLength": 99}]}, "announced"),
    ({"accessors": [accessor(0, 4)]}, "4 rows of 12 bytes announced in 36"),
    ({"accessors": [accessor(3, 3)]}, "no number 3 in its 1 bufferViews"),
    ({"nodes": [{"children": [0]}], "scenes": [{"nodes": [0]}]}, "below two nodes"),
    ({"buffers": [{"uri": "a.bin", "byteLength": 36}]}, "outside of its binary part"),
    ({"buffers": [{"byteLength": 36}] * 2, "bufferViews": [{"buffer": 1, "byteLength": 36}]},
     "outside of its binary part"),
    ({"extensionsRequired": ["KHR_draco_mesh_compression"]}, "need KHR_draco_mesh_compr"),
    ({"extensionsRequired": ["EXT_mesh_gpu_instancing"]}, "need EXT_mesh_gpu_instancing"),
    ({"accessors": [accessor(None, 3)], "meshes": [{"primitives": [
        {"attributes": {"POSITION": 0}, "extensions": {"KHR_draco_mesh_compression": {}}}]}]},
     "its meshes are compressed"),
])  # fmt: skip
def test_damaged(change, message):
    tree = {"accessors": [accessor(0, 3)], "nodes": [{"mesh": 0}],
            "meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}]}  # fmt: skip
    with pytest.raises(ValueError, match=message):
        read_glb(glb(tree | change, TRIANGLE))
