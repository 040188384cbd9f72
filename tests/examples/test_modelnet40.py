from __future__ import annotations

import csv
import functools
import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from pointcluster.datasets import HomeObjects, ModelNet40
from pointcluster.models import list_models, load_model
from pointcluster.models.point_coc import PointCoC

PROGRAM = Path(__file__).parents[2] / "examples" / "modelnet40.py"
SMALL = ["--num-points", "64", "--batch-size", "8", "--accelerator", "cpu"]


@pytest.fixture
def program(monkeypatch, tmp_path):
    """The program as a module, on a few clouds; call it with a command line."""
    spec = importlib.util.spec_from_file_location("modelnet40_example", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    class FewObjects(HomeObjects):
        def __init__(self, split):
            super().__init__(split)
            self._indices = range(16 if split == "train" else 12)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["examples/modelnet40.py", *arguments])
        return module.main()

    monkeypatch.setattr(module, "HomeObjects", FewObjects)
    monkeypatch.setattr(module, "ROOT", str(tmp_path / "no-modelnet40"))
    monkeypatch.chdir(tmp_path)
    run.module = module
    return run


def test_a_run_leaves_what_it_promises(program, tmp_path, capsys):
    assert program(*SMALL, "--epochs", "1", "--normals", "--rotate", "--val-fraction", "0.2") == 0
    out = tmp_path / "runs" / "modelnet40"
    names = {file.name for file in out.iterdir()}
    assert names == {
        "checkpoints", "clusters.png", "command.txt", "config.json", "confusion.png",
        "metrics.csv", "model.json", "model.safetensors", "result.json", "results.json",
        "tensorboard",
    }  # fmt: skip
    printed, errors = capsys.readouterr()
    assert errors == ""
    lines = printed.splitlines()
    assert lines[0].startswith("ModelNet40 is not in")
    assert "HomeObjects, 64 of 2,048 points epoch   1/1" in printed
    result = json.loads((out / "results.json").read_text())
    (run,) = result["runs"]
    assert (result["data"], run["num_points"], run["seed"]) == ("HomeObjects", 64, 0)
    # The network where none is named:
    line = "HomeObjects, 64 of 2,048 points, point_coc_tiny, seed 0: test accuracy "
    line += f"{run['test_accuracy']:.1%}"
    assert any(text.startswith(line) and "(last of 1 epochs)" in text for text in lines)
    for name in ("model.safetensors", "clusters.png", "confusion.png", "results.json"):
        assert any(text.strip().endswith(name) for text in lines[-6:]), name
    model, metadata = load_model(out / "model", name="point_coc_tiny")
    assert model.in_channels == 3
    assert metadata["result"]["data"] == "HomeObjects"
    assert metadata["preprocessing"] == {
        "num_points": 64, "sampled": 2048, "normalize": True, "up": "y", "features": ["normal"],
    }  # fmt: skip
    assert "val_accuracy" in (out / "metrics.csv").read_text()


def test_animate_leaves_a_film_and_the_same_network(program, tmp_path, capsys):
    for more in (["--animate"], []):
        command = [*SMALL, "--epochs", "2", "--out", "with" if more else "without", *more]
        assert program(*command) == 0
    assert "  with/clusters.gif" in capsys.readouterr().out.splitlines()
    with Image.open(tmp_path / "with" / "clusters.gif") as film:
        assert film.n_frames == 3  # before training, and after both epochs
    own, other = (tmp_path / name / "model.safetensors" for name in ("with", "without"))
    assert own.read_bytes() == other.read_bytes()
    assert not (tmp_path / "without" / "clusters.gif").exists()


@pytest.mark.parametrize("model", list_models("point*"))
def test_every_network_of_clouds_may_be_chosen(program, capsys, model):
    assert program("--model", model, "--num-points", "5000") == 2
    assert "--num-points is 5000, HomeObjects has 2048" in capsys.readouterr().err


def test_several_seeds(program, tmp_path, capsys):
    arguments = [*SMALL, "--epochs", "1", "--seeds", "2", "--seed", "3", "--out", "two"]
    assert program(*arguments) == 0
    result = json.loads((tmp_path / "two" / "results.json").read_text())
    values = [run["test_accuracy"] for run in result["runs"]]
    assert [run["seed"] for run in result["runs"]] == [3, 4]
    assert result["summary"]["test_accuracy"]["mean"] == pytest.approx(np.mean(values))
    assert result["summary"]["test_accuracy"]["std"] == pytest.approx(np.std(values, ddof=1))
    printed = capsys.readouterr().out
    assert "HomeObjects, 64 of 2,048 points, point_coc_tiny, 2 seeds: test accuracy" in printed
    assert (tmp_path / "two" / "seed-4" / "clusters.png").exists()
    # both seeds are through: nothing is trained again
    assert program(*arguments, "--resume") == 0
    assert "epoch" not in capsys.readouterr().out
    again = json.loads((tmp_path / "two" / "results.json").read_text())
    (resumed,) = again.pop("resumed_by")
    assert again == result and resumed == result["command"] + " --resume"


