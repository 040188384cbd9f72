from __future__ import annotations

import json
import struct

import numpy as np
import pytest
import torch

from pointcluster.datasets import read_points

POINTS = np.random.default_rng(0).uniform(-1, 1, (50, 3)).astype(np.float32)
COLORS = np.random.default_rng(1).integers(0, 256, (50, 3))
NORMALS = np.random.default_rng(2).normal(size=(50, 3))
NORMALS /= np.linalg.norm(NORMALS, axis=1, keepdims=True)


@pytest.fixture
def trimesh():
    return pytest.importorskip("trimesh")


def close(found, expected, atol=1e-6):
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=atol)


@pytest.mark.parametrize("suffix", [".ply", ".obj", ".off", ".stl", ".glb", ".PLY"])
def test_meshes_are_sampled_on_their_surface(trimesh, tmp_path, suffix):
    box = trimesh.creation.box((2, 4, 6))
    box.export(tmp_path / f"box{suffix}", file_type=suffix[1:].lower())
    data = read_points(tmp_path / f"box{suffix}", mesh_points=3000, seed=1)
    assert data.pos.shape == data.normal.shape == (3000, 3) and data.pos.dtype == torch.float32
    half = torch.tensor([1.0, 2, 3])
    assert (data.pos.abs() <= half + 1e-5).all()
    # Each point is on the face that its normal is of.
    axis = data.normal.abs().argmax(dim=1)
    close(data.normal.abs().amax(dim=1), 1)
    rows = torch.arange(3000)
    close(data.pos[rows, axis], (half[axis] * data.normal[rows, axis].sign()).numpy(), 1e-5)
    # Areas of the pairs of faces: 24, 12 and 8 of 44.
    share = torch.bincount(axis, minlength=3) / 3000
    close(share, np.array([24, 12, 8]) / 44, 0.04)
    again = read_points(tmp_path / f"box{suffix}", mesh_points=3000, seed=1)
    other = read_points(tmp_path / f"box{suffix}", mesh_points=3000, seed=2)
    assert torch.equal(again.pos, data.pos) and not torch.equal(other.pos, data.pos)


def test_meshes_of_a_scene_are_one(trimesh, tmp_path):
    parts = ["o one", "v 0 0 0", "v 1 0 0", "v 0 1 0", "f 1 2 3"]
    parts += ["o two", "v 0 0 9", "v 3 0 9", "v 0 1 9", "f 4 5 6"]
    (tmp_path / "a.obj").write_text("\n".join(parts))
    scene = trimesh.Scene()
    scene.add_geometry(trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2]]))
    move = trimesh.transformations.translation_matrix([0, 0, 9])
    scene.add_geometry(
        trimesh.Trimesh([[0, 0, 0], [3, 0, 0], [0, 1, 0]], [[0, 1, 2]]), transform=move
    )
    scene.export(tmp_path / "a.glb")
    for name in ("a.obj", "a.glb"):
        data = read_points(tmp_path / name, mesh_points=2000)
        upper = (data.pos[:, 2] > 5).float().mean()
        assert abs(float(upper) - 0.75) < 0.04, name


def test_colours_of_vertices_and_faces(trimesh, tmp_path):
    vertices, faces = [[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2]]
    corners = [[255, 0, 0, 255], [0, 255, 0, 255], [0, 0, 255, 255]]
    mesh = trimesh.Trimesh(vertices, faces, vertex_colors=corners, process=False)
    mesh.export(tmp_path / "a.ply")
    data = read_points(tmp_path / "a.ply", mesh_points=100)
    close(data.color[:, 1], data.pos[:, 0].numpy(), 1e-5)
    close(data.color[:, 2], data.pos[:, 1].numpy(), 1e-5)
    close(data.color.sum(dim=1), 1, 1e-5)
    mesh = trimesh.Trimesh(vertices, faces, face_colors=[[0, 51, 255, 255]], process=False)
    mesh.export(tmp_path / "b.ply")
    close(read_points(tmp_path / "b.ply", mesh_points=5).color, np.tile([0, 0.2, 1], (5, 1)))


@pytest.mark.parametrize("encoding", ["ascii", "binary"])
def test_ply_of_points(trimesh, tmp_path, encoding):
    cloud = trimesh.PointCloud(POINTS, colors=np.c_[COLORS, np.full(50, 255)])
    cloud.export(tmp_path / "a.ply", file_type="ply", encoding=encoding)
    data = read_points(tmp_path / "a.ply", mesh_points=7)
    close(data.pos, POINTS, 1e-5)
    close(data.color, COLORS / 255)
    assert "normal" not in data


def ascii_ply(path, table, names):
    header = ["ply", "format ascii 1.0", f"element vertex {len(table)}"]
    header += [f"property double {name}" for name in names] + ["end_header"]
    np.savetxt(path, table, "%.9g", header="\n".join(header), comments="")
    return path


