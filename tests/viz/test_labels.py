from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from pointcluster.datasets import read_points
from pointcluster.viz import draw_labels, labels, save_labels
from pointcluster.viz.labels import NO_CLASS, RIGHT, USUAL, WRONG, class_colours

CLASSES = ["ground", "low vegetation", "building"]


@pytest.fixture
def scan():
    """A scan of 600 points far from 0, what its points are, and a prediction with mistakes."""
    generator = torch.Generator().manual_seed(0)
    pos = torch.rand(600, 3, generator=generator, dtype=torch.float64)
    pos += torch.tensor([450_000.0, 5_200_000.0, 300.0])
    truth = torch.randint(0, 3, (600,), generator=generator)
    predicted = truth.clone()
    predicted[:60] = (truth[:60] + 1) % 3
    return pos, truth, predicted


def test_every_point_has_the_colour_of_its_class(scan):
    pos, truth, _ = scan
    colours = class_colours(CLASSES)
    picture = draw_labels(pos, truth, classes=CLASSES, shading=True)
    (panel,) = picture.panels
    np.testing.assert_array_equal(panel.colour, colours[truth])
    pixels = picture.array().reshape(-1, 3) / 255
    for colour in colours:  # in the legend, too
        assert (np.abs(pixels - colour).max(axis=1) < 0.01).sum() > 50
    assert [text.get_text() for text in picture.figure.legends[0].get_texts()] == CLASSES
    dots = draw_labels(pos, truth, classes=CLASSES, shading=False)
    assert not dots.figure.axes[0].images and picture.figure.axes[0].images


def test_truth_prediction_and_mistakes_stand_side_by_side(scan):
    pos, truth, predicted = scan
    truth[590:] = -1
    picture = draw_labels(pos, predicted, truth=truth, classes=CLASSES, title="so", shading=True)
    first, second, third = picture.panels
    assert [first.title, second.title] == ["truth", "prediction"]
    assert third.title == "mistakes (10.2% of the points)"
    assert [panel.box[2] for panel in picture.panels] == sorted(p.box[2] for p in picture.panels)
    np.testing.assert_array_equal(third.colour[:60], np.tile(WRONG, (60, 1)))
    np.testing.assert_array_equal(third.colour[60:590], np.tile(RIGHT, (530, 1)))
    for panel in (first, third):
        np.testing.assert_array_equal(panel.colour[590:], np.tile(NO_CLASS, (10, 1)))
    assert [text.get_text() for text in picture.figure.legends[0].get_texts()] == [
        *CLASSES, "right", "mistake", "no class",
    ]  # fmt: skip
    two = draw_labels(pos, {"small": predicted, "large": truth}, truth=truth, shading=False)
    assert [panel.title for panel in two.panels] == [
        "truth", "small", "large", "mistakes of small (10.2% of the points)",
        "mistakes of large (0.0% of the points)",
    ]  # fmt: skip


def test_a_scan_fills_its_panel(scan):
    pos, truth, _ = scan
    (panel,) = draw_labels(pos, truth).panels
    top, bottom, left, right = panel.box
    low, high = panel.where.min(axis=0), panel.where.max(axis=0)
    assert (high - low).max() > 0.88 * max(bottom - top, right - left)
    assert (low > [top, left]).all() and (high < [bottom, right]).all()


def test_classes_have_the_colours_of_maps_and_all_differ():
    names = ["Ground", "tree", "high vegetation", "Buildings", "water", "car"]
    found = class_colours(names)
    usual = [USUAL[word] for word in ("ground", "tree", "building", "water")]
    np.testing.assert_allclose(found[[0, 1, 3, 4]], usual)
    for count in (1, 8, 9, 40):
        found = np.concatenate([class_colours([f"c{i}" for i in range(count)]), [NO_CLASS]])
        away = np.linalg.norm(found[:, None] - found, axis=2)[np.triu_indices(count + 1, 1)]
        assert away.min() > (0.2 if count <= 9 else 0)
    assert class_colours([]).shape == (0, 3)


def test_shades_of_green_from_grass_to_trees():
    names = ["low vegetation", "medium vegetation", "high vegetation", "ground", "tree"]
    *green, _, tree = class_colours(names)
    brightness = np.sum([*green, tree], axis=1)
    assert (np.diff(brightness) < -0.1).all()
    assert all(shade.argmax() == 1 for shade in (*green, tree))


