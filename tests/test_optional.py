from __future__ import annotations

import sys

import pytest

from pointcluster._optional import installed_by, needed_for


def test_names_the_package_and_the_command():
    message = "no_such_package is not installed: pip install 'pointcluster\\[image\\]'"
    with pytest.raises(ImportError, match=message), installed_by("image"):
        import no_such_package  # noqa: F401


def test_names_the_package_and_not_a_part_of_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)
    with (
        pytest.raises(ImportError, match="^plotly is not installed") as caught,
        installed_by("viz"),
    ):
        import plotly.graph_objects  # noqa: F401
    assert caught.value.name == "plotly"


def test_what_is_there_is_imported():
    with installed_by("image"):
        import timm
    assert timm.__version__


@pytest.mark.parametrize(
    ("install", "command"), [(None, "laspy"), ("'laspy[lazrs]'", "'laspy.laz")]
)
def test_names_what_it_is_needed_for(monkeypatch, install, command):
    monkeypatch.setitem(sys.modules, "laspy", None)
    message = f"^reading .las files needs laspy: pip install {command}"
    with pytest.raises(ImportError, match=message):
        with needed_for("reading .las files", "laspy", install):
            import laspy  # noqa: F401
