from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def one_thread():
    """Threads that wait for each other cost more than all the work of a tiny batch."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def script(monkeypatch):
    """A benchmark as a module, found as it is found when it is run."""

    def script(name: str):
        monkeypatch.syspath_prepend(BENCHMARKS)
        return importlib.import_module(name)

    return script


@pytest.fixture
def run(script, monkeypatch, tmp_path, capsys):
    """Run a benchmark as from the command line; returns its page and what it printed."""

    def run(name: str, *arguments: str) -> tuple[str, str]:
        module = script(name)
        monkeypatch.setattr(
            sys, "argv", [f"benchmarks/{name}.py", *arguments, "--out", str(tmp_path)]
        )
        module.main()
        return (tmp_path / f"{name}.md").read_text(encoding="utf-8"), capsys.readouterr().out

    return run
