"""Examples come from what is installed, and nothing is fetched."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from pointcluster.app import examples
from pointcluster.app.examples import example_pictures, example_scans, thumbnail


def test_scans_are_test_clouds_of_different_classes():
    found = example_scans()
    assert len(found) == 8 and len({each.name for each in found}) == 8
    assert all(each.kind == "scan" and each.content.pos.shape == (2048, 3) for each in found)


def test_pictures_are_one_of_each_class_and_photographs_that_are_there():
    found = example_pictures()
    clothes = [each for each in found if "Fashion-MNIST" in each.name]
    assert len(clothes) == 10 and all(each.content.size == (28, 28) for each in clothes)
    photographs = [each.name for each in found if each not in clothes]
    assert ("cat (skimage)" in photographs) == (importlib.util.find_spec("skimage") is not None)


def test_what_is_not_there_is_left_out(monkeypatch):
    def missing(**options):
        raise FileNotFoundError

    monkeypatch.setattr(examples, "FashionMNIST", missing)
    monkeypatch.setattr(examples, "HomeObjects", missing)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert example_scans() == example_pictures() == []


@pytest.mark.parametrize("number", [0, 3])
def test_thumbnails_are_square_and_not_empty(number):
    for source in (example_scans()[number], example_pictures()[number]):
        image = thumbnail(source, 64)
        assert image.size == (64, 64) and image.mode == "RGB"
        assert len(np.unique(np.asarray(image))) > 10
