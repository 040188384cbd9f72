from __future__ import annotations

import pytest
import torch


@pytest.mark.slow
def test_ours_alone(run):
    settings = ["--batch-size", "2", "--num-points", "64", "--repeats", "1", "--budget", "0"]
    page, printed = run("published_points", *settings, "--no-memory")
    assert page in printed
    rows = [line for line in page.splitlines() if line.startswith(("| inference", "| training"))]
    assert len(rows) == 2


def test_sampling_begins_at_the_first_point(script):
    pos = script("published_points").clouds(2, 20).pos.view(2, 20, 3)
    index = script("published_points").sample_from_first(pos, 5)
    assert index.shape == (2, 5) and index[:, 0].tolist() == [0, 0]
    for cloud, picks in zip(pos, index.long(), strict=True):
        for j in range(1, 5):
            nearest = torch.cdist(cloud, cloud[picks[:j]]).amin(dim=1)
            assert nearest.argmax() == picks[j]


def test_no_checkout(script, tmp_path):
    with pytest.raises(SystemExit, match="takes a checkout of the published code"):
        script("published_points").published_code(tmp_path)
