from __future__ import annotations

import sys
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pointcluster.datasets import read_points
from pointcluster.datasets.readers.points import SUFFIXES


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
    for seed in (-1, (3, -1)):
        with pytest.raises(ValueError, match=r"seed is .*-1\)?, expected at least 0"):
            read_points(tmp_path / "a.xyz", seed=seed)


# --- each kind of file, and what may be wrong with it --------------------------------------------

KINDS = (".ply", ".pcd", ".xyz", ".npy", ".obj", ".off", ".stl", ".las", ".laz")
PACKAGES = {".pcd": "pypcd4", ".las": "laspy", ".laz": "lazrs", ".xyz": None, ".npy": None}
COMMANDS = {"trimesh": "trimesh", "pypcd4": "pypcd4", "laspy": "'laspy[lazrs]'",
            "lazrs": "'laspy[lazrs]'"}  # fmt: skip
THREE = np.array([[0.0, 0, 0], [1, 0, 0], [0, 2, 0]])


def package_of(suffix):
    return PACKAGES.get(suffix, "trimesh")


def write_scan(path, points):
    """Points, or for .stl, which has faces alone, a mesh of triangles of each three of them."""
    suffix, points = path.suffix, np.asarray(points, np.float64)
    if package_of(suffix):
        pytest.importorskip(package_of(suffix))
    rows = "\n".join(" ".join(f"{value:.9g}" for value in row) for row in points)
    head = f"ply\nformat ascii 1.0\nelement vertex {len(points)}\n"
    head += "".join(f"property double {axis}\n" for axis in "xyz") + "end_header\n"
    if suffix == ".npy":
        np.save(path, points)
    elif suffix in (".las", ".laz"):
        import laspy

        file = laspy.LasData(laspy.LasHeader(point_format=2, version="1.2"))
        file.x, file.y, file.z = points.T
        file.write(path)
    elif suffix == ".pcd":
        names = "FIELDS x y z\nSIZE 8 8 8\nTYPE F F F\nCOUNT 1 1 1\n"
        size = f"WIDTH {len(points)}\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS {len(points)}\n"
        path.write_text(f"VERSION 0.7\n{names}{size}DATA ascii\n{rows}\n")
    elif suffix == ".stl":
        corners = points.reshape(-1, 3, 3)
        facet = "facet normal 0 0 0\nouter loop\n{}endloop\nendfacet\n"
        lines = "".join(facet.format("".join(
            f"vertex {a:.9g} {b:.9g} {c:.9g}\n" for a, b, c in corner
        )) for corner in corners)  # fmt: skip
        path.write_text(f"solid a\n{lines}endsolid a\n")
    else:
        obj = "".join(f"v {line}\n" for line in rows.split("\n"))
        off = f"OFF\n{len(points)} 0 0\n{rows}\n"
        path.write_text({".ply": head + rows + "\n", ".obj": obj, ".off": off}.get(suffix, rows))
    return path


def write_mesh(path, corners):
    """One triangle."""
    pytest.importorskip("trimesh")
    if path.suffix == ".stl":
        return write_scan(path, corners)
    write_scan(path, corners)
    text = path.read_text()
    if path.suffix == ".obj":
        text += "f 1 2 3\n"
    elif path.suffix == ".off":
        text = text.replace("3 0 0\n", "3 1 0\n", 1) + "3 0 1 2\n"
    else:
        face = "element face 1\nproperty list uchar int vertex_indices\nend_header\n"
        text = text.replace("end_header\n", face) + "3 0 1 2\n"
    path.write_text(text)
    return path


@pytest.mark.parametrize("suffix", KINDS)
def test_a_scan_of_three_points(tmp_path, suffix):
    data = read_points(write_scan(tmp_path / f"a{suffix}", THREE), mesh_points=20)
    world = data.pos.double().numpy() + np.array(data.origin)
    if suffix == ".stl":  # it has faces alone
        assert world.shape == (20, 3) and (world >= 0).all() and world[:, 0].max() <= 1
    else:
        np.testing.assert_allclose(world, THREE, atol=1e-6)