@pytest.mark.parametrize("normal", [True, False])
def test_reads_modelnet40(program, tmp_path, monkeypatch, capsys, normal):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "shape_names.txt").write_text("\n".join(f"class{i}" for i in range(40)))
    for split in ("train", "test"):
        (folder / f"{split}_files.txt").write_text(f"x/{split}.h5")
        with h5py.File(folder / f"{split}.h5", "w") as file:
            file["data"] = np.random.default_rng(0).normal(size=(8, 2048, 3)).astype("float32")
            file["faceId"] = np.zeros((8, 2048), dtype="int32")
            file["label"] = np.arange(8, dtype="uint8")[:, None]
            if normal:
                file["normal"] = file["data"][()]
    assert program(*SMALL, "--root", "data") == 2
    assert "train split has 8 clouds, not 9,840" in capsys.readouterr().err
    few = functools.partial(ModelNet40, sizes=None)
    monkeypatch.setattr(program.module, "ModelNet40", few)
    if not normal:
        assert program(*SMALL, "--root", "data", "--normals") == 2
        error = capsys.readouterr().err
        assert "train.h5 holds no array 'normal'" in error and error.count("\n") == 1
    options = ["--normals"] if normal else []
    assert program(*SMALL, "--root", "data", "--epochs", "1", *options) == 0
    printed = capsys.readouterr().out
    assert "HomeObjects" not in printed
    network, _ = load_model(tmp_path / "runs/modelnet40/model")
    assert network.config["in_channels"] == (3 if normal else 0)
    assert "ModelNet40 HDF5, 64 of 2,048 points, point_coc_tiny, seed 0: test accuracy" in printed
    config = json.loads((tmp_path / "runs/modelnet40/config.json").read_text())
    assert (config["data"], config["label_smoothing"]) == ("ModelNet40 HDF5", 0.2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--root", "nowhere"], "no ModelNet40 in nowhere"),
        (["--num-points", "4096"], "--num-points is 4096, HomeObjects has 2048 points a cloud"),
        (["--root", "nowhere", "--normals"], "no ModelNet40 in nowhere"),
        (["--form", "meshes"], "--form meshes: it is not in"),
        (["--form", "meshes", "--download"], "form 'meshes' is not fetched by this program"),
        (["--out", "file/run"], "cannot write to the output folder file/run"),
        (["--resume"], "holds no run"),
        (["--accelerator", "abacus"], "accelerator 'abacus'"),
    ],
)
def test_what_is_wrong_is_one_line(program, tmp_path, capsys, arguments, message):
    (tmp_path / "file").write_text("")
    assert program(*arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert message in error


def test_resume_with_another_network(program, tmp_path, capsys):
    assert program("--accelerator", "abacus") == 2  # has begun a run, and got no further
    assert program("--resume", "--model", "point_coc_small") == 2
    assert "model was 'point_coc_tiny' and is now 'point_coc_small'" in capsys.readouterr().err


@pytest.mark.slow
def test_whoever_searches_neighbours_the_network_is_the_same(program, tmp_path, monkeypatch):
    searched = []
    forward = PointCoC.forward

    def forward_of(self, data):
        searched.append("hierarchy" not in data)
        return forward(self, data)

    monkeypatch.setattr(PointCoC, "forward", forward_of)
    networks = []
    for name, arguments, in_step in [
        ("a", [], True),
        ("b", ["--geometry", "loader"], False),
        ("c", ["--workers", "2"], False),
        ("d", ["--workers", "2", "--geometry", "step"], True),
    ]:
        assert program(*SMALL, "--epochs", "2", "--out", name, *arguments) == 0
        # Both steps of both epochs and the test; the picture's clouds are not of a loader.
        assert searched[:6] == [in_step] * 6
        searched.clear()
        networks.append(load_model(tmp_path / name / "model")[0].state_dict())
        assert "geometry" not in json.loads((tmp_path / name / "config.json").read_text())
    for other in networks[1:]:
        assert all(torch.equal(value, networks[0][key]) for key, value in other.items())


@pytest.mark.slow
def test_ctrl_c_and_resume_equal_an_uninterrupted_run(tmp_path):
    command = [
        sys.executable, str(PROGRAM), "--num-points", "64", "--batch-size", "128", "--epochs", "3",
        "--accelerator", "cpu",
    ]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(PROGRAM.parents[1])}
    environment["OMP_NUM_THREADS"] = "1"  # batches are small
    options = {"cwd": tmp_path, "env": environment, "text": True}
    process = subprocess.Popen(
        [*command, "--out", "a"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
    )
    for line in process.stdout:
        if "epoch   2/3" in line:  # so the first epoch's checkpoint is whole
            process.send_signal(signal.SIGINT)
            break
    _, errors = process.communicate(timeout=500)
    assert process.returncode == 130, errors
    assert errors.startswith("interrupted; go on") and errors.count("\n") == 1
    assert "--out a --resume" in errors
    assert torch.load(tmp_path / "a/checkpoints/last.ckpt", weights_only=True)["epoch"] in (0, 1)
    for arguments in (["--out", "a", "--resume"], ["--out", "b"]):
        done = subprocess.run([*command, *arguments], capture_output=True, timeout=500, **options)
        assert (done.returncode, done.stderr) == (0, "")
    first, second = (load_model(tmp_path / name / "model")[0].state_dict() for name in "ab")
    assert all(torch.equal(first[key], second[key]) for key in second)
    for name in "ab":
        with open(tmp_path / name / "metrics.csv", newline="") as file:
            assert [float(row["epoch"]) for row in csv.DictReader(file)] == [1, 2, 3]
