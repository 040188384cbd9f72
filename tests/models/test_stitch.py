from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch_geometric.data import Data

from pointcluster.models.stitch import (
    CELLS,
    STEP,
    BlockGrid,
    SceneSegmenter,
    segment_scene,
    thinned,
)


class ByPlace(nn.Module):
    """Scores that depend on a point's features alone: stitching must not change them."""

    num_classes = 3

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 3)
        self.sizes = []

    def forward(self, data):
        self.sizes += data.ptr.diff().tolist()
        return self.linear(data.x)


class ByNumber(ByPlace):
    """Scores that tell one block from another."""

    def forward(self, data):
        far = data.pos[:, 0] / 10
        return torch.stack([far, -far, 0 * far], dim=1)


def scene(size=3000, seed=0, edge=100.0):
    generator = torch.Generator().manual_seed(seed)
    pos = torch.rand(size, 3, generator=generator) * torch.tensor([edge, 0.6 * edge, 4.0])
    return Data(pos=pos, x=torch.randn(size, 2, generator=generator))


def sorted_by(grid, pos):
    cell = grid.cells_of(pos)
    order = np.argsort(cell, kind="stable")
    starts = np.searchsorted(cell[order], np.arange(grid.shape[0] * grid.shape[1] + 1))
    return order, starts


@pytest.mark.parametrize("edge", [7.0, 20.0, 33.0, 60.0, 500.0])
def test_blocks_cover_the_scene_and_weigh_one_together(edge):
    pos = scene().pos.double().numpy() + np.array([1e5, -3e5, 0])
    grid = BlockGrid.over(pos.min(axis=0), pos.max(axis=0), edge)
    assert all(edge / 2 <= CELLS * cell <= edge * 1.001 for cell in grid.cell) or edge == 500
    assert grid.shape == tuple(n * STEP + CELLS - STEP for n in grid.blocks)
    order, starts = sorted_by(grid, pos)
    total, seen = np.zeros(len(pos)), np.zeros(len(pos), int)
    for block in grid.each_block(starts):
        inside = pos[order[block.rows]]
        reach = inside[:, :2] - block.low
        assert (reach > -1e-6).all() and (reach < CELLS * np.array(grid.cell) + 1e-6).all()
        total[block.rows] += grid.weight(block, inside[:, :2])
        seen[block.rows] += 1
    np.testing.assert_allclose(total, 1, rtol=0, atol=1e-9)
    assert seen.min() >= 1 and seen.max() <= 4
    with pytest.raises(ValueError, match="edge of blocks must be positive"):
        BlockGrid.over(pos.min(axis=0), pos.max(axis=0), 0)


@pytest.mark.parametrize("voxel_size", [0.0, 3.0])
def test_what_depends_on_the_point_alone_is_unchanged(voxel_size):
    torch.manual_seed(0)
    model, data = ByPlace(), scene()
    if voxel_size:  # points of a voxel look alike
        middle = torch.floor(data.pos / voxel_size)
        data.x = torch.ones(len(middle), 2)
    found = segment_scene(model, data, edge=30.0, num_points=150, voxel_size=voxel_size)
    expected = model.linear(data.x).softmax(dim=1)
    torch.testing.assert_close(found, expected.detach(), rtol=0, atol=1e-5)


def test_order_position_and_shares_change_nothing():
    torch.manual_seed(0)
    model, data = ByNumber(), scene()
    options = {"edge": 90.0, "num_points": 100_000}
    found = segment_scene(model, data, **options)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(3000), rtol=0, atol=1e-5)
    order = torch.randperm(3000)
    other = Data(pos=data.pos[order], x=data.x[order])
    torch.testing.assert_close(segment_scene(model, other, **options), found[order])
    parts = [segment_scene(model, data, **options, part=(n, 3)) for n in range(3)]
    torch.testing.assert_close(sum(parts), found)


def test_there_are_no_seams():
    """Blocks that disagree wherever they meet are faded into one another."""
    torch.manual_seed(0)
    model = ByNumber()
    pos = torch.zeros(2001, 3)
    pos[:, 0] = torch.linspace(0, 100, 2001)
    found = segment_scene(model, Data(pos=pos), edge=30.0, num_points=100_000)
    assert float(found.diff(dim=0).abs().max()) < 0.03


class ByNeighbours(ByPlace):
    """Scores that depend on what is around a point, which ends at a block's border."""

    def forward(self, data):
        sizes = data.ptr.diff().tolist()
        means = []
        for pos, x in zip(data.pos.split(sizes), data.x.split(sizes), strict=True):
            near = torch.cdist(pos, pos).topk(12, largest=False).indices
            means.append(x[near].mean(dim=1))
        return 9 * torch.cat(means) @ torch.eye(2, 3)


def test_moved_borders_change_hardly_any_class():
    data = scene(4000, edge=200.0)
    options = {"edge": 90.0, "num_points": 100_000}
    told = segment_scene(ByNeighbours(), data, **options).argmax(dim=1)
    inner = (data.pos[:, :2] > 8).all(dim=1)
    moved = Data(pos=data.pos[inner], x=data.x[inner])
    again = segment_scene(ByNeighbours(), moved, **options).argmax(dim=1)
    away = (moved.pos[:, :2] > 16).all(dim=1)  # from where the scene was cut
    kept = (again == told[inner])[away].float().mean()
    assert 0.99 <= kept < 1, kept


def test_a_dense_block_is_shared_out_and_a_fine_one_thinned():
    torch.manual_seed(0)
    model, data = ByPlace(), scene()
    segment_scene(model, data, edge=500.0, num_points=1000)
    assert model.sizes == [1000] * 3
    model.sizes.clear()
    segment_scene(model, data, edge=500.0, num_points=100_000, voxel_size=10.0)
    assert model.sizes == [len(thinned(data.pos, 10.0))] and model.sizes[0] <= 60
    kept = thinned(data.pos, 10.0)
    cells = torch.floor(data.pos / 10).unique(dim=0)
    assert len(kept) == len(cells) and bool((kept.diff() > 0).all())
    assert torch.equal(thinned(data.pos, 0), torch.arange(3000))


def test_threads_give_the_same_answer(monkeypatch):
    torch.manual_seed(0)
    model, data = ByNumber(), scene()
    options = {"edge": 15.0, "num_points": 100}
    monkeypatch.setattr("pointcluster.models.stitch.BATCH_POINTS", 300)
    monkeypatch.setattr(SceneSegmenter, "_workers", lambda self: 1)
    alone = segment_scene(model, data, **options)
    monkeypatch.setattr(SceneSegmenter, "_workers", lambda self: 3)
    before = torch.get_num_threads()
    assert torch.equal(segment_scene(model, data, **options), alone)
    assert torch.get_num_threads() == before


def test_scores_that_are_no_numbers_and_a_single_point():
    model = ByPlace()
    one = segment_scene(model, Data(pos=torch.ones(1, 3), x=torch.ones(1, 2)), edge=5.0,
                        num_points=10)  # fmt: skip
    assert one.shape == (1, 3) and abs(float(one.sum()) - 1) < 1e-6
    nn.init.constant_(model.linear.bias, float("nan"))
    with pytest.raises(ValueError, match="no finite numbers"):
        segment_scene(model, scene(), edge=30.0, num_points=10)
