"""What can be chosen is what there is, for every network."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch_geometric.data import Data

from pointcluster.app.network import Network
from pointcluster.app.session import Side, View, first_view, nearest_side
from pointcluster.models import coc, create_model, list_models, point_coc, pointmlp_coc


def built(name):
    """A network; of the large ones shapes without memory."""
    with torch.device("meta" if name in coc.SIZES else "cpu"):
        return create_model(name, num_classes=2)


def network_of(model):
    """The same as the page holds it."""
    network = Network("a", model, ["b", "c"])
    network.kind = "scan"
    return network


def places(network):
    for stage, blocks in enumerate(network.heads):
        for block, heads in enumerate(blocks):
            yield from (Side(stage, block, head) for head in range(heads))


@pytest.mark.parametrize("name", list_models())
def test_choices_are_those_of_the_table_of_sizes(name):
    model = built(name)
    if name in pointmlp_coc.SIZES:
        expected = [[1] * len(encoder.clusters) for encoder in model.encoders]
    else:
        size = (coc.SIZES | point_coc.SIZES)[name]
        expected = [[h] * d for h, d in zip(size.heads, size.depths, strict=True)]
    assert network_of(model).heads == expected


@pytest.mark.parametrize("name", ["coc_micro", "coc_tiny", "point_coc_tiny", "pointmlp_coc"])
def test_every_choice_is_one_that_the_network_answers(name):
    torch.manual_seed(0)
    model = create_model(name, num_classes=2).eval()
    picture = name in coc.SIZES
    data = torch.rand(1, 3, 32, 32) if picture else Data(pos=torch.rand(64, 3))
    heads = network_of(model).heads
    for stage, blocks in enumerate(heads):
        for block, count in enumerate(blocks):
            assert model.clusters(data, stage, block).index.size(1) == count
        with pytest.raises(IndexError):
            model.clusters(data, stage, len(blocks))
    with pytest.raises(IndexError):
        model.clusters(data, len(heads), 0)


@pytest.mark.parametrize("name", list_models())
def test_any_place_is_led_to_one_that_exists(name):
    network = network_of(built(name))
    there = list(places(network))
    for place in there:
        assert nearest_side(network, place) == place
    for wanted in itertools.product((-3, 0, 1, 99, None), repeat=3):
        assert nearest_side(network, Side(*wanted)) in there
    for side in first_view(network).sides(network):
        assert side in there


def test_a_view_holds_two_sides():
    assert View._fields[: 2 * len(Side._fields)] == tuple(
        f"{name}_{side}" for side in "ab" for name in Side._fields
    )
    first, second = Side(1, 0, 2, "class"), Side(0, 0, 0, "probability", "tree")
    view = View(compare=True).of(first, second)
    assert (view.colour_a, view.kind_b, view.compare) == ("class", "tree", True)
    assert [str(each) for each in (Side(1, 0, 2), first, second)] == [
        "stage 1, block 0, head 2", "class", "probability of tree"
    ]  # fmt: skip
