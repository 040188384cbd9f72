from __future__ import annotations

import pytest
import torch
from torch import nn

from pointcluster.training.schedule import cosine_with_warmup, decay_groups


def test_line_up_cosine_down():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = cosine_with_warmup(optimizer, steps=14, warmup=4)
    rates = []
    for _ in range(15):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[:5] == [0.5, 1.0, 1.5, 2.0, 2.0]
    assert rates[9] == pytest.approx(1.0)  # halfway down
    assert rates[14] == pytest.approx(0.0)


def test_cosine_to_a_rate_above_zero():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.01)
    other = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.01)
    schedule = cosine_with_warmup(optimizer, steps=20, warmup=0, low=0.01)
    truth = torch.optim.lr_scheduler.CosineAnnealingLR(other, 20, eta_min=1e-4)
    for _ in range(20):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(other.param_groups[0]["lr"])
        for step in (optimizer, other, schedule, truth):
            step.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-4)


def test_only_matrices_decay():
    model = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3), nn.Linear(3, 1, bias=False))
    decayed, kept = decay_groups(model, 0.1)
    assert [p.ndim for p in decayed["params"]] == [2, 2]
    assert [p.ndim for p in kept["params"]] == [1, 1, 1]
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.1, 0.0)
