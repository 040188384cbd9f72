from __future__ import annotations

import pytest
import torch

TINY = ["--repeats", "1", "--budget", "0", "--clouds", "2", "--growth", "200", "400"]


@pytest.fixture
def small(script, monkeypatch):
    """The batch of the page, of smaller clouds."""
    module = script("geometry")
    whole = module.page_of_batch
    monkeypatch.setattr(module, "page_of_batch", lambda *args: whole(*args, size=256))
    return module


def test_runs_and_writes_a_page_and_a_picture(run, small, tmp_path):
    page, printed = run(
        "geometry", *TINY, "--sizes", "100", "300", "--backends", "auto", "torch", "--no-memory"
    )
    assert page in printed
    for row in ("| anchors, voxel |", "| hierarchy, torch |", "| auto: anchors and groupings |"):
        assert row in page
    assert "Peak memory" not in page
    assert (tmp_path / "geometry.png").stat().st_size > 10_000


@pytest.mark.slow
def test_peak_memory_of_each_size(script):
    geometry, case = script("geometry"), ("regions", "auto")
    found = geometry.in_child(geometry.peaks, {case: {100_000: 1.0, 256: 1.0}})
    assert list(found[case]) == [256, 100_000]
    assert found[case][100_000] > (8 << 20) > found[case][256]


def test_slow_cases_are_left_out(script, monkeypatch):
    geometry = script("geometry")
    monkeypatch.setattr(geometry, "operation", lambda *case: lambda: None)
    monkeypatch.setattr(
        geometry,
        "medians",
        lambda calls, **_: {case: 3.0 if "torch" in case else 1e-6 for case in calls},
    )
    args = type("Args", (), {"sizes": [10, 30, 200_000], "limit": 20, "repeats": 1, "budget": 1})
    found = geometry.sweep(args, ["auto", "torch"])
    assert set(found["neighbours", "torch"]) == {10}
    assert set(found["regions", "torch"]) == {10, 30}
    assert set(found["anchors", "auto"]) == {10, 30}
    assert set(found["anchors", "voxel"]) == set(found["hierarchy", "auto"]) == {10, 30, 200_000}


def test_anchors_and_groupings_are_those_of_the_hierarchy(script):
    """Both parts of the page look for the same neighbours."""
    geometry = script("geometry")
    pos, batch = geometry.cube(3 * 128), torch.arange(3).repeat_interleave(128)
    whole = geometry.build_hierarchy(pos, geometry.PLANS, batch)
    parts = geometry.without_regions(pos, batch, "auto", 128)
    assert [len(part) for part in parts] == [len(s.anchors.anchor) for s in whole.stages]
    first = whole.stages[0].anchors
    anchors = pos[first.anchor].sort(dim=0).values
    own = pos[geometry.fps(pos, 64, batch)].sort(dim=0).values
    assert torch.equal(anchors, own)
    reach = (pos[first.grouping] - first.pos[:, None]).norm(dim=2).sort(dim=0).values
    query = pos[geometry.fps(pos, 64, batch)]
    assert torch.equal((pos[parts[0]] - query[:, None]).norm(dim=2).sort(dim=0).values, reach)


def test_the_batch_is_what_the_page_says(script):
    geometry = script("geometry")
    batch = torch.arange(2).repeat_interleave(128)
    hierarchy = geometry.build_hierarchy(geometry.cube(256), geometry.PLANS, batch)
    geometry.check_stages(hierarchy, 2, 128)
    with pytest.raises(RuntimeError, match="expected"):
        geometry.check_stages(hierarchy, 2, 256)
