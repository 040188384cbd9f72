from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from pointcluster.datasets import read_points
from pointcluster.datasets.point_tables import may_be_table, read_npy

ROWS = np.array([[0.0, 1, 2], [3, 4, 5.5], [-1e-3, 7, 8], [1, 0, 0]])
NORMALS = np.array([[0.0, 0, 1], [0, 1, 0], [0.6, 0.8, 0], [-1, 0, 0]])
COLORS = np.array([[0, 128, 255], [1, 2, 3], [0, 0, 0], [9, 9, 9]])


def write(path, *columns, delimiter=" ", header=""):
    np.savetxt(path, np.hstack(columns), "%.6g", delimiter, header=header, comments="")
    return path


def close(found, expected):
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("suffix", [".xyz", ".txt", ".csv", ".pts", ".XYZ"])
@pytest.mark.parametrize("delimiter", [" ", "\t", ",", "; "])
def test_three_and_four_columns(tmp_path, suffix, delimiter):
    for more in ([], [ROWS[:, :1]]):
        data = read_points(write(tmp_path / f"a{suffix}", ROWS, *more, delimiter=delimiter))
        close(data.pos, ROWS)
        assert "normal" not in data and "color" not in data and data.origin == (0.0, 0.0, 0.0)


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


def test_pts_with_a_count_and_an_intensity(tmp_path):
    data = read_points(write(tmp_path / "a.pts", ROWS, ROWS[:, :1], COLORS, header="4"))
    close(data.pos, ROWS)
    close(data.color, COLORS / 255)
    write(tmp_path / "a.pts", ROWS, header="5")
    with pytest.raises(ValueError, match=r"a\.pts announces 5 points and holds 4"):
        read_points(tmp_path / "a.pts")


@pytest.mark.parametrize("mark", ["", "#", "// ", "//"])
def test_names_of_columns_count(tmp_path, mark):
    table = [ROWS[:, [2, 0, 1]], COLORS, ROWS[:, :1], NORMALS]
    header = mark + "Z,X,Y,Red,Green,Blue,time,Nx,Ny,Nz"
    data = read_points(write(tmp_path / "a.csv", *table, delimiter=",", header=header))
    close(data.pos, ROWS)
    close(data.color, COLORS / 255)
    close(data.normal, NORMALS)


def test_comments_and_byte_order_marks_are_passed_over(tmp_path):
    (tmp_path / "a.xyz").write_text("\ufeff# a scan\n\n// of mine\n1 2 3\n# more\n4 5 6\n")
    close(read_points(tmp_path / "a.xyz").pos, [[1, 2, 3], [4, 5, 6]])


@pytest.mark.parametrize("mark", ["#", " // "])
@pytest.mark.parametrize("delimiter", [" ", ","])
def test_a_comment_may_stand_behind_any_row(tmp_path, mark, delimiter):
    rows = [delimiter.join(row) + f"{mark} one, of; two" for row in ("xyz", "123", "456")]
    for count in (3, 2):
        (tmp_path / "a.xyz").write_text("\n".join(rows[-count:]))
        close(read_points(tmp_path / "a.xyz").pos, [[1, 2, 3], [4, 5, 6]])


@pytest.mark.parametrize("quote", ['"', "'"])
def test_names_of_columns_may_stand_in_quotes(tmp_path, quote):
    names = [f"{quote}{name}{quote}" for name in ("Z", "x", "y", "nx", "ny", "nz")]
    (tmp_path / "a.csv").write_text(",".join(names) + "\n3,1,2,0,0,1\n6,4,5,0,1,0\n")
    data = read_points(tmp_path / "a.csv")
    close(data.pos, [[1, 2, 3], [4, 5, 6]])
    close(data.normal, [[0, 0, 1], [0, 1, 0]])


