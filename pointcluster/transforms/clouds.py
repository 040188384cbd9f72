"""What happens to clouds: points left out, moved, turned, scaled, and what goes into a network.

PyTorch Geometric's transforms of the same kind change positions alone and draw from Python's
generator; these change normals with them and draw from torch's, as data loaders seed it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform, Center, NormalizeScale

from pointcluster.geometry import voxel_anchors
from pointcluster.geometry.fps import one_a_voxel

FEATURES = ("normal", "color")
"""What a network can take beside positions."""
FIELDS = (*FEATURES, "label")
"""What a scan may have of each point."""
AXES = ("x", "y", "z", "-x", "-y", "-z")


class FirstPoints(BaseTransform):
    """Keeps the first points of a cloud, so that evaluation sees the same ones each time.

    The random counterpart for training is
    ``torch_geometric.transforms.FixedPoints(num, replace=False)``.

    Args:
        num: Points to keep; a smaller cloud stays as it is.

    Shapes and units:
        Every tensor whose first dimension is the number of points is cut to ``[num, ...]``.
    """

    def __init__(self, num: int) -> None:
        if num < 1:
            raise ValueError(f"num is {num}, expected at least 1")
        self.num = num

    def forward(self, data: Data) -> Data:
        return cut_points(data, slice(self.num))

    def __repr__(self) -> str:
        return f"FirstPoints({self.num})"


class NormalsAsFeatures(BaseTransform):
    """Appends ``data.normal`` to the point features ``data.x``.

    Put it last: transforms that turn or stretch a cloud keep ``normal`` right, not ``x``.

    Shapes and units:
        ``x [P, F]`` or none becomes ``x [P, F + 3]``.

    Raises:
        ValueError: The cloud has no normals.
    """

    def forward(self, data: Data) -> Data:
        normal = data.get("normal")
        if normal is None:
            raise ValueError("the cloud has no attribute 'normal': this data set comes without")
        data.x = normal if data.x is None else torch.cat([data.x, normal], dim=-1)
        return data


class RandomTranslate(BaseTransform):
    """Moves all points of a cloud by one random vector.

    ``torch_geometric.transforms.RandomJitter`` moves every point by another one.

    Args:
        distance: Each component is drawn uniformly from ``[-distance, distance]``.
    """

    def __init__(self, distance: float = 0.1) -> None:
        if distance < 0:
            raise ValueError(f"distance is {distance}, expected at least 0")
        self.distance = distance

    def forward(self, data: Data) -> Data:
        shift = data.pos.new_empty(data.pos.size(-1)).uniform_(-self.distance, self.distance)
        data.pos = data.pos + shift
        return data

    def __repr__(self) -> str:
        return f"RandomTranslate({self.distance})"


class RandomAnisotropicScale(BaseTransform):
    r"""Stretches positions by a factor per axis, and turns normals as the surface turns.

    .. math:: p' = S p, \quad n' = S^{-1} n / \lVert S^{-1} n \rVert

    ``torch_geometric.transforms.RandomScale`` has one factor for all axes.

    Args:
        low: Smallest factor.
        high: Largest factor; each is drawn uniformly.
    """

    def __init__(self, low: float = 0.8, high: float = 1.25) -> None:
        if not 0 < low <= high:
            raise ValueError(f"factors go from {low} to {high}, expected 0 < low <= high")
        self.low, self.high = low, high

    def forward(self, data: Data) -> Data:
        scale = data.pos.new_empty(data.pos.size(-1)).uniform_(self.low, self.high)
        data.pos = data.pos * scale
        if data.get("normal") is not None:
            data.normal = torch.nn.functional.normalize(data.normal / scale, dim=-1)
        return data

    def __repr__(self) -> str:
        return f"RandomAnisotropicScale({self.low}, {self.high})"


class RandomMirror(BaseTransform):
    """Mirrors positions and normals along one axis, or leaves them.

    ``torch_geometric.transforms.RandomFlip`` mirrors the positions alone.

    Args:
        axis: The axis whose sign changes; 0 is left and right in ModelNet40 and HomeObjects.
        p: How often.
    """

    def __init__(self, axis: int = 0, p: float = 0.5) -> None:
        _check_axis(axis)
        if not 0 <= p <= 1:
            raise ValueError(f"p is {p}, expected 0 to 1")
        self.axis, self.p = axis, p

    def forward(self, data: Data) -> Data:
        if torch.rand(()).item() >= self.p:
            return data
        sign = torch.ones(3, dtype=data.pos.dtype, device=data.pos.device)
        sign[self.axis] = -1
        data.pos = data.pos * sign
        if data.get("normal") is not None:
            data.normal = data.normal * sign
        return data

    def __repr__(self) -> str:
        return f"RandomMirror(axis={self.axis}, p={self.p})"


class RandomRotateUp(BaseTransform):
    """Turns positions and normals by one random angle about one axis.

    ``torch_geometric.transforms.RandomRotate`` turns the positions alone.

    Args:
        degrees: The angle is drawn uniformly from ``[-degrees, degrees]``.
        axis: The axis that stays; 1 is up in ModelNet40 and HomeObjects.
    """

    def __init__(self, degrees: float = 180.0, axis: int = 1) -> None:
        _check_axis(axis)
        self.degrees, self.axis = degrees, axis

    def forward(self, data: Data) -> Data:
        angle = math.radians(self.degrees) * (2 * torch.rand(()).item() - 1)
        a, b = (self.axis + 1) % 3, (self.axis + 2) % 3
        turn = torch.eye(3, dtype=data.pos.dtype, device=data.pos.device)
        turn[a, a] = turn[b, b] = math.cos(angle)
        turn[b, a] = math.sin(angle)
        turn[a, b] = -turn[b, a]
        return _turn(data, turn)

    def __repr__(self) -> str:
        return f"RandomRotateUp({self.degrees}, axis={self.axis})"


class TurnUp(BaseTransform):
    r"""Turns positions and normals by a quarter (or half) turn that takes one axis to another.

    With unit vectors $u$, $v$ of the two axes and $w$ of the third,

    $$ p' = (v u^\top - u v^\top + w w^\top) \, p. $$

    ``torch_geometric.transforms.LinearTransformation`` would leave normals and the origin behind.

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
        if isinstance(origin := data.get("origin"), tuple):
            data.origin = tuple(
                (turn.double() @ torch.tensor(origin, dtype=torch.float64)).tolist()
            )
        return _turn(data, turn)

    def __repr__(self) -> str:
        return f"TurnUp({self.old!r}, {self.new!r})"


