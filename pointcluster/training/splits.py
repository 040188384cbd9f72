"""The two parts of a data set before training: where they lie, what they hold, what is held out."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from torch import Tensor
from torch_geometric.data import Data

from pointcluster import datasets
from pointcluster.training.run import RunError

SAMPLED = 2048
"""Points that a scan is reduced to where the network gets fewer: what it may choose from."""
QUANTILES, PAIRS = torch.linspace(0, 1, 16), 1 << 16
NEAR = 0.03
"""How far apart near-identical clouds' shapes are at most: a second sampling of 2,048 points is
nearer, and of a thousand pairs of other chairs not one."""


class Clouds(NamedTuple):
    """The two splits of a data set of clouds, and what results call it."""

    name: str
    train: Any
    test: Any
    points: int | None
    """Of each cloud; `None` where they differ."""
    sampled: int = SAMPLED
    """Most points of a cloud."""
    normalized: bool = True
    """Whether clouds lie in the unit sphere around their mean."""

    @property
    def classes(self) -> list[str]:
        """Their names."""
        return list(self.test.classes)

    def counted(self) -> str:
        """How much there is, in words."""
        return (
            f"{len(self.train):,} training and {len(self.test):,} test clouds, "
            f"{len(self.classes)} classes"
        )

    def title(self, num_points: int) -> str:
        """What runs on so many points of each cloud are called."""
        of = "" if self.points is None else f" of {self.points:,}"
        return f"{self.name}, {num_points:,}{of} points"

    def look_through(self, num_points: int, val_fraction: float) -> tuple[Any, str]:
        """Read every cloud once: what cannot be read shows now, and not after an epoch.

        Args:
            num_points: Points that the network gets of each.
            val_fraction: Part of the training clouds to hold out for validation.

        Returns:
            What :func:`hold_out` gives, and the :func:`fingerprint` of both splits.

        Raises:
            ValueError: Clouds have fewer points, one cannot be read, or that part cannot be held
                out.
        """
        if self.points is not None and num_points > self.points:
            raise ValueError(
                f"--num-points is {num_points}, {self.name} has {self.points} points a cloud"
            )
        train, test = survey(self.train), survey(self.test)
        return hold_out(train, val_fraction), train.digest + test.digest


class Pictures(NamedTuple):
    """The two splits of a data set of pictures, and what networks get to see of them."""

    name: str
    train: Any
    test: Any
    config: dict[str, Any] | None = None
    """As :func:`data_config` gives it; `None` for what the network takes."""

    def left_out(self, counted: int) -> str:
        """How many test pictures could not be read, in words, if so many were counted."""
        number, total = len(self.test) - counted, len(self.test)
        return f"({number:,} of {total:,} unreadable, left out) " if number else ""


def cloud_folder(
    root: str | Path, num_points: int, columns: str | None = None
) -> tuple[datasets.PointFolder, datasets.PointFolder]:
    """Scans and meshes: `train/CLASS/*` and `test/CLASS/*`, or `CLASS/*` of which a part is tested.

    Args:
        root: The folder.
        num_points: Points that the network gets.
        columns: What the columns of tables are, as :class:`~pointcluster.datasets.PointFolder`
            takes it.

    Raises:
        ValueError: There is no such folder, or its two parts have other classes, or only one.
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        raise ValueError(f"--data: there is no folder {root}")
    points = max(num_points, SAMPLED)
    train, test = (
        datasets.PointFolder(root, split=part, num_points=points, fields=(), columns=columns)
        for part in ("train", "test")
    )
    if len(train.classes) < 2:
        raise ValueError(
            f"--data {root}: there is one class, {train.classes[0]}, expected at least two, each a "
            "folder"
        )
    return train, test


def image_folder(
    root: str | Path, *, train: bool = True, on_error: str = "raise"
) -> tuple[Any, datasets.ImageFolder]:
    """Pictures as ImageNet has them: `train/CLASS/*` and `val/CLASS/*`.

    Args:
        root: The folder.
        train: Whether the training part is read; an empty one is given otherwise.
        on_error: What happens to a picture that cannot be read: `"raise"`, or `"skip"`, which takes
            the next one in training and leaves it out of the test.

    Raises:
        ValueError: A folder is missing, or the two parts have other classes.
    """
    folders = [Path(root).expanduser() / part for part in ("train", "val")]
    for folder in folders if train else folders[1:]:
        if not folder.is_dir():
            raise ValueError(f"--data {root}: there is no folder {folder}")
    test = datasets.ImageFolder(folders[1], on_error="raise" if on_error == "raise" else "drop")
    if not train:
        return (), test
    first = datasets.ImageFolder(folders[0], on_error=on_error)
    if first.classes != test.classes:
        differ = [
            f"{name} is only in {'train' if name in first.classes else 'val'}/"
            for name in sorted({*first.classes} ^ {*test.classes})
        ]
        more = "; ..." if len(differ) > 3 else ""
        raise ValueError(
            f"--data {root}: train/ and val/ have other classes: {'; '.join(differ[:3])}{more}"
        )
    return first, test


class Survey(NamedTuple):
    """A split of clouds, item by item."""

    labels: list[int]
    groups: list[int]
    """Items of one number belong together: the data set says so, or they are near-identical."""
    digest: str
    """Of all tensors of all items: other data of the same name and size have another."""


