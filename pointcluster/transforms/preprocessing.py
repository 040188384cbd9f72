"""From a scan of any kind to a cloud as a network was trained on."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import torch
from torch_geometric.data import Data

from pointcluster.transforms.clouds import (
    AXES,
    FEATURES,
    FirstPoints,
    TurnUp,
    UnitCube,
    reduce_points,
    to_unit_sphere,
)


class Preprocessing(NamedTuple):
    """What clouds a network was trained on."""

    num_points: int = 2048
    """Points a cloud."""
    normalize: bool | str = True
    """Whether they lie in the unit sphere around their mean; or "cube": in that from -1 to 1."""
    up: str = "y"
    """The axis that points up."""
    features: tuple[str, ...] = ()
    """What `x` holds, of `"normal"` and `"color"`."""
    sampled: int | None = None
    """Points that a scan is thinned to before that, of which the cloud is a part; `None`: none."""

    @classmethod
    def of(cls, path: str | os.PathLike[str], metadata: Any) -> Preprocessing:
        """What a network's metadata say; what they leave out is as in this library's data sets.

        Args:
            path: The network's file, as messages name it.
            metadata: A dictionary that may have an entry ``"preprocessing"``.

        Raises:
            ValueError: They make no sense.
        """
        noted = metadata.get("preprocessing", {}) if isinstance(metadata, dict) else None
        if not isinstance(noted, dict):
            raise ValueError(f"{path}: its metadata's 'preprocessing' must be an object")
        if unknown := set(noted) - {*cls._fields}:
            raise ValueError(
                f"{path} was trained with the preprocessing {sorted(unknown)}, which this version "
                "does not know"
            )
        self = cls(**noted)
        if wrong := self._wrong():
            name, expected = wrong
            raise ValueError(
                f"{path}: its metadata's {name!r} is {getattr(self, name)!r}, expected {expected}"
            )
        return self._replace(features=tuple(self.features))

    def _wrong(self) -> tuple[str, str] | None:
        """The name of a value that makes no sense, and what is expected of it."""
        for name in ("num_points", "sampled"):
            count: Any = getattr(self, name)
            if name == "sampled" and count is None:
                continue
            if isinstance(count, bool) or not isinstance(count, int):
                return name, "a number"
            if count < 1:
                return name, "at least 1"
        if not isinstance(self.normalize, bool) and self.normalize != "cube":
            return "normalize", "true, false or 'cube'"
        if self.up not in AXES:
            return "up", f"one of {' '.join(AXES)}"
        features: Any = self.features
        if not isinstance(features, (list, tuple)) or any(f not in FEATURES for f in features):
            return "features", f"a list of {' and '.join(FEATURES)}"
        return None

    def apply(
        self,
        data: Data,
        name: str | os.PathLike[str],
        *,
        num_points: int | None = None,
        up: str | None = None,
        seed: int = 0,
    ) -> Data:
        """Make a scan such a cloud, with `pos` and, where the network takes features, `x`.

        Args:
            data: As :func:`pointcluster.datasets.read_points` gives it; it stays as it is.
            name: What messages call it.
            num_points: Most points to keep, instead of what the network was trained on.
            up: The axis that points up in it, where that is not the network's.
            seed: What sampling goes by.

        Raises:
            ValueError: There is no such axis; or it has no normals or colours, and the network
                needs them.
        """
        kept = num_points or self.num_points
        turn = TurnUp(up or self.up, self.up)
        data = turn(reduce_points(data, max(kept, self.sampled or 0), seed=seed))
        if self.normalize == "cube":
            data = UnitCube()(data)
        elif self.normalize:
            data = to_unit_sphere(data)
        data = FirstPoints(kept)(data)
        cloud = Data(pos=data.pos)
        if self.features:
            for field in self.features:
                if data.get(field) is None:
                    raise ValueError(f"{name} has no {field}, which the network needs")
            cloud.x = torch.cat([data[field] for field in self.features], dim=1)
        return cloud
