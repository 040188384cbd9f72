from __future__ import annotations

import numpy as np
import pytest
import torch

from pointcluster.datasets import read_points
from pointcluster.datasets.readers.text import may_be_table

ROWS = np.array([[0.0, 1, 2], [3, 4, 5.5], [-1e-3, 7, 8], [1, 0, 0]])
NORMALS = np.array([[0.0, 0, 1], [0, 1, 0], [0.6, 0.8, 0], [-1, 0, 0]])
COLORS = np.array([[0, 128, 255], [1, 2, 3], [0, 0, 0], [9, 9, 9]])


def write(path, *columns, delimiter=" ", header=""):
    np.savetxt(path, np.hstack(columns), "%.6g", delimiter, header=header, comments="")
    return path


def close(found, expected):
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


def world(data):
    return (data.pos.double() + torch.tensor(data.origin, dtype=torch.float64)).tolist()


@pytest.mark.parametrize("suffix", [".xyz", ".txt", ".csv", ".pts", ".XYZ"])
@pytest.mark.parametrize("delimiter", [" ", "\t", ",", "; "])
def test_three_and_four_columns(tmp_path, suffix, delimiter):
    for more in ([], [ROWS[:, :1]]):
        data = read_points(write(tmp_path / f"a{suffix}", ROWS, *more, delimiter=delimiter))
        close(data.pos, ROWS)
        assert "normal" not in data and "color" not in data and data.origin == (0.0, 0.0, 0.0)


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


def test_columns_come_before_a_first_line(tmp_path):
    (tmp_path / "a.csv").write_text("east,north,height,kind\n1,2,3,4\n")
    with pytest.raises(ValueError, match=r"a\.csv is no table of points.*columns= names them"):
        read_points(tmp_path / "a.csv")
    data = read_points(tmp_path / "a.csv", columns="x y z label")
    assert world(data) == [[1, 2, 3]] and data.label.tolist() == [4]