def survey(split: Sequence[Data]) -> Survey:
    """Read every cloud once.

    Where items have no `group`, clouds of one class and one shape (two samplings of one mesh, a
    copy under another name, turned or moved) are a group.

    Raises:
        RunError: A cloud cannot be read, or has no points.
    """
    digest, labels, shapes = hashlib.blake2b(digest_size=16), [], []
    groups: list[int | None] = []
    digest.update(f"{len(split)};".encode())
    for i in range(len(split)):
        try:
            item = split[i]
        except (OSError, ValueError) as error:
            raise RunError(error) from error
        if not item.num_nodes:
            raise RunError(f"{item.get('name', f'cloud {i}')} has no points")
        for key in sorted(item.keys()):
            if isinstance(value := item[key], Tensor):
                digest.update(f"{key}{tuple(value.shape)}{value.dtype}".encode())
                digest.update(value.detach().cpu().contiguous().numpy().data)
        labels.append(int(item.y) if item.get("y") is not None else 0)
        group = item.get("group")
        groups.append(None if group is None else int(group))
        if group is None and item.pos.is_floating_point() and item.pos.dim() == 2:
            shapes.append(_shape(item.pos))
    if shapes and len(shapes) == len(labels):
        found = _near_identical(np.stack(shapes), np.array(labels))
    else:
        found = [-1 - i if group is None else group for i, group in enumerate(groups)]
    return Survey(labels, found, digest.hexdigest())


def hold_out(train: Sequence[Data] | Survey, fraction: float) -> tuple[list[int], list[int]]:
    """Split training clouds into kept and held, class by class, always in the same way.

    Args:
        train: The clouds, or what is known of them; a group stays on one side.
        fraction: Part of every class to hold, less what a whole group would put over it.

    Raises:
        RunError: It is above 0 and no cloud would be held, or all clouds of a class.
    """
    if not fraction:  # no item need be read, which may mean a file each
        return list(range(len(train.labels if isinstance(train, Survey) else train))), []
    labels, groups, _ = train if isinstance(train, Survey) else survey(train)
    rng, y, group = np.random.default_rng(0), np.asarray(labels), np.asarray(groups)
    out = np.zeros(len(y), bool)
    for label in np.unique(y):
        members = np.flatnonzero(y == label)
        room = round(fraction * len(members))
        for number in rng.permutation(np.unique(group[members])):
            # items of the group in other classes go with it
            same = np.flatnonzero(group == number)
            if len(same) <= room:
                out[same] = True
                room -= len(same)
    what = f"--val-fraction {fraction:g}"
    if not out.any():
        raise RunError(
            f"{what} holds none of the {len(labels)} training clouds out: a class has too few (or "
            "too few groups) for that part; give a larger one, or 0"
        )
    if lost := sorted({*labels} - {*y[~out].tolist()}):
        raise RunError(
            f"{what} leaves no training cloud of class {lost[0]}, of {len(lost)} such classes in "
            "all: give a smaller part, or more clouds"
        )
    return np.flatnonzero(~out).tolist(), np.flatnonzero(out).tolist()


def fingerprint(*splits: Sequence[Data]) -> str:
    """A digest of all tensors of all items: other data of the same name and size have another."""
    return "".join(survey(split).digest for split in splits)


def fingerprint_images(*splits: Any) -> str:
    """A digest of pictures: those in memory, or the names and sizes of their files.

    Args:
        splits: Data sets with `images` in memory, or with `path(index)`.
    """
    digest = hashlib.blake2b(digest_size=16)
    for split in splits:
        digest.update(f"{len(split)};".encode())
        if not len(split):
            continue
        digest.update(np.ascontiguousarray(split.targets.numpy()).data)
        if hasattr(split, "path"):
            for index in range(len(split)):
                path = split.path(index)
                digest.update(f"{path.parent.name}/{path.name} {os.stat(path).st_size};".encode())
        else:
            digest.update(np.ascontiguousarray(np.asarray(split.images)).data)
    return digest.hexdigest()


def _shape(pos: Tensor) -> np.ndarray:
    """Quantiles of the distances from the mean and of those between random pairs of points."""
    pos = pos.double() - pos.double().mean(dim=0)
    reach = torch.linalg.vector_norm(pos, dim=1)
    pairs = torch.randint(len(pos), (2, PAIRS), generator=torch.Generator().manual_seed(0))
    between = torch.linalg.vector_norm(pos[pairs[0]] - pos[pairs[1]], dim=1)
    scale = reach.square().mean().sqrt().clamp_min(1e-30)
    inner = QUANTILES.double()[1:-1]  # the outermost depend on single points
    parts = [torch.quantile(each / scale, inner) for each in (reach, between)]
    return torch.cat(parts).numpy()


def _near_identical(shapes: np.ndarray, labels: np.ndarray) -> list[int]:
    """Numbers of groups, by classes; the shapes of most of a class are no sign of copies."""
    groups, start = np.zeros(len(labels), np.int64), 0
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        for near in (NEAR, 1e-9):
            tree = cKDTree(shapes[rows])
            count = min(8, len(rows))
            distance, index = tree.query(shapes[rows], count, p=np.inf, distance_upper_bound=near)
            here = np.isfinite(distance.reshape(len(rows), count))
            first = np.repeat(np.arange(len(rows)), count).reshape(here.shape)[here]
            second = index.reshape(here.shape)[here]
            size = (len(rows), len(rows))
            graph = coo_matrix((np.ones(len(first)), (first, second)), size)
            _, numbers = connected_components(graph, directed=False)
            if np.bincount(numbers).max() <= max(1, len(rows) // 2):
                break
        groups[rows] = numbers + start
        start += int(numbers.max()) + 1
    return groups.tolist()
