"""A scene has the classes that the command writes, and clusters and light at every point."""

from __future__ import annotations

import numpy as np
import pytest

from pointcluster.app import network
from pointcluster.app.scene import read_scene
from pointcluster.app.source import Source
from pointcluster.segment import Segmenter, segment_file

from .conftest import land
from .files import npy

laspy = pytest.importorskip("laspy")


def source_of(path):
    return Source(path.name, "scene", path.read_bytes())


@pytest.fixture(scope="module")
def segmenter(scene_weights):
    return Segmenter.load(scene_weights)


@pytest.fixture(scope="module")
def read(segmenter, las):
    return read_scene(segmenter, source_of(las))


def test_every_point_has_the_class_that_the_command_writes(tmp_path, segmenter, las, read):
    segment_file(segmenter, las, tmp_path / "out.las")
    expected = laspy.read(tmp_path / "out.las").classification
    np.testing.assert_array_equal(np.array(segmenter.codes)[read.told], expected)
    assert len(np.unique(expected)) > 1
    np.testing.assert_allclose(read.probabilities.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(read.told, read.probabilities.argmax(axis=1))


def test_points_keep_their_places_and_what_was_measured(las, read):
    file = laspy.read(las)
    np.testing.assert_allclose(read.place(read.pos.astype(float)), file.xyz, atol=2e-3)
    np.testing.assert_array_equal(read.looks["intensity"], file.intensity)
    np.testing.assert_allclose(read.looks["color"][:, 0], file.red / 65535, rtol=1e-5)
    house = file.z - file.z.min() > 5
    assert (read.looks["height"][house] > 3).all() and house.any()
    assert read.light[house].mean() > read.light[~house].mean() and 0 < read.light.min()


def test_every_point_has_a_cluster_of_the_block_in_whose_middle_it_lies(segmenter, read):
    for place in ((0, 0, 0), (1, 0, 1)):
        found = read.clusters(segmenter.model, *place)
        assert len(found.index) == len(read.pos) and len(read.blocks) > 2
        assert found.index.min() >= 0 and found.index.max() < len(found.center_pos)
        # The points that went into a block have the clusters that the network gives them.
        begin = center = 0
        for block, corner in zip(read.blocks, read.corners, strict=True):
            own = segmenter.model.clusters(block, *place)
            here = (read.nearest >= begin) & (read.nearest < begin + len(block.pos))
            index = own.index[read.nearest[here] - begin]
            same = (found.index[here] == index + center).float().mean()
            assert same > 0.95  # batches round differently
            there = found.center_pos[center : center + len(own.center_pos)]
            assert (there - own.center_pos - corner).abs().max() < 1e-3
            begin, center = begin + len(block.pos), center + len(own.center_pos)
        assert center == len(found.center_pos)
        distance = np.linalg.norm(read.pos - found.center_pos[found.index[:, 0]].numpy(), axis=1)
        assert np.median(distance) < 5  # metres
    assert len(read.known) == 2


def test_what_does_not_fit_is_said_in_one_line(segmenter, las, monkeypatch):
    with pytest.raises(ValueError, match=r"^land.las has no normal, which is needed; it has "):
        read_scene(segmenter._replace(features=["normal"]), source_of(las))
    bare = Source("bare.npy", "scan", npy(land().astype(np.float32)))
    with pytest.raises(ValueError, match=r"^bare.npy has no intensity, which is needed"):
        read_scene(segmenter._replace(features=["intensity"]), bare)
    monkeypatch.setattr(network, "LARGEST_SCENE", 2999)
    for source in (source_of(las), bare):
        with pytest.raises(ValueError, match=rf"^{source.name} has 3,000 points, at most 2,999"):
            read_scene(segmenter, source)
