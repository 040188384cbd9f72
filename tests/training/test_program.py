from __future__ import annotations

import pytest
import torch

from pointcluster.training import RunError, program, versions


def fail(error):
    def run():
        raise error

    return run


def test_status_of_a_run_that_ends(tmp_path):
    assert program(lambda: None, out=str(tmp_path), resume=False) == 0


@pytest.mark.parametrize("error", [RunError("no"), OSError("no"), ImportError("no")])
def test_what_is_wrong_is_one_line(tmp_path, capsys, error):
    assert program(fail(error), out=str(tmp_path), resume=False) == 2
    assert capsys.readouterr() == ("", "error: no\n")


def test_other_errors_are_faults_and_are_not_hidden(tmp_path):
    with pytest.raises(ZeroDivisionError):
        program(fail(ZeroDivisionError()), out=str(tmp_path), resume=False)


@pytest.mark.parametrize("resume", [False, True])
def test_ctrl_c(tmp_path, monkeypatch, capsys, resume):
    monkeypatch.setattr("sys.argv", ["a.py", "--out", "b c", *(["--resume"] if resume else [])])
    assert program(fail(KeyboardInterrupt()), out=str(tmp_path), resume=resume) == 130
    assert capsys.readouterr().err == "interrupted; no epoch was through yet\n"
    (tmp_path / "last.ckpt").write_text("")
    assert program(fail(KeyboardInterrupt()), out=str(tmp_path), resume=resume) == 130
    error = capsys.readouterr().err
    assert error.endswith("python a.py --out 'b c' --resume\n") and error.count("--resume") == 1


def test_versions():
    found = versions(["torch", "no-such-package"])
    assert (
        torch.__version__.startswith(found["torch"]) and found["no-such-package"] == "not installed"
    )
    assert set(found) == {"python", "torch", "no-such-package"}
