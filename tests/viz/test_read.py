from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch_geometric.data import Data

from pointcluster.models import create_model, save_model
from pointcluster.viz.read import PHOTOGRAPHS, prepare, read_input, read_network


def test_scans_pictures_photographs_and_objects(tmp_path):
    np.savetxt(tmp_path / "a.xyz", np.random.default_rng(0).normal(size=(30, 3)))
    title, scan = read_input(str(tmp_path / "a.xyz"), num_points=20)
    assert title == "a.xyz" and len(scan.pos) == 20
    Image.new("RGB", (4, 3)).save(tmp_path / "a.png")
    assert read_input(str(tmp_path / "a.png"), num_points=1)[1].size == (4, 3)
    assert read_input("coffee", num_points=1)[1].mode == "RGB" and "coffee" in PHOTOGRAPHS
    title, chair = read_input("chair", num_points=50)
    assert (title, len(chair.pos)) == ("chair", 50)
    with pytest.raises(FileNotFoundError, match=r"a\.ply is not there, and is none of astronaut"):
        read_input("a.ply", num_points=1)


def test_networks_that_come_with_the_package_and_of_ones_own(tmp_path):
    scan = Data(pos=torch.rand(9, 3))
    for given, name in ((scan, "point_coc_tiny"), (Image.new("RGB", (4, 4)), "coc_micro")):
        model, noted = read_network(None, None, given)
        assert model.config["name"] == name and not model.training and noted["classes"]
    save_model(tmp_path / "net", create_model("point_coc_tiny", num_classes=2), {"a": 1})
    model, noted = read_network(None, str(tmp_path / "net.safetensors"))
    assert (model.num_classes, noted) == (2, {"a": 1})
    first, second = (read_network("coc_micro", "none")[0].state_dict() for _ in range(2))
    assert all(torch.equal(value, second[key]) for key, value in first.items())


def test_what_a_network_takes_and_what_is_drawn():
    model = create_model("point_coc_tiny", num_classes=2, in_channels=3)
    scan = Data(pos=10 * torch.rand(9, 3), normal=torch.rand(9, 3), origin=(0.0, 0.0, 0.0))
    noted = {"preprocessing": {"features": ["normal"]}}
    data, drawn = prepare(model, noted, "a", scan, size=1, up="y")
    assert torch.equal(data.x, scan.normal) and torch.equal(data.pos, drawn.pos)
    assert float(drawn.pos.norm(dim=1).max()) == pytest.approx(1)
    with pytest.raises(ValueError, match="a has no normal, which the network needs"):
        prepare(model, noted, "a", Data(pos=scan.pos, origin=scan.origin), size=1, up="y")
    grey = create_model("coc_micro", num_classes=2, in_channels=1)
    picture = Image.new("RGB", (40, 20), (255, 0, 0))
    data, drawn = prepare(grey, {"data_config": {"mean": [0.5], "std": [2.0]}}, "b", picture,
                          size=20, up="y")  # fmt: skip
    assert data.shape == (1, 1, 10, 20) and drawn.shape == (1, 3, 10, 20)
    torch.testing.assert_close(data, torch.full_like(data, (76 / 255 - 0.5) / 2))
    with pytest.raises(ValueError, match="b is a picture, point_coc_tiny a network of clouds"):
        prepare(model, {}, "b", picture, size=20, up="y")
