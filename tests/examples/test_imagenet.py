from __future__ import annotations

import csv
import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pointcluster.datasets import FashionMNIST
from pointcluster.models import create_model, load_model, save_model

PROGRAM = Path(__file__).parents[2] / "examples" / "imagenet.py"
WNIDS = ["n01440764", "n01443537", "n01484850", "n01491361"]  # tench, goldfish, two sharks
TINY = ["--model", "coc_micro", "--img-size", "16", "--batch-size", "8", "--accelerator", "cpu",
        "--workers", "0", "--cooldown-epochs", "0", "--warmup-epochs", "0"]  # fmt: skip


def make_folder(root, train=6, val=3):
    """A miniature ImageNet: noise of four colours."""
    rng = np.random.default_rng(0)
    for part, count in (("train", train), ("val", val)):
        for k, wnid in enumerate(WNIDS):
            folder = root / part / wnid
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 80, (32, 32, 3))
                pixels[..., : k + 1 if k < 3 else 1] += 30 * k + 60
                Image.fromarray(pixels.astype("uint8")).save(folder / f"{wnid}_{i}.JPEG")
    return root


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path / "mini")


@pytest.fixture
def program(monkeypatch, tmp_path):
    """The program as a module, on few clothes; call it with a command line."""
    spec = importlib.util.spec_from_file_location("imagenet_example", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    class FewClothes(FashionMNIST):
        def __len__(self):
            return 128 if self.split == "train" else 40

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["examples/imagenet.py", *map(str, arguments)])
        return module.main()

    monkeypatch.setattr(module, "FashionMNIST", FewClothes)
    monkeypatch.chdir(tmp_path)
    run.module = module
    return run


def read_table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_a_run_leaves_what_it_promises(program, folder, tmp_path, capsys):
    assert program("--data", folder, *TINY, "--epochs", 2, "--ema", 0.5, "--accumulate", 2) == 0
    out = tmp_path / "runs" / "imagenet"
    assert {file.name for file in out.iterdir()} == {
        "checkpoints", "command.txt", "config.json", "log.txt", "metrics.csv", "model.json",
        "model.safetensors", "result.json", "results.json", "tensorboard",
    }  # fmt: skip
    printed, errors = capsys.readouterr()
    assert errors == ""
    assert "mini: 24 training and 12 test images, 4 classes; coc_micro" in printed
    assert "mini epoch   2/2" in printed
    rate = (
        "learning rate 1.56e-05 at 16 images an update (8 x 2 steps x 1 processes), 0.001 at 1,024"
    )
    assert rate in printed
    assert (out / "log.txt").read_text() in printed
    assert (out / "command.txt").read_text().startswith("python examples/imagenet.py --data ")
    config = json.loads((out / "config.json").read_text())
    assert (config["epochs"], config["auto_augment"]) == (2, "rand-m9-mstd0.5-inc1")
    assert (config["data"], config["classes"], config["images"]) == ("mini", WNIDS, [24, 12])
    assert config["data_config"]["input_size"] == [3, 16, 16]
    assert config["notes"]["versions"]["torch"] == torch.__version__.split("+")[0]
    (run,) = json.loads((out / "results.json").read_text())["runs"]
    rows = read_table(out / "metrics.csv")
    assert [float(row["epoch"]) for row in rows] == [1, 2]
    # the result is the last epoch's, whatever the epochs before said
    assert run["test_accuracy"] == pytest.approx(float(rows[-1]["val_accuracy"]))
    _, metadata = load_model(out / "model", name="coc_micro")
    assert metadata["classes"] == WNIDS

    for file in ("model.safetensors", "model.json", "checkpoints/last.ckpt"):
        assert program("--data", folder, "--validate", out / file, "--accelerator", "cpu") == 0
        expected = f"mini, coc_micro, 12 images of 16 x 16: top-1 {run['test_accuracy']:.1%}\n"
        assert capsys.readouterr().out == expected
    pictures = [folder / "val" / wnid / f"{wnid}_0.JPEG" for wnid in WNIDS[:2]]
    assert program("--predict", *pictures, "--weights", out / "model.safetensors") == 0
    lines = capsys.readouterr().out.splitlines()
    assert (lines[0], lines[5]) == (str(pictures[0]), str(pictures[1]))
    assert any(line.endswith("%  goldfish, Carassius auratus") for line in lines[1:5])
    shares = [float(line.split("%")[0]) for line in lines[1:5]]
    assert shares == sorted(shares, reverse=True) and sum(shares) == pytest.approx(100, abs=0.3)


