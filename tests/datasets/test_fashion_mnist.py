from __future__ import annotations

import configparser
import gzip
import hashlib
import importlib.util
import os
import pickle
import re
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from pointcluster.datasets import FashionMNIST, fashion_mnist

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "datasets" / "fashion_mnist"
NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def idx(array):
    return (
        bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + bytes(array)
    )


def fake(counts=(40, 20)):
    """Files of the form of the whole, whose pictures are of random noise."""
    rng = np.random.default_rng(0)
    files = {}
    for number, count in enumerate(counts):
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) * 7 % 10).astype(np.uint8)
        files[NAMES[2 * number]], files[NAMES[2 * number + 1]] = images, labels
    return files


def put(folder, files, *, pack=True):
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in files.items():
        data = idx(np.ascontiguousarray(array))
        path = folder / (name + ".gz" * pack)
        path.write_bytes(gzip.compress(data) if pack else data)
    return folder


# --- the bundled part ----------------------------------------------------------------------------


@pytest.mark.parametrize(("split", "count"), [("train", 500), ("test", 200)])
def test_bundled(split, count):
    data = FashionMNIST(split=split)
    assert len(data) == 10 * count and data.num_classes == len(data.classes) == 10
    assert data.targets.bincount().tolist() == [count] * 10
    assert data.images.shape == (10 * count, 28, 28) and data.images.dtype == torch.uint8
    image, label = data[0]
    assert (image.mode, image.size, type(label)) == ("L", (28, 28), int)
    assert torch.equal(torch.from_numpy(np.asarray(image).copy()), data.images[0])
    assert label == data.targets[0] == 9 and data.classes[9] == "Ankle boot"
    # Classes are mixed, so that the first images are a fair part.
    assert data.targets[:100].unique().numel() == 10
    assert len({bytes(image.numpy()) for image in data.images}) == len(data)
    assert repr(data) == f"FashionMNIST({10 * count}, split={split!r})"


def test_trousers_are_tall_and_bags_are_wide():
    data = FashionMNIST(split="test")
    heights, widths = ((data.images > 32).any(axis).sum(1).double() for axis in (2, 1))
    shape = heights / widths
    means = {name: shape[data.targets == i].mean() for i, name in enumerate(data.classes)}
    assert means["Trouser"] > 1.5 > 1.2 > means["Bag"] > means["Sneaker"]


def test_transform_and_loader():
    data = FashionMNIST(split="test", transform=lambda image: torch.tensor(np.asarray(image)))
    images, labels = next(iter(DataLoader(data, batch_size=5, num_workers=1)))
    assert torch.equal(images, data.images[:5]) and torch.equal(labels, data.targets[:5])
    with pytest.raises(IndexError):
        data[2000]
    assert len(pickle.dumps(FashionMNIST())) < 1.1 * 5000 * (784 + 8)


def test_readme_and_setup_name_the_files():
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    installed = setup["options.data_files"]["share/pointcluster/fashion_mnist"].split()
    for name in NAMES:
        path = FOLDER / f"{name}.gz"
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert fashion_mnist.SHA256[name] == digest
        assert f"| `{name}.gz` | {path.stat().st_size:,} | `{digest}` |" in readme
        assert f"datasets/fashion_mnist/{name}.gz" in installed
    assert "datasets/fashion_mnist/LICENSE" in installed
    licence = (FOLDER / "LICENSE").read_text(encoding="utf-8")
    assert "2017 Zalando SE" in licence and "Permission is hereby granted" in licence
    train = FashionMNIST().images.double() / 255
    assert f"is {train.mean():.4f} and their standard deviation {train.std():.4f}" in readme


def test_not_the_bundled_file(monkeypatch, tmp_path):
    put(tmp_path, fake())
    monkeypatch.setattr(fashion_mnist, "bundled_folder", lambda *_: tmp_path)
    with pytest.raises(ValueError, match="not the file that belongs to this version.*git checkout"):
        FashionMNIST()


# --- a folder of one's own -----------------------------------------------------------------------


@pytest.mark.parametrize("pack", [True, False])
@pytest.mark.parametrize("inside", ["", "FashionMNIST/raw"])
def test_own_folder(tmp_path, pack, inside):
    files = fake()
    put(tmp_path / inside, files, pack=pack)
    for split, names in {"train": NAMES[:2], "test": NAMES[2:]}.items():
        data = FashionMNIST(tmp_path, split)
        assert torch.equal(data.images, torch.from_numpy(files[names[0]]))
        assert data.targets.tolist() == files[names[1]].tolist()


def test_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no train-images-idx3-ubyte\.gz or train-images"):
        FashionMNIST(tmp_path)
    with pytest.raises(ValueError, match="split is 'val', expected 'train' or 'test'"):
        FashionMNIST(split="val")


