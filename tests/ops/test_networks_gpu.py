"""Whole networks by Triton's kernels give the answer of the reference."""

from __future__ import annotations

import pytest
import torch
from torch_geometric.data import Batch, Data

from pointcluster.models import PointCoC, create_model
from pointcluster.ops import use_backend
from tests.ops.conftest import card, close, test_by_the_interpreter  # noqa: F401 - is run here

pytestmark = pytest.mark.usefixtures("kernels")


def answers(model, data, dtype, backend):
    model.zero_grad()
    with use_backend(backend):
        y = model.to(card, dtype)(data)
        y.square().sum().backward()
    return [y.detach(), *(p.grad.clone() for p in model.parameters())]


def compare(model, data, wide):
    torch.manual_seed(0)
    for value in model.parameters():
        value.data += torch.randn_like(value) / 20
    truth = answers(model, wide, torch.float64, "reference")
    for a, b in zip(answers(model, data, torch.float32, "auto"), truth, strict=True):
        close(a, b, 2e-3, 1e-3)


def test_pictures():
    torch.manual_seed(0)
    images = torch.randn(1, 3, 16, 16, device=card)
    compare(create_model("coc_micro", num_classes=3), images, images.double())


def test_clouds_of_any_sizes():
    torch.manual_seed(0)
    model = PointCoC(
        3, channels=(8, 16), depths=(1, 1), heads=(1, 2), ratios=(0.5, 0.5), encode=(0, 4), k=4,
        region_size=8, num_centers=2, center_k=3, dropout=0.0, drop_path=0.0,
    )  # fmt: skip
    data = Batch.from_data_list([Data(pos=torch.rand(n, 3)) for n in (24, 19)]).to(card)
    compare(model, data, data)
