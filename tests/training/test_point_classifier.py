from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from pointcluster.training import POINT_RECIPES, PointClassifier, PointRecipe


def optimize(network, recipe, steps_an_epoch=4):
    classifier = PointClassifier(network, ["a", "b", "c"], recipe=recipe)
    steps = steps_an_epoch * recipe.epochs
    classifier._trainer = SimpleNamespace(estimated_stepping_batches=steps)
    made = classifier.configure_optimizers()
    optimizer, plan = made["optimizer"], made["lr_scheduler"]
    rates = []
    for _ in range(steps if plan["interval"] == "step" else recipe.epochs):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        plan["scheduler"].step()
    return optimizer, rates


def test_published_optimizer(tiny_network):
    recipe = POINT_RECIPES["published"]
    optimizer, rates = optimize(tiny_network(), recipe)
    assert isinstance(optimizer, torch.optim.SGD)
    (group,) = optimizer.param_groups  # biases decay, too
    assert (group["momentum"], group["weight_decay"], group["nesterov"]) == (0.9, 1e-4, False)
    assert len(group["params"]) == 4
    assert len(rates) == 250
    for epoch in (0, 1, 100, 249):  # torch's own cosine, as the published program has it
        cosine = 1 + math.cos(math.pi * epoch / 250)
        assert rates[epoch] == pytest.approx(1e-4 + (0.01 - 1e-4) / 2 * cosine)


def test_modern_optimizer(tiny_network):
    optimizer, rates = optimize(tiny_network(), PointRecipe(epochs=20, warmup_epochs=5))
    assert isinstance(optimizer, torch.optim.AdamW)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.05, 0.0]
    assert len(rates) == 80 and rates[0] == pytest.approx(2e-3 / 20)
    assert max(rates) == rates[20] == pytest.approx(2e-3) and rates[-1] < 1e-5


@pytest.mark.parametrize("number", [2, 3, 15])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_smoothing_over_other_classes_is_the_published_loss(tiny_network, number, dtype):
    recipe = POINT_RECIPES["published"]
    names = [f"class{i}" for i in range(number)]
    classifier = PointClassifier(tiny_network(num_classes=number), names, recipe=recipe)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(8, number, generator=generator, dtype=dtype)
    y = torch.randint(number, (8,), generator=generator)
    loss = F.cross_entropy(logits, y, label_smoothing=classifier.label_smoothing)
    expected = 0.0
    for row, label in zip(logits.log_softmax(dim=1), y, strict=True):
        for k in range(number):
            share = 0.8 if k == label else 0.2 / (number - 1)
            expected -= float(share * row[k]) / 8
    assert float(loss) == pytest.approx(expected, rel=1e-6)


def test_smoothing_that_leaves_nothing(tiny_network):
    recipe = PointRecipe(label_smoothing=0.7, smooth_over="others")
    with pytest.raises(ValueError, match=r"label_smoothing is 0.7: .*3 classes it can be 0.667"):
        PointClassifier(tiny_network(), ["a", "b", "c"], recipe=recipe)
    assert PointClassifier(
        tiny_network(), ["a", "b", "c"], recipe=PointRecipe(label_smoothing=0.7)
    ).label_smoothing == pytest.approx(0.7)
