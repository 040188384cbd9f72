from __future__ import annotations

import csv
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
from torch_geometric.data import Data

from pointcluster import datasets
from pointcluster.datasets import HomeObjects, ScanObjectNN
from pointcluster.models import load_model
from pointcluster.training import TestEachEpoch

PROGRAM = Path(__file__).parents[2] / "examples" / "scanobjectnn.py"
SMALL = ["--num-points", "64", "--batch-size", "8", "--accelerator", "cpu", "--epochs", "1",
         "--warmup-epochs", "0"]  # fmt: skip
SCANS = "ScanObjectNN PB_T50_RS with background, main split, 64 of 2,048 points"


@pytest.fixture
def program(monkeypatch, tmp_path):
    """The program as a module, on a few clouds; call it with a command line."""
    spec = importlib.util.spec_from_file_location("scanobjectnn_example", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    class FewObjects(HomeObjects):
        def __init__(self, split):
            super().__init__(split)
            self._indices = range(16 if split == "train" else 12)

    class FewScans(ScanObjectNN):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options, sizes=None)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["examples/scanobjectnn.py", *map(str, arguments)])
        return module.main()

    monkeypatch.setattr(module, "HomeObjects", FewObjects)
    monkeypatch.setattr(module, "ScanObjectNN", FewScans)
    monkeypatch.setattr(module, "ROOT", str(tmp_path / "no-scans"))
    monkeypatch.chdir(tmp_path)
    run.module = module
    return run


@pytest.fixture
def scans(tmp_path):
    """A miniature of the archive's folder: the main split, with and without background."""
    rng = np.random.default_rng(0)
    for folder in ("main_split", "main_split_nobg"):
        (tmp_path / "h5_files" / folder).mkdir(parents=True)
        for name in ("objectdataset", "objectdataset_augmentedrot_scale75"):
            for split, count in (("training", 16), ("test", 8)):
                path = tmp_path / "h5_files" / folder / f"{split}_{name}.h5"
                with h5py.File(path, "w") as file:
                    file["data"] = rng.normal(size=(count, 2048, 3)).astype("float32")
                    file["label"] = np.arange(count) % 15
                    file["mask"] = rng.integers(-1, 2, (count, 2048))
    return tmp_path / "h5_files"


def read_table(path):
    with open(path, newline="") as file:
        return list(csv.reader(file))


def test_without_data_it_runs_on_home_objects(program, tmp_path, capsys):
    assert program(*SMALL, "--val-fraction", 0.2) == 0
    out = tmp_path / "runs" / "scanobjectnn"
    assert {file.name for file in out.iterdir()} == {
        "checkpoints", "command.txt", "config.json", "confusion.csv", "confusion.png", "log.txt",
        "metrics.csv", "model.json", "model.safetensors", "result.json", "results.json",
        "tensorboard",
    }  # fmt: skip
    printed, errors = capsys.readouterr()
    assert errors == ""
    first, *rest = printed.splitlines()
    assert first.startswith("ScanObjectNN is not in") and "fetch.py scanobjectnn" in first
    assert "HomeObjects, 64 of 2,048 points: 16 training and 12 test clouds, 12 classes" in printed
    assert "recipe small" in printed
    assert (out / "log.txt").read_text() in printed
    results = json.loads((out / "results.json").read_text())
    (run,) = results["runs"]
    assert (run["data"], run["recipe"], run["epochs"]) == ("HomeObjects", "small", 1)
    assert "vote" not in run and "best_test_epoch" not in run
    line = "HomeObjects, 64 of 2,048 points, point_coc_tiny, seed 0: test accuracy "
    line += f"{run['test_accuracy']:.1%} overall"
    assert any(text.startswith(line) and "(last of 1 epochs)" in text for text in rest)
    config = json.loads((out / "config.json").read_text())
    assert config["val_fraction"] == 0.2 and "torch" in config["notes"]["versions"]
    assert "val_accuracy" in (out / "metrics.csv").read_text()
    assert (out / "command.txt").read_text().startswith("python examples/scanobjectnn.py")
    _, metadata = load_model(out / "model", name="point_coc_tiny")
    assert metadata["result"] == run