def test_without_imagenet_it_says_so(program, tmp_path, capsys):
    arguments = ["--epochs", 2, "--val-every", 2, "--accelerator", "cpu", "--batch-size", 32]
    assert program(*arguments) == 0
    printed, errors = capsys.readouterr()
    assert errors == ""
    lines = printed.splitlines()
    assert lines[0] == (
        "no ImageNet is given (--data FOLDER): using the bundled part of Fashion-MNIST"
    )
    assert lines[2].startswith("Fashion-MNIST: 128 training and 40 test images, 10 classes; coc_")
    rows = read_table(tmp_path / "runs/imagenet/metrics.csv")
    assert rows[0]["val_accuracy"] == ""
    assert float(rows[1]["val_top5_accuracy"]) > float(rows[1]["val_accuracy"])


def test_several_seeds_of_the_convolutional_network(program, tmp_path, capsys):
    arguments = ["--model", "small_cnn", "--epochs", 1, "--limit-batches", 1, "--seeds", 2,
                 "--accelerator", "cpu", "--seed", 3, "--warmup-epochs", 0]  # fmt: skip
    assert program(*arguments) == 0
    out = tmp_path / "runs" / "imagenet"
    result = json.loads((out / "results.json").read_text())
    values = [run["test_accuracy"] for run in result["runs"]]
    assert [run["seed"] for run in result["runs"]] == [3, 4]
    assert result["summary"]["test_accuracy"] == pytest.approx(
        {"mean": np.mean(values), "std": np.std(values, ddof=1)}
    )
    printed = capsys.readouterr().out
    assert "Fashion-MNIST, small_cnn, 2 seeds: top-1 " in printed
    assert "(mean ± sample standard deviation)" in printed
    # both seeds are through: nothing is trained again
    assert program(*arguments, "--resume") == 0
    assert "epoch  " not in capsys.readouterr().out
    assert (out / "command.txt").read_text().count("\n") == 2
    path = out / "seed-3" / "checkpoints" / "last.ckpt"
    assert program("--validate", path, "--accelerator", "cpu", "--limit-batches", 1) == 0
    assert f"small_cnn, 40 images of 28 x 28: top-1 {values[0]:.1%}" in capsys.readouterr().out


def test_the_two_small_networks_are_of_one_size(program):
    sizes = [
        sum(p.numel() for p in program.module.build(name, 10, 1).parameters())
        for name in ("coc_micro", "small_cnn")
    ]
    assert max(sizes) < 1.2 * min(sizes)


def test_predict_with_a_network_of_grey_pictures(program, folder, tmp_path, capsys):
    model = create_model("coc_micro", num_classes=2, in_channels=1)
    config = {**program.module.SAMPLE}
    path = save_model(tmp_path / "m", model, {"classes": ["bag", "boot"], "data_config": config})
    picture = folder / "val" / WNIDS[0] / f"{WNIDS[0]}_0.JPEG"
    assert program("--predict", picture, "--weights", path) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[-1] for line in lines[1:]} == {"bag", "boot"}


def corrupt(folder):
    path = folder / "train" / WNIDS[1] / f"{WNIDS[1]}_2.JPEG"
    path.write_bytes(path.read_bytes()[:400])
    return path


def test_a_corrupt_picture_is_named_or_left_out(program, folder, capsys):
    path = corrupt(folder)
    arguments = ["--data", folder, *TINY, "--epochs", 1]
    for workers in (0, 1):
        assert program(*arguments, "--workers", workers) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: {path} is damaged") and error.count("\n") == 1
    with pytest.warns(UserWarning, match=f"skipped: {path} is damaged"):
        assert program(*arguments, "--on-error", "skip") == 0
    assert "unreadable" not in capsys.readouterr().out


