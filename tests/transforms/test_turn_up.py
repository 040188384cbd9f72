from __future__ import annotations

import itertools

import pytest
import torch
from torch_geometric.data import Data

from pointcluster.transforms import TurnUp
from pointcluster.transforms.turn_up import AXES


def unit(axis):
    out = torch.zeros(1, 3)
    out[0, "xyz".index(axis[-1])] = -1 if axis[0] == "-" else 1
    return out


@pytest.mark.parametrize(("old", "new"), list(itertools.product(AXES, AXES)))
def test_takes_one_axis_to_the_other_by_a_turn(old, new):
    eye = torch.eye(3, dtype=torch.float64)
    turn = TurnUp(old, new)(Data(pos=eye.clone(), normal=torch.eye(3)))
    assert turn.pos.dtype == torch.float64 and torch.equal(turn.pos.float(), turn.normal)
    torch.testing.assert_close(turn.pos @ turn.pos.T, eye)
    assert torch.linalg.det(turn.pos) == 1  # no mirror image
    assert torch.equal(TurnUp(old, new)(Data(pos=unit(old))).pos, unit(new))
    back = TurnUp(new, old)(TurnUp(old, new)(Data(pos=eye.clone())))
    torch.testing.assert_close(back.pos, eye)


def test_scans_to_modelnet():
    data = TurnUp("z")(Data(pos=torch.tensor([[1.0, 2, 3]])))
    assert data.pos.tolist() == [[1, 3, -2]]
    assert repr(TurnUp("z")) == "TurnUp('z', 'y')"


@pytest.mark.parametrize(("old", "new"), [("z", "y"), ("x", "-x"), ("-y", "z")])
def test_an_origin_far_away_turns_with_its_positions_and_keeps_its_digits(old, new):
    origin = (500000.123456789, 5400000.987654321, 100.5)
    turn = TurnUp(old, new)
    turned = turn(Data(pos=torch.tensor([[1.0, 2, 3]]), origin=origin))
    whole = torch.tensor([[1.0, 2, 3]], dtype=torch.float64)
    whole = turn(Data(pos=whole + torch.tensor(origin, dtype=torch.float64))).pos
    assert isinstance(turned.origin, tuple)
    found = turned.pos.double() + torch.tensor(turned.origin, dtype=torch.float64)
    torch.testing.assert_close(found, whole, rtol=0, atol=1e-9)


def test_arguments():
    with pytest.raises(ValueError, match="axis is 'up', expected one of x y z"):
        TurnUp("up")
    with pytest.raises(ValueError, match="axis is 1"):
        TurnUp("x", 1)
