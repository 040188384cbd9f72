from __future__ import annotations

import torch
from torch_geometric.data import Data

from pointcluster.training import fingerprint


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