def test_a_corrupt_test_picture_is_left_out(program, folder, tmp_path, capsys):
    for i in range(3):  # all of a class, and a whole batch
        path = folder / "val" / WNIDS[1] / f"{WNIDS[1]}_{i}.JPEG"
        path.write_bytes(path.read_bytes()[:400])
    arguments = ["--data", folder, *TINY, "--epochs", 1, "--on-error", "skip"]
    with pytest.warns(UserWarning, match="skipped: .* is damaged"):
        assert program(*arguments) == 0
    assert "(3 of 12 unreadable, left out) (last of 1 epochs)" in capsys.readouterr().out
    out = tmp_path / "runs" / "imagenet"
    assert json.loads((out / "result.json").read_text())["test_images"] == 9
    arguments = ["--data", folder, "--validate", out / "model.safetensors", "--accelerator", "cpu"]
    assert program(*arguments) == 2
    assert "is damaged" in capsys.readouterr().err
    for size in (3, 128):
        with pytest.warns(UserWarning, match="skipped: .* is damaged"):
            assert program(*arguments, "--on-error", "skip", "--batch-size", size) == 0
        printed = capsys.readouterr().out
        assert printed.startswith(
            "mini, coc_micro, 9 images of 16 x 16 (3 of 12 unreadable, left out): top-1 "
        )
    for path in (folder / "val").rglob("*.JPEG"):
        path.write_bytes(b"junk")
    with pytest.warns(UserWarning, match="skipped"):
        assert program(*arguments, "--on-error", "skip") == 2
    assert capsys.readouterr().err == ("error: none of the test images of a process can be read\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere"], "--data nowhere: there is no folder nowhere/train"),
        (["--data", "empty"], "empty/val has no class folders"),
        (["--data", "mini", "--batch-size", "64"], "has only 24 training images"),
        (["--data", "mini", "--batch-size", "7"], "mixup and CutMix take an even one"),
        (["--data", "mini", "--auto-augment", "x"], "timm has no policy --auto-augment 'x'"),
        (["--data", "other"], "have other classes: n00 is only in val/; n01440764 is only in"),
        (["--img-size", "32"], "--img-size needs --data"),
        (["--fashion-mnist", "empty"], "no train-images-idx3-ubyte.gz or train-images"),
        (["--resume"], "holds no run"),
        (["--out", "file/run"], "cannot write to the output folder file/run"),
        (["--epochs", "2", "--accelerator", "abacus"], "accelerator 'abacus'"),
        (["--validate", "nowhere.pth"], "there is no checkpoint nowhere.pth"),
        (["--validate", "file"], "file cannot be read"),
        (["--validate", "two.safetensors"], "knows 2 classes, Fashion-MNIST has 10"),
        (["--data", "mini", "--validate", "four.safetensors"], "it knows 'a' where mini has"),
        (["--validate", "two.safetensors", "--model", "coc_tiny"], "expected 'coc_tiny'"),
        (["--predict", "file", "--weights", "two.safetensors"], "file is no image"),
        (["--validate", "points.safetensors"], "holds 'point_coc_tiny', a network of points"),
        (["--predict", "file", "--weights", "points.ckpt"], "without data_config: expected a"),
        (["--validate", "few.safetensors"], "2 names in the file, expected 10 names"),
        (["--predict", "none.jpg", "--weights", "two.safetensors"], "none.jpg"),
    ],
)
def test_what_is_wrong_is_one_line(program, tmp_path, capsys, arguments, message):
    (tmp_path / "file").write_text("junk")
    for part in ("train", "val"):
        (tmp_path / "empty" / part).mkdir(parents=True)
    make_folder(tmp_path / "mini", val=1)
    make_folder(tmp_path / "other", train=1, val=1)
    (tmp_path / "other" / "val" / WNIDS[0]).rename(tmp_path / "other" / "val" / "n00")
    for name, classes in (("two", "ab"), ("four", "abcd")):
        model = create_model("coc_micro", num_classes=len(classes), in_channels=1)
        metadata = {"classes": list(classes), "data_config": program.module.SAMPLE}
        save_model(tmp_path / name, model, metadata)
    model = create_model("coc_micro", num_classes=10, in_channels=1)
    save_model(tmp_path / "few", model, {"classes": ["a", "b"]})
    model = create_model("point_coc_tiny", num_classes=10)
    save_model(tmp_path / "points", model)
    note = {"config": model.config, "classes": ["a"] * 10}
    torch.save({"network": note, "state_dict": model.state_dict()}, tmp_path / "points.ckpt")
    if "mini" in arguments and "--validate" not in arguments:
        arguments = [*TINY, *arguments]
    assert program(*arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert message in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--predict", "a.jpg"], "--predict needs --weights"),
        (["--weights", "a.ckpt"], "--weights is for --predict"),
        (["--model", "coc_huge"], "there is no 'coc_huge': choose one of coc_base_dim64"),
        (["--train", "--validate", "a.ckpt"], "not allowed with argument --train"),
        (["--data", "a", "--fashion-mnist", "b"], "give one of them"),
    ],
)
def test_arguments_that_do_not_go_together(program, capsys, arguments, message):
    with pytest.raises(SystemExit):
        program(*arguments)
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error


