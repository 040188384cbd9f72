"""The figures show the clusters: every point in the colour of its cluster, with its own numbers."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pointcluster.app.choices import Place, nearest_place
from pointcluster.app.figures import figures
from pointcluster.app.look import Look

from .test_point_text import shown_of

pytest.importorskip("plotly")


def points_of(figure):
    """The trace that answers the pointer."""
    found = [trace for trace in figure.data if trace.customdata is not None]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize("kind", ["picture", "scan"])
@pytest.mark.parametrize("place", [Place(0, 0, 0), Place(1, 1, 3), Place(2, 0, 0)])
def test_every_point_answers_with_its_own_numbers(networks, kind, place):
    shown = shown_of(networks, kind)
    place = nearest_place(shown.network.model, place)
    (figure,) = figures(shown, [place], Look())
    told = np.asarray(points_of(figure).customdata).reshape(-1, 3)
    found = shown.network.model.clusters(shown.data, place.stage, place.block)
    assert told[:, 0].tolist() == list(range(shown.count))
    assert told[:, 1].tolist() == found.index[:, place.head].tolist()
    np.testing.assert_allclose(told[:, 2], found.similarity[:, place.head], rtol=1e-6)
    assert f"stage {place.stage}, block {place.block}" in figure.layout.title.text
    json.loads(figure.to_json())


def test_points_of_a_cluster_have_one_colour(networks):
    shown = shown_of(networks, "scan")
    (figure,) = figures(shown, [Place(1, 0, 1)], Look(opacity=1, borders=False))
    trace = points_of(figure)
    index, colours = trace.customdata[:, 1], np.array(trace.marker.color)
    for cluster in np.unique(index):
        assert len(set(colours[index == cluster])) == 1
    assert len(set(colours)) > 1


def test_every_setting_changes_the_picture(networks):
    shown = shown_of(networks, "picture")
    looks = (
        Look(),
        Look(opacity=0.3),
        Look(borders=False),
        Look(centers=False),
        Look(point="5"),
    )
    seen = {figures(shown, [Place()], look)[0].to_json() for look in looks}
    assert len(seen) == len(looks)


def test_two_blocks_side_by_side(networks):
    shown = shown_of(networks, "picture")
    one, other = figures(shown, [Place(0, 0, 0), Place(1, 0, 2)], Look())
    assert one.layout.title.text == "stage 0, block 0, head 0"
    assert other.layout.title.text == "stage 1, block 0, head 2"
    same, twin = figures(shown, [Place(1, 0, 0), Place(1, 0, 0)], Look())
    assert same.to_json() == twin.to_json()


def test_the_view_is_kept_for_one_input_and_reset_for_another(networks):
    shown = shown_of(networks, "scan")
    first, second = (figures(shown, [Place(s, 0, 0)], Look())[0] for s in (0, 1))
    assert first.layout.uirevision == second.layout.uirevision
    other = figures(shown_of(networks, "picture"), [Place()], Look())[0]
    assert other.layout.uirevision != first.layout.uirevision
