"""A network of blocks on a whole scene: overlapping blocks, averaged."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from pointcluster.geometry.carry import carry_geometry
from pointcluster.geometry.check import check_positive
from pointcluster.nn.carry_back import interpolate

CELLS, STEP = 6, 5
"""Cells along a block's edge, and from one block to the next: the rest is where they overlap."""
BATCH_POINTS = 1 << 14
"""Points that go through the network at once."""


class Block(NamedTuple):
    """One block of a grid."""

    number: int
    """Its place among all blocks."""
    rows: np.ndarray
    """Its points, among those sorted by cells."""
    low: np.ndarray
    """Where it begins, x and y."""
    open: np.ndarray
    """Whether it has a neighbour before and behind, along x and y. [2, 2]"""


class BlockGrid(NamedTuple):
    """Square cells over a scene, seen from above, of which blocks are made.

    A block has :data:`CELLS` cells along its edge and begins at every :data:`STEP`-th one, so that
    neighbours overlap; all of them are whole, and together they cover the scene.
    """

    low: tuple[float, float]
    """Where the cells begin, x and y."""
    cell: tuple[float, float]
    """Their edges."""
    blocks: tuple[int, int]
    """Blocks along x and y."""

    @classmethod
    def over(cls, low: Any, high: Any, edge: float) -> BlockGrid:
        """The grid over a box whose blocks have edges of `edge`, or somewhat less to fit.

        Raises:
            ValueError: The edge is not positive and finite.
        """
        if not 0 < edge < np.inf:
            raise ValueError(f"the edge of blocks must be positive and finite, found {edge}")
        cells, blocks = [], []
        for axis in (0, 1):
            span = float(high[axis]) - float(low[axis])
            number = max(1, int(np.ceil((span / edge * CELLS - (CELLS - STEP)) / STEP)))
            blocks.append(number)
            # A hair wider: what lies on the upper border is inside.
            cells.append(max(span * (1 + 1e-9) / (number * STEP + CELLS - STEP), edge / CELLS / 2))
        return cls((float(low[0]), float(low[1])), (cells[0], cells[1]), (blocks[0], blocks[1]))

    @property
    def shape(self) -> tuple[int, int]:
        """Cells along x and y."""
        x, y = (number * STEP + CELLS - STEP for number in self.blocks)
        return x, y

    def cells_of(self, pos: np.ndarray) -> np.ndarray:
        """The number of the cell of each point. [N, 3] to [N]"""
        place = np.floor((pos[:, :2] - np.array(self.low)) / self.cell).astype(np.int64)
        place = place.clip(0, np.array(self.shape) - 1)
        number: np.ndarray = place[:, 0] * self.shape[1] + place[:, 1]
        return number

    def each_block(self, starts: np.ndarray) -> Iterator[Block]:
        """All blocks with points, for points that are sorted by cells.

        Args:
            starts: Where every cell's points begin, and where the last one's end.
        """
        wide = self.shape[1]
        for i in range(self.blocks[0]):
            for j in range(self.blocks[1]):
                first = (np.arange(CELLS) + i * STEP) * wide + j * STEP
                runs = zip(starts[first], starts[first + CELLS], strict=True)
                rows = np.concatenate([np.arange(begin, end) for begin, end in runs])
                if len(rows):
                    yield Block(
                        i * self.blocks[1] + j,
                        rows,
                        np.array(self.low) + np.array([i, j]) * STEP * np.array(self.cell),
                        np.array([[i, self.blocks[0] - 1 - i], [j, self.blocks[1] - 1 - j]]) > 0,
                    )

    def weight(self, block: Block, pos: np.ndarray) -> np.ndarray:
        """What a block counts at its points: together, all blocks of a point count 1.

        It falls to 0 at the border where there is a neighbour, smoothly over the overlap.

        Shapes:
            - **pos:** $(n, 2)$
            - **output:** $(n)$
        """
        weight = np.ones(len(pos))
        for axis in (0, 1):
            place = (pos[:, axis] - block.low[axis]) / self.cell[axis] / (CELLS - STEP)
            for is_open, part in zip(
                block.open[axis], (place, CELLS / (CELLS - STEP) - place), strict=True
            ):
                if is_open:
                    part = part.clip(0, 1)
                    weight *= part * part * (3 - 2 * part)
        return weight


