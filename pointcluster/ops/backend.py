"""Which backend an operator takes, or a search: the rules for all of them."""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from pointcluster.ops import launch

NAMES = ("auto", "reference", "torch", "cpu")
VARIABLE = "POINTCLUSTER_BACKEND"
_chosen: list[str] = []
"""The last one counts; the first is the process's own."""


def chosen() -> str:
    """What this process asked for: `"auto"`, or one backend for all operators.

    Raises:
        ValueError: The environment names a backend that there is not.
        RuntimeError: It names the CPU's kernels, which cannot be had here.
    """
    if not _chosen:
        _chosen.append(_checked(os.environ.get(VARIABLE) or "auto", VARIABLE))
    return _chosen[-1]


def _checked(name: str, source: str) -> str:
    if name not in NAMES:
        raise ValueError(f"{source} must be one of {list(NAMES)}, found {name!r}")
    if name == "cpu" and not launch.cpu_kernels():
        raise RuntimeError(
            f"{source} asks for the CPU's kernels, which need Linux, a torch with MKL and Numba "
            "(pip install 'pointcluster[fast]')"
        )
    return name


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Let all operators take one backend for a while, as `POINTCLUSTER_BACKEND` does for a process.

    `"reference"` and `"torch"` serve anything; `"cpu"` what its kernels are made for (dense float32
    tensors on the CPU), as `"auto"` does.

    Raises:
        ValueError: There is no such backend.
        RuntimeError: It cannot be had here.
    """
    chosen()
    _chosen.append(_checked(name, "backend"))
    try:
        yield
    finally:
        _chosen.pop()


def backend_for(*tensors: Tensor | None) -> str:
    """The backend for an operator on these tensors: `"reference"`, `"torch"` or `"cpu"`.

    Kernels take plain dense float32 tensors on the CPU. Whatever must see plain operations gets
    them: exports, autocast, function transforms, subclasses of tensors.
    """
    name = chosen()
    if name in ("reference", "torch"):
        return name
    if (
        torch.jit.is_tracing()
        or torch.compiler.is_exporting()
        or torch.is_autocast_enabled("cpu")
        or not launch.cpu_kernels()
    ):
        return "torch"
    for tensor in tensors:
        if tensor is not None and (
            tensor.device.type != "cpu"
            or tensor.dtype != torch.float32
            or tensor.layout != torch.strided
            or tensor.numel() == 0
        ):
            return "torch"
    if not torch.compiler.is_compiling():  # which knows what its tensors are
        plain = (Tensor, torch.nn.Parameter, FakeTensor)
        if any(tensor is not None and type(tensor) not in plain for tensor in tensors):
            return "torch"
        if launch.transformed():
            return "torch"
    return "cpu"


# Searches ----------------------------------------------------------------------------------------

SEARCHES = ("torch-cluster", "pyg-lib", "numba", "kdtree", "torch")
"""Names that a search's `backend=` takes besides `"auto"` and `"reference"`."""


def search_backend(asked: str, device: torch.device, *, large: bool = False) -> str:
    """The backend for a search: the one asked for, the process's, or the fastest that is here.

    Args:
        asked: A search's `backend=`.
        device: Where the points are.
        large: Whether clouds are so large that trees beat comparing all pairs on a CPU.

    Raises:
        ValueError: There is no backend of that name.
        ModuleNotFoundError: It is not installed here.
    """
    if asked != "auto":
        return _search_here(asked)
    if chosen() in ("reference", "torch"):
        return chosen()
    if device.type == "cuda":
        return next((name for name in ("torch-cluster", "pyg-lib") if available(name)), "torch")
    if device.type != "cpu":
        return "torch"
    if large:
        return "kdtree"
    return "numba" if available("numba") else "torch"


def _search_here(name: str) -> str:
    if name not in ("reference", *SEARCHES):
        raise ValueError(f"backend must be 'auto' or one of {list(SEARCHES)}, found {name!r}")
    if name != "reference" and not available(name):
        why = pyg_lib()[1] if name == "pyg-lib" else extension(name.replace("-", "_"))[1]
        how = {
            "torch-cluster": "pip install --no-build-isolation torch-cluster",
            "numba": "pip install 'pointcluster[fast]'",
        }.get(name)
        raise ModuleNotFoundError(
            f"backend {name!r} cannot be used: {why}." + (f" To get it: {how}" if how else "")
        )
    return name


def available(name: str) -> bool:
    """Whether a backend of the searches can be used on this machine."""
    if name == "torch-cluster":
        return extension("torch_cluster")[0]
    if name == "pyg-lib":
        return pyg_lib()[0]
    return name != "numba" or extension("numba")[0]


@functools.cache
def installed(module: str) -> str | None:
    """The installed version of a module's package, or `None`; loads nothing."""
    if importlib.util.find_spec(module) is None:
        return None
    try:
        return metadata.version(module.replace("_", "-"))
    except metadata.PackageNotFoundError:
        return "unknown version"


@functools.cache
def extension(module: str) -> tuple[bool, str]:
    """Whether a compiled extension is installed *and loads*, and one line on it.

    A wheel built for another torch raises `OSError` when it loads, which must not take the
    library down with it.
    """
    version = installed(module)
    if version is None:
        return False, "not installed"
    try:
        importlib.import_module(module)
    except (ImportError, OSError, RuntimeError) as error:
        reason = (str(error) or repr(error)).splitlines()[0]
        return False, f"{version} is installed but does not load: {reason}"
    return True, version


@functools.cache
def pyg_lib() -> tuple[bool, str]:
    """Whether `pyg-lib` is there with the searches that PyG hands to it, and one line on it."""
    here, note = extension("pyg_lib")
    if not here:
        return False, note
    from torch_geometric import typing

    if not (getattr(typing, "WITH_KNN", False) and getattr(typing, "WITH_FPS", False)):
        return False, f"{note} has no knn and fps"
    return True, note
