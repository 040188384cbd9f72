from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pointcluster.models import create_model, save_model

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
    own = create_model("coc_micro", num_classes=2)
    torch.save({"state_dict": own.state_dict()}, tmp_path / "published.pth.tar")
    for more in (["--all", "--weights", "none"], ["--stage", "0", "--block", "-1"]):
        more = [*more, "--weights", "published.pth.tar"] if "--weights" not in more else more
        command = ["p.png", "--model", "coc_micro", "--size", "28", *more, "--out", "b.png"]
        # Its own layout is no published one: said in one line, too.
        assert program(command) in (0, 2)
    assert (tmp_path / "b.png").exists()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["nothing.ply"], "nothing.ply is not there, and is none of astronaut"),
        (["folder"], "folder is a folder"),
        (["broken.png"], "broken.png is no image"),
        (["broken.ply"], "broken.ply"),
        (["chair", "--model", "coc_micro"], "chair is a scan, coc_micro a network of pictures"),
        (["coffee", "--model", "point_coc_tiny"], "coffee is a picture, point_coc_tiny a network"),
        (["coffee", "--model", "coc_tiny"], "no weights of coc_tiny come with the package"),
        (["chair", "--weights", "gone.safetensors"], "gone.safetensors is not there"),
        (["chair", "--weights", "none"], "which network is said by --model"),
        (["chair", "--weights", "broken.pth"], "of which network it is"),
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
    for name in ("broken.png", "broken.ply", "broken.pth"):
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