def test_resume_needs_the_same_settings(program, folder, capsys):
    assert program("--data", folder, *TINY, "--accelerator", "abacus") == 2  # has begun a run
    assert program("--data", folder, *TINY, "--resume", "--mixup", "0") == 2
    assert "mixup was 0.8 and is now 0.0" in capsys.readouterr().err


def start(tmp_path, *arguments, processes=0):
    """The program in processes of its own."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(launcher if processes else []), str(PROGRAM), *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(PROGRAM.parents[1]), "OMP_NUM_THREADS": "1"}
    environment |= {"PYTHONWARNINGS": "ignore"}  # of libraries on import
    return subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.slow
def test_killed_and_resumed_equals_an_uninterrupted_run(tmp_path, folder):
    command = ["--data", folder, *TINY, "--epochs", 4, "--ema", 0.9, "--drop-path", 0.3]
    process = start(tmp_path, *command, "--out", "a")
    for line in process.stdout:
        if "epoch   2/4" in line:  # so the first epoch's checkpoint is whole
            process.send_signal(signal.SIGKILL)
            break
    process.communicate(timeout=500)
    assert process.returncode == -signal.SIGKILL
    assert torch.load(tmp_path / "a/checkpoints/last.ckpt", weights_only=True)["epoch"] < 3
    for arguments in (["--out", "a", "--resume"], ["--out", "b"]):
        process = start(tmp_path, *command, *arguments)
        _, errors = process.communicate(timeout=500)
        assert (process.returncode, errors) == (0, "")
    first, second = (load_model(tmp_path / name / "model")[0].state_dict() for name in "ab")
    assert equal(first, second)
    for name in "ab":
        rows = read_table(tmp_path / name / "metrics.csv")
        assert [float(row["epoch"]) for row in rows] == [1, 2, 3, 4]


@pytest.mark.slow
def test_two_processes_report_what_one_does(tmp_path):
    folder = make_folder(tmp_path / "mini", train=6, val=1)
    extra = folder / "val" / WNIDS[0]
    for i in range(3):  # 7 in all: the processes test 4 and 3
        (extra / f"{i}.JPEG").write_bytes((extra / f"{WNIDS[0]}_0.JPEG").read_bytes())
    # Nothing that depends on what else is in a process' batch, nor on the process.
    command = ["--data", folder, *TINY, "--model", "coc_tiny", "--img-size", 32, "--epochs", 2,
               "--drop-path", 0, "--mixup", 0, "--cutmix", 0, "--random-erasing", 0,
               "--lr", 0.02]  # fmt: skip
    for processes in (0, 2):
        arguments = [*command, "--out", processes, "--batch-size", 4 if processes else 8]
        process = start(tmp_path, *arguments, processes=processes)
        printed, errors = process.communicate(timeout=500)
        assert process.returncode == 0, errors
        assert printed.count("mini epoch   2/2") == 1
    one, two = (read_table(tmp_path / name / "metrics.csv") for name in "02")
    for first, second in zip(one, two, strict=True):
        for key in first.keys() - {"seconds"}:
            assert float(second[key]) == pytest.approx(float(first[key]), rel=1e-3), key
    configs = [json.loads((tmp_path / name / "config.json").read_text()) for name in "02"]
    assert [config["processes"] for config in configs] == [1, 2]
    arguments = ["--data", folder, "--validate", "0/model.safetensors", "--accelerator", "cpu"]
    printed, errors = start(tmp_path, *arguments, processes=2).communicate(timeout=500)
    expected = float(one[-1]["val_accuracy"])
    assert printed == f"mini, coc_tiny, 7 images of 32 x 32: top-1 {expected:.1%}\n", errors