def test_variant_points_and_background_are_in_every_result(program, scans, tmp_path, capsys):
    assert program(*SMALL, "--root", scans) == 0
    printed = capsys.readouterr().out
    assert "HomeObjects" not in printed and "recipe modern" in printed
    assert f"{SCANS}, point_coc_tiny, seed 0: test accuracy" in printed
    out = tmp_path / "runs" / "scanobjectnn"
    results = json.loads((out / "results.json").read_text())
    (run,) = results["runs"]
    for found in (run, json.loads((out / "result.json").read_text())):
        assert (found["variant"], found["background"], found["part"]) == (
            "PB_T50_RS", True, "main_split",
        )  # fmt: skip
        assert (found["num_points"], found["points"]) == (64, 2048)
    assert results["data"] == "ScanObjectNN PB_T50_RS with background, main split"
    assert program(*SMALL, "--root", scans, "--variant", "OBJ_ONLY", "--out", "only") == 0
    assert "ScanObjectNN OBJ_ONLY without background, main split" in capsys.readouterr().out
    run = json.loads((tmp_path / "only" / "result.json").read_text())
    assert (run["variant"], run["background"]) == ("OBJ_ONLY", False)


def test_scans_in_the_data_room_are_found(program, scans, monkeypatch, capsys):
    monkeypatch.setattr(program.module, "ROOT", str(scans.parent))
    assert program(*SMALL, "--no-background") == 0
    assert "PB_T50_RS without background" in capsys.readouterr().out


def test_confusion_counts_the_test_clouds(program, scans, tmp_path):
    assert program(*SMALL, "--root", scans) == 0
    head, *rows = read_table(tmp_path / "runs" / "scanobjectnn" / "confusion.csv")
    counts = np.array([[int(value) for value in row[1:]] for row in rows])
    assert head[1:] == [row[0] for row in rows] == list(datasets.scanobjectnn.CLASSES)
    assert counts.sum(axis=1).tolist() == [1] * 8 + [0] * 7
    result = json.loads((tmp_path / "runs/scanobjectnn/result.json").read_text())
    assert result["test_accuracy"] == pytest.approx(counts.trace() / 8)


def test_columns_beside_the_result(program, scans, tmp_path, capsys):
    more = ["--vote", 2, "--best-test-epoch", "--seeds", 2, "--epochs", 2]
    assert program(*SMALL, "--root", scans, *more, "--out", "a") == 0
    printed = capsys.readouterr().out.splitlines()
    results = json.loads((tmp_path / "a" / "results.json").read_text())
    assert set(results["summary"]) == {
        "test_accuracy", "test_mean_class_accuracy", "vote", "best_test_epoch",
    }  # fmt: skip
    for run in results["runs"]:
        seed = f"{SCANS}, point_coc_tiny, seed {run['seed']}: "
        assert run["vote"]["votes"] == 2 and 0 <= run["vote"]["voted_accuracy"] <= 1
        assert any(line.startswith(seed + "with 2 votes: ") for line in printed)
        best = run["best_test_epoch"]
        assert best["label"] == TestEachEpoch.LABEL
        assert best["test_accuracy"] >= run["test_accuracy"]
        expected = seed + f"{best['test_accuracy']:.1%} overall after epoch {best['epoch']}"
        assert any(line == f"{expected} ({TestEachEpoch.LABEL})" for line in printed)
        table = read_table(tmp_path / "a" / f"seed-{run['seed']}" / "test_epochs.csv")
        assert len(table) == 3
        assert float(table[-1][1]) == pytest.approx(run["test_accuracy"])
    assert any("2 seeds: " in line and TestEachEpoch.LABEL in line for line in printed)
    # without them the result is the same
    assert program(*SMALL, "--root", scans, "--seeds", 2, "--epochs", 2, "--out", "b") == 0
    plain = json.loads((tmp_path / "b" / "results.json").read_text())
    for first, second in zip(results["runs"], plain["runs"], strict=True):
        assert first["test_accuracy"] == second["test_accuracy"]
        assert first["test_loss"] == second["test_loss"]
    # all seeds are through: nothing is trained again
    capsys.readouterr()
    again = ["--root", scans, "--seeds", 2, "--epochs", 2, "--out", "b", "--resume"]
    assert program(*SMALL, *again) == 0
    assert "epoch   1/2" not in capsys.readouterr().out


