"""The notebook runs from its first cell to its last, and shows what it showed when it was kept."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def notebook():
    return nbformat.read(EXAMPLES / "clusters.ipynb", as_version=4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def kinds(cell):
    """What a cell shows: text, pictures, tables. Text may arrive in one piece or several."""
    found = [
        sorted(output.data) if "data" in output else [output.get("name", output.output_type)]
        for output in cell.outputs
    ]
    return [kind for kind, _ in itertools.groupby(found)]


def test_was_kept_as_it_ran_from_top_to_bottom(notebook):
    assert [cell.execution_count for cell in code(notebook)] == [*range(1, len(code(notebook)) + 1)]
    shown = [kind for cell in code(notebook) for output in kinds(cell) for kind in output]
    assert shown.count("image/png") >= 5 and shown.count("text/html") >= 2
    assert "error" not in shown and "stderr" not in shown
    assert (EXAMPLES / "clusters.ipynb").stat().st_size < 1.5e6


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::RuntimeWarning")
def test_runs(notebook, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(EXAMPLES.parent))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    expected = [kinds(cell) for cell in code(notebook)]
    where = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=300, resources=where).execute()
    assert [kinds(cell) for cell in code(notebook)] == expected
    assert not list(tmp_path.iterdir())
