"""Uploads are taken by name and size, nothing is decoded; examples are what is installed."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from pointcluster.app import source as module
from pointcluster.app.source import KINDS, PICTURES, SCANS, examples, thumbnail, uploaded


@pytest.mark.parametrize("suffix", [*PICTURES, *SCANS, ".las", ".laz"])
def test_every_kind_is_taken_whatever_its_case(tmp_path, suffix):
    path = tmp_path / f"a{suffix.upper()}"
    path.write_bytes(b"content")
    source = uploaded(path)
    kind = "picture" if suffix in PICTURES else "scan" if suffix in SCANS else "scene"
    assert source == (path.name, kind, b"content") and KINDS[suffix] == kind
    assert source.is_upload and not path.exists()


@pytest.mark.parametrize("name", ["a.exe", "a", "a.pkl", "a.py", "a.svg", ".png"])
def test_other_kinds_are_refused_with_what_is_expected(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"content")
    with pytest.raises(ValueError, match=r"not taken here.*\.png.*\.ply.*\.laz"):
        uploaded(path)
    assert not path.exists()


@pytest.mark.parametrize("suffix", [".pcd", ".zip", ".gz"])
def test_compressed_files_are_refused_with_advice(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"content")
    with pytest.raises(ValueError, match="Unpack it first"):
        uploaded(path)


def test_empty_files_are_named_without_their_folder(tmp_path):
    path = tmp_path / "a.ply"
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"^a\.ply is empty$"):
        uploaded(path)


def test_scans_are_test_clouds_of_different_classes():
    found = examples()["scan"]
    assert len(found) == 8 and len({each.name for each in found}) == 8
    assert all(each.kind == "scan" and each.content.pos.shape == (2048, 3) for each in found)


def test_pictures_are_one_of_each_class_and_photographs_that_are_there():
    found = examples()["picture"]
    clothes = [each for each in found if "Fashion-MNIST" in each.name]
    assert len(clothes) == 10 and all(each.content.size == (28, 28) for each in clothes)
    photographs = [each.name for each in found if each not in clothes]
    assert ("cat (skimage)" in photographs) == (importlib.util.find_spec("skimage") is not None)


def test_the_scene_is_the_scan_that_came_along():
    pytest.importorskip("lazrs")
    (found,) = examples()["scene"]
    assert found.name == "autzen.laz" and not found.is_upload
    assert thumbnail(found, 40).size == (40, 40)


def test_what_is_not_there_is_left_out(monkeypatch):
    def missing(**options):
        raise FileNotFoundError

    monkeypatch.setattr(module, "FashionMNIST", missing)
    monkeypatch.setattr(module, "HomeObjects", missing)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert examples() == {"scan": [], "picture": [], "scene": []}


@pytest.mark.parametrize("number", [0, 3])
def test_thumbnails_are_square_and_not_empty(number):
    for source in (examples()["scan"][number], examples()["picture"][number]):
        image = thumbnail(source, 64)
        assert image.size == (64, 64) and image.mode == "RGB"
        assert len(np.unique(np.asarray(image))) > 10
