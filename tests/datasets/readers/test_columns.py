from __future__ import annotations

import numpy as np
import pytest
import torch

from pointcluster.datasets import read_points

ROWS = np.array([[0.0, 1, 2], [3, 4, 5.5], [-1e-3, 7, 8], [1, 0, 0]])
NORMALS = np.array([[0.0, 0, 1], [0, 1, 0], [0.6, 0.8, 0], [-1, 0, 0]])
COLORS = np.array([[0, 128, 255], [1, 2, 3], [0, 0, 0], [9, 9, 9]])


def write(path, *columns, delimiter=" ", header=""):
    np.savetxt(path, np.hstack(columns), "%.6g", delimiter, header=header, comments="")
    return path


def close(found, expected):
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


def test_normals_and_colours_are_told_apart(tmp_path):
    data = read_points(write(tmp_path / "a.txt", ROWS, NORMALS, delimiter=","))
    close(data.normal, NORMALS)
    assert "color" not in data
    data = read_points(write(tmp_path / "a.xyz", ROWS, COLORS))
    close(data.color, COLORS / 255)
    assert "normal" not in data
    close(read_points(write(tmp_path / "b.xyz", ROWS, COLORS / 255)).color, COLORS / 255)
    close(read_points(write(tmp_path / "a.xyzrgb", ROWS, NORMALS**2)).color, NORMALS**2)
    close(read_points(write(tmp_path / "a.xyzn", ROWS, 3 * NORMALS)).normal, NORMALS)


def world(data):
    return (data.pos.double() + torch.tensor(data.origin, dtype=torch.float64)).tolist()


def read(tmp_path, table, suffix=".txt", **options):
    path = tmp_path / f"a{suffix}"
    if suffix == ".npy":
        np.save(path, np.array(table, dtype=np.float64))
    else:
        path.write_text("\n".join(" ".join(f"{v:g}" for v in row) for row in table))
    return read_points(path, **options)


@pytest.mark.parametrize("suffix", [".txt", ".npy"])
@pytest.mark.parametrize(("rows", "fields"), [
    ([[1, 2, 3, 5]], {"label": [5]}),
    ([[1, 2, 3, 0.5], [1, 2, 4, 7]], {}),  # an intensity
    ([[1, 2, 3, 0, 0, 1], [4, 5, 6, 0, 0, 0]], None),  # pure colours, or normals and none
    ([[1, 2, 3, 0, -1, 0], [4, 5, 6, 0, 0, 0]], {"normal": [[0, -1, 0], [0, 0, 0]]}),
    ([[1, 2, 3, 0, 0.6, 0.8, 4]], {"normal": [[0, 0.6, 0.8]], "label": [4]}),
    ([[1, 2, 3, 0, 0.6, -0.8, 4]], {"normal": [[0, 0.6, -0.8]], "label": [4]}),
    ([[1, 2, 3, 200, 100, 50, 300]], {"color": [[200 / 255, 100 / 255, 50 / 255]], "label": [300]}),
    ([[1, 2, 3, 900, 100, 50, 7]], {"color": [[100 / 255, 50 / 255, 7 / 255]]}),  # an intensity
    ([[1, 2, 3, 900, 0, 0.6, -0.8]], {"normal": [[0, 0.6, -0.8]]}),
    ([[1, 2, 3, 0.5, 0, 0.6, 0.8]], None),  # an intensity, and a normal or a colour
    ([[1, 2, 3, 0.1, 100, 50, 7.5]], {"color": [[100 / 255, 50 / 255, 7.5 / 255]]}),
    ([[1, 2, 3, 900, 255, 51, 0, 7]], {"color": [[1, 0.2, 0]], "label": [7]}),
    ([[1, 2, 3, 0, 0.6, -0.8, 0.5, 7]], {"normal": [[0, 0.6, -0.8]], "label": [7]}),
    ([[1, 2, 3, 200, 100, 51, 0.5, 7]], None),  # an intensity of 200, or a number before the label
    ([[1, 2, 3, 200, 100, 50, 7, 12]], None),  # a label and an instance, or an intensity
    ([[1, 2, 3, 0, 0.6, 0.8, 7, 12]], None),  # a label and an instance, in one order or the other
    ([[1, 2, 3, 0, 0.6, 0.8, 255, 51, 0]], {"color": [[1, 0.2, 0]], "normal": [[0, 0.6, 0.8]]}),
    ([[1, 2, 3, 255, 51, 0, 0, 0.6, 0.8, 9]],
     {"color": [[1, 0.2, 0]], "normal": [[0, 0.6, 0.8]], "label": [9]}),
], ids=str)  # fmt: skip
def test_columns_are_told_apart_by_what_they_hold(tmp_path, suffix, rows, fields):
    if fields is None:  # ambiguous
        with pytest.raises(
            ValueError, match=r"a\.\w+: its \d columns may be 'x y z .*' or 'x y z "
        ):
            read(tmp_path, rows, suffix)
        return
    data = read(tmp_path, rows, suffix)
    assert world(data) == [row[:3] for row in rows]
    for field in ("normal", "color", "label"):
        assert (field in data) == (field in fields)
        if field in fields:
            np.testing.assert_allclose(data[field].numpy(), fields[field], atol=1e-6)
    if "label" in fields:
        assert data.label.dtype == torch.int64


