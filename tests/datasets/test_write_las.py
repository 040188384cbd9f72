from __future__ import annotations

import errno
import io

import numpy as np
import pytest

laspy = pytest.importorskip("laspy")
pytest.importorskip("lazrs")

from pointcluster.datasets import write_las as module  # noqa: E402
from pointcluster.datasets.write_las import write_las  # noqa: E402
from tests.datasets.scans import village, write_scan  # noqa: E402

FORMS = [0, 1, 3, 6, 7]


def classes(size):
    return np.random.default_rng(5).integers(0, 32, size).astype(np.uint8)


def copy(source, target, field=None):
    new = classes(len(laspy.read(source)))
    write_las(source, target, lambda begin, end: new[begin:end], field=field)
    return new


@pytest.mark.parametrize("suffix", [".las", ".laz"])
@pytest.mark.parametrize("form", FORMS)
def test_nothing_but_the_class_changes(tmp_path, form, suffix):
    source = write_scan(tmp_path / f"a{suffix}", village(900), form=form, wkt="PROJCS[]")
    new = copy(source, tmp_path / f"b{suffix}")
    one, other = laspy.read(source), laspy.read(tmp_path / f"b{suffix}")
    assert np.array_equal(np.asarray(other.classification), new)
    for name in one.point_format.dimension_names:
        if name != "classification":
            assert np.array_equal(np.asarray(one[name]), np.asarray(other[name])), name
    # header and records to the byte
    start = one.header.offset_to_point_data
    assert source.read_bytes()[:start] == (tmp_path / f"b{suffix}").read_bytes()[:start]


@pytest.mark.parametrize("suffix", [".las", ".laz"])
def test_the_same_classes_give_the_same_points(tmp_path, suffix):
    points = village(900)
    source = write_scan(tmp_path / f"a{suffix}", points)
    write_las(source, tmp_path / f"b{suffix}", lambda begin, end: points["label"][begin:end])
    one, other = laspy.read(source), laspy.read(tmp_path / f"b{suffix}")
    assert one.points.array.tobytes() == other.points.array.tobytes()
    if suffix == ".las":
        assert source.read_bytes() == (tmp_path / "b.las").read_bytes()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("suffixes", [(".las", ".laz"), (".laz", ".las"), (".laz", ".laz")])
def test_an_extra_dimension_and_another_packing(tmp_path, form, suffixes):
    source = write_scan(tmp_path / f"a{suffixes[0]}", village(700), form=form)
    target = tmp_path / f"b{suffixes[1]}"
    new = copy(source, target, "found")
    one, other = laspy.read(source), laspy.read(target)
    assert np.array_equal(np.asarray(other["found"]), new)
    for name in one.point_format.dimension_names:
        assert np.array_equal(np.asarray(one[name]), np.asarray(other[name])), name
    assert [vlr.record_id for vlr in one.header.vlrs if vlr.user_id == "somebody"] == [77]
    # a second time it is replaced
    again = tmp_path / "c.las"
    write_las(target, again, lambda begin, end: np.full(end - begin, 9, np.uint8), field="found")
    assert (np.asarray(laspy.read(again)["found"]) == 9).all()
    assert laspy.read(again).header.point_format.size == other.header.point_format.size


@pytest.mark.parametrize("field", [None, "found"])
@pytest.mark.parametrize("suffix", [".las", ".laz"])
def test_what_stands_behind_the_points_stays(tmp_path, suffix, field):
    source = write_scan(tmp_path / f"a{suffix}", village(500))
    las = laspy.read(source)
    las.evlrs = laspy.vlrs.vlrlist.VLRList()
    for number in (3, 4):
        las.evlrs.append(laspy.VLR("somebody", number, "behind", bytes([number]) * 1000))
    las.write(source)
    copy(source, tmp_path / f"b{suffix}", field)
    found = laspy.read(tmp_path / f"b{suffix}").evlrs
    assert [(each.user_id, each.record_id) for each in found] == [("somebody", 3), ("somebody", 4)]
    assert found[1].record_data == b"\x04" * 1000


def test_what_does_not_fit_leaves_no_file(tmp_path):
    source = write_scan(tmp_path / "a.las", village(100), form=3)
    large = np.full(100, 64, np.uint8)
    with pytest.raises(ValueError, match="class 64 does not fit.*--field"):
        write_las(source, tmp_path / "b.las", lambda a, b: large[a:b])
    with pytest.raises(ValueError, match="has it already, as float32"):
        write_las(source, tmp_path / "b.las", lambda a, b: large[a:b], field="confidence")
    with pytest.raises(ValueError, match="1 to 32 bytes"):
        write_las(source, tmp_path / "b.las", lambda a, b: large[a:b], field="x" * 33)
    (tmp_path / "short.las").write_bytes(source.read_bytes()[:300])
    with pytest.raises(ValueError, match=r"short.las is damaged|short.las announces"):
        write_las(tmp_path / "short.las", tmp_path / "b.las", lambda a, b: large[a:b])
    write_las(source, tmp_path / "b.las", lambda a, b: large[a:b], field="found")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.las", "b.las", "short.las"]


@pytest.mark.parametrize("suffix", [".las", ".laz"])
def test_a_full_disk_is_the_systems_error(tmp_path, monkeypatch, suffix):
    class Full(io.FileIO):
        def write(self, data):
            if self.tell() + len(data) > 4000:
                raise OSError(errno.ENOSPC, "No space left on device", "b")
            return super().write(data)

    source = write_scan(tmp_path / f"a{suffix}", village(2000))
    before = open
    monkeypatch.setattr(
        module, "open", lambda path, mode: Full(path, mode) if "w" in mode else before(path, mode),
        raising=False,
    )  # fmt: skip
    with pytest.raises(OSError, match="No space left"):
        copy(source, tmp_path / f"b{suffix}")
    assert [path.name for path in tmp_path.iterdir()] == [f"a{suffix}"]
