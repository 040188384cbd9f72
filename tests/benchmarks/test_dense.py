from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("torchvision")
pytest.importorskip("torchmetrics")


@pytest.fixture
def dense(script):
    return script("dense")


def test_clusters_are_left_out_and_nothing_else(dense):
    torch.manual_seed(0)
    whole, without = dense.nano().eval(), dense.nano(False).eval()
    without.load_state_dict(whole.state_dict())
    images = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert not torch.allclose(whole(images)[0], without(images)[0])
        for stage in whole.stages:
            for block in stage:
                block.cluster.proj.weight.zero_()
                block.cluster.proj.bias.zero_()
        for one, other in zip(whole(images), without(images), strict=True):
            torch.testing.assert_close(one, other)


def test_networks_of_detection_and_segmentation(dense):
    for build in dense.detectors(96).values():
        detector = build().eval()
        assert detector.strides == [8, 16, 32, 64, 128]
    names = list(dense.segmenters())
    assert names[:2] == ["coc_nano + FPN", "no clusters + FPN"]


def test_weights_of_classes_by_hand(dense):
    masks = [torch.zeros(4, 4, dtype=torch.uint8) for _ in range(4)]
    masks[3][:] = 1  # a quarter of all pixels
    masks[0][0] = 11  # no class is known: counts nowhere
    masks[0][1] = masks[0][2] = masks[0][3] = 0
    weights = dense.balanced(masks)
    shares = torch.tensor([44, 16, *[1] * 9]) / 60  # one pixel for what was never seen
    assert float(weights[0] / weights[1]) == pytest.approx((16 / 44) ** 0.5)
    assert float(weights @ shares) == pytest.approx(1)


@pytest.mark.slow
def test_a_page_of_camvid_and_runs_that_are_kept(run, tmp_path):
    for split in ("train", "test"):
        for part in (split, f"{split}annot"):
            (tmp_path / part).mkdir()
        for number in range(2):
            mask = np.full((48, 64), number, "uint8")
            mask[:4] = 11
            Image.fromarray(mask).save(tmp_path / f"{split}annot" / f"{number}.png")
            colours = np.full((48, 64, 3), 90 * number, "uint8")
            Image.fromarray(colours).save(tmp_path / split / f"{number}.jpg")
    options = ["--camvid", tmp_path, "--seeds", 1, "--epochs", 1]
    options = [str(option) for option in [*options, "--only", "coc_nano + FPN"]]
    run("dense", *options)
    (file,) = (tmp_path / "dense").iterdir()
    kept = json.loads(file.read_text())
    assert set(kept) == {"mIoU", "IoU", "s", "CPU s", "MiB", "parameters"}
    assert len(kept["IoU"]) == 11 and kept["CPU s"] > 0
    file.write_text(json.dumps(kept | {"mIoU": 77.7}))
    page, printed = run("dense", *options)
    assert "77.7" in page and "CamVid" in printed