@pytest.mark.parametrize("suffix", KINDS)
@pytest.mark.parametrize("share", [0.2, 0.6, 0.9])
def test_truncated_files(tmp_path, suffix, share):
    points = np.random.default_rng(0).uniform(1, 2, (60, 3))
    path = write_scan(tmp_path / f"a{suffix}", points)
    content = path.read_bytes()
    kept = content[: int(share * len(content))]
    if suffix in (".xyz", ".obj"):  # no count is in them: a row that is cut short shows it
        kept = kept[: kept.rindex(b" ")]
    path.write_bytes(kept)
    with pytest.raises(ValueError, match=rf"a\{suffix}") as caught:
        read_points(path)
    assert "\n" not in str(caught.value).strip()


@pytest.mark.parametrize("suffix", [kind for kind in KINDS if kind not in (".las", ".laz")])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_in_files(tmp_path, suffix, value):
    points = np.vstack([THREE, THREE + 3, THREE - 3])
    points[4, 1] = value
    path = write_scan(tmp_path / f"a{suffix}", points)
    message = r"NaN or infinite|is damaged, ends early or is no|nan|inf"
    with pytest.raises(ValueError, match=message) as caught:
        read_points(path)
    assert f"a{suffix}" in str(caught.value)


@pytest.mark.parametrize("suffix", [".las", ".laz"])
def test_a_scale_that_is_nan(tmp_path, suffix):
    """Coordinates of these are whole numbers; what they are scaled by can be NaN."""
    path = write_scan(tmp_path / f"a{suffix}", THREE)
    content = bytearray(path.read_bytes())
    content[131:139] = np.float64(np.nan).tobytes()
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\{suffix}.*(NaN|nan)"):
        read_points(path)


@pytest.mark.parametrize("suffix", [".ply", ".obj", ".off", ".stl"])
@pytest.mark.parametrize("corners", [[[0, 0, 0], [1, 1, 1], [2, 2, 2]], [[1, 2, 3]] * 3])
def test_meshes_without_area(tmp_path, suffix, corners):
    path = write_mesh(tmp_path / f"a{suffix}", corners)
    with pytest.raises(ValueError, match=rf"a\{suffix}: none of its 1 faces has an area"):
        read_points(path)
    assert len(read_points(write_mesh(path, THREE), mesh_points=9).pos) == 9


@pytest.mark.parametrize("suffix", KINDS)
@pytest.mark.parametrize("content", ["text", "zip"])
def test_something_else_of_that_name(tmp_path, suffix, content):
    if package_of(suffix):
        pytest.importorskip(package_of(suffix))
    folder, path = tmp_path / "in", tmp_path / "in" / f"a{suffix}"
    folder.mkdir()
    if content == "text":
        path.write_text("Some notes about the scan,\nand no scan.\n")
    else:  # one that would climb out of its folder, if anything unpacked it
        with zipfile.ZipFile(path, "w") as file:
            file.writestr(f"../b{suffix}", "1 2 3\n")
            file.writestr("../pos.npy", "x")
    with pytest.raises(ValueError, match=rf"a\{suffix}"):
        read_points(path)
    assert [each.name for each in tmp_path.rglob("*") if each.is_file()] == [path.name]


@pytest.mark.parametrize("suffix", [kind for kind in (*KINDS, ".glb") if package_of(kind)])
def test_missing_packages(tmp_path, monkeypatch, suffix):
    package = package_of(suffix)
    if package == "lazrs":
        pytest.importorskip("laspy")
    monkeypatch.setitem(sys.modules, package, None)
    (tmp_path / f"a{suffix}").write_text("anything")
    with pytest.raises(ImportError) as caught:
        read_points(tmp_path / f"a{suffix}")
    text = str(caught.value)
    assert f"reading {suffix} files needs" in text and package in text
    assert f"pip install {COMMANDS[package]}" in text


# --- the column of labels that is named ----------------------------------------------------------


