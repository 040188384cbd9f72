from __future__ import annotations

import hashlib

import pytest

pytest.importorskip("laspy")
pytest.importorskip("lazrs")

from pointcluster.datasets import LidarHD, lidar_hd
from tests.datasets.scans import village, write_scan


@pytest.fixture
def root(tmp_path, monkeypatch):
    digests = {}
    for number, name in enumerate(lidar_hd.SHA256):
        path = write_scan(tmp_path / f"{name}.laz", village(600, seed=number))
        digests[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(lidar_hd, "SHA256", digests)
    return tmp_path


def test_three_tiles_to_train_on_and_one_to_test_on(root):
    train, test = LidarHD(root), LidarHD(root, "test")
    assert [scene.name for scene in train] == ["2021_0382_6565", "2023_0299_6802", "2023_0300_6802"]
    assert [scene.name for scene in test] == ["2023_0292_6833"]
    assert train.classes == ["ground", "low vegetation", "medium vegetation", "high vegetation",
                             "building"]  # fmt: skip
    assert train.codes["building"] == (6,)
    assert set(train[0].y.tolist()) == {0, 3, 4} and train[0].x.shape == (600, 4)


def test_other_files_are_refused(root):
    path = root / "2023_0292_6833.laz"
    write_scan(path, village(600, seed=9))
    with pytest.raises(ValueError, match="another file than results were measured on"):
        LidarHD(root, "test")
    assert len(LidarHD(root, "test", check=False)) == 1
    path.unlink()
    with pytest.raises(FileNotFoundError, match="2023_0292_6833.laz is missing: root must be"):
        LidarHD(root, "test")
    with pytest.raises(ValueError, match="split is 'val'"):
        LidarHD(root, "val")
