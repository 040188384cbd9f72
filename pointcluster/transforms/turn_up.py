"""Turn clouds so that another axis points up."""

from __future__ import annotations

import torch
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

AXES = ("x", "y", "z", "-x", "-y", "-z")


class TurnUp(BaseTransform):
    r"""Turns positions and normals by a quarter (or half) turn that takes one axis to another.

    With unit vectors $u$, $v$ of the two axes and $w$ of the third,

    $$ p' = (v u^\top - u v^\top + w w^\top) \, p. $$

    Args:
        old: The axis that points up in the clouds: ``"z"`` in most scans.
        new: The one that shall: ``"y"`` in ModelNet40 and HomeObjects.

    Shapes and units:
        Changes ``pos`` and ``normal`` ``[N, 3]``, and the ``origin`` of
        :func:`pointcluster.datasets.read_points`, a tuple of three floats, in float64.

    Raises:
        ValueError: An axis is not one of ``x y z -x -y -z``.
    """

    def __init__(self, old: str, new: str = "y") -> None:
        for axis in (old, new):
            if axis not in AXES:
                raise ValueError(f"axis is {axis!r}, expected one of {' '.join(AXES)}")
        self.old, self.new = old, new

    def forward(self, data: Data) -> Data:
        u, v = (_unit(axis) for axis in (self.old, self.new))
        if torch.equal(u, v):
            return data
        if torch.equal(u, -v):  # half a turn about the next axis
            turn = 2 * torch.diag(u.abs().roll(1)) - torch.eye(3)
        else:
            w = torch.linalg.cross(u, v)
            turn = torch.outer(v, u) - torch.outer(u, v) + torch.outer(w, w)
        data.pos = data.pos @ turn.to(data.pos).T
        if data.get("normal") is not None:
            data.normal = data.normal @ turn.to(data.normal).T
        if isinstance(origin := data.get("origin"), tuple):
            data.origin = tuple(
                (turn.double() @ torch.tensor(origin, dtype=torch.float64)).tolist()
            )
        return data

    def __repr__(self) -> str:
        return f"TurnUp({self.old!r}, {self.new!r})"


def _unit(axis: str) -> torch.Tensor:
    unit = torch.zeros(3)
    unit["xyz".index(axis[-1])] = -1.0 if axis.startswith("-") else 1.0
    return unit