@pytest.mark.parametrize("suffix", [".txt", ".npy"])
def test_colours_and_a_label_or_an_intensity_and_colours(tmp_path, suffix):
    """S3DIS has the first; both are possible, so neither is guessed."""
    rows = [[1, 2, 3, 200, 100, 50, 7]]
    message = (
        "may be 'x y z r g b label' or 'x y z intensity r g b'.*Say what they are, by columns="
    )
    with pytest.raises(ValueError, match=message):
        read(tmp_path, rows, suffix)
    data = read(tmp_path, rows, suffix, columns="x y z r g b label")
    np.testing.assert_allclose(data.color.numpy(), [[200 / 255, 100 / 255, 50 / 255]], atol=1e-6)
    assert data.label.tolist() == [7]
    data = read(tmp_path, rows, suffix, columns="x,y,z,intensity,r,g,b")
    np.testing.assert_allclose(data.color.numpy(), [[100 / 255, 50 / 255, 7 / 255]], atol=1e-6)
    assert "label" not in data
    data = read(tmp_path, rows, suffix, columns="- x y z - - label")
    assert world(data) == [[2, 3, 200]] and data.label.tolist() == [7]


@pytest.mark.parametrize(("columns", "message"), [
    ("x y z", r"a\.txt: columns= names 3 columns .* and the file has 7"),
    ("x y x z - - -", "names two columns x"),
    ("x y r g b - -", "expected x, y and z"),
    ("x y z nx ny mz label", "mz is no known column, expected x y z nx"),
    ("x y z nx ny - label", "expected all of nx, ny, nz or none"),
    ("x y z red green - label", "expected all of red, green, blue or none"),
    ("", "expected x, y and z"),
])  # fmt: skip
def test_columns_that_do_not_fit(tmp_path, columns, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, [[1, 2, 3, 200, 100, 50, 7]], columns=columns)


def test_columns_go_with_tables(tmp_path):
    (tmp_path / "a.ply").write_text("ply\n")
    with pytest.raises(ValueError, match="says itself what it holds"):
        read_points(tmp_path / "a.ply", columns="x y z")


def test_labels_that_are_no_whole_numbers(tmp_path):
    (tmp_path / "a.txt").write_text("x y z label\n1 2 3 0.5\n")
    with pytest.raises(ValueError, match=r"a\.txt: its column label must be whole numbers"):
        read_points(tmp_path / "a.txt")


@pytest.mark.parametrize("head", ["", "x y z nx ny nz label\n"])
def test_points_without_a_position_say_nothing_of_the_columns(tmp_path, head):
    nothing = " ".join(["nan"] * 7)
    (tmp_path / "a.txt").write_text(f"{head}1 2 3 0 -1 0 5\n{nothing}\n1 2 4 0 1 0 6\n")
    data = read_points(tmp_path / "a.txt", drop_invalid=True)
    assert world(data) == [[1, 2, 3], [1, 2, 4]]
    assert data.normal.tolist() == [[0, -1, 0], [0, 1, 0]] and data.label.tolist() == [5, 6]
    with pytest.raises(ValueError, match="1 of 3 points have a NaN"):
        read_points(tmp_path / "a.txt")


@pytest.mark.parametrize("strays", [1, 300, 450])
def test_stray_points_cost_no_other_its_detail(tmp_path, strays):
    rng = np.random.default_rng(0)
    scan = np.array([500000, 5400000, 100]) + rng.uniform(-5, 5, (1000, 3))
    np.save(tmp_path / "a.npy", np.vstack([scan, np.zeros((strays, 3))]))
    data = read_points(tmp_path / "a.npy")
    world = data.pos.double().numpy() + np.array(data.origin)
    assert np.abs(world[:1000] - scan).max() < 1e-3
    assert np.abs(world[1000:]).max() < 1.0
