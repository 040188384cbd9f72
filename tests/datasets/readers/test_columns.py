from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch

from pointcluster.datasets import read_points
from pointcluster.datasets.readers.npy import read_npy
from pointcluster.datasets.readers.text import may_be_table

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
        ("1 2\n3 4\n", "its 2 columns are not 3, 4, 6"),
        ("1 2 3 4 5\n", "its 5 columns are not"),
        ("1 2 3\n4 5\n", "no table of numbers"),
        ("1 2 3\n4 5 six\n", "no table of numbers"),
        ("1 2 3 -7 0 900\n", "normals have length 1, colours go from 0"),
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
        (ROWS[:, :2], "its 2 columns"),
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


# What columns without names are ------------------------------------------------------------------


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


@pytest.mark.parametrize(("text", "fields"), [
    ("//X,Y,Z,R,G,B,Original cloud index\n1,2,3,255,51,0,1.0\n", {"color": [[1, 0.2, 0]]}),
    ("//X Y Z Rf Gf Bf\n1 2 3 1.0 0.2 0\n", {"color": [[1, 0.2, 0]]}),
    ("X;Y;Z\n1,0;2,0;3,0\n", {}),
    ("1,0;2,0;3,0\n", {}),
    ("1;2;3\n1,5;2;3\n", {}),
    ("1,0\t2,0\t3\n", {}),
    ("1 2,0 3,0 # one, of 1.5\n", {}),
    ("1, 2, 3\n", {}),
    ("1 ,2 ,3\n", {}),
    ("x y z Classification\n1 2 3 6\n", {"label": [6]}),
    ("x,y,z,nx,ny,nz,label\n1,2,3,0,0,1,4\n", {"normal": [[0, 0, 1]], "label": [4]}),
], ids=str)  # fmt: skip
def test_tables_as_other_programs_write_them(tmp_path, text, fields):
    (tmp_path / "a.txt").write_text(text)
    data = read_points(tmp_path / "a.txt")
    assert world(data)[0] == [1, 2, 3]
    for field in ("normal", "color", "label"):
        assert (field in data) == (field in fields)
        if field in fields:
            np.testing.assert_allclose(data[field].numpy(), fields[field], atol=1e-6)


def test_labels_that_are_no_whole_numbers(tmp_path):
    (tmp_path / "a.txt").write_text("x y z label\n1 2 3 0.5\n")
    with pytest.raises(ValueError, match=r"a\.txt: its column label must be whole numbers"):
        read_points(tmp_path / "a.txt")


def test_structured_arrays_keep_labels_and_refuse_fields_of_several_numbers(tmp_path):
    kind = [("x", "f8"), ("y", "f8"), ("z", "f8"), ("class", "u1")]
    np.save(tmp_path / "a.npy", np.array([(1, 2, 3, 250)], kind))
    assert read_points(tmp_path / "a.npy").label.tolist() == [250]
    np.save(tmp_path / "b.npy", np.zeros(4, [("pos", "f8", 3), ("x", "f8")]))
    with pytest.raises(ValueError, match=r"b\.npy: its field pos holds \[3\] numbers a point"):
        read_points(tmp_path / "b.npy")


def test_a_header_of_minus_signs_names_the_file(tmp_path):
    head = b"{'descr': '<f8', 'fortran_order': False, 'shape': (" + b"-" * 6000 + b"1, 3), }"
    head += b" " * (-(len(head) + 11) % 64) + b"\n"
    data = b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head
    (tmp_path / "a.npy").write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.npy is truncated or is no \.npy file"):
        read_points(tmp_path / "a.npy")


def test_memory_that_is_short_is_no_damaged_array(tmp_path, monkeypatch):
    def load(*args, **options):
        raise MemoryError

    np.save(tmp_path / "a.npy", ROWS)
    monkeypatch.setattr(np, "load", load)
    with pytest.raises(MemoryError):
        read_points(tmp_path / "a.npy")


def test_decimal_points_and_commas_in_one_table_are_refused(tmp_path):
    (tmp_path / "a.csv").write_text("1.5;2;3\n1,234.5;2;3\n")
    with pytest.raises(ValueError, match=r"a\.csv is no table of numbers"):
        read_points(tmp_path / "a.csv")


def test_a_pts_file_that_announces_its_points_has_intensities(tmp_path):
    """As scanners write it: whole intensities are neither labels nor red."""
    (tmp_path / "a.pts").write_text("1\n1 2 3 12 255 51 0\n")
    data = read_points(tmp_path / "a.pts")
    np.testing.assert_allclose(data.color.numpy(), [[1, 0.2, 0]], atol=1e-6)
    assert "label" not in data
    (tmp_path / "b.pts").write_text("1\n1 2 3 12\n")
    assert "label" not in read_points(tmp_path / "b.pts")


@pytest.mark.parametrize("head", ["", "x y z nx ny nz label\n"])
def test_points_without_a_position_say_nothing_of_the_columns(tmp_path, head):
    nothing = " ".join(["nan"] * 7)
    (tmp_path / "a.txt").write_text(f"{head}1 2 3 0 -1 0 5\n{nothing}\n1 2 4 0 1 0 6\n")
    data = read_points(tmp_path / "a.txt", drop_invalid=True)
    assert world(data) == [[1, 2, 3], [1, 2, 4]]
    assert data.normal.tolist() == [[0, -1, 0], [0, 1, 0]] and data.label.tolist() == [5, 6]
    with pytest.raises(ValueError, match="1 of 3 points have a NaN"):
        read_points(tmp_path / "a.txt")


def test_columns_come_before_a_first_line(tmp_path):
    (tmp_path / "a.csv").write_text("east,north,height,kind\n1,2,3,4\n")
    with pytest.raises(ValueError, match=r"a\.csv is no table of points.*columns= names them"):
        read_points(tmp_path / "a.csv")
    data = read_points(tmp_path / "a.csv", columns="x y z label")
    assert world(data) == [[1, 2, 3]] and data.label.tolist() == [4]


@pytest.mark.parametrize("strays", [1, 300, 450])
def test_stray_points_cost_no_other_its_detail(tmp_path, strays):
    rng = np.random.default_rng(0)
    scan = np.array([500000, 5400000, 100]) + rng.uniform(-5, 5, (1000, 3))
    np.save(tmp_path / "a.npy", np.vstack([scan, np.zeros((strays, 3))]))
    data = read_points(tmp_path / "a.npy")
    world = data.pos.double().numpy() + np.array(data.origin)
    assert np.abs(world[:1000] - scan).max() < 1e-3
    assert np.abs(world[1000:]).max() < 1.0
