from __future__ import annotations

import csv
import dataclasses
import importlib.util
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from pointcluster import datasets
from pointcluster.datasets import HomeObjects, ScanObjectNN
from pointcluster.models import PointCoC, load_model
from pointcluster.predict import Predictor
from pointcluster.predict import main as predict
from pointcluster.training import POINT_RECIPES, TestEachEpoch

PROGRAM = Path(__file__).parents[2] / "examples" / "scanobjectnn.py"
SMALL = ["--num-points", "64", "--batch-size", "8", "--accelerator", "cpu", "--epochs", "1",
         "--warmup-epochs", "0"]  # fmt: skip
TINY_MLP = {"embedding": 8, "channels": (16, 32), "blocks": (1, 1), "depths": (1, 1),
            "ratios": (0.5, 0.5), "k": 8, "head_hidden": (16,)}  # fmt: skip
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
    changed = "small with --epochs 1 --batch-size 8 --warmup-epochs 0"
    assert (run["data"], run["recipe"], run["epochs"]) == ("HomeObjects", changed, 1)
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
    assert metadata["preprocessing"] == {
        "num_points": 64, "sampled": 2048, "normalize": True, "up": "y", "features": [],
    }  # fmt: skip


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
    noted = load_model(tmp_path / "runs" / "scanobjectnn" / "model")[1]["preprocessing"]
    assert noted == {
        "num_points": 128, "sampled": 2048, "normalize": False, "up": "y", "features": [],
    }  # fmt: skip


class Folder:
    """Stands for the reader of folders: its arguments and what it must have."""

    def __init__(self, root, split, num_points, fields, columns=None):
        assert fields == ()  # the network gets positions alone
        self.root, self.split, self.num_points = root, split, num_points
        type(self).columns = columns
        self.classes = ["cup", "hat"]

    def __len__(self):
        return 12

    def __getitem__(self, index):
        pos = torch.rand(self.num_points, 3, generator=torch.Generator().manual_seed(index))
        return Data(pos=pos, y=torch.tensor([index % 2]))


