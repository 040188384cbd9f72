from __future__ import annotations

import pytest
import torch

from pointcluster.models import create_model, save_model
from pointcluster.transforms import ImageToPoints, RandomPixels


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    model = create_model("coc_micro", num_classes=10, in_channels=1).eval()
    return save_model(tmp_path / "net", model)


def test_runs_and_writes_a_page(run, weights):
    page, printed = run("partial", "--weights", str(weights), str(weights), "--step", "500")
    assert page in printed
    rows = [line.split("|")[1:-1] for line in page.splitlines() if "% kept |" in line]
    assert [row[0].split(",")[0].strip() for row in rows] == (
        ["random"] * 4 + ["block"] * 3 + ["superpixels"] * 2
    )
    whole = [cell.strip() for cell in rows[0][1:]]
    assert len(set(whole)) == 1  # nothing is missing: three times the same picture
    assert whole[0].endswith("± 0.0")  # twice the same network


def test_where_pixels_are_left(script):
    partial = script("partial")
    image = torch.rand(1, 5, 7)
    left = RandomPixels(0.4, seed=0)(ImageToPoints()(image))
    mask = partial.present(left)
    assert int(mask.sum()) == len(left.pos)
    torch.testing.assert_close(image[mask].sort().values, left.x[:, 0].sort().values)
    assert partial.present(ImageToPoints()(image)).all()
