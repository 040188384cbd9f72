from __future__ import annotations

from dataclasses import dataclass

import pytest

from pointcluster.training.arguments import Parser, number
from pointcluster.training.recipe import add_settings, chosen, recipe_name, setting


@dataclass(frozen=True)
class Cake:
    sugar: float = setting(0.5, number(float, 0), "of it")
    layers: int = setting(2, int, "of them")
    icing: bool = setting(True, bool, "on top")
    kind: str = setting("plain", str, "of dough", choices=("plain", "nut"))


def parse(*arguments):
    parser = Parser()
    add_settings(parser, {"sweet": Cake(sugar=1.0), "bare": Cake(icing=False)})
    return parser.parse_args(arguments)


def test_given_settings_replace_a_recipes_own():
    assert chosen(parse(), Cake(layers=3)) == (Cake(layers=3), [])
    args = parse("--no-icing", "--kind", "nut", "--sugar", "0", "--layers", "1")
    assert chosen(args, Cake())[0] == Cake(0.0, 1, False, "nut")
    assert chosen(parse("--icing"), Cake(icing=False))[0] == Cake()


def test_a_changed_recipe_is_not_called_by_its_name_alone():
    base = Cake(layers=3)
    assert recipe_name("tall", chosen(parse("--layers", "3"), base)[0], base) == "tall"
    changed = chosen(parse("--no-icing", "--sugar", "0.25"), base)[0]
    assert recipe_name("tall", changed, base) == "tall with --sugar 0.25 --no-icing"


def test_help_names_each_value_once(capsys):
    with pytest.raises(SystemExit):
        parse("--help")
    text = capsys.readouterr().out
    assert "defaults for sweet | bare" in text
    assert "of it (1.0 | 0.5)" in text and "of them (2)" in text and "(on | off)" in text
