"""Networks without values: made on the meta device, filled later, or asked for shapes alone."""

from __future__ import annotations

import pytest
import torch
from torch_geometric.data import Data

from pointcluster.models import create_model

NETWORKS = ["coc_micro", "coc_tiny2", "point_coc_tiny", "point_coc_small", "pointmlp_coc"]


@pytest.mark.parametrize("name", NETWORKS)
def test_made_without_values_and_filled_later(name):
    torch.manual_seed(0)
    real = create_model(name, num_classes=5).eval()
    with torch.device("meta"):
        model = create_model(name, num_classes=5)
    assert all(value.is_meta for value in model.parameters())
    model.to_empty(device="cpu").load_state_dict(real.state_dict())
    images = name.startswith("coc")
    given = torch.rand(1, 3, 32, 32) if images else Data(pos=torch.rand(100, 3))
    assert torch.equal(model.eval()(given), real(given))


def test_shapes_alone():
    model = create_model("coc_micro", num_classes=5).to("meta")
    images = torch.rand(2, 3, 28, 28, device="meta")
    assert model.eval()(images).shape == (2, 5)
    y = model.train()(images)
    y.sum().backward()
    assert y.is_meta and all(value.grad.is_meta for value in model.parameters())


def test_positions_without_values_are_refused():
    model = create_model("point_coc_tiny", num_classes=5).to("meta")
    with pytest.raises(ValueError, match="on the meta device and has no values"):
        model(Data(pos=torch.rand(9, 3, device="meta")))
