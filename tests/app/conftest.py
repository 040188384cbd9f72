"""What the tests of the page share: small networks, files of every kind, an app that runs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from pointcluster.app.checkpoint import offered_networks
from pointcluster.app.desk import Desk
from pointcluster.app.source import Source, example_scans
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
def networks(picture_weights, cloud_weights):
    return offered_networks([cloud_weights, picture_weights])


def picture_source(seed=0, side=40):
    colours = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Source(f"noise {seed}", "picture", Image.fromarray(colours))


def blob(seed=0, count=300):
    return np.random.default_rng(seed).normal(size=(count, 3)).astype(np.float32)


@pytest.fixture
def desk(networks):
    """A desk whose updates are plain dictionaries, and the list of what it told."""
    told = []

    def update(**changes):
        return changes

    examples = {"scan": example_scans()[:2], "picture": [picture_source(7)]}
    made = Desk(networks, examples, max_bytes=1_000_000, update=update, tell=told.append)
    made.told = told
    return made