def test_ply_with_normals(trimesh, tmp_path):
    path = ascii_ply(tmp_path / "a.ply", np.hstack([POINTS, NORMALS]), "x y z nx ny nz".split())
    data = read_points(path)
    close(data.pos, POINTS)
    close(data.normal, NORMALS)


def test_a_mesh_without_area(trimesh, tmp_path):
    (tmp_path / "a.off").write_text("OFF\n3 1 0\n0 0 0\n1 1 1\n2 2 2\n3 0 1 2\n")
    with pytest.raises(ValueError, match=r"a\.off: none of its 1 faces has an area"):
        read_points(tmp_path / "a.off")


def test_a_corner_that_is_nan(trimesh, tmp_path):
    (tmp_path / "a.off").write_text("OFF\n3 1 0\n0 0 0\nnan 1 1\n2 0 2\n3 0 1 2\n")
    with pytest.raises(ValueError, match=r"a\.off: a corner of a face is NaN"):
        read_points(tmp_path / "a.off", drop_invalid=True)


def test_off_as_modelnet_has_it(trimesh, tmp_path):
    (tmp_path / "a.off").write_text("OFF3 1 0\n0 0 0\n1 0 0\n0 0 2\n3 0 1 2\n")
    assert read_points(tmp_path / "a.off", mesh_points=5).pos.shape == (5, 3)
    (tmp_path / "b.off").write_text("OFF\n3 0 0\n0 0 0\n1 0 0\n0 0 2\n")
    assert read_points(tmp_path / "b.off").pos.shape == (3, 3)


@pytest.mark.parametrize("suffix", [".ply", ".off", ".stl", ".glb"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_truncated_meshes(trimesh, tmp_path, suffix, share):
    path = tmp_path / f"a{suffix}"
    trimesh.creation.icosphere(1).export(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(ValueError, match=rf"a\{suffix} (is damaged|holds neither)"):
        read_points(path)


@pytest.mark.parametrize("head", [b"", b"solid of triangles"])
def test_stl_is_as_long_as_it_announces(trimesh, tmp_path, head):
    path = tmp_path / "a.stl"
    rows = np.zeros(2, [("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("more", "<u2")])
    rows["corners"] = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]])
    rows["corners"][1, :, 2] = 5
    for count, z in ((1, {0.0}), (2, {0.0, 5.0})):  # what follows is no part of it
        path.write_bytes(head.ljust(80) + struct.pack("<I", count) + rows.tobytes() + b"more")
        assert set(read_points(path, mesh_points=50).pos[:, 2].tolist()) == z
    path.write_bytes(head.ljust(80) + struct.pack("<I", 4_000_000_000) + rows.tobytes())
    with pytest.raises(ValueError, match=r"a\.stl .* 4,000,000,000 triangles announced, 2 there"):
        read_points(path)


@pytest.mark.parametrize(("far", "message"), [
    ("inf", "a corner of a face is NaN or infinite"),
    ("nan", "a corner of a face is NaN or infinite"),
    ("1e200", "its positions reach beyond float32"),
])  # fmt: skip
def test_a_face_that_reaches_too_far(trimesh, tmp_path, far, message):
    path = tmp_path / "a.obj"
    path.write_text(f"v 0 0 0\nv {far} 0 0\nv {far} {far} 0\nv 0 1 0\nf 1 2 3 4\n")
    with pytest.raises(ValueError, match=rf"a\.obj: {message}"):
        read_points(path)


@pytest.mark.parametrize("encoding", ["ascii", "binary"])
def test_truncated_ply_of_points(trimesh, tmp_path, encoding):
    path = tmp_path / "a.ply"
    trimesh.PointCloud(POINTS).export(path, file_type="ply", encoding=encoding)
    lines = path.read_bytes()
    path.write_bytes(lines[: len(lines) - 200])
    with pytest.raises(ValueError, match=r"a\.ply is damaged"):
        read_points(path)


@pytest.mark.parametrize("suffix", [".ply", ".obj", ".off", ".stl", ".glb"])
@pytest.mark.parametrize("content", [b"1 2 3\n4 5 6\n", b"# notes\nhello\n", bytes(99)])
def test_other_files_renamed(trimesh, tmp_path, suffix, content):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\{suffix} (is damaged|holds neither)"):
        read_points(path)


def test_words_among_the_numbers_of_a_ply(trimesh, tmp_path):
    path = ascii_ply(tmp_path / "a.ply", POINTS, "xyz")
    lines = path.read_text().splitlines()
    lines[-3] = "0.1 zero 0.3"
    path.write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"a\.ply is damaged"):
        read_points(path)


SQUARE = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])


