from __future__ import annotations

import argparse

import pytest
import torch

SHAPE = ["--channels", "8", "--heads", "2", "--head-channels", "4", "--centers", "3"]


@pytest.fixture
def args():
    return argparse.Namespace(
        channels=8, heads=2, head_channels=4, centers=3, region_size=16, sizes=[64]
    )


@pytest.mark.parametrize(
    ("kind", "size"), [("uniform", 128), ("uniform", 3072), ("ragged", 100), ("ragged", 3000)]
)
def test_both_implementations_agree(script, args, kind, size):
    layer = script("layer")
    assert layer.disagreement(kind, size, args) < layer.AGREE


def test_a_disagreement_stops_the_run(run, script, monkeypatch, tmp_path):
    layer = script("layer")
    right = layer.plain
    monkeypatch.setattr(layer, "plain", lambda *args: right(*args) * 1.001)
    with pytest.raises(SystemExit, match="differ"):
        run("layer", *SHAPE, "--sizes", "64", "--no-memory")
    assert not (tmp_path / "layer.md").exists()


def test_runs_and_writes_a_page_and_a_picture(run, tmp_path):
    page, printed = run(
        "layer", *SHAPE, "--sizes", "256", "64", "--repeats", "1", "--budget", "0", "--no-memory"
    )
    assert page in printed
    assert "| clouds, pass | 64 | 256 |" in page
    assert page.count("| ragged, forward and backward") == 3
    assert (tmp_path / "layer.png").stat().st_size > 10_000


@pytest.mark.slow
def test_the_plain_implementation_needs_more_memory(script, args):
    layer = script("layer")
    args.sizes, args.channels, args.head_channels = [8192], 64, 32
    found = layer.in_child(layer.peaks, args)
    ours, plain = (found["uniform", "forward", name][8192] for name in ("layer", "plain"))
    assert 0 < ours < plain


def test_ragged_clouds_differ_in_size_and_fill_the_batch(script):
    batch = script("layer").clouds_of("ragged", 8192)
    sizes = torch.bincount(batch)
    assert len(sizes) == 8 and len(set(sizes.tolist())) > 1 and sizes.min() > 300
    assert bool((batch[1:] >= batch[:-1]).all())