class SceneSegmenter:
    """Gives the probabilities of all points of a scene by a network that takes blocks.

    Neighbouring blocks overlap, and what they say is averaged, with less weight near a block's
    border, so that there are no seams. A block is first thinned to one point a voxel; where more
    are left than the network was trained on, they are shared out at random among so many clouds
    that each is about as dense as those. A point that was thinned out gets the mean of the three
    nearest that were not.

    Args:
        model: The network; `model(data)` gives `[N, classes]`.
        num_points: Points of the blocks that it was trained on.
        voxel_size: Edge of the voxels; 0: nothing is thinned.
    """

    def __init__(self, model: nn.Module, *, num_points: int, voxel_size: float = 0.0) -> None:
        check_positive("num_points", num_points)
        self.model, self.num_points, self.voxel_size = model, num_points, voxel_size

    def run(
        self,
        grid: BlockGrid,
        starts: np.ndarray,
        pos: np.ndarray,
        x: np.ndarray,
        out: np.ndarray,
        say: Callable[[int], Any] | None = None,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        """Fill in the probabilities of points that are sorted by the grid's cells.

        The arrays may lie on disk: only a few blocks are looked at at a time.

        Args:
            grid: The grid.
            starts: Where every cell's points begin, and where the last one's end.
            pos: Positions of the points.
            x: Their features.
            out: Zeros, where the probabilities come to stand.
            say: Is called with numbers of points that went through, overlaps counted twice.
            part: Which of how many equal shares of the blocks to run.

        Shapes:
            - **pos:** $(N, 3)$, **x:** $(N, F)$, **out:** $(N, C)$

        Raises:
            ValueError: The network's scores are no finite numbers.
        """

        def answer(blocks: list[Block]) -> list[tuple[np.ndarray, np.ndarray]]:
            return self._answer(grid, blocks, pos, x)

        mine = (block for block in grid.each_block(starts) if block.number % part[1] == part[0])
        for answers in _in_order(answer, _groups(mine), self._workers()):
            for rows, scores in answers:
                out[rows] += scores
            if say is not None:
                say(sum(len(rows) for rows, _ in answers))

    def _workers(self) -> int:
        """Groups of blocks at a time: on a CPU many small steps gain little of several threads."""
        device = next(self.model.parameters()).device
        return torch.get_num_threads() if device.type == "cpu" else 1

    @torch.inference_mode()
    def _answer(
        self, grid: BlockGrid, blocks: list[Block], pos: np.ndarray, x: np.ndarray
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Of some blocks the points, and what is to be added to their probabilities."""
        clouds: list[Data] = []
        shares: list[list[Tensor]] = []
        places: list[Tensor] = []
        for block in blocks:
            place = torch.from_numpy(np.asarray(pos[block.rows], np.float64))  # [n, 3]
            kept = thinned(place, self.voxel_size)  # by the scene's voxels, whatever the block
            place -= torch.tensor([*block.low, 0.0], dtype=torch.float64)
            number = max(1, round(len(kept) / self.num_points))
            generator = torch.Generator().manual_seed(block.number)
            order = kept[torch.randperm(len(kept), generator=generator)]
            shares.append([order[start::number].sort().values for start in range(number)])
            places.append(place)
            for share in shares[-1]:
                cloud = Data(pos=place[share].float())
                if x.shape[1]:
                    cloud.x = torch.from_numpy(np.asarray(x[block.rows[share.numpy()]]))
                clouds.append(cloud)
        scores = iter(self._scores(clouds))
        out = []
        for block, place, parts in zip(blocks, places, shares, strict=True):
            kept = torch.cat(parts)
            found = torch.cat([next(scores) for _ in parts])
            if len(kept) < len(place):
                carry = carry_geometry(place, place[kept], 3, [len(place)], [len(kept)])
                found = interpolate(found, carry)
            else:
                found = torch.empty_like(found).index_copy(0, kept, found)
            weight = grid.weight(block, place[:, :2].numpy() + block.low)
            out.append((block.rows, (found.numpy() * weight[:, None]).astype(np.float32)))
        return out

    def _scores(self, clouds: Sequence[Data]) -> Iterator[Tensor]:
        """The probabilities of all points of every cloud, some clouds at a time."""
        device = next(self.model.parameters()).device
        while clouds:
            ends = np.cumsum([len(cloud.pos) for cloud in clouds])
            number = max(1, int(np.searchsorted(ends, BATCH_POINTS, side="right")))
            batch = Batch.from_data_list(list(clouds[:number])).to(device)
            scores = self.model(batch).float().softmax(dim=1).cpu()
            if not bool(scores.isfinite().all()):
                raise ValueError(
                    "the network's scores are no finite numbers: its weights are damaged, or its "
                    "training had diverged"
                )
            yield from scores.split([len(cloud.pos) for cloud in clouds[:number]])
            clouds = clouds[number:]


def _groups(blocks: Iterable[Block]) -> Iterator[list[Block]]:
    """Blocks that make about :data:`BATCH_POINTS` points together."""
    group: list[Block] = []
    for block in blocks:
        group.append(block)
        if sum(len(each.rows) for each in group) >= BATCH_POINTS:
            yield group
            group = []
    if group:
        yield group


def _in_order(
    work: Callable[[list[Block]], Any], items: Iterable[list[Block]], workers: int
) -> Iterator[Any]:
    """What is made of every item, in order, by threads that use one core of torch's.

    No more items wait than there are threads, so that memory does not grow with the scene.
    """
    if workers < 2:
        yield from map(work, items)
        return
    threads = torch.get_num_threads()
    waiting: deque[Future] = deque()
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        torch.set_num_threads(1)
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            torch.set_num_threads(threads)
            for future in waiting:
                future.cancel()


def thinned(pos: Tensor, size: float) -> Tensor:
    """The first point of every voxel with an edge of `size`, rising; 0: all points."""
    if not size:
        return torch.arange(len(pos))
    key = torch.floor(pos.double() / size).long().numpy()
    key = key - key.min(axis=0, initial=0)
    wide = key.max(axis=0, initial=0) + 1
    if math.prod(wide.tolist()) < 2**62:  # one number a voxel is sorted far faster than three
        key = (key[:, 0] * wide[1] + key[:, 1]) * wide[2] + key[:, 2]
    _, first = np.unique(key, axis=0, return_index=True)
    return torch.from_numpy(np.sort(first))


def segment_scene(
    model: Any,
    data: Data,
    *,
    edge: float,
    num_points: int,
    voxel_size: float = 0.0,
    part: tuple[int, int] = (0, 1),
) -> Tensor:
    """The probabilities of all points of a scene in memory, stitched from overlapping blocks.

    Args:
        model: The network.
        data: The scene.
        edge: Edge of the blocks that it was trained on, in the positions' unit.
        num_points: Points of the blocks that it was trained on.
        voxel_size: Edge of the voxels that a block is thinned to; 0: not.
        part: Which of how many equal shares of the blocks to run; the sum over all shares is the
            answer.

    Shapes:
        - **output:** $(N, C)$
    """
    pos = data.pos.cpu().numpy().astype(np.float64)
    x = data.x.cpu().numpy() if data.get("x") is not None else np.zeros((len(pos), 0), np.float32)
    grid = BlockGrid.over(pos.min(axis=0), pos.max(axis=0), edge)
    cell = grid.cells_of(pos)
    order = np.argsort(cell, kind="stable")
    starts = np.searchsorted(cell[order], np.arange(grid.shape[0] * grid.shape[1] + 1))
    out = np.zeros((len(pos), model.num_classes), np.float32)
    SceneSegmenter(model, num_points=num_points, voxel_size=voxel_size).run(
        grid, starts, pos[order], x[order], out, part=part
    )
    back = np.empty_like(out)
    back[order] = out
    return torch.from_numpy(back)
