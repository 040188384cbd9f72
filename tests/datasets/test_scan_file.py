from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("laspy")
pytest.importorskip("lazrs")

from pointcluster.datasets.scan_file import ScanFile
from tests.datasets.scans import ORIGIN, village, write_scan

FEET = 'PROJCS["p",GEOGCS["g",UNIT["degree",0.0174532925]],UNIT["{}",{}]]'


def together(scan, size=700):
    parts = list(scan.pieces(size))
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


@pytest.mark.parametrize("suffix", [".las", ".laz"])
@pytest.mark.parametrize("form", [1, 6, 7])
def test_pieces_are_the_scan(tmp_path, suffix, form):
    points = village(1500)
    scan = ScanFile(write_scan(tmp_path / f"a{suffix}", points, form=form))
    found = together(scan)
    assert scan.num_points == 1500 and scan.is_las and scan.said_unit is None
    np.testing.assert_allclose(found["pos"] + scan.origin, points["pos"], atol=6e-4)
    for name in ("label", "intensity", "return_number", "number_of_returns"):
        assert np.array_equal(found[name], points[name])
    assert ("color" in found) == (form == 7)


@pytest.mark.parametrize(
    ("unit", "metres", "name"),
    [("foot", 0.3048, "foot"), ("US survey foot", 0.304800609601219, "us-foot"),
     ("metre", 1, "metre")],
)  # fmt: skip
def test_units_are_those_of_the_file_or_given(tmp_path, unit, metres, name):
    points = village(50)
    path = write_scan(tmp_path / "a.las", points, wkt=FEET.format(unit, metres))
    scan = ScanFile(path)
    assert scan.said_unit == name
    found = next(scan.pieces())["pos"] + scan.origin
    np.testing.assert_allclose(found, points["pos"] * metres, rtol=0, atol=1e-3)
    as_given = ScanFile(path, unit="metre")
    np.testing.assert_allclose(
        next(as_given.pieces())["pos"] + as_given.origin, points["pos"], rtol=0, atol=1e-3
    )
    with pytest.raises(ValueError, match="unit is 'mile'"):
        ScanFile(path, unit="mile")


def test_degrees_are_refused(tmp_path):
    path = write_scan(tmp_path / "a.las", village(50), wkt='GEOGCS["g",UNIT["degree",0.0174]]')
    with pytest.raises(ValueError, match="degrees.*project it"):
        ScanFile(path)
    assert ScanFile(path, unit="metre").num_points == 50


def test_other_formats_are_read_as_a_whole(tmp_path):
    table = np.column_stack([village(60)["pos"], village(60)["label"]])
    np.save(tmp_path / "a.npy", table)
    scan = ScanFile(tmp_path / "a.npy", columns="x y z label")
    found = together(scan, 25)
    np.testing.assert_allclose(found["pos"] + scan.origin, table[:, :3], atol=1e-5)
    assert np.array_equal(found["label"], table[:, 3]) and not scan.is_las


def test_damaged_and_empty_files(tmp_path):
    path = write_scan(tmp_path / "a.laz", village(2000))
    (tmp_path / "b.laz").write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(ValueError, match="b.laz"):
        together(ScanFile(tmp_path / "b.laz"))
    (tmp_path / "c.las").write_bytes(b"LASF")
    with pytest.raises(ValueError, match="c.las is damaged"):
        ScanFile(tmp_path / "c.las")
    none = write_scan(tmp_path / "d.las", village(0))
    with pytest.raises(ValueError, match="d.las holds no points"):
        ScanFile(none)
    assert ORIGIN.shape == (3,)
