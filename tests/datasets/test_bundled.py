from __future__ import annotations

import pytest

from pointcluster.datasets import bundled


def test_checkout():
    folder = bundled.bundled_folder("fashion_mnist", "LICENSE")
    assert folder.parts[-2:] == ("datasets", "fashion_mnist")


def test_where_a_wheel_puts_it(monkeypatch, tmp_path):
    module = tmp_path / "lib" / "pointcluster" / "datasets" / "bundled.py"
    monkeypatch.setattr(bundled, "__file__", str(module))
    monkeypatch.setattr(bundled.sys, "prefix", str(tmp_path / "prefix"))
    monkeypatch.setattr(bundled.site, "getuserbase", lambda: str(tmp_path / "user"))
    with pytest.raises(FileNotFoundError, match="data did not come with this installation; looked"):
        bundled.bundled_folder("shapes", "data")
    for base in ("lib", "user", "prefix"):  # the later ones go before
        folder = tmp_path / base / "share" / "pointcluster" / "shapes"
        folder.mkdir(parents=True)
        (folder / "data").touch()
        assert bundled.bundled_folder("shapes", "data") == folder
