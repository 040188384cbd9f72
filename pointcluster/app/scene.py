"""A scan whose every point gets a class: what is worked out of it once, and kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch_geometric.data import Batch, Data

from pointcluster.app.network import check_number
from pointcluster.app.source import Source, as_file
from pointcluster.datasets.ground import GroundGrid
from pointcluster.datasets.scan_file import ScanFile
from pointcluster.datasets.scenes import SceneSurvey
from pointcluster.models import PointClusters
from pointcluster.models.stitch import BlockGrid, SceneSegmenter, thinned
from pointcluster.segment import Segmenter
from pointcluster.viz.camera import upright
from pointcluster.viz.shading import under_the_sky

DRAWN = 120_000
"""Points that a browser is given to draw; they turn smoothly."""
AT_ONCE = 4
"""Blocks whose clusters are worked out at once."""


@dataclass
class Scene:
    """The points of a scan, in the file's order, and what a network says of them."""

    pos: np.ndarray
    """Metres from the origin. [N, 3]"""
    place: Callable[[np.ndarray], np.ndarray]
    """From such positions to the file's coordinates."""
    told: np.ndarray
    """Number of the class. [N]"""
    probabilities: np.ndarray
    """Of every class. [N, C]"""
    looks: dict[str, np.ndarray]
    """What else can be drawn: `height` above the ground [N] and, where the file has them,
    `intensity` [N] and `color` [N, 3], from 0 to 1."""
    blocks: list[Data]
    """Overlapping blocks, as dense as what the network was trained on."""
    corners: torch.Tensor
    """Where the blocks begin. [B, 3]"""
    nearest: torch.Tensor
    """For each point the nearest of the points in the block in whose middle it lies. [N]"""
    drawn: np.ndarray
    """Numbers of the points that are drawn, rising. [n]"""
    light: np.ndarray
    """How much light reaches those, up to 1. [n]"""
    known: dict[tuple[int, int], PointClusters] = field(default_factory=dict)
    """The clusters of blocks' points, by stage and block."""

    def clusters(self, model: Any, stage: int, block: int, head: int) -> PointClusters:
        """The clusters of a head for all points, those of all blocks of the scene together."""
        if (stage, block) not in self.known:
            parts = [self.blocks[i : i + AT_ONCE] for i in range(0, len(self.blocks), AT_ONCE)]
            found = [model.clusters(Batch.from_data_list(part), stage, block) for part in parts]
            self.known[stage, block] = _joined(found, self.corners)
        index, similarity, region, batch, *centers = self.known[stage, block].of_head(head)
        points = (values[self.nearest] for values in (index, similarity, region, batch))
        return PointClusters(*points, *centers)


def read_scene(
    segmenter: Segmenter, source: Source, say: Callable[[float, str], Any] = lambda *told: None
) -> Scene:
    """Read a scan, and let a network tell the class of every point.

    The classes are those that :func:`pointcluster.segment.segment_file` writes.

    Args:
        segmenter: The network.
        source: The scan.
        say: Told how far it is, from 0 to 1, and what is done next.

    Raises:
        ImportError, ValueError: It cannot be read, has too many points, or has not what the network
            was trained with.
    """
    say(0.05, f"Reading {source.name}")
    with as_file(source) as path:
        scan = ScanFile(path)
        check_number(path, scan.num_points)
        survey = SceneSurvey(scan, segmenter.features)
        pieces = []
        for piece in scan.pieces():
            kept = {key: piece[key] for key in ("pos", "intensity", "color") if key in piece}
            pieces.append(kept | {"x": survey.features(piece)})
    points = {key: np.concatenate([piece[key] for piece in pieces]) for key in pieces[0]}
    pos, x = points.pop("pos"), points.pop("x")
    ground = GroundGrid()
    ground.add(pos)
    points["height"] = ground.height(pos)
    grid = BlockGrid.over(survey.low, survey.high, segmenter.edge)
    cell = grid.cells_of(pos)
    order = np.argsort(cell, kind="stable")
    starts = np.searchsorted(cell[order], np.arange(grid.shape[0] * grid.shape[1] + 1))
    pos = pos.astype(np.float32)
    runner = SceneSegmenter(
        segmenter.model, num_points=segmenter.num_points, voxel_size=segmenter.voxel_size
    )
    in_order = np.zeros((len(pos), len(segmenter.classes)), np.float32)
    done = 0

    def went_through(count: int) -> None:
        nonlocal done
        done += count  # those of overlaps come more than once
        say(0.1 + 0.8 * min(1.0, done / len(pos) / 1.4), f"Labelling {len(pos):,} points")

    runner.run(grid, starts, pos[order], x[order], in_order, say=went_through)
    probabilities = np.empty_like(in_order)
    probabilities[order] = in_order
    say(0.9, "Looking at its blocks")
    blocks, corners, nearest = _blocks(runner, grid, starts, order, pos, x)
    drawn = np.sort(np.random.default_rng(0).permutation(len(pos))[:DRAWN])
    origin, scale = np.array(scan.origin), scan.scale
    return Scene(
        pos=pos,
        place=lambda where: (where + origin) / scale,
        told=probabilities.argmax(axis=1).astype(np.uint8),
        probabilities=probabilities,
        looks={key: values.astype(np.float32) for key, values in points.items()},
        blocks=blocks,
        corners=corners,
        nearest=nearest,
        drawn=drawn,
        light=under_the_sky(upright(pos[drawn].astype(np.float64), "z")),
    )


def _blocks(
    runner: SceneSegmenter,
    grid: BlockGrid,
    starts: np.ndarray,
    order: np.ndarray,
    pos: np.ndarray,
    x: np.ndarray,
) -> tuple[list[Data], torch.Tensor, torch.Tensor]:
    """What :class:`Scene` keeps of blocks: of each the first of the clouds that a network sees."""
    blocks, corners, first = [], [], 0
    nearest, most = np.zeros(len(pos), np.int64), np.zeros(len(pos))
    for block in grid.each_block(starts):
        rows = order[block.rows]
        kept = thinned(torch.from_numpy(pos[rows]), runner.voxel_size)
        clouds = max(1, round(len(kept) / runner.num_points))
        generator = torch.Generator().manual_seed(block.number)
        shuffled = kept[torch.randperm(len(kept), generator=generator)]
        some = rows[shuffled[::clouds].sort().values.numpy()]
        corners.append([*block.low, 0.0])
        cloud = Data(pos=torch.from_numpy(pos[some]) - torch.tensor(corners[-1]).float())
        if x.shape[1]:
            cloud.x = torch.from_numpy(x[some])
        blocks.append(cloud)
        weight = grid.weight(block, pos[rows, :2])
        mine = rows[weight > most[rows]]
        most[rows] = np.maximum(most[rows], weight)
        nearest[mine] = first + cKDTree(pos[some]).query(pos[mine])[1]
        first += len(some)
    return blocks, torch.tensor(corners), torch.from_numpy(nearest)


def _joined(parts: list[PointClusters], corners: torch.Tensor) -> PointClusters:
    """The clusters of some blocks after the others, counted on, in the scene's positions."""
    moved = []
    centers = regions = clouds = 0
    for part in parts:
        index, region, batch = part.index + centers, part.region + regions, part.batch + clouds
        where, cloud = part.center_pos, part.center_batch + clouds
        moved.append((index, part.similarity, region, batch, where + corners[cloud], cloud))
        centers += len(where)
        regions += int(part.region.max()) + 1
        clouds += int(part.batch.max()) + 1
    return PointClusters(*(torch.cat(values) for values in zip(*moved, strict=True)))
