"""A labelled scan is drawn, told and downloaded with a class at every point."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from pointcluster.app import labelled, scene
from pointcluster.app.labelled import Labelled
from pointcluster.app.session import Side, View
from pointcluster.app.source import Source
from pointcluster.segment import segment_file
from pointcluster.viz.labels import class_colours

from .conftest import land
from .files import npy, ply

pytest.importorskip("plotly")
laspy = pytest.importorskip("laspy")
COLOURS = ["class", "probability", "confidence", "clusters", "height", "intensity", "color"]


@pytest.fixture(scope="module")
def shown(networks, las):
    return Labelled(networks["land"], Source("land.las", "scene", las.read_bytes()))


def drawn(figure):
    """The numbers of the points that are drawn, and their colours."""
    numbers, colours = [], []
    for trace in figure.data:
        if trace.customdata is not None:
            scale = [colour for _, colour in trace.marker.colorscale]
            numbers += np.asarray(trace.customdata)[:, 0].astype(int).tolist()
            colours += [scale[i] for i in trace.marker.color]
    order = np.argsort(numbers)
    channels = [[int(each[i : i + 2], 16) for i in (1, 3, 5)] for each in np.array(colours)[order]]
    return sorted(numbers), np.array(channels) / 255


def test_all_points_are_drawn_in_the_shaded_colours_of_their_classes(shown):
    (figure,) = shown.figures([Side(colour="class")], View())
    numbers, colours = drawn(figure)
    assert numbers == list(range(3000)) and shown.note == ""
    expected = class_colours(shown.network.classes)[shown.scene.told] * shown.scene.light[:, None]
    assert np.abs(colours - expected).mean() < 0.02
    seen = [shown.network.classes[i] for i in np.unique(shown.scene.told)]
    assert [trace.name for trace in figure.data if trace.showlegend] == seen
    assert sum(shown.summary.values()) == pytest.approx(1)
    assert list(shown.summary.values()) == sorted(shown.summary.values(), reverse=True)


def test_every_colour_tells_something_else(shown):
    assert shown.choices(Side())["colour"] == COLOURS
    seen = set()
    for colour in COLOURS:
        (figure,) = shown.figures([Side(1, 0, 0, colour, "other")], View())
        bars = [trace for trace in figure.data if trace.marker.colorbar.thickness]
        assert len(bars) == (colour in ("probability", "confidence", "height", "intensity"))
        assert json.loads(figure.to_json())["layout"]["title"]["text"]
        seen.add(drawn(figure)[1].tobytes())
    assert len(seen) == len(COLOURS)
    one, other = (
        shown.figures([Side(colour="probability", kind=kind)], View())[0].layout.title.text
        for kind in ("ground", "other")
    )
    assert (one, other) == ("probability of ground", "probability of other")


def test_a_cluster_stands_out(shown):
    side = Side(1, 0, 0, "clusters")
    (figure,) = shown.figures([side], View(point="17"))
    index = shown.scene.clusters(shown.network.model, 1, 0, 0).index[:, 0].numpy()
    colours = drawn(figure)[1] / shown.scene.light[:, None]
    saturation = np.ptp(colours, axis=1)
    mine = index == index[17]
    assert saturation[~mine].mean() < 0.1 < saturation[mine].mean()
    marked = [trace for trace in figure.data if trace.marker.symbol == "diamond"]
    assert len(marked) == 1


def test_many_clusters_have_colours_too(shown, monkeypatch):
    monkeypatch.setattr(labelled, "MANY", 3)
    (figure,) = shown.figures([Side(0, 0, 0, "clusters")], View())
    assert len(np.unique(drawn(figure)[1].round(1), axis=0)) > 8


def test_a_scan_of_many_points_is_thinned_for_drawing_alone(networks, las, monkeypatch, tmp_path):
    monkeypatch.setattr(scene, "DRAWN", 500)
    shown = Labelled(networks["land"], Source("land.las", "scene", las.read_bytes()))
    (figure,) = shown.figures([Side(colour="class")], View(point="0"))
    assert len(drawn(figure)[0]) == 500 and len(shown.scene.told) == 3000
    assert shown.note.startswith("500 of its 3,000 points are drawn")
    segment_file(networks["land"].segmenter, las, tmp_path / "out.las")
    written = shown.save([Side()], View(), ".las")
    assert written.read_bytes() == (tmp_path / "out.las").read_bytes()


def test_a_point_is_told_in_words(shown, las):
    text = shown.words(Side(colour="class"), 5)
    told = re.match(r"\*\*Point 5\*\* at \(([\d,.]+), ([\d,.]+), ([\d,.]+)\)", text).groups()
    place = [float(each.replace(",", "")) for each in told]
    np.testing.assert_allclose(place, laspy.read(las).xyz[5], atol=0.02)
    best = shown.network.classes[shown.scene.told[5]]
    assert f"{best} **{shown.scene.probabilities[5].max():.1%}**" in text
    assert "m above the ground, intensity 6" in text and "Cluster" not in text
    found = shown.scene.clusters(shown.network.model, 1, 0, 1)
    cluster = int(found.index[5, 0])
    size = int((found.index == cluster).sum())
    text = shown.words(Side(1, 0, 1, "clusters"), 5)
    assert f"Cluster **{cluster}**, {size:,} of 3,000 points" in text
    assert f"Similarity **{float(found.similarity[5, 0]):.3f}**" in text


def test_the_labelled_scan_keeps_all_else(shown, las):
    path = shown.save([Side()], View(), ".las")
    assert path.name == "land-labelled.las" and path.parent == shown.folder
    before, after = laspy.read(las), laspy.read(path)
    codes = np.array(shown.network.segmenter.codes)[shown.scene.told]
    np.testing.assert_array_equal(after.classification, codes)
    for name in ("X", "Y", "Z", "intensity", "gps_time", "red"):
        np.testing.assert_array_equal(after[name], before[name])


@pytest.mark.parametrize(("name", "write"), [("land.ply", ply), ("land.npy", npy)])
def test_other_scans_come_back_in_their_format(networks, name, write):
    pos = land().round(3)
    shown = Labelled(networks["land"], Source(name, "scan", write(pos)))
    assert shown.formats[0] == (f"Labelled scan ({name[-4:]})", name[-4:])
    path = shown.save([Side()], View(), name[-4:])
    content = path.read_bytes()
    if name.endswith(".npy"):
        rows = np.load(path)
        np.testing.assert_allclose(rows["x"], pos[:, 0])
        codes = np.array(shown.network.segmenter.codes)[shown.scene.told]
        np.testing.assert_array_equal(rows["classification"], codes)
    else:
        assert b"property uchar classification\n" in content and b"vertex 3000\n" in content


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf", ".html"])
def test_pictures_and_pages_are_written(shown, suffix):
    assert suffix in dict(map(reversed, shown.formats))
    path = shown.save([Side(colour="height")], View(), suffix)
    begin = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml", ".html": b"<"}
    assert path.read_bytes().lstrip().startswith(begin[suffix])
    with pytest.raises(ValueError, match=r"expected one of \.las"):
        shown.save([Side()], View(), ".exe")


def test_nothing_half_written_stays(networks, las, monkeypatch):
    shown = Labelled(networks["land"], Source("land.las", "scene", las.read_bytes()))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pointcluster.datasets.write_las._Copy._points", full)
    with pytest.raises(OSError, match="No space left"):
        shown.save([Side()], View(), ".las")
    assert not list(shown.folder.iterdir())
