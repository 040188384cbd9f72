from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn
from torch_geometric.data import Data

from pointcluster.training import (
    POINT_RECIPES,
    RECIPES,
    ImageRecipe,
    Parser,
    PointRecipe,
    RunError,
    add_settings,
    chosen,
)
from pointcluster.training.recipe import cosine_with_warmup, decay_groups


@pytest.fixture
def cloud():
    pos = torch.rand(200, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1, 2, 3])
    return Data(pos=pos + 5, y=torch.tensor([1]), mask=pos[:, 0] > 0.5)


def parse(*arguments):
    parser = Parser()
    add_settings(parser, POINT_RECIPES)
    return parser.parse_args(arguments)


def test_published_settings():
    recipe = POINT_RECIPES["published"]
    assert (recipe.optimizer, recipe.momentum, recipe.weight_decay) == ("sgd", 0.9, 1e-4)
    assert (recipe.lr, recipe.min_lr, recipe.warmup_epochs) == (0.01, 1e-4, 0)
    assert (recipe.epochs, recipe.batch_size, recipe.decay) == (250, 32, "all")
    assert (recipe.scale, recipe.translate, recipe.label_smoothing) == (1.5, 0.2, 0.2)
    assert not (recipe.resample or recipe.rotate or recipe.normalize or recipe.mirror)


def test_what_is_given_replaces_the_default():
    args = parse("--optimizer", "sgd", "--no-rotate", "--mirror", "--scale", "1")
    for base in POINT_RECIPES.values():
        expected = dataclasses.replace(base, optimizer="sgd", rotate=False, mirror=True, scale=1.0)
        assert chosen(args, base) == (expected, [])
        assert chosen(parse(), base) == (base, [])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "5", "--warmup-epochs", "5"], "--warmup-epochs is 5, expected fewer than"),
        (["--min-lr", "1"], "--min-lr is 1.0, more than --lr, which is 0.002"),
    ],
)
def test_settings_that_do_not_fit(arguments, message):
    with pytest.raises(RunError, match=message):
        chosen(parse(*arguments), PointRecipe())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scale", "0.5"], "--scale: is 0.5, expected from 1 to 1000"),
        (["--label-smoothing", "2"], "is 2, expected from 0 to 1"),
        (["--optimizer", "lion"], "--optimizer: invalid choice: 'lion'"),
    ],
)
def test_settings_out_of_range(arguments, message, capsys):
    with pytest.raises(SystemExit):
        parse(*arguments)
    assert message in capsys.readouterr().err


def test_help_shows_the_recipes_side_by_side(capsys):
    with pytest.raises(SystemExit):
        parse("--help")
    text = " ".join(capsys.readouterr().out.split())
    assert "published | modern | small" in text
    assert "(sgd | adamw)" in text and "(off | on)" in text and "--no-resample" in text


def test_published_views_are_the_first_points_in_another_order(cloud):
    torch.manual_seed(0)
    recipe = dataclasses.replace(POINT_RECIPES["published"], scale=1.0, translate=0.0)
    view = recipe.train_transform(50)(cloud.clone())
    assert view.pos.shape == (50, 3) and not torch.equal(view.pos, cloud.pos[:50])
    assert torch.equal(view.pos.sort(dim=0).values, cloud.pos[:50].sort(dim=0).values)
    # mask and positions stay together
    assert torch.equal(view.mask, view.pos[:, 0] - 5 > 0.5)
    whole = POINT_RECIPES["published"].train_transform(50)(cloud.clone()).pos
    assert not torch.equal(whole.sort(dim=0).values, view.pos.sort(dim=0).values)


def test_published_stretch_and_shift(cloud):
    torch.manual_seed(0)
    recipe = dataclasses.replace(POINT_RECIPES["published"], translate=0.0)
    scales = []
    for _ in range(200):
        view = recipe.train_transform(200)(cloud.clone())
        scales.append(view.pos.amax(dim=0) / cloud.pos.amax(dim=0))
    scales = torch.stack(scales)
    assert 2 / 3 <= scales.min() < 0.7 and 1.45 < scales.max() <= 1.5