@pytest.mark.parametrize("mark", ["#", "// "])
@pytest.mark.parametrize("text", ["Stra\xdfe, 3 \xb0", "\x85 1 2 3"])  # \x85 may end a line
def test_comments_of_another_encoding_are_passed_over(tmp_path, mark, text):
    content = f"{mark}{text}\n{mark}x y z Red Green Blue {text}"
    content = content.removesuffix(text) + f"\n1 2 3 0 0 255\n4 5 6 255 0 0 {mark}{text}\n"
    (tmp_path / "a.xyz").write_bytes(content.encode("latin-1"))
    data = read_points(tmp_path / "a.xyz")
    close(data.pos, [[1, 2, 3], [4, 5, 6]])
    close(data.color, [[0, 0, 1], [1, 0, 0]])


@pytest.mark.parametrize("row", ["4 5 6\xb2", "4 5\xa06", "\xdf 5 6"])
def test_numbers_of_another_encoding_are_refused(tmp_path, row):
    (tmp_path / "a.xyz").write_bytes(f"# \xe9\n1 2 3\n{row}\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"a\.xyz is no text"):
        read_points(tmp_path / "a.xyz")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1 2\n3 4\n", "has 2 columns, expected 3 columns"),
        ("1 2 3 4 5\n", "has 5 columns"),
        ("1 2 3\n4 5\n", "no table of numbers"),
        ("1 2 3\n4 5 six\n", "no table of numbers"),
        ("1 2 3 -7 0 900\n", "neither normals of length 1 nor colours"),
        ("# nothing\n\n", "holds no points"),
        ("some prose, and more\n1 2 3\n", "is no table of points: it begins with 'some prose"),
        ("x,y,z\n1,2,3,4\n", r"names 3 columns \(x, y, z\) and has 4"),
        ("x,y,z,x\n1,2,3,4\n", "names two columns x, expected one"),
        ("# x y z nx ny nz NX\n1 2 3 0 0 1 4\n", "names two columns nx"),
        ("x y z\n", "holds no points"),
        ("1,2,3,\n", "end with a comma"),
        ("x,y,z,r,g,b\n1,2,3,-1,0,0\n", "colours go from -1 to 0"),
    ],
)
def test_bad_tables(tmp_path, content, message):
    (tmp_path / "a.xyz").write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_points(tmp_path / "a.xyz")
    assert "a.xyz" in str(caught.value)


def test_wrong_width_of_a_suffix_that_says_it(tmp_path):
    for suffix in (".xyzn", ".xyzrgb"):
        with pytest.raises(ValueError, match="has 3 columns, expected 6"):
            read_points(write(tmp_path / f"a{suffix}", ROWS))


@pytest.mark.parametrize("content", [b"\x93NUMPY\xff\xfe", b"1 2 3\n\0\0\0"])
def test_no_text(tmp_path, content):
    (tmp_path / "a.xyz").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.xyz is no text"):
        read_points(tmp_path / "a.xyz")


# --- .npy ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32", "uint8", ">f8"])
def test_arrays(tmp_path, dtype):
    table = np.abs(ROWS).astype(dtype)
    np.save(tmp_path / "a.npy", table)
    close(read_points(tmp_path / "a.npy").pos, table.astype(float))


def test_arrays_with_normals_and_structured_ones(tmp_path):
    np.save(tmp_path / "a.npy", np.hstack([ROWS, NORMALS]))
    close(read_points(tmp_path / "a.npy").normal, NORMALS)
    fields = [(name, "f4") for name in "xyz"] + [(name, "u1") for name in ("red", "green", "blue")]
    table = np.zeros(4, fields)
    for index, name in enumerate("xyz"):
        table[name] = ROWS[:, index]
    for index, name in enumerate(("red", "green", "blue")):
        table[name] = np.minimum(COLORS[:, index], 1)  # dark, and yet counted to 255
    np.save(tmp_path / "a.npy", table)
    data = read_points(tmp_path / "a.npy")
    close(data.pos, ROWS)
    close(data.color, np.minimum(COLORS, 1) / 255)


