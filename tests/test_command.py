from __future__ import annotations

import errno

import pytest

from pointcluster._command import Parser, complain, nonempty, number


def test_a_docstring_becomes_the_help(capsys):
    with pytest.raises(SystemExit):
        Parser(doc="Does a thing.\n\nexamples:\n  do  it\n").parse_args(["--help"])
    parts = capsys.readouterr().out.strip().split("\n\n")
    assert parts[1] == "Does a thing." and parts[-1] == "examples:\n  do  it"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--count", "0"], "argument --count: is 0, expected at least 1"),
        (["--count", "x"], "argument --count: invalid int value: 'x'"),
        (["--share", "2"], "argument --share: is 2, expected from 0 to 1"),
        (["--share", "nan"], "argument --share: is nan, expected from 0 to 1"),
        (["--scale", "inf"], "argument --scale: is inf, expected a finite number"),
        (["--out", ""], "argument --out: is empty, expected a path"),
    ],
)
def test_what_is_wrong_is_one_line(arguments, message, capsys):
    parser = Parser()
    parser.add_argument("--count", type=number(int, 1))
    parser.add_argument("--share", type=number(float, 0, 1))
    parser.add_argument("--scale", type=number(float, 0))
    parser.add_argument("--out", type=nonempty)
    with pytest.raises(SystemExit) as stopped:
        parser.parse_args(arguments)
    assert stopped.value.code == 2
    assert capsys.readouterr().err == f"error: {message}\n"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("one\n  two"), "error: one two\n"),
        (OSError(errno.ENOSPC, "No space left on device", "a.ckpt"),
         "error: a.ckpt: No space left on device\n"),
        (OSError("no file"), "error: no file\n"),
    ],
)  # fmt: skip
def test_errors_are_one_line(error, line, capsys):
    assert complain(error) == 2
    assert capsys.readouterr() == ("", line)
