"""The program starts, or says in one line why not."""

from __future__ import annotations

import sys

import pytest

from pointcluster.app.__main__ import main


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--port", "0"], "expected from 1 to 65535"),
        (["--port", "x"], "invalid int value"),
        (["--max-size", "0"], "expected from 0.001 to 1000000"),
        (["--max-size", "nan"], "expected from 0.001 to 1000000"),
        (["--checkpoint"], "expected at least one argument"),
        (["--unknown"], "unrecognized arguments"),
    ],
)
def test_wrong_arguments_are_named(capsys, arguments, expected):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert expected in said and said.count("\n") == 1


def test_a_checkpoint_that_is_not_there_is_one_line(capsys, tmp_path):
    pytest.importorskip("gradio")
    assert main(["--checkpoint", str(tmp_path / "nowhere.safetensors")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and "is not there" in said and said.count("\n") == 1


@pytest.mark.parametrize("absent", ["gradio", "plotly"])
def test_without_its_packages_it_names_them(capsys, monkeypatch, absent):
    monkeypatch.setitem(sys.modules, absent, None)
    assert main([]) == 2
    said = capsys.readouterr().err
    assert absent in said and "pip install 'pointcluster[app]'" in said