def test_objects_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[1, "2", None]], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"a\.npy is refused: it holds Python objects"):
        read_points(tmp_path / "a.npy")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (ROWS[0], r"is float64 \[3\], expected numbers \[points, 3\]"),
        (ROWS[None], r"is float64 \[1, 4, 3\]"),
        (ROWS.astype(complex), "is complex128"),
        (ROWS > 0, "is bool"),
        (ROWS.astype(str), "is <U"),
        (ROWS[:, :2], "has 2 columns"),
        (ROWS[:0], "holds no points"),
        (np.zeros(3, [("x", "f4"), ("y", "f4")]), "columns x, y, expected x, y and z"),
        (np.zeros(3, [("x", "f4"), ("y", "f4"), ("z", "U3")]), "x, y, z must be numbers"),
        (np.zeros(3, [(name, "f4") for name in "xyzX"]), "names two columns x"),
    ],
)
def test_bad_arrays(tmp_path, array, message):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(ValueError, match=message):
        read_points(tmp_path / "a.npy")


@pytest.mark.parametrize("keep", [5, 60, 150])
def test_truncated_array(tmp_path, keep):
    np.save(tmp_path / "a.npy", ROWS)
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"a\.npy is (truncated|refused)"):
        read_points(tmp_path / "a.npy")


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize(
    ("shape", "kind", "message"),
    [
        ((10**12, 3), "<f8", "announces 1,000,000,000,000 points and holds 4"),
        ((5, 3), "<f8", "announces 5 points and holds 4"),
        ((4, 10**12), "<f8", "announces 4 points and holds 0"),
        ((10**30,), [(name, "<f4") for name in "xyz"], "announces 1,.* and holds 8"),
        ((-1, 3), "<f8", "announces -1 points"),
    ],
)
def test_a_header_that_cannot_be_true_takes_no_memory(tmp_path, version, shape, kind, message):
    header = {"descr": kind, "fortran_order": False, "shape": shape}
    with (tmp_path / "a.npy").open("wb") as file:
        text = repr(header).encode() + b"\n"
        length = len(text).to_bytes(2 if version == (1, 0) else 4, "little")
        file.write(np.lib.format.magic(*version) + length + text + ROWS.tobytes())
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=rf"a\.npy is truncated .* it {message}"):
            read_points(tmp_path / "a.npy")
        assert tracemalloc.get_traced_memory()[1] < 1e6
    finally:
        tracemalloc.stop()


def test_archive_of_arrays(tmp_path):
    np.savez(tmp_path / "a.npz", pos=ROWS)
    (tmp_path / "a.npz").rename(tmp_path / "a.npy")
    with pytest.raises(ValueError, match="is an archive of arrays"):
        read_points(tmp_path / "a.npy")


def test_a_sign_of_comments_that_begins_a_name(tmp_path):
    (tmp_path / "a.csv").write_text("x,y,z,#returns\n1,2,3,4\n2,3,4,5\n5,6,7,8\n")
    assert read_points(tmp_path / "a.csv").pos.tolist() == [[1, 2, 3], [2, 3, 4], [5, 6, 7]]


def test_notes_are_no_tables(tmp_path):
    for number, (text, expected) in enumerate(
        [
            ("Scans of cups; columns x y z, in metres\n\nBy hand.\n", False),
            ("# x y z\n1 2 3\n", True),
            ("x,y,z\n\n1,2,3\n", True),
            ("x y z\n", False),
            ("1 2\n", False),
            ("a list\n", False),
        ]
    ):
        path = tmp_path / f"{number}.txt"
        path.write_text(text)
        assert may_be_table(path) is expected, text


def test_any_damaged_header_of_an_array_is_an_error_that_names_the_file(tmp_path):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).random((20, 3)))
    whole = bytearray((tmp_path / "a.npy").read_bytes())
    rng = np.random.default_rng(1)
    for _ in range(400):
        content = bytearray(whole)
        content[rng.integers(6, 100)] = rng.integers(256)
        (tmp_path / "a.npy").write_bytes(content)
        try:
            read_npy(tmp_path / "a.npy")
        except ValueError as error:
            assert "a.npy" in str(error)
