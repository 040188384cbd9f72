from __future__ import annotations

import pytest

TINY = ["--batch-size", "2", "--num-points", "64", "--repeats", "1", "--budget", "0"]


def test_runs_and_writes_a_page_and_a_picture(run, tmp_path):
    models = ["point_coc_tiny", "dgcnn"]
    page, printed = run("networks", *TINY, "--peak-size", "64", "--models", *models)
    assert page in printed
    rows = [line for line in page.splitlines() if line.startswith("| point_coc_tiny |")]
    assert len(rows) == 3 and not any("–" in row for row in rows)
    assert sum(line.startswith("| dgcnn |") for line in page.splitlines()) == 3
    assert (tmp_path / "networks.png").stat().st_size > 10_000


def test_share_of_the_peak(script):
    share = script("networks").share
    work = {"net": {"inference": 2.0, "training": 6.0}}
    rate = {("net", "inference"): 5.0, ("net", "training, geometry given"): 1.0}
    assert share(work, rate, "net", "inference", 100.0) == pytest.approx(10)
    assert share(work, rate, "net", "training, geometry given", 100.0) == pytest.approx(6)
