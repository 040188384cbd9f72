"""What is said of a point is what the clusters say."""

from __future__ import annotations

import pytest
import torch
from torch_geometric.data import Data

from pointcluster.app.choices import Place
from pointcluster.app.point_text import point_number, point_text
from pointcluster.app.shown import Shown
from pointcluster.app.source import Source

from .conftest import blob, picture_source


def shown_of(networks, kind):
    if kind == "picture":
        return Shown(networks["hats"], picture_source())
    pos = torch.from_numpy(blob())
    return Shown(networks["blobs"], Source("blob", "scan", Data(pos=pos, origin=(0.0, 0.0, 0.0))))


@pytest.mark.parametrize("kind", ["picture", "scan"])
def test_a_point_has_its_cluster_its_similarity_and_its_centre(networks, kind):
    shown, place = shown_of(networks, kind), Place(1, 0, 2)
    found = shown.network.model.clusters(shown.data, 1, 0)
    for point in (0, 77, shown.count - 1):
        text = point_text(shown, place, point)
        cluster = int(found.index[point, 2])
        size = sum(int(each) == cluster for each in found.index[:, 2])
        assert f"Cluster **{cluster}**, {size:,} of {shown.count:,} points" in text
        assert f"**{found.similarity[point, 2]:.3f}**" in text
        centre = found.center_pos[cluster]
        if kind == "scan":
            words = "({:.2f}, {:.2f}, {:.2f})"
            assert f"at {words.format(*shown.data.pos[point].tolist())}" in text
            assert f"Centre at {words.format(*centre.tolist())}" in text
        else:
            assert f"at row {point // 28}, column {point % 28}" in text
            row, column = (round((each + 0.5) * 27, 1) for each in centre.tolist())
            assert f"Centre at row {row:g}, column {column:g}" in text


def test_only_numbers_of_points_are_taken(networks):
    shown = shown_of(networks, "scan")
    assert shown.count == 128
    assert point_number(shown, None) is point_number(shown, " ") is None
    assert [point_number(shown, each) for each in ("0", " 12 ", 127)] == [0, 12, 127]
    for wrong in ("128", "-1", "1.5", "nan", "x", "²", "9" * 5000):
        with pytest.raises(ValueError, match="go from 0 to 127"):
            point_number(shown, wrong)
