"""Offered is what is present: networks of the user, then those whose weights came along."""

from __future__ import annotations

import shutil

import pytest

from pointcluster.app import offered
from pointcluster.app.offered import offered_networks
from pointcluster.models import create_model, list_pretrained, save_model
from pointcluster.models.factory import FOLDER


def test_all_weights_that_came_along_are_offered_clouds_first():
    found = offered_networks()
    expected = {f"{name}, {data.replace('_', ' ')}" for name, data in list_pretrained()}
    assert set(found) == expected
    kinds = [network.kind for network in found.values()]
    assert kinds == sorted(kinds, reverse=True)
    for title, network in found.items():
        assert network.title == title and not network.model.training and network.about
        assert network.sizes[0] > 0 and list(network.sizes) == sorted(network.sizes)


def test_weights_that_are_absent_are_not_offered(tmp_path, monkeypatch, cloud_weights):
    name, data = list_pretrained()[0]
    for suffix in (".safetensors", ".json"):
        shutil.copy(FOLDER / f"{name}-{data}{suffix}", tmp_path)
    monkeypatch.setattr(offered, "FOLDER", tmp_path)
    assert list(offered_networks()) == [f"{name}, {data.replace('_', ' ')}"]
    (tmp_path / f"{name}-{data}.json").unlink()
    with pytest.raises(ValueError, match="--checkpoint"):
        offered_networks()
    assert list(offered_networks([cloud_weights])) == ["blobs"]


def test_networks_of_one_name_are_told_apart(tmp_path):
    paths = []
    for run in ("a", "b"):
        model = create_model("point_coc_tiny", num_classes=2)
        paths.append(save_model(tmp_path / run / "model", model))
    assert list(offered_networks(paths))[:2] == ["model", str(paths[1])]


def test_a_network_without_classes_is_refused(tmp_path):
    path = save_model(tmp_path / "model", create_model("point_coc_tiny", num_classes=0))
    with pytest.raises(ValueError, match="without a classifier"):
        offered_networks([path])
    with pytest.raises(FileNotFoundError):
        offered_networks([tmp_path / "nowhere.safetensors"])
