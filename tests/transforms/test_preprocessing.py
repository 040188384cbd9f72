from __future__ import annotations

import pytest
import torch
from torch_geometric.data import Data

from pointcluster.transforms import TurnUp, reduce_points
from pointcluster.transforms.preprocessing import Preprocessing


@pytest.fixture
def scan():
    generator = torch.Generator().manual_seed(0)
    pos = torch.rand(500, 3, generator=generator) + torch.tensor([1.0, 2, 3])
    normal = torch.nn.functional.normalize(pos, dim=1)
    return Data(pos=pos, normal=normal, color=pos - pos.floor(), origin=(0.0, 0.0, 0.0))


@pytest.mark.parametrize("normalize", [True, False, "cube"])
def test_points_are_as_the_network_knows_them(scan, normalize):
    cloud = Preprocessing(100, normalize).apply(scan, "a")
    assert cloud.keys() == ["pos"] and cloud.pos.shape == (100, 3) and len(scan.pos) == 500
    reach = cloud.pos.norm(dim=1).max() if normalize is True else cloud.pos.abs().max()
    assert reach > 1 if normalize is False else reach == pytest.approx(1, abs=1e-5)


def test_features_and_the_axis_that_points_up(scan):
    wanted = Preprocessing(100, False, features=("color", "normal"))
    cloud = wanted.apply(scan, "a", up="z", seed=3)
    same = TurnUp("z", "y")(reduce_points(scan, 100, seed=3))
    assert torch.equal(cloud.pos, same.pos)
    assert torch.equal(cloud.x, torch.cat([same.color, same.normal], dim=1))
    torch.testing.assert_close(cloud.x[:, 3:], torch.nn.functional.normalize(cloud.pos, dim=1))
    del scan.normal
    with pytest.raises(ValueError, match="^a has no normal, which the network needs"):
        wanted.apply(scan, "a")


def test_a_part_of_what_a_scan_is_thinned_to(scan):
    part = Preprocessing(50, False, sampled=200).apply(scan, "a")
    whole = Preprocessing(200, False).apply(scan, "a")
    assert torch.equal(part.pos, whole.pos[:50])
    assert len(Preprocessing(50).apply(scan, "a", num_points=70).pos) == 70


def test_metadata():
    assert Preprocessing.of("a", {}) == Preprocessing()
    noted = {"num_points": 9, "features": ["normal"], "sampled": 12}
    found = Preprocessing.of("a", {"preprocessing": noted})
    assert found == Preprocessing(9, features=("normal",), sampled=12)


@pytest.mark.parametrize(("noted", "message"), [
    ([], "'preprocessing' must be an object"),
    ({"colour": 1}, r"the preprocessing \['colour'\], which this version does not know"),
    ({"num_points": True}, "'num_points' is True, expected a number"),
    ({"sampled": 0}, "'sampled' is 0, expected at least 1"),
    ({"normalize": "sphere"}, "'normalize' is 'sphere', expected true, false or 'cube'"),
    ({"up": "w"}, "'up' is 'w', expected one of x y z -x -y -z"),
    ({"features": "normal"}, "'features' is 'normal', expected a list of normal and color"),
])  # fmt: skip
def test_metadata_that_make_no_sense(noted, message):
    with pytest.raises(ValueError, match=f"^net.* {message}"):
        Preprocessing.of("net", {"preprocessing": noted})
