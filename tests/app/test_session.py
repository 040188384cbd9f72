"""What can be chosen is what there is, for every network."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch_geometric.data import Data

from pointcluster.app.session import (
    Place,
    blocks,
    first_place,
    heads,
    heads_of,
    nearest_place,
    stages,
)
from pointcluster.models import coc, create_model, list_models, point_coc, pointmlp_coc


def built(name):
    """A network; of the large ones shapes without memory."""
    with torch.device("meta" if name in coc.SIZES else "cpu"):
        return create_model(name, num_classes=2)


@pytest.mark.parametrize("name", list_models())
def test_choices_are_those_of_the_table_of_sizes(name):
    model = built(name)
    if name in pointmlp_coc.SIZES:
        expected = [[1] * len(encoder.clusters) for encoder in model.encoders]
    else:
        size = (coc.SIZES | point_coc.SIZES)[name]
        expected = [[h] * d for h, d in zip(size.heads, size.depths, strict=True)]
    assert heads_of(model) == expected
    assert stages(model) == list(range(len(expected)))
    for stage in stages(model):
        assert blocks(model, stage) == list(range(len(expected[stage])))
        for block in blocks(model, stage):
            assert heads(model, stage, block) == list(range(expected[stage][block]))


@pytest.mark.parametrize("name", ["coc_micro", "coc_tiny", "point_coc_tiny", "pointmlp_coc"])
def test_every_choice_is_one_that_the_network_answers(name):
    torch.manual_seed(0)
    model = create_model(name, num_classes=2).eval()
    picture = name in coc.SIZES
    data = torch.rand(1, 3, 32, 32) if picture else Data(pos=torch.rand(64, 3))
    for stage in stages(model):
        for block in blocks(model, stage):
            found = model.clusters(data, stage, block)
            assert found.index.size(1) == len(heads(model, stage, block))
        with pytest.raises(IndexError):
            model.clusters(data, stage, len(blocks(model, stage)))
    with pytest.raises(IndexError):
        model.clusters(data, len(stages(model)), 0)


@pytest.mark.parametrize("name", list_models())
def test_any_place_is_led_to_one_that_exists(name):
    model = built(name)
    there = [
        Place(s, b, h) for s in stages(model) for b in blocks(model, s) for h in heads(model, s, b)
    ]
    for place in there:
        assert nearest_place(model, place) == place
    for wanted in itertools.product((-3, 0, 1, 99, None), repeat=3):
        assert nearest_place(model, Place(*wanted)) in there
    assert first_place(model) in there