@pytest.mark.parametrize(
    ("number", "array", "message"),
    [
        (0, np.zeros((40, 28, 27), np.uint8), r"\[40, 28, 27\], expected \[n, 28, 28\]"),
        (0, np.zeros((0, 28, 28), np.uint8), r"\[0, 28, 28\], expected \[n, 28, 28\]"),
        (0, np.zeros(40, np.uint8), r"\[40\], expected \[n, 28, 28\]"),
        (1, np.zeros(39, np.uint8), r"\[39\], expected one label for each of the 40 images"),
        (1, np.full(40, 10, np.uint8), "has the class 10, expected 0 to 9"),
    ],
)
def test_wrong_arrays(tmp_path, number, array, message):
    put(tmp_path, {**fake(), NAMES[number]: array})
    with pytest.raises(ValueError, match=message) as error:
        FashionMNIST(tmp_path)
    assert NAMES[number] in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: b"", "truncated or no gzip file|does not begin"),
        (lambda data: data[:100], "truncated or no gzip file"),
        (lambda data: b"no gzip at all", "truncated or no gzip file"),
        (lambda data: data[:600] + bytes([data[600] ^ 255]) + data[601:], "truncated or no gzip"),
        (lambda data: gzip.compress(b"\0\0\x08\x03"), "does not begin as a file of bytes"),
        (lambda data: gzip.compress(b"\0\0\x0d\x01" + bytes(8)), "does not begin as a file"),
        (lambda data: gzip.compress(gzip.decompress(data)[:-1]), "announces an array .* holds"),
        (lambda data: gzip.compress(b"\0\0\x08\x02" + b"\xff" * 8), "4294967295, 4294967295"),
        (lambda data: gzip.compress(b"\0\0\x08\0"), r"announces an array \[\]"),
    ],
)
def test_damaged(tmp_path, change, message):
    path = put(tmp_path, fake()) / f"{NAMES[0]}.gz"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match=message) as error:
        FashionMNIST(tmp_path)
    assert str(path) in str(error.value)


def test_without_pillow(monkeypatch):
    data = FashionMNIST(split="test")
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match="pip install pillow"):
        data[0]


# --- datasets/fashion_mnist/prepare.py -----------------------------------------------------------


@pytest.fixture(scope="module")
def prepare():
    spec = importlib.util.spec_from_file_location("prepare_fashion_mnist", FOLDER / "prepare.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_takes_the_first_of_each_class(prepare, tmp_path, monkeypatch, capsys):
    files = fake((60, 30))
    source = put(tmp_path / "whole", files)
    counts = {split: (*names, 2) for split, (*names, _) in prepare.FILES.items()}
    monkeypatch.setattr(prepare, "FILES", counts)
    out = tmp_path / "part"
    arguments = ["--source", str(source), "--out", str(out)]
    assert prepare.main(arguments) == 1 and not out.exists()
    assert "is not the published file: the SHA-256 of its content" in capsys.readouterr().err
    assert prepare.main([*arguments, "--force"]) == 0
    for split, names in {"train": NAMES[:2], "test": NAMES[2:]}.items():
        images, labels = (files[name] for name in names)
        rows = [i for i in range(len(labels)) if (labels[:i] == labels[i]).sum() < 2]
        data = FashionMNIST(out, split)
        assert len(rows) == 20 and data.targets.tolist() == labels[rows].tolist()
        assert torch.equal(data.images, torch.from_numpy(images[rows]))
    first = {path.name: path.read_bytes() for path in out.iterdir()}
    printed = capsys.readouterr().out
    for name, data in first.items():
        assert hashlib.sha256(data).hexdigest() in printed and f"{name}: {len(data):,} " in printed
    assert prepare.main([*arguments, "--force"]) == 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == first


def test_the_bundled_part_is_what_it_packs(prepare):
    # The content, byte for byte; how it is packed depends on zlib. The largest file takes long.
    for name in NAMES[1:]:
        data = (FOLDER / f"{name}.gz").read_bytes()
        packed = prepare.pack(fashion_mnist.read_idx(FOLDER / f"{name}.gz"))
        assert gzip.decompress(packed) == gzip.decompress(data)
        assert packed[:10] == data[:10]
    counts = {split: count for split, (*_, count) in prepare.FILES.items()}
    assert counts == {"train": 500, "test": 200}
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in prepare.SHA256.values())


def test_makes_the_bundled_part_from_the_whole(prepare, tmp_path):
    if not prepare.SOURCE.is_dir():
        pytest.skip("Debian's dataset-fashion-mnist is not installed")
    assert prepare.main(["--out", str(tmp_path)]) == 0
    for name in NAMES:
        made, own = ((folder / f"{name}.gz").read_bytes() for folder in (tmp_path, FOLDER))
        assert gzip.decompress(made) == gzip.decompress(own)


def test_missing_source(prepare, tmp_path, capsys):
    assert prepare.main(["--source", str(tmp_path / "nowhere"), "--out", str(tmp_path)]) == 1
    assert "cannot be read" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_write_is_whole_or_nothing(prepare, tmp_path, monkeypatch):
    path = tmp_path / "file"
    prepare.write_whole(path, b"old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        prepare.write_whole(path, b"new")
    assert path.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["file"]
