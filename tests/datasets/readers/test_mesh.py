from __future__ import annotations

import json
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


@pytest.fixture
def trimesh():
    return pytest.importorskip("trimesh")


def close(found, expected, atol=1e-6):
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=atol)


# --- meshes --------------------------------------------------------------------------------------


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
    with pytest.raises(ValueError, match=rf"a\.ply .* has two properties {first}, expected one"):
        read_points(path)


# --- .pcd ----------------------------------------------------------------------------------------


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


# --- .las and .laz -------------------------------------------------------------------------------


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
        (243, "<I", 10**9, "1,000,000,000 extended records announced"),
        ("count", None, 10**9, "is damaged|announces"),
        ("count", None, 51, "is damaged|announces"),
    ],
)
def test_a_las_header_that_cannot_be_true(las, suffix, version, place, form, value, message):
    version = "1.4" if place == 243 else version  # the first that has it
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


def test_an_extended_record_that_cannot_be_true_takes_no_memory(las):
    for suffix in (".las", ".laz"):
        path = las(suffix, version="1.4")
        content = path.read_bytes()
        damage(path, 243, "<I", 1)  # one record, and it begins where the file says already: at 0
        struct_at = len(content) - 60
        damage(path, 235, "<Q", struct_at)
        damage(path, struct_at + 20, "<Q", 2**40)
        with pytest.raises(ValueError, match="an extended record of 1,099,511,627,776 bytes"):
            read_points(path)


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
def test_las_of_many_points_is_read_in_pieces(las, suffix, version):
    points = np.random.default_rng(3).uniform(-1, 1, (1_000_003, 3))
    colors = np.arange(3_000_009).reshape(-1, 3) % 65_536
    data = read_points(las(suffix, colors=colors, points=points, version=version))
    close(data.pos.double() + torch.tensor(data.origin), points, 1e-4)
    close(data.color, colors / 65_535)


def test_no_las_and_no_points(las, tmp_path):
    with pytest.raises(ValueError, match=r"a\.las holds no points"):
        read_points(las(points=POINTS[:0]))
    (tmp_path / "b.laz").write_text("hello\n" * 99)
    with pytest.raises(ValueError, match=r"b\.laz is damaged"):
        read_points(tmp_path / "b.laz")


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
