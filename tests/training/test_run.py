from __future__ import annotations

import json

import pytest

from pointcluster.training import RunError, RunFolder, write_json

SETTINGS = {"epochs": 3, "data": "HomeObjects"}


def start(path, **settings):
    return RunFolder(path).open(SETTINGS | settings, command=["python", "a b.py"])


def resume(path, **settings):
    RunFolder(path).open(SETTINGS | settings, command=[], resume=True)


def test_leaves_settings_and_command(tmp_path):
    assert start(tmp_path / "new" / "run") is None
    run = tmp_path / "new" / "run"
    assert json.loads((run / "config.json").read_text()) == SETTINGS
    assert (run / "command.txt").read_text() == "python 'a b.py'\n"


def test_an_earlier_run_is_moved_not_overwritten(tmp_path):
    for expected in (None, str(tmp_path / "run.1"), str(tmp_path / "run.2")):
        assert start(tmp_path / "run") == expected
        RunFolder(tmp_path / "run").checkpoint.parent.mkdir()
        RunFolder(tmp_path / "run").checkpoint.write_text("weights")
    assert (tmp_path / "run.1" / "checkpoints" / "last.ckpt").exists()


def test_a_run_that_never_began_is_replaced(tmp_path):
    start(tmp_path / "run")
    assert start(tmp_path / "run", epochs=4) is None
    assert json.loads((tmp_path / "run" / "config.json").read_text())["epochs"] == 4


def test_resume_needs_the_same_settings(tmp_path):
    start(tmp_path / "run")
    resume(tmp_path / "run")
    with pytest.raises(RunError, match="epochs was 3 and is now 4"):
        resume(tmp_path / "run", epochs=4)
    with pytest.raises(RunError, match="lr was None and is now 0.1"):
        resume(tmp_path / "run", lr=0.1)


@pytest.mark.parametrize("content", [b"[]", b"{", b"\xff\xfe"])
def test_settings_that_cannot_be_read(tmp_path, content):
    start(tmp_path / "run")
    (tmp_path / "run" / "config.json").write_bytes(content)
    with pytest.raises(RunError, match="config.json is damaged: "):
        resume(tmp_path / "run")


@pytest.mark.parametrize("name", [".", "..", "../run"])
def test_the_folder_one_is_in_is_not_moved(tmp_path, monkeypatch, name):
    start(tmp_path / "run")
    RunFolder(tmp_path / "run").checkpoint.parent.mkdir()
    RunFolder(tmp_path / "run").checkpoint.write_text("weights")
    (tmp_path / "run" / "deeper").mkdir()
    monkeypatch.chdir(tmp_path / "run" / ("deeper" if name == ".." else ""))
    with pytest.raises(RunError, match=r"holds an earlier run, and you are in that folder"):
        start(name)
    resume(name)


def test_what_a_killed_run_half_wrote_is_removed(tmp_path):
    start(tmp_path / "run")
    names = ["checkpoints/.part-last.x1.ckpt", "seed-1/.part-result.x.json", "notes.tmp"]
    for name in [*names, "checkpoints/last.ckpt", "metrics.csv"]:
        (tmp_path / "run" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "run" / name).write_text("half")
    resume(tmp_path / "run")
    left = {path.name for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert left == {"config.json", "command.txt", "last.ckpt", "metrics.csv", "notes.tmp"}


def test_resume_needs_a_run(tmp_path):
    with pytest.raises(RunError, match="holds no run"):
        resume(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(RunError, match="config.json is damaged"):
        resume(tmp_path)


def test_unwritable_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot write to the output folder"):
        start(tmp_path / "file" / "run")


def test_json_that_fails_leaves_the_old(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_notes_may_change_and_every_start_is_a_command(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.open(SETTINGS, command=["python", "a.py"], notes={"torch": "2.9"})
    run.open(SETTINGS, command=["python", "a.py", "--resume"], resume=True, notes={"torch": "3"})
    assert json.loads(run.config.read_text()) == SETTINGS | {"notes": {"torch": "2.9"}}
    assert run.command.read_text() == "python a.py\npython a.py --resume\n"


def test_what_is_said_is_kept(tmp_path, capsys):
    run = RunFolder(tmp_path)
    run.say("one")
    run.say("two")
    assert run.log.read_text() == capsys.readouterr().out == "one\ntwo\n"
    run.open(SETTINGS, command=["python"])
    assert not run.log.exists()


HOLDING = """
import sys, time
from pathlib import Path
from pointcluster.training.run import RunFolder
RunFolder(sys.argv[1]).open({"a": 1}, command=["x"])
print("holds", flush=True)
time.sleep(100)
"""


@pytest.mark.slow
@pytest.mark.parametrize("resuming", [False, True])
def test_a_second_run_in_a_folder_is_refused_until_the_first_is_gone(
    tmp_path, monkeypatch, resuming
):
    import subprocess
    import sys

    from pointcluster.training import run as run_folder

    monkeypatch.setattr(run_folder, "WAIT", 0.2)
    path = tmp_path / "run"
    first = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", HOLDING, str(path)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert first.stdout.readline() == "holds\n"
        with pytest.raises(RunError, match="is another run's, which still goes on"):
            RunFolder(path).open({"a": 1}, command=["y"], resume=resuming)
        assert json.loads((path / "config.json").read_text()) == {"a": 1}
        assert (path / "command.txt").read_text() == "x\n"
    finally:
        first.kill()  # as it dies, its lock does
        first.wait()
        first.stdout.close()
    monkeypatch.setattr(run_folder, "WAIT", 5)
    RunFolder(path).open({"a": 1}, command=["y"], resume=resuming)
    RunFolder(path).open({"a": 1}, command=["z"], resume=True)  # its own
    run_folder.let_go(path)
