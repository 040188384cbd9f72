from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch_geometric.data import Data


def test_measures_of_segments_that_were_counted_by_hand(script):
    segments = script("segments")
    label = np.array([[0, 0, 1, 1], [0, 0, 1, -1]])
    borders = segments.edges(label)
    assert borders.tolist() == [[False, True, False, False], [False, True, False, False]]
    item = segments.Item(None, None, label.ravel(), lambda _: np.ones(4), {})
    found = segments.measured(item, np.array([7, 7, 7, 3, 7, 7, 3, 3]), 2)
    assert found["segments"] == 2 and found["told"].tolist() == [[4, 1], [0, 2]]
    assert found["accuracy"] == pytest.approx(6 / 7) and found["error"] == pytest.approx(2 / 7)
    assert segments.mean_iou(found["told"]) == pytest.approx((4 / 5 + 2 / 3) / 2)


def test_rivals_have_about_as_many_segments(script):
    segments = script("segments")
    generator = torch.Generator().manual_seed(0)
    pos = torch.rand(500, 3, generator=generator).numpy()
    for number in (5, 60):
        assert abs(len(np.unique(segments.voxels(pos, number))) - number) <= 0.2 * number
        assert abs(len(np.unique(segments.k_means(pos, pos, number))) - number) <= 0.2 * number
    assert len(np.unique(segments.squares((30, 40), 12))) == 12
    region, centers = np.array([0, 1, 1]), np.array([[0.0], [1.0], [2.0], [3.0]])
    assert segments.by_position(np.array([[0.9], [2.2], [9.0]]), region, centers).tolist() == [
        1, 2, 3,
    ]  # fmt: skip


@pytest.mark.slow
def test_tables_of_pictures_and_scans(run, script, monkeypatch, tmp_path):
    segments = script("segments")
    random = np.random.default_rng(0)
    for folder, pixels in (("test", (32, 48, 3)), ("testannot", (32, 48))):
        (tmp_path / folder).mkdir()
        image = Image.fromarray(random.integers(0, 12, pixels, dtype=np.uint8))
        image.save(tmp_path / folder / "a.png")
    pos = torch.rand(1300, 3, generator=torch.Generator().manual_seed(0)) * 100
    scene = Data(pos=pos, x=pos[:, :1].expand(-1, 4), y=(pos[:, 2] > 50).long())
    monkeypatch.setattr(segments, "LidarHD", lambda folder, split: [scene])
    for name, kept in (("picture_networks", "Fashion-MNIST"), ("scan_networks", "tiny")):
        every = getattr(segments, name)
        monkeypatch.setattr(
            segments, name, lambda *args, every=every, kept=kept: {
                name: model for name, model in every(*args).items() if kept in name
            },
        )  # fmt: skip
    page, _ = run("segments", "--camvid", str(tmp_path), "--lidar", "tiles", "--count", "1")
    assert page.count("### Boundary recall") == 2
    assert "| coc_micro, Fashion-MNIST | 5, all heads |" in page
    assert "| point_coc_tiny, HomeObjects | 1, one head |" in page
