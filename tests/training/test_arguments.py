from __future__ import annotations

import pytest

from pointcluster.training import Parser, add_training_arguments


def parse(*arguments):
    parser = Parser()
    add_training_arguments(parser, models=["small", "tiny"], out="runs/a")
    return parser.parse_args(arguments)


def test_defaults():
    args = parse()
    assert (args.model, args.out, args.epochs, args.lr) == ("tiny", "runs/a", None, 2e-3)
    assert (args.scale, args.rotate, args.resume) == (True, False, False)
    assert parse("--no-scale", "--rotate").scale is False
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
    for part in ("small, tiny (tiny)", "(0.002)", "--no-rotate", "(off)", "(runs/a)"):
        assert part in text
