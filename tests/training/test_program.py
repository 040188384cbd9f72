from __future__ import annotations

import argparse
import json
import sys

import pytest
import torch

from pointcluster.training import (
    RunError,
    TestEachEpoch,
    accuracies,
    bad_input,
    begin,
    beside,
    each_seed,
    finish,
    log,
    program,
    spread,
    summarise,
    versions,
)
from pointcluster.training.program import command_line
from pointcluster.training.run import DivergedError


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


def test_what_one_process_alone_meets_it_tells(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.modules[command_line.__module__], "is_first_process", lambda: False)
    assert program(fail(RunError("all meet it")), out=str(tmp_path), resume=False) == 2
    assert program(fail(DivergedError("nan")), out=str(tmp_path), resume=False) == 2
    assert capsys.readouterr().err == "error: nan\n"


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


def arguments(path, **more):
    given = {"out": str(path), "resume": False, "seed": 0, "seeds": 1, "workers": 0, "epochs": 3}
    return argparse.Namespace(**given | more)


def start(args, **settings):
    begin(args, settings, free=("out", "resume", "workers", "absent"), packages=["torch"])


def test_begins_with_what_decides_and_notes_the_rest(tmp_path, capsys):
    start(arguments(tmp_path / "a"), data="Shapes")
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    notes = config.pop("notes")
    assert config == {"seed": 0, "seeds": 1, "epochs": 3, "data": "Shapes", "processes": 1}
    assert notes["arguments"] == {"out": str(tmp_path / "a"), "resume": False, "workers": 0}
    assert "torch" in notes["versions"]
    start(arguments(tmp_path / "a", resume=True, workers=4), data="Shapes")
    assert capsys.readouterr().out == f"writing to {tmp_path / 'a'}\n" * 2
    with pytest.raises(RunError, match="epochs was 3 and is now 4"):
        start(arguments(tmp_path / "a", resume=True, epochs=4), data="Shapes")
    (tmp_path / "a" / "last.ckpt").touch()
    start(arguments(tmp_path / "a"), data="Shapes")
    assert capsys.readouterr().out.endswith(f"is now {tmp_path / 'a'}.1\n")


@pytest.mark.parametrize("seeds", [1, 3])
def test_seeds_that_were_through_are_read(tmp_path, seeds):
    def run(seed, folder):
        folder.mkdir(parents=True, exist_ok=True)
        ran.append((seed, folder.relative_to(tmp_path).as_posix()))
        if seed == stop:
            raise KeyboardInterrupt
        return {"seed": seed, "share": seed / 8}

    ran, stop = [], 4 + seeds
    args = arguments(tmp_path, seed=4, seeds=seeds)
    expected = [{"seed": seed, "share": seed / 8} for seed in range(4, 4 + seeds)]
    assert each_seed(args, run) == expected
    folders = [".", "seed-4", "seed-5", "seed-6"]
    assert [folder for _, folder in ran] == (folders[:1] if seeds == 1 else folders[1:])
    ran.clear()
    args.resume = True
    assert each_seed(args, run) == expected and not ran
    args.resume, stop = False, 3 + seeds
    with pytest.raises(KeyboardInterrupt):
        each_seed(args, run)
    assert len(ran) == seeds


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff"])
def test_a_result_that_cannot_be_read(tmp_path, content):
    (tmp_path / "result.json").write_bytes(content)
    with pytest.raises(RunError, match=r"result.json is damaged: delete it"):
        each_seed(arguments(tmp_path, resume=True), lambda seed, folder: {})


def test_results_say_how_the_run_was_started_and_resumed(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["a.py", "--seed", "1"])
    start(arguments(tmp_path))
    finish(arguments(tmp_path), {"runs": []}, files=())
    whole = json.loads((tmp_path / "results.json").read_text())
    assert whole == {"runs": [], "command": "python a.py --seed 1"}
    monkeypatch.setattr("sys.argv", ["a.py", "--resume"])
    for name, value in (("TORCHELASTIC_RUN_ID", "7"), ("LOCAL_WORLD_SIZE", "2"),
                        ("WORLD_SIZE", "6")):  # fmt: skip
        monkeypatch.setenv(name, value)
    assert command_line() == ["torchrun", "--nnodes", "3", "--nproc-per-node", "2", "a.py",
                              "--resume"]  # fmt: skip
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    start(arguments(tmp_path, resume=True))
    finish(arguments(tmp_path), {"runs": []}, files=())
    whole = json.loads((tmp_path / "results.json").read_text())
    assert whole["resumed_by"] == ["torchrun --nproc-per-node 1 a.py --resume"]


