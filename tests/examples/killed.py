"""Run a training program again and again, and kill it at random moments, as `kill -9` does.

python killed.py PROGRAM KILLS SEED [argument ...]

Torch is imported once; every run is a fork of this process, so that it begins in no time. First the
program runs undisturbed, in the folder `whole`. Then it begins in `killed-0`, is killed, goes on
with `--resume`, is killed, and so on; a run that comes through before it has been killed as often
as asked for is followed by another, in `killed-1`. In the end no run is left half done. Printed is
one JSON object: the folders, and the kind of each kill.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import json
import os
import random
import signal
import sys
import time
import warnings
from pathlib import Path

import torch

KINDS = ("moment", "change", "half")


def main() -> None:
    program, kills, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    arguments = sys.argv[4:]
    warnings.simplefilter("ignore")  # of libraries on import
    spec = importlib.util.spec_from_file_location(program.stem, program)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in ("matplotlib.figure", "torch.utils.tensorboard", "lightning.pytorch"):
        importlib.import_module(name)

    status, seconds = finished(start(module, [*arguments, "--out", "whole"]))
    assert status == 0, Path("printed").read_text()

    draw = random.Random(seed)
    kinds, folders = [], []
    for number in itertools.count():
        folder = Path(f"killed-{number}")
        folders.append(folder.name)
        while True:
            resume = ["--resume"] if (folder / "config.json").exists() else []
            kind = KINDS[len(kinds) % len(KINDS)] if len(kinds) < kills else None
            # Which of the changes to come, or of the checkpoints: few, so that they do come.
            count = draw.randrange({"change": 12, "half": 2}.get(kind, 1))
            child = start(module, [*arguments, "--out", folder.name, *resume], kind, count, draw)
            if kind == "moment":
                kill_after(child, draw.uniform(0, 0.4 * seconds))
            if (status := finished(child)[0]) == 0:
                break
            assert status == -signal.SIGKILL, Path("printed").read_text()
            kinds.append(kind)
        if len(kinds) >= kills:
            break
    print(json.dumps({"folders": folders, "kinds": kinds, "seconds": seconds}))


def start(module, arguments, kind=None, count=0, draw=None) -> int:
    """Fork a run of the program, and let it kill itself if that is the kind of the kill."""
    share = draw.random() if draw else 0.0
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        torch.set_num_threads(1)
        if kind == "change":
            kill_before_change(count)
        elif kind == "half":
            kill_in_checkpoint(count, share)
        sys.argv = [module.__spec__.origin, *arguments]
        with open("printed", "a") as file, contextlib.redirect_stdout(file):
            with contextlib.redirect_stderr(file):
                status = module.main()
                file.flush()
    except BaseException:
        import traceback

        with open("printed", "a") as file:
            traceback.print_exc(file=file)
    finally:
        os._exit(status)


def finished(child: int) -> tuple[int, float]:
    """Wait for a run: its exit status, or the signal that ended it, negative; and CPU seconds."""
    _, status, used = os.wait4(child, 0)
    return os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime


def kill_after(child: int, seconds: float) -> None:
    """Kill a run when it has worked for so long: a busy machine must not shift the moment."""
    tick, stat = os.sysconf("SC_CLK_TCK"), Path(f"/proc/{child}/stat")
    began = time.perf_counter()
    while True:
        if stat.exists():
            state, *fields = stat.read_text().rpartition(")")[2].split()
            worked = (int(fields[10]) + int(fields[11])) / tick
        else:  # no Linux
            state, worked = "R", time.perf_counter() - began
        if worked >= seconds or state == "Z":
            break
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)


def kill_before_change(count: int) -> None:
    """Kill this process before one of the changes to come of a file in the output folder."""
    number = itertools.count()

    def watch(event, details):
        changes = event in ("os.rename", "os.remove", "os.mkdir") or (
            event == "open" and isinstance(details[1], str) and set(details[1]) & set("wax+")
        )
        if changes and "killed-" in str(details[0]) and next(number) == count:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def kill_in_checkpoint(count: int, share: float) -> None:
    """Kill this process when a part of one of the checkpoints to come has been written."""
    save, number = torch.save, itertools.count()

    def half(value, file, *args, **options):
        save(value, file, *args, **options)
        if next(number) == count:
            os.truncate(file, int(share * os.path.getsize(file)))
            os.kill(os.getpid(), signal.SIGKILL)

    torch.save = half


if __name__ == "__main__":
    main()