@pytest.mark.parametrize("kind", [".png", ".svg", ".pdf", ".html"])
def test_every_kind_of_file_the_same_each_time(tmp_path, scan, kind):
    pos, truth, predicted = scan
    first, second = (
        save_labels(tmp_path / f"{name}{kind}", pos, predicted, truth=truth, title="a < b")
        for name in "ab"
    )
    assert first == tmp_path / f"a{kind}" and first.stat().st_size > 1000
    if kind != ".html":  # whose parts have random names
        assert first.read_bytes() == second.read_bytes()
        return
    text = first.read_text()
    assert "<title>a &lt; b</title>" in text and "plotly_relayout" in text
    assert all(f'"scene":"scene{i}"' in text for i in (2, 3)) and '"legendgroup":"class 2"' in text


def test_points_come_back_with_their_labels(tmp_path, scan, open3d):
    pos, truth, predicted = scan
    path = save_labels(tmp_path / "a.ply", pos, predicted, truth=truth, classes=CLASSES)
    back = read_points(path)
    assert (back.label == predicted).all()
    np.testing.assert_allclose(back.pos.double() + torch.tensor(back.origin), pos, atol=1e-4)
    expected = np.rint(255 * class_colours(CLASSES)[predicted])
    np.testing.assert_allclose(255 * back.color.double(), expected, atol=0.6)
    cloud = open3d.t.io.read_point_cloud(str(path))
    assert (cloud.point["truth"].numpy()[:, 0] == truth.numpy()).all()
    named = save_labels(tmp_path / "b.ply", pos, {"in 2020": truth, "in 2024": predicted})
    cloud = open3d.t.io.read_point_cloud(str(named))
    assert (cloud.point["in_2024"].numpy()[:, 0] == predicted.numpy()).all()


@pytest.fixture
def house():
    """A roof above open ground, seen from all sides: what its points are."""
    rng = np.random.default_rng(0)
    pos = rng.uniform(-20, 20, (5000, 3))
    roof = np.abs(pos[:, :2]).max(axis=1) < 8
    pos[:, 2] = np.where(roof, 6, 0) + 0.001 * pos[:, 2]
    return pos, roof.astype(int)


def test_a_page_has_light_and_a_legend(house):
    pos, truth = house
    scan = labels.labelled_scan(pos, truth, truth=truth, classes=["ground", "building"])
    figure = labels._figure(scan)
    legend = [trace.name for trace in figure.data if trace.showlegend is not False]
    assert legend == ["ground", "building", "right"]
    ground, building = (trace for trace in figure.data if trace.scene == "scene2")
    assert len(building.x) == truth.sum() and building.marker.color.min() > 235
    assert building.marker.colorscale == ((0, "#000000"), (1, "#c4573d"))
    beside = np.abs(np.stack([ground.x, ground.y])).max(axis=0) < 8.5
    assert ground.marker.color[beside].mean() < 0.8 * ground.marker.color[~beside].mean()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pos": torch.rand(600, 2)}, r"pos is \[600, 2\], expected \[N, 3\]"),
        ({"pos": torch.full((600, 3), float("nan"))}, "NaN or infinite"),
        (
            {"labels": torch.zeros(5, dtype=torch.long)},
            r"int64 \[5\], expected whole",
        ),
        ({"labels": torch.zeros(600)}, "are float32"),
        ({"labels": {}}, "no labels"),
        ({"labels": {"a": torch.zeros(3)}}, "of a are"),
        ({"truth": [1, 2]}, "of truth are"),
        ({"classes": ["a", "b"]}, "a label is 2, and there are 2 classes"),
        ({"colours": [[0, 0, 0]]}, r"colours are \[1, 3\], expected \[3, 3\]"),
        ({"up": "w"}, "up is 'w'"),
        ({"path": "a.jpg"}, r"written as \.png"),
    ],
)
def test_what_cannot_be_drawn(tmp_path, scan, change, message):
    pos, truth, _ = scan
    given = {"pos": pos, "labels": truth, "path": "a.png"} | change
    with pytest.raises(ValueError, match=message):
        save_labels(tmp_path / given.pop("path"), **given)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("kind", "name"),
    [(".html", "plotly"), (".ply", "open3d"), (".png", "matplotlib.backends.backend_agg")],
)
def test_what_is_missing_is_named(tmp_path, monkeypatch, scan, kind, name):
    monkeypatch.setitem(sys.modules, name, None)
    missing = f"{name.split('.')[0]} is not installed: pip install 'pointcluster\\[viz\\]'"
    with pytest.raises(ImportError, match=missing):
        save_labels(tmp_path / f"a{kind}", scan[0], scan[1])
