from __future__ import annotations

import dataclasses

import pytest

from pointcluster.training import (
    RECIPES,
    ImageRecipe,
    Parser,
    RunError,
    add_recipe_arguments,
    chosen_recipe,
)


def parse(*arguments):
    parser = Parser()
    add_recipe_arguments(parser)
    return parser.parse_args(arguments)


def test_the_published_recipe_is_the_default():
    recipe = RECIPES["ImageNet"]
    assert recipe == ImageRecipe()
    assert (recipe.epochs, recipe.cooldown_epochs, recipe.warmup_epochs) == (310, 10, 5)
    assert (recipe.lr, recipe.lr_batch, recipe.weight_decay) == (1e-3, 1024, 0.05)
    assert (recipe.mixup, recipe.cutmix, recipe.label_smoothing) == (0.8, 1.0, 0.1)
    assert (recipe.auto_augment, recipe.random_erasing) == ("rand-m9-mstd0.5-inc1", 0.25)


def test_what_is_given_replaces_the_default():
    args = parse("--lr", "0.002", "--mixup", "0", "--schedule", "step")
    for base in RECIPES.values():
        expected = dataclasses.replace(base, lr=0.002, mixup=0.0, schedule="step")
        assert chosen_recipe(args, base) == (expected, [])


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
def test_settings_that_do_not_fit(arguments, message):
    with pytest.raises(RunError, match=message):
        chosen_recipe(parse(*arguments), ImageRecipe())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "0"], "--epochs: is 0, expected at least 1"),
        (["--random-erasing", "2"], "is 2, expected from 0 to 1"),
        (["--schedule", "daily"], "--schedule: invalid choice: 'daily'"),
    ],
)
def test_what_is_wrong_is_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit):
        parse(*arguments)
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error


def test_help_shows_both_recipes(capsys):
    with pytest.raises(SystemExit):
        parse("--help")
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
    recipe, notes = chosen_recipe(parse(*arguments), ImageRecipe(), items)
    assert recipe == dataclasses.replace(ImageRecipe(), **changed)
    given = {word.removeprefix("--").replace("-", "_") for word in arguments}
    flags = {note.split()[0].removeprefix("--").replace("-", "_") for note in notes}
    assert flags == set(changed) - given
    if "batch_size" in flags:
        assert f"--batch-size {recipe.batch_size} (not 128)" in notes
