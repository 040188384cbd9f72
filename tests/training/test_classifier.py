from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pointcluster.training import Classifier, RunError
from pointcluster.training.mean_class_accuracy import MeanClassAccuracy


def test_checkpoint_names_its_network(tiny_network, classes):
    checkpoint = {}
    Classifier(tiny_network(), classes).on_save_checkpoint(checkpoint)
    Classifier(tiny_network(), classes).on_load_checkpoint(checkpoint)
    with pytest.raises(RunError, match="another network"):
        Classifier(tiny_network(width=8), classes).on_load_checkpoint(checkpoint)
    with pytest.raises(RunError, match="another network or data set.*'cube'"):
        Classifier(tiny_network(), ["cube", "b", "c"]).on_load_checkpoint(checkpoint)
    with pytest.raises(RunError, match="holds None"):
        Classifier(tiny_network(), classes).on_load_checkpoint({})


def test_checkpoint_says_how_scans_were_prepared(tiny_network, classes):
    checkpoint, prepared = {}, {"num_points": 64, "up": "z"}
    Classifier(tiny_network(), classes, preprocessing=prepared).on_save_checkpoint(checkpoint)
    assert checkpoint["network"]["preprocessing"] == prepared
    Classifier(tiny_network(), classes).on_load_checkpoint(checkpoint)  # it decides nothing


def test_dropout_is_drawn_from_seed_and_step(tiny_network, classes):
    def draw(seed, step):
        classifier = Classifier(tiny_network(), classes, seed=seed)
        classifier.__class__ = type("At", (Classifier,), {"global_step": step, "global_rank": 0})
        classifier.on_train_batch_start(None, 0)
        return torch.rand(4).tolist()

    assert draw(0, 5) == draw(0, 5)
    assert draw(0, 5) != draw(0, 6)
    assert draw(0, 5) != draw(1, 5)


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_the_run(tiny_network, classes, split, value):
    classifier = Classifier(tiny_network(), classes)
    with pytest.raises(RunError, match=f"the {split} loss is (nan|inf).*lower learning rate"):
        classifier._log_loss(split, torch.tensor(value), 3)


def test_mean_over_classes_leaves_out_a_class_without_items():
    y, found = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 1, 2])
    metric = MeanClassAccuracy(3)
    metric.update(found[:3], y[:3])
    metric.update(found[3:], y[3:])
    assert metric.compute().item() == 0.75  # of 1 and 1/2; the third class has none


@given(st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_mean_over_classes_is_the_mean_of_their_shares(number, seed):
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(number, (20,), generator=generator)
    found = torch.randint(number, (20,), generator=generator)
    shares = [(found[y == k] == k).double().mean() for k in range(number) if (y == k).any()]
    metric = MeanClassAccuracy(max(number, 2))
    metric.update(found, y)
    assert metric.compute().item() == pytest.approx(torch.stack(shares).mean().item(), abs=1e-6)
