from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pointcluster.models import create_model, load_model
from pointcluster.models.convert import convert, main
from tests.models.published import checkpoint

ROOT = Path(__file__).resolve().parents[2]


def floats(name, **others):
    return {key: value.float() for key, value in checkpoint(name).items()} | others


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A file as timm's training program leaves it, of a network on several devices."""
    path = tmp_path_factory.mktemp("published") / "coc_tiny.pth.tar"
    entries = floats("coc_tiny")
    torch.save(
        {
            "epoch": 309,
            "arch": "coc_tiny",
            "state_dict": {f"module.{key}": value for key, value in entries.items()},
            "state_dict_ema": {key: value / 2 for key, value in entries.items()},
            "args": argparse.Namespace(model="coc_tiny", lr=1e-3, mean=None, opt_betas=[0.9]),
            "optimizer": {"state": {}, "param_groups": [{"lr": 0.1, "params": [0, 1]}]},
            "version": 2,
            "metric": 71.8,
        },
        path,
    )
    return path


def test_gives_the_same_answers(published, tmp_path, capsys):
    main([str(published), str(tmp_path / "out.safetensors"), "--model", "coc_tiny"])
    said = capsys.readouterr().out
    assert said.startswith("coc_tiny, 1000 classes, 5,570,584 parameters: ")
    found, metadata = load_model(tmp_path / "out", name="coc_tiny")
    assert metadata == {"converted_from": "coc_tiny.pth.tar", "ema": False}
    expected = create_model("coc_tiny").eval()
    expected.load_published(floats("coc_tiny"))
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(found(images), expected(images))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.json", "out.safetensors"]


def test_the_averaged_weights(published, tmp_path):
    own = convert(published, tmp_path / "own", name="coc_tiny").head.weight
    ema = convert(published, tmp_path / "ema", name="coc_tiny", ema=True).head.weight
    assert torch.equal(ema, own / 2)
    assert torch.equal(load_model(tmp_path / "ema")[0].head.weight, ema)


def test_networks_of_the_same_shapes_must_be_named(published, tmp_path, capsys):
    with pytest.raises(SystemExit, match="coc_tiny, coc_tiny2, coc_tiny_plain alike.*--model"):
        main([str(published), str(tmp_path / "out")])
    assert not list(tmp_path.iterdir())
    with pytest.raises(SystemExit):
        main([str(published), str(tmp_path / "out"), "--model", "resnet50"])
    assert "invalid choice: 'resnet50'" in capsys.readouterr().err


@pytest.mark.slow
def test_the_shapes_tell_the_network_and_the_classes(tmp_path):
    entries = floats("coc_small")
    entries |= {"head.weight": torch.ones(7, 512), "head.bias": torch.zeros(7)}
    torch.save(entries, tmp_path / "small.pth")
    model = convert(tmp_path / "small.pth", tmp_path / "out")
    assert model.config["name"] == "coc_small" and model.num_classes == 7
    assert load_model(tmp_path / "out")[0].head.out_features == 7


@pytest.mark.slow
def test_pyramids(tmp_path):
    entries = {
        k: v for k, v in floats("coc_small").items() if k.split(".")[0] not in ("norm", "head")
    }
    for stage, channels in zip((0, 2, 4, 6), (64, 128, 320, 512), strict=True):
        entries |= {f"norm{stage}.weight": torch.ones(channels)}
        entries |= {f"norm{stage}.bias": torch.full((channels,), float(stage))}
    torch.save({"state_dict": entries}, tmp_path / "pyramid.pth")
    with pytest.raises(ValueError, match="coc_small, coc_small_feat5, coc_small_feat7 alike"):
        convert(tmp_path / "pyramid.pth", tmp_path / "out")
    convert(tmp_path / "pyramid.pth", tmp_path / "out", name="coc_small_feat5")
    model, _ = load_model(tmp_path / "out", name="coc_small_feat5")
    assert model.features_only and model.out_indices == (0, 1, 2, 3)
    assert model.norms["3"].bias.eq(6).all()


@pytest.mark.slow
def test_another_network(tmp_path):
    torch.save(floats("coc_small"), tmp_path / "small.pth")
    with pytest.raises(ValueError, match=r"small\.pth: .*do not fit"):
        convert(tmp_path / "small.pth", tmp_path / "out", name="coc_tiny")
    torch.save(floats("coc_small", more=torch.ones(1)), tmp_path / "more.pth")
    with pytest.raises(ValueError, match="fits none of coc_base_dim64"):
        convert(tmp_path / "more.pth", tmp_path / "out")
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "linear.pth")
    with pytest.raises(ValueError, match="fits none"):
        convert(tmp_path / "linear.pth", tmp_path / "out")
    torch.save({"state_dict": {"a": 3}}, tmp_path / "number.pth")
    with pytest.raises(ValueError, match="'a' is no tensor"):
        convert(tmp_path / "number.pth", tmp_path / "out")
    with pytest.raises(ValueError, match="no averaged weights"):
        convert(tmp_path / "small.pth", tmp_path / "out", ema=True)
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="holds a list"):
        convert(tmp_path / "list.pth", tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


def test_files_that_are_refused_or_missing(tmp_path):
    torch.save({"state_dict": {}, "args": argparse.ArgumentParser}, tmp_path / "evil.pth")
    with pytest.raises(SystemExit, match="error: .*refused"):
        main([str(tmp_path / "evil.pth"), str(tmp_path / "out")])
    with pytest.raises(SystemExit, match="nothing.pth is not there"):
        main([str(tmp_path / "nothing.pth"), str(tmp_path / "out")])
    assert not list(tmp_path.glob("out*"))


@pytest.mark.slow
def test_as_a_program(published, tmp_path):
    command = [sys.executable, "-m", "pointcluster.models.convert", published, tmp_path / "out"]
    done = subprocess.run(
        [*map(str, command), "--model", "coc_tiny2"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "coc_tiny2, 1000 classes" in done.stdout