def write_labelled(path, name, labels):
    """Three points, whose labels are in a column of that name; of .las, one of its dimensions."""
    suffix, rows = path.suffix, [(*pos, c) for pos, c in zip(THREE.tolist(), labels, strict=True)]
    text = "\n".join(" ".join(f"{value:g}" for value in row) for row in rows) + "\n"
    if package_of(suffix):
        pytest.importorskip(package_of(suffix))
    if suffix in (".las", ".laz"):
        import laspy

        file = laspy.create(point_format=6, file_version="1.4")
        file.x, file.y, file.z = THREE.T
        if name not in file.point_format.dimension_names:
            file.add_extra_dim(laspy.ExtraBytesParams(name, np.uint16))
        file[name] = np.array(labels, np.uint16)
        file.write(path)
    elif suffix == ".npy":
        np.save(path, np.array(rows, [("x", "f8"), ("y", "f8"), ("z", "f8"), (name, "f4")]))
    elif suffix == ".pcd":
        head = f"FIELDS x y z {name}\nSIZE 4 4 4 4\nTYPE F F F F\nPOINTS 3\nDATA ascii\n"
        path.write_text(head + text)
    elif suffix == ".ply":
        names = "".join(f"property float {each}\n" for each in ("x", "y", "z", name))
        path.write_text(f"ply\nformat ascii 1.0\nelement vertex 3\n{names}end_header\n{text}")
    else:
        path.write_text(f"x y z {name}\n{text}")
    return path


@pytest.mark.parametrize("suffix", [".ply", ".pcd", ".npy", ".xyz", ".txt", ".las", ".laz"])
def test_labels_in_a_column_of_another_name(tmp_path, suffix):
    path = write_labelled(tmp_path / f"a{suffix}", "sem_class", [7, 0, 300])
    assert "label" not in read_points(path)
    for name in ("sem_class", "Sem_Class"):
        label = read_points(path, label=name).label
        assert label.dtype == torch.int64 and label.tolist() == [7, 0, 300]
    with pytest.raises(ValueError, match=rf"a\{suffix}.* has no column nothing of labels: .*sem_"):
        read_points(path, label="nothing")


@pytest.mark.parametrize("suffix", [".las", ".laz"])
def test_a_classification_of_zeros_counts_where_it_is_named(tmp_path, suffix):
    path = write_labelled(tmp_path / f"a{suffix}", "classification", [0, 0, 0])
    assert "label" not in read_points(path)
    assert read_points(path, label="classification").label.tolist() == [0, 0, 0]
    write_labelled(path, "user_data", [2, 0, 9])
    assert read_points(path, label="user_data").label.tolist() == [2, 0, 9]


@pytest.mark.parametrize("suffix", [".ply", ".pcd", ".npy", ".txt"])
def test_a_named_column_of_labels_must_be_whole_numbers(tmp_path, suffix):
    path = write_labelled(tmp_path / f"a{suffix}", "kind", [1, 0.5, 2])
    assert "label" not in read_points(path)
    with pytest.raises(ValueError, match=rf"a\{suffix}.*its column kind must be whole numbers"):
        read_points(path, label="kind")


def test_a_named_property_of_faces_labels_a_surface(tmp_path):
    path = write_mesh(tmp_path / "a.ply", THREE)
    text = path.read_text().replace("_indices\nend_", "_indices\nproperty uchar kind\nend_")
    path.write_text(text.replace("3 0 1 2", "3 0 1 2 5"))
    assert "label" not in read_points(path)
    assert set(read_points(path, label="kind").label.tolist()) == {5}
    with pytest.raises(ValueError, match="has no column class of labels: expected one of x, y, z"):
        read_points(path, label="class")


def test_named_labels_where_none_can_be(tmp_path):
    for suffix in (".obj", ".off", ".stl"):
        path = write_mesh(tmp_path / f"a{suffix}", THREE)
        with pytest.raises(
            ValueError, match=rf"a\{suffix} has no column label of labels: \{suffix}"
        ):
            read_points(path, label="label")
    np.save(tmp_path / "a.npy", THREE)
    with pytest.raises(ValueError, match=r"a\.npy has no column label of labels: .* x, y, z"):
        read_points(tmp_path / "a.npy", label="label")
    np.save(tmp_path / "b.npy", np.hstack([THREE, [[0], [2], [1]]]))
    assert read_points(tmp_path / "b.npy", label="label").label.tolist() == [0, 2, 1]
    found = read_points(tmp_path / "b.npy", columns="x y z class", label="class")
    assert found.label.tolist() == [0, 2, 1]
