from __future__ import annotations

import argparse
import os

import pytest
import torch

from pointcluster.models import create_model, save_model
from pointcluster.training import (
    ImageClassifier,
    ImageDataModule,
    ImageRecipe,
    RunError,
    fit_and_test,
    read_network,
)

CONFIG = {"input_size": [3, 8, 8], "mean": [0.0] * 3, "std": [1.0] * 3}


@pytest.fixture
def run(tmp_path, tiny_image_network, pictures):
    """A run's checkpoint, and the network that was tested."""

    def run(**options):
        recipe = ImageRecipe(
            batch_size=4, epochs=1, cooldown_epochs=0, warmup_epochs=0, lr_batch=4, **options
        )
        classifier = ImageClassifier(
            tiny_image_network(), ["a", "b", "c"], recipe=recipe, data_config=CONFIG
        )
        items = [(torch.rand(3, 8, 8), label) for _, label in pictures]
        data = ImageDataModule(
            items, items, train_transform=torch.abs, test_transform=torch.abs, batch_size=4
        )
        fit_and_test(classifier, data, folder=tmp_path, epochs=1, accelerator="cpu")
        return tmp_path / "checkpoints" / "last.ckpt", classifier.evaluated().eval()

    return run


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_runs_checkpoint(run, tiny_image_network, ema):
    path, expected = run(ema=ema)

    def build(name, **config):
        assert name == "tiny"
        return tiny_image_network(**config)

    model, classes, config = read_network(path, build=build, name="tiny")
    assert (classes, config) == (["a", "b", "c"], CONFIG)
    assert not model.training
    images = torch.rand(2, 3, 8, 8)
    assert torch.equal(model(images), expected(images))
    with pytest.raises(RunError, match=r"last.ckpt holds 'tiny', expected 'coc_tiny'"):
        read_network(path, build=build, name="coc_tiny")


def test_a_saved_network(tmp_path):
    model = create_model("coc_micro", num_classes=4).eval()
    metadata = {"classes": list("abcd"), "data_config": CONFIG}
    path = save_model(tmp_path / "model", model, metadata)
    found = read_network(path, build=create_model)
    assert (found.classes, found.data_config) == (list("abcd"), CONFIG)
    images = torch.rand(2, 3, 28, 28)
    assert torch.equal(found.model(images), model(images))
    with pytest.raises(RunError, match="holds 'coc_micro', expected 'coc_tiny'"):
        read_network(path, build=create_model, name="coc_tiny")


class Published(torch.nn.Module):
    """Stands for a published network, which takes the entries of its own file alone."""

    def __init__(self, name, num_classes):
        super().__init__()
        self.head = torch.nn.Linear(2, num_classes)
        self.config = {"name": name, "num_classes": num_classes}

    def load_published(self, state_dict):
        try:
            self.load_state_dict(state_dict["state_dict"])
        except RuntimeError as error:
            raise ValueError("entries do not fit") from error


def test_a_published_file(tmp_path):
    expected = torch.nn.Linear(2, 7)
    state = {f"head.{key}": value for key, value in expected.state_dict().items()}
    content = {"args": argparse.Namespace(model="x"), "state_dict": state}
    torch.save(content, tmp_path / "x.pth.tar")
    model, classes, config = read_network(tmp_path / "x.pth.tar", build=Published, name="x")
    assert torch.equal(model.head.weight, expected.weight)
    assert (classes, config["input_size"]) == (None, [3, 224, 224])
    with pytest.raises(RunError, match="does not say which network it is of.*--model"):
        read_network(tmp_path / "x.pth.tar", build=Published)
    torch.save({"state_dict": torch.nn.Linear(2, 7).state_dict()}, tmp_path / "y.pth")
    with pytest.raises(RunError, match="y.pth is no published checkpoint of 'x': entries"):
        read_network(tmp_path / "y.pth", build=Published, name="x")


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("harm",)


@pytest.mark.parametrize("name", ["code.pth", "junk.pth", "empty.ckpt", "list.pth"])
def test_other_files(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Harmful()}, "code.pth")
    torch.save([1, 2], "list.pth")
    (tmp_path / "junk.pth").write_text("junk")
    (tmp_path / "empty.ckpt").write_text("")
    with pytest.raises(RunError, match=f"{name} (is refused|cannot be read|holds a list)"):
        read_network(name, build=create_model, name="coc_micro")
    assert not (tmp_path / "harm").exists()


def test_no_file():
    with pytest.raises(FileNotFoundError, match="there is no checkpoint nowhere.pth"):
        read_network("nowhere.pth", build=create_model)
