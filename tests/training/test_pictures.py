from __future__ import annotations

import argparse
import os

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from pointcluster.models import create_model, save_model
from pointcluster.training import (
    ImageClassifier,
    ImageDataModule,
    ImageRecipe,
    RunError,
    class_words,
    data_config,
    eval_transform,
    fit_and_test,
    read_network,
    train_transform,
)
from pointcluster.training.data import seeded
from pointcluster.training.pictures import train_epochs, write_grid, write_picture

CONFIG = {
    "input_size": [3, 32, 32],
    "interpolation": "bicubic",
    "mean": [0.5, 0.4, 0.3],
    "std": [0.2, 0.2, 0.2],
    "crop_pct": 1.0,
    "crop_mode": "center",
}
PLAIN = ImageRecipe(crop="shifted", auto_augment="none", random_erasing=0.0)


@pytest.fixture
def picture():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype="uint8"))


def test_data_config_is_plain_and_the_networks_own():
    model = nn.Identity()
    model.default_cfg = {"input_size": (3, 96, 96), "crop_pct": 0.95, "mean": (0.1, 0.2, 0.3)}
    config = data_config(model)
    assert (config["input_size"], config["crop_pct"]) == ([3, 96, 96], 0.95)
    assert config["mean"] == [0.1, 0.2, 0.3]
    assert data_config(model, img_size=64)["input_size"] == [3, 64, 64]
    assert data_config(nn.Identity())["input_size"] == [3, 224, 224]


def test_data_config_of_a_published_network():
    config = data_config(create_model("coc_tiny"))
    assert (config["input_size"], config["crop_pct"]) == ([3, 224, 224], 0.9)
    assert config["interpolation"] == "bicubic"


def test_evaluation_keeps_a_picture_of_the_right_size():
    pixels = np.arange(32 * 32 * 3, dtype="uint8").reshape(32, 32, 3)
    out = eval_transform(CONFIG)(Image.fromarray(pixels))
    expected = torch.from_numpy(pixels).permute(2, 0, 1) / 255
    expected = (expected - torch.tensor(CONFIG["mean"])[:, None, None]) / 0.2
    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize("recipe", [ImageRecipe(), PLAIN])
def test_training_depends_on_the_seed_alone(recipe, picture):
    transform = train_transform(recipe, CONFIG)

    def draw(seed):
        with seeded(seed):
            return transform(picture)

    assert draw(0).shape == (3, 32, 32)
    assert torch.equal(draw(0), draw(0))
    assert not torch.equal(draw(0), draw(1))


def test_shifted_moves_by_a_fourteenth_and_flips(picture):
    config = CONFIG | {"mean": [0.0] * 3, "std": [1.0] * 3}
    transform = train_transform(PLAIN, config)
    whole = np.pad(np.asarray(picture.resize((32, 32), Image.BILINEAR)), ((2, 2), (2, 2), (0, 0)))
    crops = [whole[i : i + 32, j : j + 32] for i in range(5) for j in range(5)]
    crops += [crop[:, ::-1] for crop in crops]
    found = set()
    for seed in range(40):
        with seeded(seed):
            out = (transform(picture) * 255).round().byte().permute(1, 2, 0).numpy()
        (number,) = (k for k, crop in enumerate(crops) if np.array_equal(crop, out))
        found.add(number)
    assert len(found) > 20 and {number < 25 for number in found} == {True, False}


@pytest.mark.parametrize("recipe", [ImageRecipe(), PLAIN])
def test_grey_pictures(recipe, picture):
    config = CONFIG | {"input_size": [1, 32, 32], "mean": [0.3], "std": [0.3]}
    for transform in (train_transform(recipe, config), eval_transform(config)):
        assert transform(picture.convert("L")).shape == (1, 32, 32)


def test_words_for_the_classes_of_a_published_network():
    names = class_words(None, 1000)
    assert len(names) == 1000 and names[1] == "goldfish, Carassius auratus"
    assert class_words(["n01443537", "own"], 2) == ["goldfish, Carassius auratus", "own"]
    assert class_words(None, 2) == ["0", "1"]


def test_bad_policies():
    with pytest.raises(ValueError, match="no policy --auto-augment 'rand-x9'"):
        train_transform(ImageRecipe(auto_augment="rand-x9"), CONFIG)
    with pytest.raises(ValueError, match="no policy --auto-augment 'shuffle'"):
        train_transform(ImageRecipe(auto_augment="shuffle"), CONFIG)
    with pytest.raises(ValueError, match="--auto-augment needs --crop resized"):
        train_transform(ImageRecipe(crop="shifted"), CONFIG)


