from __future__ import annotations

import dataclasses

import pytest
import torch
from torch_geometric.data import Data

from pointcluster.training import POINT_RECIPES, Parser, PointRecipe, RunError, add_settings, chosen


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
