"""What all tests share: options for the compiled extensions, slow tests last, no network."""

from __future__ import annotations

import importlib
import importlib.util
import shutil
import signal
import socket

import pytest
import torch
import torch_geometric.typing
from hypothesis import settings

# The machines that run this share their cores: a slow example is no failure.
settings.register_profile("pointcluster", deadline=None)
settings.load_profile("pointcluster")
# A shell starts what runs in the background with Ctrl-C ignored; some tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Tensors here are small, and threads that wait for one another on a busy machine cost far more.
torch.set_num_threads(1)


EXTENSIONS = ("torch_cluster", "torch_scatter")


def loads(name):
    """Whether an extension is there and fits the torch that is there."""
    try:
        importlib.import_module(name)
    except (ImportError, OSError):
        return False
    return True


def pytest_addoption(parser):
    group = parser.getgroup("pointcluster")
    group.addoption(
        "--require-ext",
        action="store_true",
        help="stop unless the compiled extensions load and PyTorch Geometric uses them",
    )
    group.addoption(
        "--forbid-ext",
        action="store_true",
        help="stop if torch-cluster or torch-scatter is installed",
    )
    group.addoption(
        "--require-browser",
        action="store_true",
        help="stop unless the demo can be driven in Chromium, instead of skipping these tests",
    )


def browser_lacks():
    """What is missing for tests in a browser."""
    programs = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    modules = [
        name for name in ("gradio", "plotly", "selenium") if not importlib.util.find_spec(name)
    ]
    return programs + modules


def pytest_sessionstart(session):
    if session.config.getoption("require_browser") and (missing := browser_lacks()):
        raise pytest.UsageError(
            f"--require-browser: {', '.join(missing)} not found; on Debian: apt-get install "
            "chromium chromium-driver; and pip install 'pointcluster[app,test]'"
        )
    if session.config.getoption("require_ext"):
        missing = [name for name in EXTENSIONS if not loads(name)]
        if missing:
            raise pytest.UsageError(
                f"--require-ext: {', '.join(missing)} cannot be imported; `make ext` installs them"
            )
        if not torch_geometric.typing.WITH_TORCH_SCATTER:
            raise pytest.UsageError("--require-ext: PyTorch Geometric does not use torch-scatter")
    if session.config.getoption("forbid_ext"):
        present = [name for name in EXTENSIONS if importlib.util.find_spec(name)]
        if present:
            raise pytest.UsageError(
                f"--forbid-ext: {', '.join(present)} installed; `make no-ext` removes them"
            )


def pytest_report_header(config):
    loaded = [name for name in EXTENSIONS if loads(name)]
    return f"compiled extensions: {', '.join(loaded) or 'none'}"


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)


@pytest.fixture(scope="session")
def chromium():
    """The programs of the browser: Chromium and its driver."""
    if missing := browser_lacks():
        pytest.skip(f"not found: {', '.join(missing)}")
    return shutil.which("chromium"), shutil.which("chromedriver")


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Connections to other machines fail, so that no test depends on what is out there."""
    connect = socket.socket.connect

    def connect_nearby(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in {
            "localhost",
            "127.0.0.1",
            "::1",
        }:
            raise OSError(f"tests have no network: {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_nearby)