class UnitCube(BaseTransform):
    """Moves the points' mean to the origin, and scales them into the cube from -1 to 1.

    As ``torch_geometric.transforms.NormalizeScale`` does, to the last bit; but points that coincide
    come to lie at the origin, where it divides by zero, and a cloud may be empty.

    Shapes and units:
        Changes ``pos`` ``[N, D]``.
    """

    def forward(self, data: Data) -> Data:
        if not data.pos.size(0):
            return data
        centred = Center()(data)
        return NormalizeScale()(data) if centred.pos.any() else centred


def by_point(data: Data) -> Iterator[tuple[str, Tensor]]:
    """The tensors of one entry a point, by name."""
    for key, value in data.to_dict().items():
        # In a cloud of one point, a label [1] looks like a value per point: it is none.
        if isinstance(value, Tensor) and value.dim() and value.size(0) == data.pos.size(0) > 1:
            yield key, value


def cut_points(data: Data, kept: Tensor | slice) -> Data:
    """Cut the tensors of a point set, which is changed, to the points of these numbers."""
    for key, value in [*by_point(data)]:
        data[key] = value[kept]
    return data


def reduce_points(
    data: Data,
    num_points: int,
    *,
    voxel_size: float | None = None,
    seed: int | Sequence[int] = 0,
) -> Data:
    """Keep at most some points of a scan, spread evenly in space, in random order.

    First one point a voxel where a size is given, then, of what is still more than asked for, one
    point in each voxel of a grid so fine that about a tenth too many are left, and of these some at
    random. A scan with fewer points keeps all. The first n points are an even sample, too.

    Args:
        data: From :func:`pointcluster.datasets.read_points`; it stays as it is.
        num_points: Most points to keep.
        voxel_size: Edge of a voxel, in the file's unit.
        seed: What is at random.

    Shapes and units:
        ``pos``, ``normal`` and ``color`` become ``[n, 3]``, ``label`` ``[n]``.

    Raises:
        ValueError: ``num_points`` or ``voxel_size`` is not positive.
    """
    if num_points < 1:
        raise ValueError(f"num_points is {num_points}, expected at least 1")
    rng = np.random.default_rng(seed)
    kept = torch.arange(data.pos.size(0))
    pos = data.pos.double()  # seen from a stray point far away, float32 would move all others
    if voxel_size is not None:
        kept = one_a_voxel(pos, voxel_size)
    if len(kept) > num_points:
        even = kept[voxel_anchors(pos[kept], min(len(kept), -(-11 * num_points // 10)))]
        chosen = _shuffled(even, rng)[:num_points]
        if missing := num_points - len(chosen):  # coincident points, or a coarse grid
            others = kept[~torch.isin(kept, chosen)]
            chosen = torch.cat([chosen, _shuffled(others, rng)[:missing]])
        kept = chosen
    kept = _shuffled(kept, rng)
    out = Data(pos=data.pos[kept], origin=data.origin)
    for field in FIELDS:
        if data.get(field) is not None:
            out[field] = data[field][kept]
    return out


def to_unit_sphere(data: Data) -> Data:
    """Move the points' mean to the origin and the farthest point to distance 1, as ModelNet40's.

    Coincident points, of which there may be one, all come to lie at the origin.

    Args:
        data: A scan with its ``origin``, a tuple of three floats; it stays as it is.

    Shapes and units:
        Positions in the file are ``pos * scale + origin``; ``scale`` is a float.
    """
    out = data.clone()
    pos = data.pos.double()
    mean = pos.mean(dim=0)
    pos = pos - mean
    scale = float(torch.linalg.vector_norm(pos, dim=1).max())
    out.pos = (pos / (scale or 1.0)).float()
    out.scale = scale or 1.0
    out.origin = tuple(a + b for a, b in zip(data.origin, mean.tolist(), strict=True))
    return out


def _turn(data: Data, turn: Tensor) -> Data:
    """Turn positions and normals by a matrix, ``[3, 3]``."""
    data.pos = data.pos @ turn.to(data.pos).T
    if data.get("normal") is not None:
        data.normal = data.normal @ turn.to(data.normal).T
    return data


def _check_axis(axis: int) -> None:
    if axis not in (0, 1, 2):
        raise ValueError(f"axis is {axis}, expected 0, 1 or 2")


def _unit(axis: str) -> Tensor:
    unit = torch.zeros(3)
    unit["xyz".index(axis[-1])] = -1.0 if axis.startswith("-") else 1.0
    return unit


def _shuffled(index: Tensor, rng: np.random.Generator) -> Tensor:
    return index[torch.from_numpy(rng.permutation(len(index)))]
