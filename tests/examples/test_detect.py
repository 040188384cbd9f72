from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("torchvision")
detection = pytest.importorskip("torchmetrics.detection")
ROOT = Path(__file__).parents[2]


class Counting:
    """Where no package works out COCO's figures: how many pictures were seen."""

    def __init__(self, **options):
        self.seen = 0

    def update(self, found, targets):
        assert set(found[0]) == {"boxes", "scores", "labels"} and "boxes" in targets[0]
        self.seen += 1

    def compute(self):
        return {"map": torch.tensor(0.5), "map_50": torch.tensor(0.25 * self.seen)}


@pytest.fixture
def program(monkeypatch):
    """The program as a function of its command line."""
    path = ROOT / "examples" / "detect.py"
    spec = importlib.util.spec_from_file_location("detect_example", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if importlib.util.find_spec("faster_coco_eval") is None:
        monkeypatch.setattr(module, "MeanAveragePrecision", Counting)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["detect.py", *map(str, arguments)])
        module.main()

    run.module = module
    return run


@pytest.fixture
def folder(tmp_path):
    """Bright squares on pictures of two sizes, in COCO's form."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 4), ("test", 2)):
        (tmp_path / split / "images").mkdir(parents=True)
        pictures, things = [], []
        for number in range(count):
            size = (64, 96) if number % 2 else (80, 64)
            image = generator.integers(0, 60, (*size, 3)).astype("uint8")
            image[10:40, 20:50] += 180
            Image.fromarray(image).save(tmp_path / split / "images" / f"{number}.png")
            pictures.append({"id": number, "file_name": f"{number}.png"})
            things.append({"image_id": number, "category_id": 5, "bbox": [20, 10, 30, 30]})
        content = {"images": pictures, "annotations": things}
        content["categories"] = [{"id": 5, "name": "square"}]
        (tmp_path / split / "boxes.json").write_text(json.dumps(content))
    return tmp_path


@pytest.mark.slow
def test_trains_tests_and_predicts(program, folder, tmp_path, capsys, pixels):
    out = tmp_path / "run"
    options = ["--size", 64, "--width", 64, "--epochs", 2, "--batch-size", 2]
    options += ["--precision", "bf16"]
    program("--data", folder, "--out", out, *options)
    assert "AP50" in capsys.readouterr().out
    assert {"map", "map_50", "loss"} <= set(json.loads((out / "results.json").read_text()))
    assert pixels(out / "results.png").shape[1] > 2 * 90
    picture = folder / "test" / "images" / "1.png"
    weights = out / "model.safetensors"
    program("--predict", picture, "--weights", weights, "--out", tmp_path / "said", "--score", 0)
    rows = json.loads((tmp_path / "said" / "1.json").read_text())
    assert all(row["class"] == "square" and len(row["box"]) == 4 for row in rows)
    assert pixels(tmp_path / "said" / "1_boxes.png").shape == (64, 96, 3)


def test_ctrl_c_keeps_the_network(program, interrupted, folder, tmp_path, pixels, capsys):
    out, said = tmp_path / "run", tmp_path / "said"
    with pytest.raises(SystemExit, match="^interrupted$"):
        program("--data", folder, "--out", out, "--width", 64, "--size", 64)
    assert "to test on, classes ['square']\n" in capsys.readouterr().out
    assert sorted(file.name for file in out.iterdir()) == ["stopped.json", "stopped.safetensors"]
    # It is sure of nothing yet in a picture of another size and kind, and nothing is drawn.
    Image.fromarray(np.arange(50 * 70, dtype="uint16").reshape(50, 70)).save(tmp_path / "grey.png")
    options = ["--weights", out / "stopped", "--out", said]
    program("--predict", tmp_path / "grey.png", *options)
    rows = json.loads((said / "grey.json").read_text())
    assert all(row["score"] < 0.4 for row in rows)
    drawn = pixels(said / "grey_boxes.png")
    assert drawn.shape == (50, 70, 3) and not np.ptp(drawn, axis=2).any()  # no yellow
    with pytest.raises(SystemExit, match="error: two of the pictures have one name"):
        program("--predict", tmp_path / "grey.png", "grey.jpg", *options)
    other = {"model": "coc_nano", "classes": ["a", "b"], "size": 64, "width": 64}
    for content in (json.dumps(other), '{"name": "coc_nano"}', "{"):
        (out / "stopped.json").write_text(content)
        with pytest.raises(SystemExit, match="are of no run of this program") as stopped:
            program("--predict", tmp_path / "grey.png", *options)
        assert "\n" not in str(stopped.value)
    (out / "stopped.safetensors").write_bytes(b"none")
    with pytest.raises(SystemExit, match="are of no run of this program"):
        program("--predict", tmp_path / "grey.png", *options)


def test_boxes_that_cannot_be_read(program, folder, tmp_path):
    (folder / "train" / "images" / "0.png").unlink()
    with pytest.raises(SystemExit, match="error: 0 has boxes in .* and no picture in "):
        program("--data", folder, "--out", tmp_path / "run")
    (folder / "train" / "boxes.json").write_text("[]")
    with pytest.raises(SystemExit, match=r"error: .*boxes\.json is no file of COCO's form"):
        program("--data", folder, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_is_not_there(program, tmp_path):
    with pytest.raises(SystemExit, match="error: .*has no split 'train'"):
        program("--data", tmp_path, "--out", tmp_path / "out")
    with pytest.raises(SystemExit, match="error: "):
        program("--predict", "a.jpg", "--weights", tmp_path / "no.json", "--out", tmp_path / "out")
