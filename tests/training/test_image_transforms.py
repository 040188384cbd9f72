from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from pointcluster.models import create_model
from pointcluster.training import ImageRecipe, data_config, eval_transform, train_transform
from pointcluster.training.seeding import seeded

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
