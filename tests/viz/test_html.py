from __future__ import annotations

import re

import numpy as np
import pytest

from pointcluster.viz import figure_3d, save
from pointcluster.viz.scene import make_scene, painted


def test_a_page_needs_no_network(tmp_path, cloud):
    text = save(tmp_path / "a.html", *cloud, title="a < b").read_text()
    assert "<title>a &lt; b</title>" in text
    assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=[\"']?(?:https?:)?//", text)
    assert "Plotly.newPlot" in text and len(text) > 1_000_000


@pytest.mark.parametrize("up", ["x", "y", "z", "-x", "-y", "-z"])
def test_a_turnable_cloud(cloud, up):
    data, found = cloud
    figure = figure_3d(data, {"a": found, "b": found}, up=up, highlight=4, title="so")
    seen = [trace for trace in figure.data if trace.visible]
    assert len(seen) == 3  # points, centres, the chosen one
    np.testing.assert_allclose(np.stack([seen[0].x, seen[0].y, seen[0].z], 1), data.pos, atol=1e-6)
    scene = make_scene(data, {"a": found, "b": found}, up=up, highlight=4)
    first = np.rint(255 * painted(scene, scene.panels[0])[7]).astype(int)
    assert seen[0].marker.color[7] == "#{:02x}{:02x}{:02x}".format(*first)
    buttons = figure.layout.updatemenus[0].buttons
    assert [b.label for b in buttons] == ["a, head 0", "a, head 1", "b, head 0", "b, head 1"]
    for button in buttons:
        assert sum(button.args[0]["visible"]) == 3
    camera = figure.layout.scene.camera
    axis = "xyz".index(up[-1])
    sign = -1 if up[0] == "-" else 1
    assert [camera.up.x, camera.up.y, camera.up.z][axis] == pytest.approx(sign)
    assert seen[0].customdata.shape == (300, 3)


def test_a_picture_in_a_browser(picture):
    image, found = picture
    figure = figure_3d(image, found, highlight=3)
    kinds = [trace.type for trace in figure.data if trace.visible]
    assert kinds == ["image", "heatmap", "scatter", "scatter", "scatter"]
    assert (figure.data[2].z == found.index.view(20, 30).numpy()).all()