@pytest.mark.parametrize("policy", ["rand-m10-mstd0-inc1", "v0"])
def test_posterising_to_no_bits_is_black(policy, picture):
    transform = train_transform(ImageRecipe(auto_augment=policy), CONFIG)
    ops = []
    for step in transform.transforms:
        ops += getattr(step, "ops", []) + [
            op for part in getattr(step, "policy", []) for op in part
        ]
    found = [op for op in ops if op.name.startswith("Posterize")]
    assert found
    black = []
    for op in found:
        op.prob = 1.0
        black.append(not np.asarray(op(picture)).any())
    assert any(black)
    assert np.asarray(found[0].aug_fn(picture, 4)).max() == 240


SMALL_CONFIG = {
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
            tiny_image_network(), ["a", "b", "c"], recipe=recipe, data_config=SMALL_CONFIG
        )
        items = [(torch.rand(3, 8, 8), label) for _, label in pictures]
        data = ImageDataModule(
            items, items, train_transform=torch.abs, test_transform=torch.abs, batch_size=4
        )
        fit_and_test(classifier, data, folder=tmp_path, accelerator="cpu")
        return tmp_path / "checkpoints" / "last.ckpt", classifier.evaluated().eval()

    return run


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_runs_checkpoint(run, tiny_image_network, ema):
    path, expected = run(ema=ema)

    def build(name, **config):
        assert name == "tiny"
        return tiny_image_network(**config)

    model, classes, config = read_network(path, build=build, name="tiny")
    assert (classes, config) == (["a", "b", "c"], SMALL_CONFIG)
    assert not model.training
    images = torch.rand(2, 3, 8, 8)
    assert torch.equal(model(images), expected(images))
    with pytest.raises(RunError, match=r"last.ckpt holds 'tiny', expected 'coc_tiny'"):
        read_network(path, build=build, name="coc_tiny")


def test_a_saved_network(tmp_path):
    model = create_model("coc_micro", num_classes=4).eval()
    metadata = {"classes": list("abcd"), "data_config": SMALL_CONFIG}
    path = save_model(tmp_path / "model", model, metadata)
    found = read_network(path, build=create_model)
    assert (found.classes, found.data_config) == (list("abcd"), SMALL_CONFIG)
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
            {"data_config": SMALL_CONFIG},
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
    return note | {"data_config": SMALL_CONFIG} | changes


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


def test_a_plain_loop_goes_through_all_batches_and_tells_the_last_mean():
    model = nn.Linear(1, 1, bias=False).eval()
    nn.init.constant_(model.weight, 2.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2)
    seen, lines = [], []

    def loss(batch):
        seen.append((batch, optimizer.param_groups[0]["lr"]))
        return 100.0 * model.weight.sum()  # its gradient is cut down to the norm of 1

    mean = train_epochs(
        model, "ab", loss, optimizer, schedule, epochs=2, clip=1.0, say=lines.append
    )
    assert model.training and [batch for batch, _ in seen] == list("abab")
    assert [rate for _, rate in seen] == pytest.approx([0.5, 0.5, 0.05, 0.05])
    assert mean == pytest.approx(100 * (1.0 + 0.95) / 2)  # after 2 - 0.5 - 0.5
    assert model.weight.item() == pytest.approx(0.9)
    assert len(lines) == 2 and lines[1].startswith("epoch 2: loss 97.5")


@pytest.mark.parametrize("precision, kind", [("32", torch.float32), ("bf16", torch.bfloat16)])
def test_products_of_the_plain_loop_are_as_precise_as_asked_for(precision, kind):
    model, kinds = nn.Linear(3, 2), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)

    def loss(batch):
        y = model(batch)
        kinds.append(y.dtype)
        return y.square().sum()

    x = [torch.rand(4, 3)]
    train_epochs(model, x, loss, optimizer, schedule, epochs=1, precision=precision)
    assert kinds == [kind] and model.weight.dtype == model.weight.grad.dtype == torch.float32
    with pytest.raises(ValueError, match="must be '32' or 'bf16', found '16'"):
        train_epochs(model, x, loss, optimizer, schedule, epochs=1, precision="16")


def test_pictures_of_several_sizes_side_by_side(tmp_path):
    flat = [torch.full((3, 20, 10 * n), 60 * n, dtype=torch.uint8) for n in (1, 2, 3)]
    write_grid(tmp_path / "grid.png", flat, columns=2, height=40)
    with Image.open(tmp_path / "grid.png") as image:
        grid = np.array(image)
    assert grid.shape[0] >= 2 * 40 and grid.shape[1] >= 2 * 60
    assert set(np.unique(grid)) == {0, 60, 120, 180}
    write_picture(tmp_path / "one.png", flat[1])
    with Image.open(tmp_path / "one.png") as image:
        assert np.array(image).shape == (20, 20, 3)
