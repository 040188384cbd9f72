from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pointcluster.models import create_model, save_model

pytest.importorskip("torchvision")
pytest.importorskip("torchmetrics")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def program(monkeypatch):
    """The program as a function of its command line."""
    path = ROOT / "examples" / "segment_pictures.py"
    spec = importlib.util.spec_from_file_location("segment_pictures_example", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["segment_pictures.py", *map(str, arguments)])
        module.main()

    run.module = module
    return run


@pytest.fixture
def folder(tmp_path):
    """Squares on pictures of two sizes; a border is of no known class."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 4), ("test", 2)):
        for number in range(count):
            height, width = (40, 64) if number % 2 else (56, 48)
            image = generator.integers(0, 90, (height, width, 3)).astype("uint8")
            mask = np.zeros((height, width), "uint8")
            mask[8:30, 8:30] = 1
            image[mask == 1] += 150
            mask[0] = 9
            for part, array, suffix in (("images", image, "jpg"), ("masks", mask, "png")):
                (tmp_path / split / part).mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(tmp_path / split / part / f"{number}.{suffix}")
    return tmp_path


@pytest.mark.slow
def test_trains_tests_and_predicts(program, folder, tmp_path, capsys, pixels):
    out = tmp_path / "run"
    options = ["--size", 32, 32, "--width", 16, "--epochs", 6, "--batch-size", 2, "--lr", 0.01]
    options += ["--precision", "bf16"]
    program("--data", folder, "--ignore-index", 9, "--out", out, *options)
    results = json.loads((out / "results.json").read_text())
    assert len(results["IoU"]) == 2 and 0.4 < results["mIoU"] <= 1
    assert "mIoU" in capsys.readouterr().out
    height, width, _ = pixels(out / "results.png").shape
    assert width > 3 * 256 and height >= 2 * 256
    picture = folder / "test" / "images" / "0.jpg"
    program("--predict", picture, "--weights", out / "model", "--out", tmp_path / "said")
    mask = pixels(tmp_path / "said" / "0_mask.png")  # of indices, with a palette
    assert mask.shape == (56, 48) and set(np.unique(mask)) <= {0, 1}
    assert pixels(tmp_path / "said" / "0_over.png").shape == (56, 48, 3)


def test_what_is_not_there(program, tmp_path):
    with pytest.raises(SystemExit, match="error: .*has no split 'train'"):
        program("--data", tmp_path, "--out", tmp_path / "out")
    with pytest.raises(SystemExit, match="error: "):
        program("--predict", "a.jpg", "--weights", tmp_path / "none", "--out", tmp_path / "out")


def test_ctrl_c_keeps_the_network(program, interrupted, folder, tmp_path, pixels, capsys):
    out, said = tmp_path / "run", tmp_path / "said"
    with pytest.raises(SystemExit, match="^interrupted$"):
        program("--data", folder, "--ignore-index", 9, "--out", out, "--width", 8)
    assert capsys.readouterr().out == "4 pictures to train on, 2 to test on, 2 classes\n"
    assert sorted(file.name for file in out.iterdir()) == ["stopped.json", "stopped.safetensors"]
    # Pictures of other sizes and kinds: 16 bits of grey, and transparent ones.
    Image.fromarray(np.arange(35 * 50, dtype="uint16").reshape(35, 50)).save(tmp_path / "grey.png")
    Image.new("RGBA", (33, 41), (1, 2, 3, 4)).save(tmp_path / "clear.png")
    two = tmp_path / "grey.png", tmp_path / "clear.png"
    program("--predict", *two, "--weights", out / "stopped", "--out", said)
    assert pixels(said / "grey_mask.png").shape == (35, 50)
    assert pixels(said / "clear_over.png").shape == (41, 33, 3)
    twins = two[0], out / "grey.jpg"
    with pytest.raises(SystemExit, match="error: two of the pictures have one name"):
        program("--predict", *twins, "--weights", out / "stopped", "--out", said)
    (tmp_path / "bad.png").write_bytes(b"none")
    with pytest.raises(SystemExit, match=r"error: .*bad\.png is no image"):
        program("--predict", tmp_path / "bad.png", "--weights", out / "stopped", "--out", said)


def test_masks_that_do_not_go_together(program, folder, tmp_path, pixels):
    out = tmp_path / "run"
    file = folder / "test" / "masks" / "1.png"
    Image.fromarray(np.full((40, 64), 7, "uint8")).save(file)
    with pytest.raises(SystemExit, match="up to 1 in train, up to 7 in test, without 9"):
        program("--data", folder, "--ignore-index", 9, "--out", out)
    for mask in (folder / "train" / "masks").iterdir():
        Image.fromarray(np.where(pixels(mask) == 1, 255, 0).astype("uint8")).save(mask)
    with pytest.raises(SystemExit, match="up to 0 in train, .*expected 1 or more"):
        program("--data", folder, "--out", out)
    assert not out.exists()


def test_weights_of_another_network(program, tmp_path):
    save_model(tmp_path / "other", create_model("coc_micro", num_classes=2))
    with pytest.raises(SystemExit, match="holds 'coc_micro', expected semantic_fpn_"):
        program("--predict", "a.jpg", "--weights", tmp_path / "other", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_batch_without_any_class_teaches_nothing(program, folder, tmp_path, pixels):
    mask = folder / "train" / "masks" / "0.png"
    Image.fromarray(np.full_like(pixels(mask), 9)).save(mask)
    options = ["--size", 64, 64, "--width", 16, "--epochs", 1, "--batch-size", 1]
    program("--data", folder, "--ignore-index", 9, "--out", tmp_path / "run", *options)
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert 0 < results["loss"] < 10  # not NaN


def test_what_is_ignored_everywhere_leaves_the_picture_as_it_is(program):
    picture = torch.zeros(3, 4, 5, dtype=torch.uint8)
    assert torch.equal(program.module.over(picture, torch.full((4, 5), 11), 11), picture)


@pytest.mark.parametrize("option", [("--epochs", 0), ("--size", 0, 8), ("--model", "coc_no")])
def test_options_that_are_none(program, option, capsys):
    with pytest.raises(SystemExit) as stopped:
        program(*option)
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and said.startswith("error: ") and said.count("\n") == 1


def test_colours_differ(program):
    colours = program.module.colours(30)
    assert len(set(colours)) == 30 and all(0 <= value < 256 for c in colours for value in c)
