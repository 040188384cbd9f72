from __future__ import annotations

import pytest
import torch

from pointcluster.geometry import anchor_geometry
from pointcluster.nn.anchors import anchors_for
from tests.geometry.same import assert_same

POS = torch.rand(20, 3, generator=torch.Generator().manual_seed(0))
BATCH = torch.tensor([0] * 12 + [1] * 8)


def test_positions_or_their_geometry():
    expected = anchor_geometry(POS, 0.5, 4, BATCH, batch_size=3)
    assert_same(anchors_for(POS, BATCH, 3, None, default=0.5, k=4), expected)
    assert_same(anchors_for(POS, BATCH, 3, [6, 4, 0], default=0.1, k=4), expected)
    assert anchors_for(expected, None, None, None, default=0.1, k=4) is expected


@pytest.mark.parametrize("more", [(BATCH, None, None), (None, 2, None), (None, None, 0.5)])
def test_a_geometry_comes_alone(more):
    geometry = anchor_geometry(POS, 0.5, 4, BATCH)
    with pytest.raises(ValueError, match="batch, batch_size and num go with positions"):
        anchors_for(geometry, *more, default=0.5, k=4)


def test_as_many_points_as_the_layer_gathers():
    geometry = anchor_geometry(POS, 0.5, 4)
    assert anchors_for(geometry, None, None, None, default=0.5, k=4) is geometry
    with pytest.raises(ValueError, match="gathers 4 points, the layer 5"):
        anchors_for(geometry, None, None, None, default=0.5, k=5)
