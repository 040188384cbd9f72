from __future__ import annotations

import pytest
import torch
from torch_geometric.data import Data

from pointcluster.training import fingerprint, hold_out, survey
from pointcluster.training.run import RunError


def test_the_same_data_have_the_same(clouds):
    assert fingerprint(clouds) == fingerprint([cloud.clone() for cloud in clouds])
    assert len(fingerprint(clouds[:0])) == 32


def test_whatever_differs_another(clouds):
    def changed(**options):
        other = [cloud.clone() for cloud in clouds]
        other[7].update(options)
        return fingerprint(other)

    found = [
        fingerprint(clouds),
        fingerprint(clouds[:-1]),
        fingerprint(clouds[:15], clouds[15:]),
        fingerprint(clouds[::-1]),
        changed(pos=clouds[7].pos + 1e-6),
        changed(pos=clouds[7].pos.double()),
        changed(pos=clouds[7].pos.view(-1, 2)),
        changed(y=torch.tensor([2])),
        changed(more=torch.zeros(1)),
    ]
    assert len(set(found)) == len(found)
    assert fingerprint([Data(pos=clouds[0].pos, name="a")]) == fingerprint(
        [Data(pos=clouds[0].pos, name="b")]
    )


def chair(seed, jitter=0.0):
    """Two boxes of another shape for each seed, and points drawn anew for each jitter."""
    shape = torch.Generator().manual_seed(seed)
    sizes = 0.2 + torch.rand(2, 3, generator=shape)
    draw = torch.Generator().manual_seed(int(jitter * 1e6) + 1)
    boxes = [torch.rand(1024, 3, generator=draw) * size for size in sizes]
    return torch.cat([boxes[0], boxes[1] + torch.tensor([0.0, 0.0, 1.0])])


def test_near_identical_clouds_are_of_one_group():
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0)))[0]
    first = chair(0)
    clouds = [first, chair(1), 3 * first @ turn + 5, chair(2), chair(0, 0.5), chair(3)]
    items = [Data(pos=pos, y=torch.tensor([0])) for pos in clouds]
    groups = survey(items).groups
    assert groups[0] == groups[2] == groups[4] and len(set(groups)) == 4
    kept, held = hold_out(items, 0.34)
    assert held and not {groups[i] for i in held} & {groups[i] for i in kept}
    # Another class is another group, and what a data set says counts.
    items[2].y = torch.tensor([1])
    assert survey(items).groups[2] != survey(items).groups[0]
    for number, item in enumerate(items):
        item.group = torch.tensor([number // 2])
    assert survey(items).groups == [0, 0, 1, 1, 2, 2]


def test_a_class_of_one_shape_is_no_sign_of_copies():
    balls = [torch.nn.functional.normalize(torch.randn(2000, 3), dim=1) for _ in range(6)]
    items = [Data(pos=pos, y=torch.tensor([0])) for pos in [*balls, balls[0]]]
    groups = survey(items).groups
    assert groups[0] == groups[6] and len(set(groups)) == 6


def test_clouds_without_points_and_that_cannot_be_read():
    with pytest.raises(RunError, match="b has no points"):
        survey([Data(pos=torch.zeros(0, 3), y=torch.tensor([0]), name="b")])

    class Broken(list):
        def __getitem__(self, index):
            raise ValueError("a.ply is damaged")

    with pytest.raises(RunError, match="a.ply is damaged"):
        survey(Broken([1]))
