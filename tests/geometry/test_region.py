from __future__ import annotations

import pytest
import torch

from pointcluster.geometry import cluster_geometry
from tests.geometry.conftest import KINDS, make_points
from tests.geometry.truth import loop_fps, loop_knn


@pytest.mark.parametrize("sizes", [[64, 64], [50, 0, 3, 1, 41]])
@pytest.mark.parametrize("kind", KINDS)
def test_centres_and_groupings_agree_with_loops(kind, sizes):
    pos = make_points(kind, sum(sizes), 3, torch.float64)
    batch = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    g = cluster_geometry(pos, batch, num_centers=4, k=6, region_size=16, batch_size=len(sizes))
    assert torch.equal(batch[g.order], g.batch) and g.batch_size == len(sizes)
    stored = pos[g.order].numpy()
    of, group, count = g.regions.of, g.regions.group, g.regions.filled
    assert torch.equal(g.regions.ptr.diff(), torch.bincount(of))
    for region in range(int(of.max()) + 1):
        place = (of == region).nonzero().view(-1)
        inside = stored[place.numpy()]
        center = g.center[4 * region : 4 * region + 4] - place[0]
        picks = loop_fps(inside, 4, int(center[0]))
        assert center.tolist() == [picks[j % len(picks)] for j in range(4)]
        truth = loop_knn(inside, inside[center.numpy()], 6, [0] * len(inside), [0] * 4)
        assert group[region].tolist() == truth.tolist()
        assert count[region].tolist() == [min(6, len(inside))] * 4
    if len(set(sizes)) == 1:
        dense = torch.zeros_like(g.regions.pool)
        for row, (near, number) in enumerate(zip(group.view(-1, 6), count.view(-1), strict=True)):
            for j in near[:number].tolist():
                dense[row // 4, row % 4, j] += 1
        assert torch.equal(g.regions.pool, dense)
    else:
        assert g.regions.pool is None and g.regions.size is None


def test_no_points_at_all():
    g = cluster_geometry(
        torch.zeros(0, 3),
        torch.zeros(0, dtype=torch.int64),
        num_centers=2,
        k=3,
        batch_size=3,
        region_size=8,
    )
    assert g.center.numel() == 0 and g.regions.group.shape == (0, 2, 3) and g.batch_size == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_centers": 0}, "num_centers"),
        ({"k": 0}, "k must"),
        ({"region_size": 0}, "region_size"),
        ({"centers": "middle"}, "centers must be"),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(ValueError, match=message):
        cluster_geometry(torch.zeros(4, 3), **({"num_centers": 2, "k": 2} | options))
