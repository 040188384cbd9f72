from __future__ import annotations

from dataclasses import dataclass

import pytest

from pointcluster.training import POINT_RECIPES
from pointcluster.training.arguments import (
    Parser,
    add_machine_arguments,
    add_settings,
    chosen,
    number,
    recipe_name,
    setting,
)


def parse(*arguments):
    parser = Parser()
    parser.add_argument("--model", choices=["small", "tiny"], default="tiny")
    add_settings(parser, POINT_RECIPES)
    add_machine_arguments(parser, out="runs/a", workers=0, geometry=True)
    return parser.parse_args(arguments)


def test_defaults():
    args = parse()
    assert (args.model, args.out, args.epochs, args.lr) == ("tiny", "runs/a", None, None)
    recipe = chosen(args, POINT_RECIPES["small"])[0]
    assert (recipe.lr, recipe.scale, recipe.rotate, args.resume) == (2e-3, 1.25, False, False)
    for arguments, scale in [(["--no-scale", "--rotate"], 1.0), (["--scale"], 1.25)]:
        assert chosen(parse(*arguments), POINT_RECIPES["small"])[0].scale == scale
    assert parse("--precision", "bf16").precision == "bf16-mixed"
    assert (args.workers, args.geometry) == (0, "auto")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "0"], "--epochs: is 0, expected at least 1"),
        (["--epochs", "two"], "--epochs: invalid int value: 'two'"),
        (["--label-smoothing", "1.5"], "--label-smoothing: is 1.5, expected from 0 to 1"),
        (["--lr", "nan"], "--lr: is nan, expected from 0 to 1000"),
        (["--seed", "-1"], "--seed: is -1, expected from 0 to 9223372036854775807"),
        (["--seed", str(2**64)], "--seed: is 18446744073709551616, expected from 0 to"),
        (["--lr", "inf"], "--lr: is inf, expected from 0 to 1000"),
        (["--out", ""], "--out: is empty, expected a path"),
        (["--model", "huge"], "--model: invalid choice: 'huge'"),
        (["--precision", "16"], "--precision: invalid choice: '16'"),
        (["--geometry", "gpu"], "--geometry: invalid choice: 'gpu'"),
    ],
)
def test_what_is_wrong_is_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        parse(*arguments)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: argument ") and error.count("\n") == 1
    assert message in error


def test_help_names_defaults(capsys):
    with pytest.raises(SystemExit):
        parse("--help")
    text = " ".join(capsys.readouterr().out.split())
    for part in ("(0.01 | 0.002)", "--no-rotate", "(off | on)", "(runs/a)", "--no-scale"):
        assert part in text


@dataclass(frozen=True)
class Cake:
    sugar: float = setting(0.5, number(float, 0), "of it")
    layers: int = setting(2, int, "of them")
    icing: bool = setting(True, bool, "on top")
    kind: str = setting("plain", str, "of dough", choices=("plain", "nut"))


def parse_cake(*arguments):
    parser = Parser()
    add_settings(parser, {"sweet": Cake(sugar=1.0), "bare": Cake(icing=False)})
    return parser.parse_args(arguments)


def test_given_settings_replace_a_recipes_own():
    assert chosen(parse_cake(), Cake(layers=3)) == (Cake(layers=3), [])
    args = parse_cake("--no-icing", "--kind", "nut", "--sugar", "0", "--layers", "1")
    assert chosen(args, Cake())[0] == Cake(0.0, 1, False, "nut")
    assert chosen(parse_cake("--icing"), Cake(icing=False))[0] == Cake()


def test_a_changed_recipe_is_not_called_by_its_name_alone():
    base = Cake(layers=3)
    assert recipe_name("tall", chosen(parse_cake("--layers", "3"), base)[0], base) == "tall"
    changed = chosen(parse_cake("--no-icing", "--sugar", "0.25"), base)[0]
    assert recipe_name("tall", changed, base) == "tall with --sugar 0.25 --no-icing"


def test_help_names_each_value_once(capsys):
    with pytest.raises(SystemExit):
        parse_cake("--help")
    text = capsys.readouterr().out
    assert "defaults for sweet | bare" in text
    assert "of it (1.0 | 0.5)" in text and "of them (2)" in text and "(on | off)" in text
