from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

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


def pixels(file):
    with Image.open(file) as image:
        return np.array(image)


@pytest.mark.slow
def test_trains_tests_and_predicts(program, folder, tmp_path, capsys):
    out = tmp_path / "run"
    options = ["--size", 32, 32, "--width", 16, "--epochs", 6, "--batch-size", 2, "--lr", 0.01]
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


def test_colours_differ(program):
    colours = program.module.colours(30)
    assert len(set(colours)) == 30 and all(0 <= value < 256 for c in colours for value in c)
