"""Uploads are taken by what they are called and how large they are; nothing is decoded yet."""

from __future__ import annotations

import pytest

from pointcluster.app.source import PICTURES, SCANS, uploaded


@pytest.mark.parametrize("suffix", [*PICTURES, *SCANS])
def test_every_kind_is_taken_whatever_its_case(tmp_path, suffix):
    path = tmp_path / f"a{suffix.upper()}"
    path.write_bytes(b"content")
    source = uploaded(path, 100)
    kind = "picture" if suffix in PICTURES else "scan"
    assert source == (path.name, kind, b"content")


@pytest.mark.parametrize("name", ["a.exe", "a", "a.pkl", "a.py", "a.svg", ".png"])
def test_other_kinds_are_refused_with_what_is_expected(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"content")
    with pytest.raises(ValueError, match=r"not taken here.*\.png.*\.ply"):
        uploaded(path, 100)


@pytest.mark.parametrize("suffix", [".laz", ".pcd", ".zip", ".gz"])
def test_compressed_files_are_refused_with_advice(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"content")
    with pytest.raises(ValueError, match="Unpack it first"):
        uploaded(path, 100)


def test_empty_and_large_files_are_named_without_their_folder(tmp_path):
    path = tmp_path / "a.ply"
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"^a\.ply is empty$"):
        uploaded(path, 100)
    path.write_bytes(b"0" * 2_500_000)
    with pytest.raises(ValueError, match=r"^a\.ply has 2\.5 MB, at most 1 MB are taken$"):
        uploaded(path, 1_000_000)
    assert uploaded(path, 2_500_000).content == b"0" * 2_500_000
