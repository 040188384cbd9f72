from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from conftest import cluster
from torch_geometric.data import Data

from pointcluster.models import create_model
from pointcluster.viz import draw, stage_clusters
from pointcluster.viz.figure import new_figure
from pointcluster.viz.paint import broken, layout
from pointcluster.viz.palette import PALETTE
from pointcluster.viz.scene import make_scene


def test_colours_of_a_drawn_picture_are_those_of_the_labels(picture):
    image, found = picture
    drawn = draw(image, found, opacity=1, centers=False, borders=False)
    pixels = drawn.array()
    (panel,) = drawn.panels
    index = found.index[:, 0].numpy()
    of = {}
    for point in range(0, 600, 7):
        row, column = np.rint(panel.where[point]).astype(int)
        colour = tuple(pixels[row, column])
        assert of.setdefault(index[point], colour) == colour
        assert tuple(np.rint(255 * panel.colour[point]).astype(int)) == colour
    assert len(set(of.values())) == 4
    assert all((np.abs(255 * PALETTE - each).max(axis=1) < 1).any() for each in of.values())


@pytest.mark.parametrize("name", ["coc_micro", "point_coc_tiny"])
def test_every_panel_shows_its_labels(name):
    torch.manual_seed(0)
    model = create_model(name, num_classes=2).eval()
    data = torch.rand(1, 3, 24, 36) if name == "coc_micro" else Data(pos=torch.randn(150, 3))
    found = stage_clusters(model, data)
    drawn = draw(data, found, opacity=1, centers=False)
    pixels = drawn.array()
    heads = [each.index.size(1) for each in found.values()]
    assert len(drawn.panels) == sum(heads)
    labels = torch.cat([each.index.T for each in found.values()])
    for panel, label in zip(drawn.panels, labels, strict=True):
        colour = np.rint(255 * panel.colour)
        hits = 0
        for point in range(0, len(label), 5):
            row, column = np.rint(panel.where[point]).astype(int)
            hits += bool(np.abs(pixels[row, column] - colour[point]).max() <= 2)
        # a border, or a nearer point, may lie over one
        assert hits >= (0.7 if name == "coc_micro" else 0.5) * len(range(0, len(label), 5))
        if name == "coc_micro":
            assert len({(int(a), tuple(b)) for a, b in zip(label, colour, strict=True)}) == len(
                set(label.tolist())
            )


def test_the_point_under_a_pixel(picture, cloud):
    for data, found in (picture, cloud):
        drawn = draw(data, found)
        for number, panel in enumerate(drawn.panels):
            for point in (0, 77):
                where, found_point = drawn.point_at(*panel.where[point])
                assert where == number
                near = np.linalg.norm(panel.where[found_point] - panel.where[point])
                assert near < 1e-9
        assert drawn.point_at(-5, 3) is None


def test_clusterings_in_rows_and_heads_in_columns(cloud, picture):
    data, found = cloud
    places = [
        (c.row, c.column, c.above, c.beside)
        for c in layout(make_scene(data, {"a": found.of_head(0), "b": found}))
    ]
    assert places == [(0, 0, "", "a"), (1, 0, "", "b"), (1, 1, "head 1", "")]
    image, one = picture
    cells = layout(make_scene(image, {f"step {i}": one for i in range(7)}))
    assert [c.panel is None for c in cells] == [True] + [False] * 7
    assert max(c.column for c in cells) == 3 and max(c.row for c in cells) == 1
    alone = layout(make_scene(image, one, original=False))
    assert len(alone) == 1 and alone[0].panel is not None