def write_ply(path, vertices, faces, vertex="", face="", kind="int"):
    """An ascii file; `vertex` and `face` name further properties, all of the same type."""
    more = [f"property {kind} {name}" for name in vertex.split()]
    header = ["ply", "format ascii 1.0", f"element vertex {len(vertices)}"]
    header += [f"property double {name}" for name in "xyz"] + more
    if len(faces):
        header += [f"element face {len(faces)}", "property list uchar int vertex_indices"]
        header += [f"property {kind} {name}" for name in face.split()]
    rows = [" ".join(map(str, row)) for row in [*vertices, *faces]]
    path.write_text("\n".join([*header, "end_header", *rows, ""]))
    return path


@pytest.mark.parametrize("corner", [4, 99, -1])
def test_a_corner_that_is_not_there(trimesh, tmp_path, corner):
    write_ply(tmp_path / "a.ply", SQUARE, [[3, 0, 1, 2], [3, 0, 2, corner]])
    mesh = trimesh.Trimesh(SQUARE, [[0, 1, 2], [0, 2, corner]], process=False)
    mesh.export(tmp_path / "b.ply", file_type="ply")
    write_ply(tmp_path / "c.ply", SQUARE, [[4, 0, 1, 2, 3], [3, 0, 2, corner]])
    (tmp_path / "a.off").write_text(f"OFF 4 1 0\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n3 0 1 {corner}\n")
    for name in ("a.ply", "b.ply", "c.ply", "a.off"):
        message = rf"{name} is damaged.* has vertex {corner} as a corner, of 4 from 0"
        with pytest.raises(ValueError, match=message):
            read_points(tmp_path / name)


@pytest.mark.parametrize("meshes", [1, 2])
def test_a_corner_of_a_glb_that_is_not_there(trimesh, tmp_path, meshes):
    scene = trimesh.Scene()
    for step in range(meshes):
        scene.add_geometry(trimesh.Trimesh(SQUARE + step, [[0, 1, 2], [0, 2, 3]], process=False))
    content = scene.export(file_type="glb")
    indices = np.array([0, 1, 2, 0, 2, 3], "<u4").tobytes()
    assert content.count(indices) >= 1
    bad = np.array([0, 1, 2, 0, 2, 5], "<u4").tobytes()
    (tmp_path / "a.glb").write_bytes(content.replace(indices, bad, 1))
    with pytest.raises(ValueError, match=r"a\.glb is damaged"):
        read_points(tmp_path / "a.glb")


def glb_of_a_triangle(color, kind):
    """A glTF file of one triangle, whose corners have colours of this type of number."""
    blobs = [np.eye(3, dtype="<f4").tobytes(), np.arange(3, dtype="<u4").tobytes(), color.tobytes()]
    views, accessors, body = [], [], b""
    for blob, number, form in zip(
        blobs, (5126, 5125, kind), ("VEC3", "SCALAR", "VEC4"), strict=True
    ):
        views.append({"buffer": 0, "byteOffset": len(body), "byteLength": len(blob)})
        accessor = {"bufferView": len(accessors), "componentType": number, "count": 3, "type": form}
        accessors.append(accessor | {"normalized": True} if form == "VEC4" else accessor)
        body += blob
    part = {"attributes": {"POSITION": 0, "COLOR_0": 2}, "indices": 1}
    note = {"asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": [0]}]}
    note |= {"nodes": [{"mesh": 0}], "meshes": [{"primitives": [part]}], "accessors": accessors}
    note |= {"bufferViews": views, "buffers": [{"byteLength": len(body)}]}
    text = json.dumps(note).encode()
    text += b" " * (-len(text) % 4)
    chunks = [struct.pack("<I4s", len(text), b"JSON") + text]
    chunks.append(struct.pack("<I4s", len(body), b"BIN\0") + body)
    return struct.pack("<4sII", b"glTF", 2, 12 + sum(map(len, chunks))) + b"".join(chunks)


@pytest.mark.parametrize("dtype, kind", [("u1", 5121), ("<u2", 5123), ("<f4", 5126)])
def test_colours_of_a_glb(trimesh, tmp_path, dtype, kind):
    full = 1 if dtype == "<f4" else np.iinfo(dtype).max
    color = (np.array([[1, 0.4, 0, 1]] * 3) * full).astype(dtype)
    (tmp_path / "a.glb").write_bytes(glb_of_a_triangle(color, kind))
    found = read_points(tmp_path / "a.glb", mesh_points=10).color
    close(found, [[1, 0.4, 0]] * 10, 1 / 255)


@pytest.mark.parametrize("corner", ["9", "0", "0/1/1", "-9"])
def test_a_corner_of_an_obj_that_is_not_there(trimesh, tmp_path, corner):
    rows = [f"v {x} {y} {z}" for x, y, z in SQUARE] + [f"f 1 2 {corner}"]
    (tmp_path / "a.obj").write_text("\n".join(rows))
    with pytest.raises(ValueError, match=r"a\.obj is damaged"):
        read_points(tmp_path / "a.obj")