def test_resampling_takes_other_points(cloud):
    plain = PointRecipe(rotate=False, scale=1.0, normalize=False)
    torch.manual_seed(0)
    known = {tuple(row) for row in cloud.pos.tolist()}
    view = plain.train_transform(50)(cloud.clone())
    rows = {tuple(row) for row in view.pos.tolist()}
    assert len(rows) == 50 and rows <= known
    assert not rows <= {tuple(row) for row in cloud.pos[:50].tolist()}


def test_turning_keeps_the_up_axis(cloud):
    turning = PointRecipe(scale=1.0, normalize=False, resample=False)
    torch.manual_seed(0)
    view = turning.train_transform(200)(cloud.clone())
    assert torch.equal(view.pos[:, 1].sort().values, cloud.pos[:, 1].sort().values)
    assert not torch.allclose(view.pos[:, 0].sort().values, cloud.pos[:, 0].sort().values)


@pytest.mark.parametrize("name", POINT_RECIPES)
def test_the_test_sees_the_first_points_and_draws_nothing(cloud, name):
    recipe = POINT_RECIPES[name]
    state = torch.get_rng_state()
    first, second = (recipe.test_transform(50)(cloud.clone()).pos for _ in range(2))
    assert torch.equal(first, second) and torch.equal(state, torch.get_rng_state())
    if recipe.normalize:
        assert first.abs().max() <= 1
        ratio = (first[1:] - first[0]) / (cloud.pos[1:50] - cloud.pos[0])
        assert torch.allclose(ratio, ratio[0, 0].expand_as(ratio), rtol=1e-3)
    else:
        assert torch.equal(first, cloud.pos[:50])


def parse_image(*arguments):
    parser = Parser()
    add_settings(parser, RECIPES)
    return parser.parse_args(arguments)


def test_the_published_recipe_is_the_default():
    recipe = RECIPES["ImageNet"]
    assert recipe == ImageRecipe()
    assert (recipe.epochs, recipe.cooldown_epochs, recipe.warmup_epochs) == (310, 10, 5)
    assert (recipe.lr, recipe.lr_batch, recipe.weight_decay) == (1e-3, 1024, 0.05)
    assert (recipe.mixup, recipe.cutmix, recipe.label_smoothing) == (0.8, 1.0, 0.1)
    assert (recipe.auto_augment, recipe.random_erasing) == ("rand-m9-mstd0.5-inc1", 0.25)


def test_what_is_given_replaces_the_default_of_images():
    args = parse_image("--lr", "0.002", "--mixup", "0", "--schedule", "step")
    for base in RECIPES.values():
        expected = dataclasses.replace(base, lr=0.002, mixup=0.0, schedule="step")
        assert chosen(args, base) == (expected, [])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batch-size", "7"], "--batch-size is 7: mixup and CutMix take an even one"),
        (
            ["--epochs", "2", "--warmup-epochs", "13"],
            "--warmup-epochs is 13 and --cooldown-epochs 0, of 2 epochs in all",
        ),
    ],
)
def test_image_settings_that_do_not_fit(arguments, message):
    with pytest.raises(RunError, match=message):
        chosen(parse_image(*arguments), ImageRecipe())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "0"], "--epochs: is 0, expected at least 1"),
        (["--random-erasing", "2"], "is 2, expected from 0 to 1"),
        (["--schedule", "daily"], "--schedule: invalid choice: 'daily'"),
    ],
)
def test_image_settings_out_of_range(arguments, message, capsys):
    with pytest.raises(SystemExit):
        parse_image(*arguments)
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error


def test_help_shows_both_recipes(capsys):
    with pytest.raises(SystemExit):
        parse_image("--help")
    text = " ".join(capsys.readouterr().out.split())
    assert "defaults for ImageNet | Fashion-MNIST" in text
    sample = RECIPES["Fashion-MNIST"]
    for part in (f"(310 | {sample.epochs})", f"(coc_tiny | {sample.model})", "(0.05)"):
        assert part in text


