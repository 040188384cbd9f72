from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pointcluster.models import create_model, save_model
from tests.models.published import checkpoint

FOLDER = Path(__file__).parents[2] / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def program(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return load("visualize_clusters").main


def test_an_object_and_a_photograph_by_the_weights_of_the_package(program, tmp_path, capsys):
    assert program(["chair", "--num-points", "200"]) == 0
    assert capsys.readouterr().out == "clusters.png\n"
    assert program(["coffee", "--size", "32", "--head", "1", "--out", "a.png", "a.html"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"clusters.png", "a.png", "a.html"}


def test_scans_pictures_and_networks_of_ones_own(program, tmp_path):
    rng = np.random.default_rng(0)
    np.savetxt(tmp_path / "scan.xyz", rng.normal(size=(150, 3)))
    torch.manual_seed(0)
    save_model(tmp_path / "net", create_model("point_coc_tiny", num_classes=2))
    command = ["scan.xyz", "--up", "z", "--weights", "net.safetensors", "--stage", "1"]
    assert program([*command, "--highlight", "-1", "--out", "a.png"]) == 0
    Image.fromarray(rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(tmp_path / "p.png")
    np.save(tmp_path / "scan.npy", np.hstack([rng.uniform(2, 9, (150, 6)), np.ones((150, 1))]))
    command = ["scan.npy", "--weights", "net.safetensors", "--stage", "1", "--out", "a.ply"]
    assert program([*command, "--columns", "x y z r g b -"]) == 0
    assert program(command) == 2  # an intensity, or a label
    command = ["p.png", "--model", "coc_micro", "--size", "28", "--all", "--weights", "none"]
    assert program([*command, "--out", "b.png"]) == 0
    assert (tmp_path / "b.png").exists()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda entries: {"state_dict": {f"module.{k}": v for k, v in entries.items()}, "epoch": 3},
        lambda entries: {"state_dict_ema": entries},
        lambda entries: {"net": entries},
        lambda entries: entries,
    ],
)
@pytest.mark.parametrize("name", ["coc_tiny", "pointmlp_coc"])
def test_published_checkpoints(program, tmp_path, monkeypatch, capsys, name, wrap):
    entries = {key: value.float() for key, value in checkpoint(name).items()}
    torch.save(wrap(entries), tmp_path / "published.pth.tar")
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(tmp_path / "p.png")
    np.savetxt(tmp_path / "s.xyz", rng.normal(size=(600, 3)))
    given = ["p.png", "--size", "48"] if name == "coc_tiny" else ["s.xyz", "--num-points", "600"]
    command = [*given, "--model", name, "--weights", "published.pth.tar", "--stage", "1"]
    assert program([*command, "--out", "a.ply"]) == 0, capsys.readouterr().err
    # ... the clusters are those of a network with these weights
    expected = create_model(name, num_classes=len(list(entries.values())[-1]))
    expected.load_published(entries)
    save_model(tmp_path / "same", expected)
    command[command.index("published.pth.tar")] = "same.safetensors"
    assert program([*command, "--out", "b.ply"]) == 0
    assert (tmp_path / "a.ply").read_bytes() == (tmp_path / "b.ply").read_bytes()
    other = "coc_small" if name == "coc_tiny" else "pointmlp_coc"
    torch.save({"state_dict": {"head.bias": torch.zeros(3)}}, tmp_path / "published.pth.tar")
    command[command.index("same.safetensors")] = "published.pth.tar"
    command[command.index(name)] = other
    assert program(command) == 2
    assert "published.pth.tar: " in capsys.readouterr().err


@pytest.mark.parametrize("averaged", [False, True])
@pytest.mark.parametrize("name", ["coc_micro", "point_coc_tiny"])
def test_checkpoints_of_runs(program, tmp_path, capsys, name, averaged):
    torch.manual_seed(0)
    model, other = (create_model(name, num_classes=2).eval() for _ in range(2))
    state = {
        f"model.{key}": value for key, value in (other if averaged else model).state_dict().items()
    }
    if averaged:
        state |= {f"average.module.{key}": value for key, value in model.state_dict().items()}
    noted = {"config": dict(model.config), "classes": ["a", "b"]}
    torch.save({"network": noted, "state_dict": state}, tmp_path / "last.ckpt")
    given = ["coffee", "--size", "28"] if name == "coc_micro" else ["chair", "--num-points", "200"]
    save_model(tmp_path / "same", model)
    for weights, out in [("last.ckpt", "a.ply"), ("same.safetensors", "b.ply")]:
        assert program([*given, "--weights", weights, "--stage", "1", "--out", out]) == 0
    assert (tmp_path / "a.ply").read_bytes() == (tmp_path / "b.ply").read_bytes()
    assert program([*given, "--weights", "last.ckpt", "--model", "coc_tiny"]) == 2
    assert f"last.ckpt holds {name}, and --model says coc_tiny" in capsys.readouterr().err
    for broken in ({"config": 3}, noted | {"config": noted["config"] | {"num_classes": 3}}):
        torch.save({"network": broken, "state_dict": state}, tmp_path / "last.ckpt")
        assert program([*given, "--weights", "last.ckpt"]) == 2
        errors = capsys.readouterr().err
        assert errors.startswith("error: last.ckpt ") and errors.count("\n") == 1


def test_the_checkpoint_of_a_run_with_normals(program, tmp_path, capsys):
    model = create_model("point_coc_tiny", num_classes=2, in_channels=3).eval()
    state = {f"model.{key}": value for key, value in model.state_dict().items()}
    noted = {"config": dict(model.config), "classes": ["a", "b"]}
    noted |= {"preprocessing": {"features": ["normal"]}}
    scan = np.random.default_rng(0).normal(size=(150, 6))
    np.savetxt(tmp_path / "scan.xyz", scan, header="x y z nx ny nz")
    save_model(tmp_path / "same", model, {"preprocessing": noted["preprocessing"]})
    torch.save({"network": noted, "state_dict": state}, tmp_path / "last.ckpt")
    for weights, out in [("last.ckpt", "a.ply"), ("same.safetensors", "b.ply")]:
        assert program(["scan.xyz", "--weights", weights, "--out", out]) == 0
    assert (tmp_path / "a.ply").read_bytes() == (tmp_path / "b.ply").read_bytes()
    del noted["preprocessing"]
    torch.save({"network": noted, "state_dict": state}, tmp_path / "last.ckpt")
    assert program(["scan.xyz", "--weights", "last.ckpt"]) == 2
    assert "which its file does not explain" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["nothing.ply"], "nothing.ply is not there, and is none of astronaut"),
        (["folder"], "folder is a folder"),
        (["broken.png"], "broken.png is no image"),
        (["broken.ply"], "broken.ply"),
        (["broken.csv", "--columns", "x y z foo"], "foo is no known column"),
        (["broken.ply", "--columns", "x y z"], "says itself what it holds: columns= is for"),
        (["chair", "--model", "coc_micro"], "chair is a scan, coc_micro a network of pictures"),
        (["coffee", "--model", "point_coc_tiny"], "coffee is a picture, point_coc_tiny a network"),
        (["coffee", "--model", "coc_tiny"], "no weights of coc_tiny come with the package"),
        (["chair", "--weights", "gone.safetensors"], "gone.safetensors is not there"),
        (["chair", "--weights", "none"], "which network is said by --model"),
        (["chair", "--weights", "broken.pth"], "broken.pth cannot be read"),
        (["chair", "--weights", "broken.pth", "--model", "pointmlp_coc"], "broken.pth"),
        (["chair", "--weights", "fashion_mnist", "--model", "point_coc_tiny"], "are of coc_micro"),
        (["chair", "--stage", "7"], "there is no stage number 7: choose 0 to 2"),
        (["chair", "--stage", "0", "--block", "3"], "block of stage 0 number 3: there is only 0"),
        (["chair", "--head", "9"], "there is no head of stage 0, block 0 number 9"),
        (["chair", "--head", "x"], "--head is 'x', expected a number"),
        (["chair", "--block", "0"], "--block needs --stage"),
        (["chair", "--all", "--stage", "0"], "leave out --stage"),
        (["chair", "--out", "a.jpg"], "--out a.jpg: clusters are written as .png"),
        (["chair", "--opacity", "2"], "opacity is 2.0"),
        (["chair", "--highlight", "5000"], "no point number 5000: choose 0 to 2047"),
        (["chair", "--num-points", "0"], "--num-points is 0, expected at least 1"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(program, tmp_path, capsys, command, message):
    (tmp_path / "folder").mkdir()
    for name in ("broken.png", "broken.ply", "broken.csv", "broken.pth"):
        (tmp_path / name).write_bytes(b"no such thing")
    assert program(command) == 2
    printed, errors = capsys.readouterr()
    assert printed == "" and errors.startswith("error: ") and errors.count("\n") == 1
    assert message in errors
    assert not list(tmp_path.glob("clusters*"))


def test_unknown_arguments(program, capsys):
    with pytest.raises(SystemExit) as caught:
        program(["--model", "nothing"])
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("error: argument --model: invalid choice")


def test_a_package_that_carries_a_photograph_is_named(program, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "skimage.data", None)
    assert program(["coffee"]) == 2
    assert "needs scikit-image: pip install scikit-image" in capsys.readouterr().err


def test_the_gallery(monkeypatch, tmp_path, capsys):
    monkeypatch.syspath_prepend(FOLDER)
    gallery = load("gallery")
    monkeypatch.setattr(gallery, "PICTURES", {"a.png": ["chair", "--stage", "2", "--head", "0"]})
    monkeypatch.setattr(sys, "argv", ["gallery.py", "--out", str(tmp_path / "g")])
    assert gallery.main() == 0
    assert [path.name for path in (tmp_path / "g").iterdir()] == ["a.png"]
    monkeypatch.setattr(gallery, "MOST", 10)
    assert gallery.main() == 2
    assert "more than 10" in capsys.readouterr().err
    monkeypatch.setattr(gallery, "PICTURES", {"a.png": ["nothing"]})
    assert gallery.main() == 2
