from __future__ import annotations

import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from pointcluster.models import create_model
from pointcluster.viz import draw, stage_clusters
from pointcluster.viz.colours import PALETTE


def test_colours_of_a_drawn_picture_are_those_of_the_labels(picture):
    image, found = picture
    drawn = draw(image, found, opacity=1, centers=False, borders=False)
    pixels = drawn.array()
    (panel,) = drawn.panels
    index = found.index[:, 0].numpy()
    of = {}
    for point in range(0, 600, 7):
        row, column = np.rint(panel.where[point]).astype(int)
        colour = tuple(pixels[row, column])
        assert of.setdefault(index[point], colour) == colour
        assert tuple(np.rint(255 * panel.colour[point]).astype(int)) == colour
    assert len(set(of.values())) == 4
    assert all((np.abs(255 * PALETTE - each).max(axis=1) < 1).any() for each in of.values())


@pytest.mark.parametrize("name", ["coc_micro", "point_coc_tiny"])
def test_every_panel_shows_its_labels(name):
    torch.manual_seed(0)
    model = create_model(name, num_classes=2).eval()
    data = torch.rand(1, 3, 24, 36) if name == "coc_micro" else Data(pos=torch.randn(150, 3))
    found = stage_clusters(model, data)
    drawn = draw(data, found, opacity=1, centers=False)
    pixels = drawn.array()
    heads = [each.index.size(1) for each in found.values()]
    assert len(drawn.panels) == sum(heads)
    labels = torch.cat([each.index.T for each in found.values()])
    for panel, label in zip(drawn.panels, labels, strict=True):
        colour = np.rint(255 * panel.colour)
        hits = 0
        for point in range(0, len(label), 5):
            row, column = np.rint(panel.where[point]).astype(int)
            hits += bool(np.abs(pixels[row, column] - colour[point]).max() <= 2)
        # a border, or a nearer point, may lie over one
        assert hits >= (0.7 if name == "coc_micro" else 0.5) * len(range(0, len(label), 5))
        if name == "coc_micro":
            assert len({(int(a), tuple(b)) for a, b in zip(label, colour, strict=True)}) == len(
                set(label.tolist())
            )


def test_looks_change_the_picture(picture):
    image, found = picture
    plain = draw(image, found).array()
    for look in [{"opacity": 0.1}, {"borders": False}, {"centers": False}, {"highlight": 3}]:
        other = draw(image, found, **look).array()
        assert other.shape == plain.shape and (other != plain).any(), look
    assert draw(image, found, original=False).array().shape[1] < plain.shape[1]
    assert draw(image, found, title="above").array().shape[0] > plain.shape[0]


def test_up_turns_a_cloud(cloud):
    data, found = cloud
    turned = Data(pos=data.pos[:, [2, 0, 1]])
    plain = draw(data, found, head=0, centers=False).array()
    same = draw(turned, found, head=0, centers=False, up="z").array()
    # Colours are given from the bottom up, along another axis.
    np.testing.assert_array_equal(plain.min(axis=2) < 255, same.min(axis=2) < 255)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_tiny_flat_and_coincident_clouds(size):
    model = create_model("point_coc_tiny", num_classes=2).eval()
    for pos in (torch.randn(size, 3), torch.zeros(size, 3)):
        found = model.clusters(Data(pos=pos))
        assert draw(Data(pos=pos), found, borders=True, highlight=0).array().size
    flat = draw(Data(pos=torch.rand(size, 2)), found._replace(center_pos=found.center_pos[:, :2]))
    assert flat.array().size
