"""What must be known of data before training: what they are, and which are held out."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from torch import Tensor
from torch_geometric.data import Data

from pointcluster.training.run import RunError

QUANTILES, PAIRS = torch.linspace(0, 1, 16), 1 << 16
NEAR = 0.03
"""How far apart near-identical clouds' shapes are at most: a second sampling of 2,048 points is
nearer, and of a thousand pairs of other chairs not one."""


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
    """Split training clouds into kept and held, as :func:`carve_out` does.

    Args:
        train: The clouds, or what is known of them; near-identical ones stay on one side.
        fraction: Part of every class to hold.

    Raises:
        RunError: It is above 0 and no cloud would be held, or all clouds of a class.
    """
    if not isinstance(train, Survey):
        train = survey(train) if fraction else Survey([0] * len(train), [*range(len(train))], "")
    labels, groups = train.labels, train.groups
    kept, held = carve_out(labels, groups, fraction)
    what = f"--val-fraction {fraction:g}"
    if fraction and not held:
        raise RunError(
            f"{what} holds none of the {len(labels)} training clouds out: a class has too few (or "
            "too few groups) for that part; give a larger one, or 0"
        )
    if lost := sorted({*labels} - {labels[i] for i in kept}):
        raise RunError(
            f"{what} leaves no training cloud of class {lost[0]}, of {len(lost)} such classes in "
            "all: give a smaller part, or more clouds"
        )
    return kept, held


def carve_out(
    labels: Sequence[int], groups: Sequence[int], fraction: float
) -> tuple[list[int], list[int]]:
    """Split item numbers into kept and held, class by class, always in the same way.

    Args:
        labels: Class of every item.
        groups: Group of every item; a group stays on one side.
        fraction: Part of every class to hold, less what a whole group would put over it.
    """
    held: list[int] = []
    rng = np.random.default_rng(0)
    y, group = np.asarray(labels), np.asarray(groups)
    for label in np.unique(y):
        members = np.flatnonzero(y == label)
        room = round(fraction * len(members))
        for number in rng.permutation(np.unique(group[members])):
            # items of the group in other classes go with it
            same = np.flatnonzero(group == number)
            if len(same) <= room:
                held += same.tolist()
                room -= len(same)
    return sorted(set(range(len(y))) - set(held)), sorted(set(held))


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
