from __future__ import annotations

import pytest
import torch

from pointcluster.nn import DropPath


def test_whole_clouds_are_left_out_and_the_mean_stays():
    batch = torch.arange(4000).repeat_interleave(3)
    drop = DropPath(0.25)
    torch.manual_seed(0)
    y = drop(torch.ones(12_000, 2), batch, 4000)
    rows = y.view(4000, 6)
    assert (rows == rows[:, :1]).all()  # one draw for all points of a cloud
    assert sorted(set(rows[:, 0].tolist())) == [0.0, pytest.approx(1 / 0.75)]
    assert abs(float(y.mean()) - 1) < 0.05


def test_evaluation_and_zero_change_nothing():
    x, batch = torch.randn(6, 2), torch.tensor([0, 0, 0, 1, 1, 1])
    assert DropPath(0.9).eval()(x, batch, 2) is x
    assert DropPath(0.0)(x, batch, 2) is x
    with pytest.raises(ValueError, match="p must lie"):
        DropPath(1.0)
