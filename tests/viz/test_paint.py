from __future__ import annotations

import numpy as np
import pytest
import torch

from pointcluster.models import create_model
from pointcluster.viz import draw, stage_clusters
from pointcluster.viz.paint import broken, layout
from pointcluster.viz.scene import make_scene

from .conftest import cluster


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