@pytest.mark.parametrize(("arguments", "items", "changed"), [
    ([], None, {}),
    (["--epochs", "100"], 5000, {"epochs": 100}),
    (["--epochs", "2", "--batch-size", "8"], 14,
     {"epochs": 2, "batch_size": 8, "warmup_epochs": 0, "cooldown_epochs": 0}),
    (["--epochs", "2"], 13, {"epochs": 2, "warmup_epochs": 0, "cooldown_epochs": 0,
                             "batch_size": 12}),
    (["--epochs", "2", "--mixup", "0", "--cutmix", "0"], 13,
     {"epochs": 2, "warmup_epochs": 0, "cooldown_epochs": 0, "batch_size": 13, "mixup": 0.0,
      "cutmix": 0.0}),
    (["--epochs", "14", "--cooldown-epochs", "3"], None, {"epochs": 14, "cooldown_epochs": 3}),
    (["--epochs", "4", "--cooldown-epochs", "3"], None,
     {"epochs": 4, "cooldown_epochs": 3, "warmup_epochs": 0}),
], ids=str)  # fmt: skip
def test_what_is_not_given_follows(arguments, items, changed):
    recipe, notes = chosen(parse_image(*arguments), ImageRecipe(), items)
    assert recipe == dataclasses.replace(ImageRecipe(), **changed)
    given = {word.removeprefix("--").replace("-", "_") for word in arguments}
    flags = {note.split()[0].removeprefix("--").replace("-", "_") for note in notes}
    assert flags == set(changed) - given
    if "batch_size" in flags:
        assert f"--batch-size {recipe.batch_size} (not 128)" in notes


def test_line_up_cosine_down():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = cosine_with_warmup(optimizer, steps=14, warmup=4)
    rates = []
    for _ in range(15):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[:5] == [0.5, 1.0, 1.5, 2.0, 2.0]
    assert rates[9] == pytest.approx(1.0)  # halfway down
    assert rates[14] == pytest.approx(0.0)


def test_cosine_to_a_rate_above_zero():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.01)
    other = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.01)
    schedule = cosine_with_warmup(optimizer, steps=20, warmup=0, low=0.01)
    truth = torch.optim.lr_scheduler.CosineAnnealingLR(other, 20, eta_min=1e-4)
    for _ in range(20):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(other.param_groups[0]["lr"])
        for step in (optimizer, other, schedule, truth):
            step.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-4)


def test_only_matrices_decay():
    model = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3), nn.Linear(3, 1, bias=False))
    decayed, kept = decay_groups(model, 0.1)
    assert [p.ndim for p in decayed["params"]] == [2, 2]
    assert [p.ndim for p in kept["params"]] == [1, 1, 1]
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.1, 0.0)


@pytest.mark.parametrize("schedule", ["epoch", "step"])
def test_the_schedule_of_images_is_timms(schedule):
    from timm.scheduler import CosineLRScheduler

    recipe = ImageRecipe(epochs=20, cooldown_epochs=4, warmup_epochs=3, schedule=schedule)
    unit = 5 if schedule == "step" else 1
    own, other = (torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2e-3) for _ in range(2))
    truth = CosineLRScheduler(other, 16 * unit, lr_min=1e-6, warmup_t=3 * unit, warmup_lr_init=1e-6)
    plan = recipe.schedule_of(own, unit)
    for step in range(20 * unit):
        truth.step(step)
        rate = own.param_groups[0]["lr"]
        assert rate == pytest.approx(other.param_groups[0]["lr"], rel=1e-9)
        own.step()
        plan.step()


def test_a_setting_without_effect_is_told():
    with pytest.raises(RunError, match="--momentum is of SGD, and the optimizer is adamw"):
        chosen(parse("--momentum", "0.5"), PointRecipe())
    recipe, _ = chosen(parse("--momentum", "0.5", "--optimizer", "sgd"), PointRecipe())
    assert recipe.momentum == 0.5
