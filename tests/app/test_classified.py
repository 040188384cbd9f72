"""Figures show the clusters: every point in the colour of its cluster, with its own numbers."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from pointcluster.app.classified import Classified
from pointcluster.app.session import Side, View, nearest_side
from pointcluster.app.source import Source

from .conftest import blob, picture_source

pytest.importorskip("plotly")


def shown_of(networks, kind):
    if kind == "picture":
        return Classified(networks["hats"], picture_source())
    pos = torch.from_numpy(blob())
    return Classified(
        networks["blobs"], Source("blob", "scan", Data(pos=pos, origin=(0.0, 0.0, 0.0)))
    )


def points_of(figure):
    """The trace that answers the pointer."""
    found = [trace for trace in figure.data if trace.customdata is not None]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize("kind", ["picture", "scan"])
@pytest.mark.parametrize("place", [Side(0, 0, 0), Side(1, 1, 3), Side(2, 0, 0)])
def test_every_point_answers_with_its_own_numbers(networks, kind, place):
    shown = shown_of(networks, kind)
    place = nearest_side(shown.network, place)
    (figure,) = shown.figures([place], View())
    told = np.asarray(points_of(figure).customdata).reshape(-1, 3)
    found = shown.network.model.clusters(shown.data, place.stage, place.block)
    assert told[:, 0].tolist() == list(range(shown.count))
    assert told[:, 1].tolist() == found.index[:, place.head].tolist()
    np.testing.assert_allclose(told[:, 2], found.similarity[:, place.head], rtol=1e-6)
    assert f"stage {place.stage}, block {place.block}" in figure.layout.title.text
    json.loads(figure.to_json())


def test_points_of_a_cluster_have_one_colour(networks):
    shown = shown_of(networks, "scan")
    (figure,) = shown.figures([Side(1, 0, 1)], View(opacity=1, borders=False))
    trace = points_of(figure)
    index, colours = trace.customdata[:, 1], np.array(trace.marker.color)
    for cluster in np.unique(index):
        assert len(set(colours[index == cluster])) == 1
    assert len(set(colours)) > 1


def test_every_setting_changes_the_picture(networks):
    shown = shown_of(networks, "picture")
    looks = (
        View(),
        View(opacity=0.3),
        View(borders=False),
        View(centers=False),
        View(point="5"),
    )
    seen = {shown.figures([Side()], look)[0].to_json() for look in looks}
    assert len(seen) == len(looks)


def test_two_blocks_side_by_side(networks):
    shown = shown_of(networks, "picture")
    one, other = shown.figures([Side(0, 0, 0), Side(1, 0, 2)], View())
    assert one.layout.title.text == "stage 0, block 0, head 0"
    assert other.layout.title.text == "stage 1, block 0, head 2"
    same, twin = shown.figures([Side(1, 0, 0), Side(1, 0, 0)], View())
    assert same.to_json() == twin.to_json()


def test_the_view_is_kept_for_one_input_and_reset_for_another(networks):
    shown = shown_of(networks, "scan")
    first, second = (shown.figures([Side(s, 0, 0)], View())[0] for s in (0, 1))
    assert first.layout.uirevision == second.layout.uirevision
    other = shown_of(networks, "picture").figures([Side()], View())[0]
    assert other.layout.uirevision != first.layout.uirevision


@pytest.mark.parametrize("kind", ["picture", "scan"])
def test_a_point_has_its_cluster_its_similarity_and_its_centre(networks, kind):
    shown, place = shown_of(networks, kind), Side(1, 0, 2)
    found = shown.network.model.clusters(shown.data, 1, 0)
    for point in (0, 77, shown.count - 1):
        text = shown.words(place, point)
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
    assert shown.point(None) is shown.point(" ") is None
    assert [shown.point(each) for each in ("0", " 12 ", 127)] == [0, 12, 127]
    for wrong in ("128", "-1", "1.5", "nan", "x", "²", "9" * 5000):
        with pytest.raises(ValueError, match="go from 0 to 127"):
            shown.point(wrong)


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf", ".html", ".ply"])
@pytest.mark.parametrize("kind", ["scan", "picture"])
def test_what_is_shown_can_be_downloaded(networks, kind, suffix):
    network = networks["blobs" if kind == "scan" else "hats"]
    if kind == "scan":
        pos = torch.from_numpy(blob())
        source = Source("a/../b c.ply", "scan", Data(pos=pos, origin=(0.0, 0.0, 0.0)))
    else:
        source = picture_source()
    shown = Classified(network, source)
    places = [Side(0, 0, 0), Side(1, 0, 1)]
    if suffix == ".ply" and importlib.util.find_spec("open3d") is None:
        with pytest.raises(ImportError, match="pip install"):
            shown.save(places, View(), suffix)
        return
    path = shown.save(places, View(), suffix)
    assert path.parent == shown.folder and path.suffix == suffix
    assert path.stat().st_size > 500
    begin = {".png": b"\x89PNG", ".pdf": b"%PDF", ".ply": b"ply", ".svg": b"<?xml", ".html": b"<"}
    assert path.read_bytes().lstrip().startswith(begin[suffix])
    folder = shown.folder
    del shown
    assert not folder.exists()


def test_there_is_no_other_format(networks):
    shown = Classified(networks["hats"], picture_source())
    with pytest.raises(ValueError, match=r"expected one of \.png"):
        shown.save([Side()], View(), ".exe")
