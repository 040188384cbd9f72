from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
import torch

TINY = ["--clouds", "9", "--batch-size", "4", "--num-points", "64", "--repeats", "1"]


@pytest.mark.parametrize("workers", [["0"], pytest.param(["0", "2"], marks=pytest.mark.slow)])
def test_runs_and_writes_a_page(run, workers):
    page, printed = run("loader", *TINY, "--models", "point_coc_tiny", "--workers", *workers)
    assert page in printed
    rows = [line for line in page.splitlines() if line.startswith("| point_coc_tiny, ")]
    assert len(rows) == len(workers)
    for row, count in zip(rows, workers, strict=True):
        name, *cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert name == f"point_coc_tiny, {count} workers"
        assert len(cells) == 5 and all(float(cell) > 0 for cell in cells[:4])
    assert "9 clouds of 64 points" in page
    assert re.search(r"largest difference of a loss .*: 0\.0e\+00\.", page)


def test_the_papers_network_can_be_named(script, monkeypatch):
    module = script("loader")
    monkeypatch.setattr("sys.argv", ["loader.py", "--models", "pointmlp_coc", "point_coc_small"])
    assert module.parse_arguments().models == ["pointmlp_coc", "point_coc_small"]
    monkeypatch.setattr("sys.argv", ["loader.py"])
    assert module.parse_arguments().models == ["point_coc_tiny"]
    monkeypatch.setattr("sys.argv", ["loader.py", "--models", "coc_tiny"])
    with pytest.raises(SystemExit):
        module.parse_arguments()


def test_what_a_loader_brings(script):
    module = script("loader")
    args = SimpleNamespace(num_points=64, batch_size=4)
    clouds = module.HomeObjects(split="train")[:9]
    model = module.create_model("point_coc_tiny", num_classes=12)
    found = {
        way: list(module.loader(model, way, clouds, 0, args))
        for way in (module.STEP, module.CLOUD, module.BATCH)
    }
    for a, b, c in zip(*found.values(), strict=True):
        assert torch.equal(a.pos, b.pos) and torch.equal(a.pos, c.pos)
        assert "hierarchy" not in a and "hierarchy" in b and "hierarchy" in c
        assert len(b.hierarchy) == 4 and c.hierarchy.batch_size == 4


def test_saved_is_of_the_better_way(script):
    module = script("loader")
    ways = {module.STEP: 4.0, module.CLOUD: 5.0, module.BATCH: 3.0}
    seconds = {("net", 1, way): value for way, value in ways.items()}
    seconds["net", 0, module.READY] = 2.0
    args = SimpleNamespace(models=["net"], workers=[1], num_points=8, batch_size=2, check=1)
    page = module.page(args, seconds, {("net", 1, module.BATCH): 0.25}, 1.0, 9)
    assert "| net, 1 workers | 4.00 | 5.00 | 3.00 | 2.00 | 25 |" in "\n".join(page)
    assert "2.5e-01" in page[-1]
