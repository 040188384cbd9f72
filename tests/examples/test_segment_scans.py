from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lightning")

from pointcluster import segment
from pointcluster.models import load_model
from tests.datasets.scans import village

PROGRAM = Path(__file__).parents[2] / "examples" / "segment_scans.py"
SMALL = ["--num-points", "200", "--batch-size", "2", "--accelerator", "cpu", "--epochs", "2",
         "--model", "point_coc_tiny_seg"]  # fmt: skip


@pytest.fixture
def program(monkeypatch, tmp_path):
    """The program as a module; call it with a command line."""
    spec = importlib.util.spec_from_file_location("segment_scans_example", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["examples/segment_scans.py", *map(str, arguments)])
        return module.main()

    monkeypatch.chdir(tmp_path)
    run.module = module
    return run


@pytest.fixture
def scans(tmp_path):
    """A folder of tables, as one's own scans may be."""
    for number, name in enumerate(("train/a", "train/b", "test/c")):
        points = village(500, seed=number)
        path = tmp_path / "scans" / f"{name}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.column_stack([points["pos"], points["label"]]))
    return tmp_path / "scans"


@pytest.mark.slow
def test_scans_of_ones_own_from_training_to_labelled_files(program, scans, tmp_path, capsys):
    own = ["--data", scans, "--columns", "x y z label", "--classes", "ground=2", "up=5,6"]
    assert program(*own, *SMALL, "--half") == 0
    printed, errors = capsys.readouterr()
    assert errors == "" and "folder epoch   2/2" in printed
    assert "features height, classes ground, up" in printed
    out = tmp_path / "runs" / "segment_scans"
    names = {path.name for path in out.iterdir()}
    assert {"metrics.csv", "classes.csv", "results.json", "model.safetensors", "scene.png",
            "scene.html"} <= names  # fmt: skip
    rows = (out / "classes.csv").read_text().splitlines()
    assert rows[0] == "class,points,iou,recall,precision" and rows[1].startswith("ground,")
    model, noted = load_model(out / "model")
    assert next(model.parameters()).dtype.itemsize == 2
    assert noted["preprocessing"]["features"] == ["height"]
    assert noted["preprocessing"]["codes"] == [2, 5]
    (run,) = json.loads((out / "results.json").read_text())["runs"]
    assert 0 <= run["test_miou"] <= 1
    command = [out / "model.json", scans / "test" / "c.npy", "--columns", "x y z label"]
    assert segment.main([str(each) for each in [*command, "--out", tmp_path / "labelled"]]) == 0
    found = np.load(tmp_path / "labelled" / "c.npy")
    assert set(np.unique(found["classification"])) <= {2, 5}
    # a second run of other settings does not go on from this one
    assert program(*own, *SMALL, "--resume", "--lr", "0.1") == 2
    assert "began with other settings" in capsys.readouterr().err


def test_what_is_wrong_is_told_in_one_line(program, scans, tmp_path, capsys):
    def told(*arguments):
        assert program(*arguments, *SMALL) == 2
        errors = capsys.readouterr().err
        assert errors.startswith("error: ") and errors.count("\n") == 1
        return errors

    assert "train is no folder" in told("--data", tmp_path / "nowhere")
    own = ("--data", scans, "--columns", "x y z label")
    assert "features name ['heat']" in told(*own, "--features", "heat")
    assert "NAME=CODE" in told(*own, "--classes", "ground")
    assert "has no intensity" in told(*own, "--features", "intensity")
    assert "has no class of its points" in told("--data", scans, "--columns", "x y z -")
