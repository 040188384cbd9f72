from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from pointcluster.datasets import read_points
from pointcluster.datasets.readers.npy import read_npy

ROWS = np.array([[0.0, 1, 2], [3, 4, 5.5], [-1e-3, 7, 8], [1, 0, 0]])
NORMALS = np.array([[0.0, 0, 1], [0, 1, 0], [0.6, 0.8, 0], [-1, 0, 0]])
COLORS = np.array([[0, 128, 255], [1, 2, 3], [0, 0, 0], [9, 9, 9]])


def write(path, *columns, delimiter=" ", header=""):
    np.savetxt(path, np.hstack(columns), "%.6g", delimiter, header=header, comments="")
    return path


def close(found, expected):
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


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
    ("shape", "kind"),
    [
        ((10**12, 3), "<f8"),
        ((5, 3), "<f8"),
        ((4, 10**12), "<f8"),
        ((10**30,), [(name, "<f4") for name in "xyz"]),
        ((-1, 3), "<f8"),
    ],
)
def test_a_header_that_cannot_be_true_takes_no_memory(tmp_path, version, shape, kind):
    header = {"descr": kind, "fortran_order": False, "shape": shape}
    with (tmp_path / "a.npy").open("wb") as file:
        text = repr(header).encode() + b"\n"
        length = len(text).to_bytes(2 if version == (1, 0) else 4, "little")
        file.write(np.lib.format.magic(*version) + length + text + ROWS.tobytes())
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"a\.npy is truncated or is no"):
            read_points(tmp_path / "a.npy")
        assert tracemalloc.get_traced_memory()[1] < 1e6
    finally:
        tracemalloc.stop()


def test_archive_of_arrays(tmp_path):
    np.savez(tmp_path / "a.npz", pos=ROWS)
    (tmp_path / "a.npz").rename(tmp_path / "a.npy")
    with pytest.raises(ValueError, match="is an archive of arrays"):
        read_points(tmp_path / "a.npy")


def test_any_damaged_header_of_an_array_is_an_error_that_names_the_file(tmp_path):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).random((20, 3)))
    whole = bytearray((tmp_path / "a.npy").read_bytes())
    rng = np.random.default_rng(1)
    for _ in range(150):
        content = bytearray(whole)
        content[rng.integers(6, 100)] = rng.integers(256)
        (tmp_path / "a.npy").write_bytes(content)
        try:
            read_npy(tmp_path / "a.npy")
        except ValueError as error:
            assert "a.npy" in str(error)


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
    def array(*args, **options):
        raise MemoryError

    np.save(tmp_path / "a.npy", ROWS)
    monkeypatch.setattr(np, "array", array)
    with pytest.raises(MemoryError):
        read_points(tmp_path / "a.npy")
