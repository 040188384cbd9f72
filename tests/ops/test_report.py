from __future__ import annotations

import pytest
import torch

import pointcluster
from pointcluster.ops import backend


def test_report_names_every_backend_and_says_why():
    report = pointcluster.backends()
    assert [b.name for b in report] == [*backend.SEARCHES, "kernels", "GPU kernels"]
    served = [service for b in report for service in b.serves]
    for service in ("knn (CPU)", "fps (CPU)", "knn (GPU)", "fps (GPU)"):
        assert served.count(service) == 1
    text = repr(report)
    assert all(b.name in text and b.reason in text for b in report)
    assert not any(b.serves for b in report if not b.available)


def test_an_extension_that_does_not_load_is_no_backend(monkeypatch):
    def broken(name):
        raise OSError("undefined symbol: _ZN3c10\nmore")

    backend.extension.cache_clear()
    monkeypatch.setattr(backend, "installed", lambda module: "1.6.3")
    monkeypatch.setattr(backend.importlib, "import_module", broken)
    try:
        assert backend.extension("torch_cluster") == (
            False,
            "1.6.3 is installed but does not load: undefined symbol: _ZN3c10",
        )
        with pytest.raises(ModuleNotFoundError, match="does not load"):
            backend.search_backend("torch-cluster", torch.device("cpu"))
    finally:
        monkeypatch.undo()
        backend.extension.cache_clear()


def test_a_notebook_shows_a_table():
    report = pointcluster.backends()
    text = report._repr_html_()
    assert text.count("<tr>") == 1 + len(report) and text.count("<td>") == 4 * len(report)
    assert all(f"<td>{backend.name}</td>" in text for backend in report)


def test_the_report_knows_who_serves_layers():
    from pointcluster.ops import launch, use_backend

    (row,) = (each for each in pointcluster.backends() if each.name == "kernels")
    assert row.available == launch.cpu_kernels()
    assert (row.serves == ("layers (CPU, float32)",)) == row.available
    with use_backend("torch"):
        (row,) = (each for each in pointcluster.backends() if each.name == "kernels")
    assert row.serves == () and ("asks for torch" in row.reason) == row.available


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_the_report_says_what_a_gpu_needs():
    (row,) = (each for each in pointcluster.backends() if each.name == "GPU kernels")
    assert not row.available and not row.serves and "compute capability 8.0" in row.reason
