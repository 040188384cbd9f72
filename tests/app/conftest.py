"""What the tests of the page share: small networks, files of every kind, an app that runs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch_geometric.data import Data

from pointcluster.app.checkpoint import offered_networks
from pointcluster.app.desk import Desk
from pointcluster.app.source import Source, examples
from pointcluster.models import create_model, save_model


@pytest.fixture(scope="session")
def picture_weights(tmp_path_factory):
    """An untrained network of grey pictures with two stages of several blocks."""
    torch.manual_seed(0)
    model = create_model("coc_micro", num_classes=3, in_channels=1)
    config = {
        "input_size": [1, 28, 28], "interpolation": "bilinear", "mean": [0.3], "std": [0.3],
        "crop_pct": 1.0, "crop_mode": "center",
    }  # fmt: skip
    metadata = {"classes": ["hat", "left_shoe", "right_shoe"], "data_config": config}
    return save_model(tmp_path_factory.mktemp("pictures") / "hats", model, metadata)


@pytest.fixture(scope="session")
def cloud_weights(tmp_path_factory):
    """An untrained network of clouds, of the size that the tests take."""
    torch.manual_seed(0)
    model = create_model("point_coc_small", num_classes=4)
    metadata = {"preprocessing": {"num_points": 128, "normalize": True, "up": "z", "features": []}}
    return save_model(tmp_path_factory.mktemp("clouds") / "blobs", model, metadata)


@pytest.fixture(scope="session")
def scene_weights(tmp_path_factory):
    """An untrained network of scenes whose features every scan has, by blocks of 10 metres."""
    torch.manual_seed(0)
    model = create_model("point_coc_tiny_seg", num_classes=3, in_channels=1, place=False)
    pos = torch.from_numpy(land() - land().min(axis=0)).float()
    with torch.no_grad():  # so that not all points have one class
        scores = model.eval()(Data(pos=pos, x=pos[:, 2:] / 10))
        model.head.bias.sub_(scores.median(dim=0).values)
    prepared = {
        "features": ["height"], "codes": [2, 5, 1], "num_points": 100, "edge": 10.0,
        "voxel_size": 0.3,
    }  # fmt: skip
    metadata = {"classes": ["ground", "high_vegetation", "other"], "preprocessing": prepared}
    return save_model(tmp_path_factory.mktemp("scenes") / "land", model, metadata)


@pytest.fixture(scope="session")
def networks(picture_weights, cloud_weights, scene_weights):
    return offered_networks([cloud_weights, picture_weights, scene_weights])


def picture_source(seed=0, side=40):
    colours = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Source(f"noise {seed}", "picture", Image.fromarray(colours))


def land(count=3000):
    """Hills of 45 by 30 metres far from the origin, with a house on them. [N, 3]"""
    random = np.random.default_rng(0)
    pos = random.uniform([0, 0, 0], [45, 30, 0], (count, 3))
    pos[:, 2] = np.sin(pos[:, 0] / 9) + random.normal(0, 0.02, count)
    house = (abs(pos[:, 0] - 20) < 5) & (abs(pos[:, 1] - 12) < 4)
    pos[house, 2] += 6
    return pos + [600_000, 5_000_000, 100]


@pytest.fixture(scope="session")
def las(tmp_path_factory):
    """The land as a .las file with a class, an intensity and colours."""
    laspy = pytest.importorskip("laspy")
    pos = land()
    header = laspy.LasHeader(version="1.4", point_format=7)
    header.offsets, header.scales = np.floor(pos.min(axis=0)), np.full(3, 0.001)
    data = laspy.LasData(header)
    data.x, data.y, data.z = pos.T
    data.classification = np.arange(len(pos)) % 7
    data.intensity = np.arange(len(pos)) % 300 + 1
    data.red = data.green = data.blue = np.arange(len(pos)) * 20
    data.gps_time = np.arange(len(pos)) / 8
    path = tmp_path_factory.mktemp("las") / "land.las"
    data.write(path)
    return path


def blob(seed=0, count=300):
    return np.random.default_rng(seed).normal(size=(count, 3)).astype(np.float32)


@pytest.fixture
def desk(networks):
    """A desk whose updates are plain dictionaries, and the list of what it told."""
    told = []

    def update(**changes):
        return changes

    there = {"scan": examples()["scan"][:2], "picture": [picture_source(7)]}
    made = Desk(networks, there, update=update, tell=told.append)
    made.told = told
    return made
