from __future__ import annotations

import pytest
import torch

from pointcluster.training import Classifier, RunError


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
