"""Runs that are killed at any moment end with the weights of one that is left alone."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pointcluster.models import load_model

HERE = Path(__file__).parent
PROGRAM = HERE.parents[1] / "examples" / "scanobjectnn.py"
OPTIONS = ["--data", "scans", "--num-points", "32", "--batch-size", "4", "--epochs", "6",
           "--warmup-epochs", "1", "--seeds", "2", "--vote", "2", "--best-test-epoch",
           "--accelerator", "cpu"]  # fmt: skip


def make_scans(folder, train=8, test=3):
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("test", test)):
        for name, extent in (("cup", [1, 1, 1]), ("jar", [1, 0.2, 1])):
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                points = rng.normal(size=(40, 3)) * extent
                np.save(folder / split / name / f"{i}.npy", points.astype("float32"))


def rows(path):
    """A table without what is measured in seconds."""
    with open(path, newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def result(path):
    return {k: v for k, v in json.loads(path.read_text()).items() if k != "seconds"}


def files(folder):
    """What there is, but for TensorBoard's files, of which every start writes its own."""
    found = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    return {path for path in found if "tensorboard" not in path.parts}


@pytest.mark.slow
def test_ten_kills_change_nothing(tmp_path):
    make_scans(tmp_path / "scans")
    environment = os.environ | {"PYTHONPATH": str(HERE.parents[1])}
    environment |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    done = subprocess.run(
        [sys.executable, str(HERE / "killed.py"), str(PROGRAM), "10", "0", *OPTIONS],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert len(said["kinds"]) == 10 and set(said["kinds"]) == {"moment", "change", "half"}
    whole = tmp_path / "whole"
    for folder in (tmp_path / name for name in said["folders"]):
        assert files(folder) == files(whole)
        for seed in ("seed-0", "seed-1"):
            weights = [
                load_model(each / seed / "model")[0].state_dict() for each in (whole, folder)
            ]
            assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
            for name in ("metrics.csv", "test_epochs.csv"):
                assert rows(folder / seed / name) == rows(whole / seed / name)
                assert len(rows(folder / seed / name)) == 6
            assert result(folder / seed / "result.json") == result(whole / seed / "result.json")
        checkpoint = folder / "seed-1" / "checkpoints" / "last.ckpt"
        assert torch.load(checkpoint, weights_only=True)["epoch"] == 5
