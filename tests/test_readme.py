"""The README's code runs from top to bottom, as a reader would run it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def test_code_of_the_readme_runs(tmp_path, monkeypatch):
    pytest.importorskip("plotly")
    from pointcluster import viz

    shown = []
    monkeypatch.setattr(viz, "show", lambda *given, **options: shown.append(given))  # a window
    monkeypatch.chdir(tmp_path)
    for number in range(8):
        for name in ("chair", "table"):
            (tmp_path / "scans" / name).mkdir(parents=True, exist_ok=True)
            points = np.random.default_rng(number).random((50, 3))
            np.save(tmp_path / "scans" / name / f"{number}.npy", points)
    names: dict = {"__name__": "readme"}
    for block in BLOCKS:
        exec(compile(block, str(README), "exec"), names)
    assert len(BLOCKS) == 7 and len(shown) == 1
    assert len(names["found"]) == 2 and names["scores"].shape == (2, 11, 128, 160)
    assert (tmp_path / "chair.html").stat().st_size > 10_000
    assert len(names["train"]) + len(names["test"]) == 16


def test_files_and_links_of_the_readme_are_there():
    text = README.read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", text)
    programs = re.findall(r"python ((?:examples|benchmarks|datasets)/\w+\.py)", text)
    modules = re.findall(r"python -m (pointcluster[\w.]*)", text)
    assert len(links) > 10 and len(programs) > 5 and len(modules) > 2
    for path in {*links, *programs}:
        assert (README.parent / path).exists(), path
    for module in set(modules):
        path = README.parent / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module