def test_whatever_sampling_raises_names_the_file(trimesh, tmp_path, monkeypatch):
    def sample_surface(*args, **options):
        raise IndexError("deep inside")

    monkeypatch.setattr(trimesh.sample, "sample_surface", sample_surface)
    write_ply(tmp_path / "a.ply", SQUARE, [[3, 0, 1, 2]])
    with pytest.raises(ValueError, match=r"a\.ply is damaged.*deep inside"):
        read_points(tmp_path / "a.ply")


PLY_NAMES = ["red green blue", "r g b", "R G B", "diffuse_red diffuse_green diffuse_blue"]


@pytest.mark.parametrize("names", PLY_NAMES)
@pytest.mark.parametrize(
    ("kind", "most"),
    [("uchar", 255), ("ushort", 65535), ("ushort", 255), ("int", 255), ("uint", 2**32 - 1),
     ("float", 1)],
)  # fmt: skip
def test_colours_of_ply_by_any_name_and_width(trimesh, tmp_path, names, kind, most):
    share = np.array([[0, 0.2, 1], [1, 0.4, 0], [0.6, 0, 0], [0, 0.8, 0]])
    colors = share * most if kind == "float" else np.round(share * most).astype(np.int64)
    rows = [[*v, *c] for v, c in zip(SQUARE.tolist(), colors.tolist(), strict=True)]
    data = read_points(write_ply(tmp_path / "a.ply", rows, [], names, kind=kind))
    close(data.color, share, 1e-5)
    write_ply(tmp_path / "b.ply", rows, [[3, 0, 1, 2], [3, 0, 2, 3]], names, kind=kind)
    data = read_points(tmp_path / "b.ply", mesh_points=200)
    x, y = data.pos[:, :1].numpy(), data.pos[:, 1:2].numpy()
    lower = share[0] + x * (share[1] - share[0]) + y * (share[2] - share[1])
    upper = share[0] + y * (share[3] - share[0]) + x * (share[2] - share[3])
    close(data.color, np.where(y <= x, lower, upper), 1e-5)


def test_dark_colours_of_whole_numbers_stay_dark(trimesh, tmp_path):
    rows = [[*v, 1, 0, 1] for v in SQUARE.tolist()]
    data = read_points(write_ply(tmp_path / "a.ply", rows, [], "red green blue", kind="uchar"))
    close(data.color, np.tile([1 / 255, 0, 1 / 255], (4, 1)))


@pytest.mark.parametrize("names", PLY_NAMES)
@pytest.mark.parametrize("kind", ["uchar", "ushort"])
def test_colours_of_faces_of_ply(trimesh, tmp_path, names, kind):
    vertices = np.vstack([SQUARE, SQUARE + [2, 0, 0]]).tolist()
    most = {"uchar": 255, "ushort": 65535}[kind]
    for name, second in (("a", [[4, 4, 5, 6, 7]]), ("b", [[3, 4, 5, 6], [3, 4, 6, 7]])):
        faces = [[4, 0, 1, 2, 3, most, 0, 0]] + [[*row, 0, 0, most] for row in second]
        path = write_ply(tmp_path / f"{name}.ply", vertices, faces, face=names, kind=kind)
        data = read_points(path, mesh_points=50)
        right = data.pos[:, :1].numpy() > 1.5
        close(data.color, np.where(right, [0, 0, 1], [1, 0, 0]))


@pytest.mark.parametrize("kind", ["ascii", "binary_little_endian"])
@pytest.mark.parametrize("announced", [51, 10**12])
def test_a_ply_header_that_cannot_be_true(trimesh, tmp_path, kind, announced):
    path = ascii_ply(tmp_path / "a.ply", POINTS, "xyz")
    content = path.read_bytes().replace(b"vertex 50", f"vertex {announced}".encode())
    if kind != "ascii":
        header = content.partition(b"end_header\n")[0].replace(b"ascii", kind.encode())
        content = header + b"end_header\n" + POINTS.astype("<f8").tobytes()
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.ply is damaged, .*(announced|length)"):
        read_points(path)


@pytest.mark.parametrize(("first", "second"), [("x", "x"), ("red", "RED"), ("label", "label")])
def test_a_ply_that_names_a_property_twice(trimesh, tmp_path, first, second):
    names = ["x", "y", "z", *([] if first == "x" else [first]), second]
    path = ascii_ply(tmp_path / "a.ply", np.ones((4, len(names))), names)
    with pytest.raises(ValueError, match=rf"a\.ply .* names two columns {first}, expected one"):
        read_points(path)