def test_what_is_left_is_named(tmp_path, capsys):
    for name in ("b/model.json", "a/model.json", "a/model.safetensors", "x.png", "notes"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    finish(arguments(tmp_path), {"runs": []}, files=("model.*", "*.png"))
    assert json.loads((tmp_path / "results.json").read_text()) == {"runs": []}
    named = [line.strip() for line in capsys.readouterr().out.splitlines()]
    names = ["a/model.json", "a/model.safetensors", "b/model.json", "x.png", "results.json"]
    assert named == [str(tmp_path / name) for name in names]


def test_lines_are_kept(tmp_path, capsys):
    log(arguments(tmp_path), "one")
    assert capsys.readouterr().out == (tmp_path / "log.txt").read_text() == "one\n"


def test_bad_input_is_an_error_of_the_run():
    with pytest.raises(RunError, match="too few"), bad_input():
        raise ValueError("too few")
    with pytest.raises(ZeroDivisionError), bad_input():
        raise ZeroDivisionError


def test_mean_and_sample_deviation():
    results = [{"test_accuracy": a, "test_mean_class_accuracy": 0.5} for a in (0.7, 0.8, 0.9)]
    summary = summarise(results)
    assert summary["test_accuracy"] == pytest.approx({"mean": 0.8, "std": 0.1})
    assert summary["test_mean_class_accuracy"] == {"mean": 0.5, "std": 0.0}


def test_one_seed_has_no_spread():
    result = {"test_accuracy": 0.7, "test_mean_class_accuracy": 0.5}
    assert summarise([result])["test_accuracy"] == {"mean": 0.7, "std": None}


def test_in_percent():
    assert spread({"mean": 0.8125, "std": 0.0214}) == "81.2% ± 2.1%"
    assert spread({"mean": 0.8125, "std": None}) == "81.2%"


def test_measures_in_words():
    result = {"test_accuracy": 0.75, "test_mean_class_accuracy": 0.5, "voted_accuracy": 1.0,
              "voted_mean_class_accuracy": 0.25}  # fmt: skip
    assert accuracies(result) == "75.0% overall, 50.0% mean over classes"
    assert accuracies(result, "voted") == "100.0% overall, 25.0% mean over classes"
    summary = summarise([result, result | {"test_accuracy": 0.85}])
    assert accuracies(summary) == "80.0% ± 7.1% overall, 50.0% ± 0.0% mean over classes"
    assert (
        accuracies({"test_accuracy": 0.5, "test_top5_accuracy": 1.0}) == "top-1 50.0%, top-5 100.0%"
    )
    assert accuracies({"test_accuracy": 0.5, "test_loss": 2.0}) == "top-1 50.0%"


def test_what_stands_beside_a_result():
    best = {"label": TestEachEpoch.LABEL, "epoch": 3, "test_accuracy": 0.75}
    vote = {"votes": 2, "voted_accuracy": 0.5, "voted_mean_class_accuracy": 0.25}
    result = {"test_accuracy": 0.5, "vote": vote, "best_test_epoch": best}
    assert beside(result, 2) == [
        "with 2 votes: 50.0% overall, 25.0% mean over classes",
        f"75.0% overall after epoch 3 ({TestEachEpoch.LABEL})",
    ]
    summary = summarise([result, result])
    assert summary["vote"] == {"mean": 0.5, "std": 0.0}
    assert beside(summary, 2) == [
        "50.0% ± 0.0% overall (with 2 votes)", f"75.0% ± 0.0% overall ({TestEachEpoch.LABEL})",
    ]  # fmt: skip
    assert beside({"test_accuracy": 0.5}, 0) == []