def test_published_recipe(program, scans, tmp_path, capsys):
    assert program(*SMALL, "--root", scans, "--recipe", "published", "--num-points", 128) == 0
    config = json.loads((tmp_path / "runs" / "scanobjectnn" / "config.json").read_text())
    assert (config["optimizer"], config["lr"], config["weight_decay"]) == ("sgd", 0.01, 1e-4)
    assert (config["recipe"], config["epochs"], config["resample"]) == ("published", 1, False)
    assert "recipe published" in capsys.readouterr().out


class Folder:
    """Stands for the reader of folders: its arguments and what it must have."""

    def __init__(self, root, split, num_points):
        self.root, self.split, self.num_points = root, split, num_points
        self.classes = ["cup", "hat", *(["shoe"] if (root / "odd" / split).exists() else [])]

    def __len__(self):
        return 12

    def __getitem__(self, index):
        pos = torch.rand(self.num_points, 3, generator=torch.Generator().manual_seed(index))
        return Data(pos=pos, y=torch.tensor([index % 2]))


def test_folder_of_ones_own(program, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(datasets, "PointFolder", Folder, raising=False)
    (tmp_path / "mine").mkdir()
    assert program(*SMALL, "--data", "mine") == 0
    printed = capsys.readouterr().out
    assert "mine, 64 points: 12 training and 12 test clouds, 2 classes" in printed
    assert "mine, 64 points, point_coc_tiny, seed 0: test accuracy" in printed
    (tmp_path / "mine" / "odd" / "train").mkdir(parents=True)
    assert program(*SMALL, "--data", "mine") == 2
    assert "have other classes: ['shoe']" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere"], "--data: there is no folder nowhere"),
        (["--variant", "OBJ_BG"], "--variant is of ScanObjectNN, which is not in"),
        (["--num-points", "4096"], "--num-points is 4096, HomeObjects has 2048 points a cloud"),
        (["--out", "file/run"], "cannot write to the output folder file/run"),
        (["--resume"], "holds no run"),
        (["--accelerator", "abacus"], "accelerator 'abacus'"),
        (["--warmup-epochs", "30"], "--warmup-epochs is 30, expected fewer than the 30"),
        (["--root", "h5_files", "--variant", "OBJ_ONLY", "--background"], "take 'OBJ_BG'"),
        (["--root", "h5_files", "--num-points", "4096"], "main split has 2048 points a cloud"),
        (["--label-smoothing", "1", "--smooth-over", "others"], "label_smoothing is 1.0"),
    ],
)
def test_what_is_wrong_is_one_line(program, scans, tmp_path, capsys, arguments, message):
    (tmp_path / "file").write_text("")
    assert program(*arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert message in error


def test_missing_scans_tell_the_steps(program, capsys):
    assert program("--root", "nowhere") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: no main_split/training_objectdataset_augmentedrot_scale75.h5")
    assert "accept its authors' terms" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--variant", "PB_T75"], "--variant: invalid choice: 'PB_T75'"),
        (["--data", "a", "--root", "b"], "not allowed with argument"),
        (["--data", "a", "--part", "split1"], "--part is of ScanObjectNN, and --data is given"),
        (["--model", "coc_tiny"], "--model: invalid choice: 'coc_tiny'"),
        (["--vote", "-1"], "--vote: is -1, expected at least 0"),
    ],
)
def test_arguments(program, capsys, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        program(*arguments)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1


@pytest.mark.slow
def test_ctrl_c_and_resume_equal_an_uninterrupted_run(tmp_path):
    command = [
        sys.executable, str(PROGRAM), "--num-points", "64", "--batch-size", "128", "--epochs", "3",
        "--warmup-epochs", "1", "--accelerator", "cpu", "--best-test-epoch",
    ]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(PROGRAM.parents[1]), "OMP_NUM_THREADS": "1"}
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
    for arguments in (["--out", "a", "--resume"], ["--out", "b"]):
        done = subprocess.run([*command, *arguments], capture_output=True, timeout=500, **options)
        assert (done.returncode, done.stderr) == (0, "")
    first, second = (load_model(tmp_path / name / "model")[0].state_dict() for name in "ab")
    assert all(torch.equal(first[key], second[key]) for key in second)
    tables = [read_table(tmp_path / name / "test_epochs.csv") for name in "ab"]
    assert tables[0] == tables[1] and len(tables[0]) == 4
