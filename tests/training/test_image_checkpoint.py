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

CONFIG = {
    "input_size": [3, 8, 8],
    "interpolation": "bilinear",
    "mean": [0.0] * 3,
    "std": [1.0] * 3,
    "crop_pct": 1.0,
    "crop_mode": "center",
}


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


def test_a_saved_network_of_points(tmp_path):
    path = save_model(tmp_path / "model", create_model("point_coc_tiny", num_classes=2))
    with pytest.raises(RunError, match="holds 'point_coc_tiny', a network of points, expected one"):
        read_network(path, build=create_model)


@pytest.mark.parametrize(
    ("options", "metadata", "message"),
    [
        ({}, {"classes": ["a", "b"]}, "2 names in the file, expected 3 names"),
        ({}, {"classes": "abc"}, "'abc' in the file, expected 3 names"),
        ({}, {"data_config": {"mean": 1}}, "data_config lacks crop_mode, crop_pct, input_size"),
        ({}, {"data_config": [1]}, r"found \[1\]"),
        (
            {"in_channels": 1},
            {"data_config": CONFIG},
            r"\[3, 8, 8\], expected \[1, height, width\]",
        ),
        ({"num_classes": 0}, {}, "without a classifier"),
        ({"features_only": True}, {}, "without a classifier"),
    ],
)
def test_a_saved_network_whose_notes_do_not_fit(tmp_path, options, metadata, message):
    model = create_model("coc_micro", **{"num_classes": 3, **options})
    path = save_model(tmp_path / "model", model, metadata)
    with pytest.raises(RunError, match=message) as caught:
        read_network(path, build=create_model)
    assert "\n" not in str(caught.value) and "model.safetensors" in str(caught.value)


def network(**changes):
    config = {"name": "coc_micro", "num_classes": 3, "in_channels": 3}
    note = {"config": config | changes.pop("config", {}), "classes": list("abc")}
    return note | {"data_config": CONFIG} | changes


def without(note, key):
    return {name: value for name, value in note.items() if name != key}


@pytest.mark.parametrize(
    ("note", "change", "message"),
    [
        (network(), lambda s: s.pop("model.head.bias"),
         r"1 entries differ, first model.head.bias: None in the file, \[3\] expected"),
        (network(), lambda s: s.update({"model.more": torch.zeros(2)}),
         r"first model.more: \[2\] in the file, None expected"),
        (network(), lambda s: s.update({"model.head.bias": 3}), "first model.head.bias: None in"),
        (network(), lambda s: s.clear(), "entries differ"),
        (network(config={"num_classes": 4}, classes=list("abcd")), None,
         r"\[3\] in the file, \[4\] expected"),
        ("resnet", None, "its entry 'network' is 'resnet', expected a dictionary"),
        ({"layers": 3}, None, "its entry 'network' is {'layers': 3}, expected a dictionary"),
        (network(config={"name": "coc_giant"}), None, "there is no network 'coc_giant'"),
        (network(config={"breadth": 3}), None, "cannot be built: .*breadth"),
        (without(network(config={"name": "point_coc_tiny"}), "data_config"), None,
         "holds 'point_coc_tiny' without data_config: expected a checkpoint of a run on pictures"),
        (network(classes=["a"]), None, "1 names in the file, expected 3 names"),
    ],
)  # fmt: skip
def test_a_checkpoint_that_does_not_fit(tmp_path, note, change, message):
    model = create_model("coc_micro", num_classes=3)
    state = {f"model.{key}": value for key, value in model.state_dict().items()}
    if change is not None:
        change(state)
    torch.save({"network": note, "state_dict": state}, tmp_path / "last.ckpt")
    with pytest.raises(RunError, match=message) as caught:
        read_network(tmp_path / "last.ckpt", build=create_model)
    assert "\n" not in str(caught.value) and "last.ckpt" in str(caught.value)


def test_a_checkpoint_without_weights(tmp_path):
    torch.save({"network": network()}, tmp_path / "last.ckpt")
    with pytest.raises(RunError, match="its entry 'state_dict' is None, expected the weights"):
        read_network(tmp_path / "last.ckpt", build=create_model)