def test_folder_of_ones_own(program, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(datasets, "PointFolder", Folder, raising=False)
    (tmp_path / "mine").mkdir()
    assert program(*SMALL, "--data", "mine", "--columns", "x y z label") == 0
    assert Folder.columns == "x y z label"
    printed = capsys.readouterr().out
    assert "mine, 64 points: 12 training and 12 test clouds, 2 classes" in printed
    assert "mine, 64 points, point_coc_tiny, seed 0: test accuracy" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere"], "--data: there is no folder nowhere"),
        (["--data", "h5_files", "--columns", "x y z foo"], "foo is no known column"),
        (["--variant", "OBJ_BG"], "--variant is of ScanObjectNN, which is not in"),
        (["--num-points", "4096"], "--num-points is 4096, HomeObjects has 2048 points a cloud"),
        (["--out", "file/run"], "cannot write to the output folder file/run"),
        (["--resume"], "holds no run"),
        (["--accelerator", "abacus"], "accelerator 'abacus'"),
        (["--warmup-epochs", "30"], "--warmup-epochs is 30, expected fewer than the 30"),
        (["--root", "h5_files", "--variant", "OBJ_ONLY", "--background"], "take 'OBJ_BG'"),
        (["--root", "h5_files", "--num-points", "4096"], "main split has 2048 points a cloud"),
        (["--label-smoothing", "1", "--smooth-over", "others"], "label_smoothing is 1.0"),
        (["--momentum", "0.1"], "--momentum is of SGD, and the optimizer is adamw"),
        (["--val-fraction", "0.01"], "--val-fraction 0.01 holds none of the 16 training clouds"),
        (["--precision", "16-mixed", "--accelerator", "cpu"], "'16-mixed' needs a GPU: here it"),
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
        (["--up", "z"], "--up is of --data, which is not given"),
        (["--data", "a", "--up", "w"], "--up: invalid choice: 'w'"),
        (["--columns", "x y z"], "--columns is of --data, which is not given"),
        (["--geometry", "both"], "--geometry: invalid choice: 'both'"),
        (["--model", "coc_tiny"], "--model: invalid choice: 'coc_tiny'"),
        (["--vote", "-1"], "--vote: is -1, expected at least 0"),
        (["--data", ""], "--data: is empty, expected a path"),
        (["--root", ""], "--root: is empty, expected a path"),
        (["--jitter", "inf"], "--jitter: is inf, expected from 0 to 1000"),
        (["--scale", "inf"], "--scale: is inf, expected from 1 to 1000"),
    ],
)
def test_arguments(program, capsys, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        program(*arguments)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1


def my_scans(folder, up=1):
    """Cups and jars of one's own, standing on end: those of the test all go into the network."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("test", 3)):
        for name, height in (("cup", 1.0), ("jar", 5.0)):
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                points = 30 * rng.normal(size=(40 if split == "test" else 90, 3)) + 200
                points[:, up] *= height
                np.save(folder / split / name / f"{i}.npy", points)
    return folder


def test_a_folder_called_as_the_bundled_data_is_a_folder(program, tmp_path, capsys):
    my_scans(tmp_path / "HomeObjects")
    assert program(*SMALL, "--data", "HomeObjects") == 0
    assert "recipe modern" in capsys.readouterr().out
    result = json.loads((tmp_path / "runs" / "scanobjectnn" / "result.json").read_text())
    assert (result["data"], result["kind"]) == ("HomeObjects", "PointFolder")


def test_a_folder_whose_parts_have_other_classes(program, tmp_path, capsys):
    my_scans(tmp_path / "mine")
    (tmp_path / "mine" / "train" / "cup").rename(tmp_path / "mine" / "train" / "shoe")
    assert program(*SMALL, "--data", "mine") == 2
    error = capsys.readouterr().err
    assert "classes of train and test differ" in error and error.count("\n") == 1


def test_a_folder_of_one_class(program, tmp_path, capsys):
    (tmp_path / "mine" / "cup").mkdir(parents=True)
    for i in range(4):
        np.save(tmp_path / "mine" / "cup" / f"{i}.npy", np.random.default_rng(i).random((70, 3)))
    assert program(*SMALL, "--data", "mine") == 2
    assert "--data mine: there is one class, cup, expected at least" in capsys.readouterr().err


def test_other_clouds_under_the_same_names_do_not_go_on(program, tmp_path, capsys):
    folder = my_scans(tmp_path / "mine")
    assert program(*SMALL, "--data", "mine") == 0
    assert program(*SMALL, "--data", "mine", "--resume") == 0
    np.save(folder / "test" / "cup" / "1.npy", np.random.default_rng(9).random((40, 3)))
    assert program(*SMALL, "--data", "mine", "--resume") == 2
    assert "began with other settings: fingerprint was" in capsys.readouterr().err


def test_training_that_diverges_is_an_error_and_no_result(program, tmp_path, capsys):
    my_scans(tmp_path / "mine")
    wild = ["--optimizer", "sgd", "--lr", "1000", "--epochs", "5"]
    assert program(*SMALL, "--data", "mine", *wild) == 2
    error = capsys.readouterr().err
    assert "loss is " in error and "try a lower learning rate" in error and error.count("\n") == 1
    assert not (tmp_path / "runs" / "scanobjectnn" / "result.json").exists()


@pytest.mark.parametrize(
    ("more", "normalize"),
    [([], "cube"), (["--no-normalize", "--up", "z"], True), (["--model", "pointmlp_coc"], False)],
)
def test_prediction_does_to_scans_what_training_did(program, tmp_path, capsys, more, normalize):
    scans = my_scans(tmp_path / "scans", up=2 if "z" in more else 1)
    if "pointmlp_coc" in more:  # of a size for a test
        create = program.module.create_model
        program.module.create_model = lambda name, **options: create(name, **options, **TINY_MLP)
    assert program(*SMALL, "--data", scans, *more, "--num-points", 48, "--epochs", 4) == 0
    out = tmp_path / "runs" / "scanobjectnn"
    noted = load_model(out / "model")[1]["preprocessing"]
    published = "pointmlp_coc" in more  # by its recipe, clouds stay as the reader gives them
    assert noted["normalize"] == (True if published else normalize)
    assert noted["up"] == ("z" if "z" in more else "y")
    assert (noted["num_points"], noted["sampled"]) == (48, 2048)
    capsys.readouterr()
    assert predict([str(out / "model"), str(scans / "test"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    counts = np.zeros((2, 2), int)
    classes = ["cup", "jar"]
    for entry in found:
        true, first = Path(entry["file"]).parent.name, entry["classes"][0]["class"]
        counts[classes.index(true), classes.index(first)] += 1
    _, *rows = read_table(out / "confusion.csv")
    if not published:  # that begins at a cloud's first point, and prediction shuffles otherwise
        assert counts.tolist() == [[int(value) for value in row[1:]] for row in rows]
    # Point for point, but for the order, what the test saw.
    reader = Predictor(out / "model")
    test = datasets.PointFolder(scans, "test", num_points=2048, fields=())
    recipe = POINT_RECIPES["published" if published else "modern"]
    recipe = dataclasses.replace(recipe, normalize="--no-normalize" not in more and not published)
    for i in range(len(test)):
        seen = recipe.test_transform(2048)(test[i]).pos
        reader.preprocessing = reader.preprocessing._replace(num_points=2048)
        given = reader.prepare(test.path(i)).pos
        assert given.shape == seen.shape
        torch.testing.assert_close(*(p[p[:, 0].argsort()] for p in (given, seen)))


def test_clouds_are_turned_about_the_axis_that_points_up(program, tmp_path, monkeypatch):
    turned = []
    original = POINT_RECIPES["modern"].train_transform
    monkeypatch.setattr(
        type(POINT_RECIPES["modern"]), "train_transform",
        lambda self, num, up: turned.append(up) or original(num, up),
    )  # fmt: skip
    my_scans(tmp_path / "scans", up=2)
    assert program(*SMALL, "--data", "scans", "--up", "z", "--vote", 2, "--num-points", 16) == 0
    assert turned == ["z"]  # of training and of the votes
    assert program(*SMALL, "--data", "scans", "--up", "x", "--num-points", 16, "--resume") == 2


def test_whoever_searches_neighbours_the_network_is_the_same(program, tmp_path, monkeypatch):
    searched = []
    forward = PointCoC.forward

    def forward_of(self, data):
        searched.append("hierarchy" not in data)
        return forward(self, data)

    monkeypatch.setattr(PointCoC, "forward", forward_of)
    found = []
    for way in ("auto", "loader", "step"):
        more = ["--geometry", way, "--vote", 2, "--best-test-epoch", "--out", way]
        assert program(*SMALL, *more) == 0
        assert set(searched) == {way != "loader"}
        searched.clear()
        run = json.loads((tmp_path / way / "result.json").read_text())
        del run["seconds"]
        found.append((run, load_model(tmp_path / way / "model")[0].state_dict()))
        assert "geometry" not in json.loads((tmp_path / way / "config.json").read_text())
    for run, weights in found[1:]:
        assert run == found[0][0]
        assert all(torch.equal(value, found[0][1][key]) for key, value in weights.items())


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


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["torchrun", "--devices"])
def test_two_processes_report_what_one_does(tmp_path, launcher):
    my_scans(tmp_path / "scans")
    (tmp_path / "scans" / "test" / "cup" / "3.npy").write_bytes(
        (tmp_path / "scans" / "test" / "cup" / "0.npy").read_bytes()
    )  # 7 in all: the processes test 4 and 3
    # A batch's own statistics, and what is drawn in each process, would tell one from two.
    (tmp_path / "program.py").write_text(textwrap.dedent(f"""
        import importlib.util, sys
        spec = importlib.util.spec_from_file_location("scanobjectnn_example", {str(PROGRAM)!r})
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        create = module.create_model
        module.create_model = lambda name, **options: create(
            name, **options, norm=False, dropout=0.0, drop_path=0.0
        )
        sys.exit(module.main())
    """))  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(PROGRAM.parents[1]), "OMP_NUM_THREADS": "1"}
    environment |= {"PYTHONWARNINGS": "ignore"}  # of libraries on import
    options = ["--data", "scans", "--num-points", "32", "--epochs", "2", "--warmup-epochs", "0",
               "--lr", "0.0002", "--accelerator", "cpu", "--vote", "3", "--best-test-epoch",
               "--val-fraction", "0.2", "--jitter", "0.02"]  # fmt: skip
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for processes, batch in ((1, "8"), (2, "4")):
        more = torchrun if processes == 2 and launcher == "torchrun" else []
        devices = ["--devices", str(processes)] if launcher == "--devices" else []
        done = subprocess.run(
            [sys.executable, *more, "program.py", *options, *devices, "--batch-size", batch,
             "--out", str(processes)],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("scans, 32 points epoch   2/2") == 1
        assert done.stdout.count("with 3 votes: ") == 1
    one, two = (json.loads((tmp_path / n / "result.json").read_text()) for n in "12")
    assert one["test_accuracy"] == pytest.approx(round(7 * one["test_accuracy"]) / 7)
    assert one["test_accuracy"] < one["vote"]["voted_accuracy"] < 1  # or all would agree easily
    for column in ("test_accuracy", "test_mean_class_accuracy", "test_loss"):
        assert two[column] == pytest.approx(one[column], rel=1e-3), column
    assert two["vote"] == pytest.approx(one["vote"])
    assert two["best_test_epoch"] == pytest.approx(one["best_test_epoch"])
    confusion = [read_table(tmp_path / n / "confusion.csv") for n in "12"]
    assert confusion[0] == confusion[1]
    assert sum(int(value) for row in confusion[1][1:] for value in row[1:]) == 7
    for name in ("metrics.csv", "test_epochs.csv"):
        tables = [read_table(tmp_path / n / name) for n in "12"]
        for first, second in zip(*tables, strict=True):
            for key, a, b in zip(tables[0][0], first, second, strict=True):
                if first is not tables[0][0] and key != "seconds":
                    assert float(b) == pytest.approx(float(a), rel=2e-3), (name, key)