def test_nothing_overlaps_and_nothing_is_cut_off(cloud, picture):
    model = create_model("coc_tiny", num_classes=2).eval()
    image = torch.rand(1, 3, 32, 64)
    for data, found in [(image, stage_clusters(model, image)), cloud, picture]:
        figure = draw(data, found, title="A title").figure
        figure.canvas.draw()
        whole = figure.bbox
        boxes = [text.get_window_extent() for text in figure.texts]
        boxes += [axes.get_window_extent() for axes in figure.axes]
        for i, box in enumerate(boxes):
            assert box.x0 >= whole.x0 - 1 and box.x1 <= whole.x1 + 1
            assert box.y0 >= whole.y0 - 1 and box.y1 <= whole.y1 + 1
            for other in boxes[:i]:
                assert not box.padded(-1).overlaps(other), (i, box, other)


def test_looks_change_the_picture(picture):
    image, found = picture
    plain = draw(image, found).array()
    for look in [{"opacity": 0.1}, {"borders": False}, {"centers": False}, {"highlight": 3}]:
        other = draw(image, found, **look).array()
        assert other.shape == plain.shape and (other != plain).any(), look
    assert draw(image, found, original=False).array().shape[1] < plain.shape[1]
    assert draw(image, found, title="above").array().shape[0] > plain.shape[0]


def test_up_turns_a_cloud(cloud):
    data, found = cloud
    turned = Data(pos=data.pos[:, [2, 0, 1]])
    plain = draw(data, found, head=0, centers=False).array()
    same = draw(turned, found, head=0, centers=False, up="z").array()
    # Colours are given from the bottom up, along another axis.
    np.testing.assert_array_equal(plain.min(axis=2) < 255, same.min(axis=2) < 255)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_tiny_flat_and_coincident_clouds(size):
    model = create_model("point_coc_tiny", num_classes=2).eval()
    for pos in (torch.randn(size, 3), torch.zeros(size, 3)):
        found = model.clusters(Data(pos=pos))
        assert draw(Data(pos=pos), found, borders=True, highlight=0).array().size
    flat = draw(Data(pos=torch.rand(size, 2)), found._replace(center_pos=found.center_pos[:, :2]))
    assert flat.array().size


def test_a_picture_for_notebooks_and_no_global_state(picture):
    drawn = draw(*picture)
    assert drawn._repr_png_().startswith(b"\x89PNG")
    height, width = drawn.array().shape[:2]
    assert repr(drawn) == f"Picture({width} x {height}, 1 panels)"
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()


def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    message = r"^matplotlib is not installed: pip install 'pointcluster\[viz\]'"
    with pytest.raises(ImportError, match=message):
        new_figure(1, 1)


def test_long_titles_are_broken(picture):
    image, found = picture
    assert broken("stage 1, block 2, head 3", 9, 10) == "stage 1, block 2, head 3"
    assert broken("stage 1, block 2, head 3", 1.5, 10) == "stage 1, block 2\nhead 3"
    assert broken("stage 1, block 2, head 3", 0.7, 10) == "stage 1\nblock 2\nhead 3"
    assert broken("a title of many words", 0.9, 10) == "a title of\nmany words"
    steps = {f"a long title of the step number {i}": found for i in range(12)}
    figure = draw(image, steps).figure
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in figure.texts]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


@pytest.mark.parametrize("size", [(4, 2000), (12, 1000), (2000, 8)])
def test_borders_and_marks_do_not_hide_a_narrow_picture(size):
    height, width = size
    row, column = np.divmod(np.arange(height * width), width)
    along, across = (column, row) if width > height else (row, column)
    centers = [[0, x] if width > height else [x, 0] for x in (-0.4, -0.1, 0.1, 0.4)]
    found = cluster(along // 250 % 4, None, centers, torch.from_numpy(along // 500))
    drawn = draw(torch.rand(3, height, width), found, opacity=1, original=False)
    (panel,), pixels = drawn.panels, drawn.array()
    middle = across == min(size) // 2
    row, column = np.floor(panel.where[middle]).astype(int).T
    away = np.abs(pixels[row, column] - 255 * panel.colour[middle]).max(axis=1)
    assert (away < 40).mean() > 0.9
    assert (pixels.max(axis=2) < 60).sum() < 0.02 * (pixels.min(axis=2) < 255).sum()
