from __future__ import annotations

import shutil

import pytest
import torch

pytest.importorskip("laspy")
pytest.importorskip("lazrs")

from pointcluster.datasets import Autzen
from pointcluster.files import bundled_folder


def test_two_halves_of_ground_and_other():
    (train,), (test,) = Autzen("train"), Autzen("test")
    assert len(train.pos) == len(test.pos) == 55_000
    assert float(train.pos[:, 0].max()) <= float(test.pos[:, 0].min())
    for half in (train, test):
        assert half.x.shape == (55_000, 4) and half.x.isfinite().all()
        # metres, not the file's feet
        assert 150 < float(half.pos[:, 1].max() - half.pos[:, 1].min()) < 172
        ground, other = (half.x[half.y == kind, 3].median() for kind in (0, 1))
        assert float(ground) < 0.1 < 0.4 < float(other)
    counts = [torch.bincount(half.y + 1).tolist() for half in (train, test)]
    assert counts == [[30_093, 13_077, 11_830], [28_973, 13_030, 12_997]]


def test_a_copy_and_what_is_wrong(tmp_path):
    with pytest.raises(ValueError, match="split is 'val'"):
        Autzen("val")
    with pytest.raises(FileNotFoundError, match="root must be a folder"):
        Autzen(root=tmp_path)
    shutil.copy(bundled_folder("autzen", "autzen.laz") / "autzen.laz", tmp_path)
    assert len(Autzen(root=tmp_path, features=("height",))[0].x.T) == 1
