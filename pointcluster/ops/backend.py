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

NAMES = ("auto", "reference", "torch", "cpu", "gpu")
VARIABLE = "POINTCLUSTER_BACKEND"
KERNELS = {"cpu": "cpu", "cuda": "gpu"}
"""Whose kernels take a device's tensors; all other devices' go to torch's operations."""
DTYPES = {"cpu": (torch.float32,), "gpu": (torch.float32, torch.bfloat16, torch.float16)}
"""What they take."""
GPU_NEEDS = (
    "they need Triton, and an NVIDIA GPU of compute capability 8.0 or newer that torch sees "
    "(torch.cuda.is_available())"
)
_chosen: list[str] = []
"""By :func:`use_backend`; the last one counts."""


def chosen() -> str:
    """What this process asked for: `"auto"`, or one backend for all operators.

    Raises:
        ValueError: The environment names a backend that there is not.
        RuntimeError: It names kernels that cannot be had here.
    """
    return _chosen[-1] if _chosen else _of_process()


@torch.compiler.assume_constant_result
def _of_process() -> str:
    return _read()


@functools.cache
def _read() -> str:
    return _checked(os.environ.get(VARIABLE) or "auto", VARIABLE)


def _checked(name: str, source: str) -> str:
    if name not in NAMES:
        raise ValueError(f"{source} must be one of {list(NAMES)}, found {name!r}")
    if name == "cpu" and not launch.cpu_kernels():
        raise RuntimeError(
            f"{source} asks for the CPU's kernels, which need Linux, a torch with MKL and Numba "
            "(pip install 'pointcluster[fast]')"
        )
    if name == "gpu" and not cards():
        raise RuntimeError(f"{source} asks for the GPU's kernels: {GPU_NEEDS}")
    return name


def cards() -> list[torch.device]:
    """The GPUs that kernels run on."""
    there = [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    return [card for card in there if launch.gpu_kernels(card)]


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Let all operators take one backend for a while, as `POINTCLUSTER_BACKEND` does for a process.

    `"reference"` and `"torch"` serve anything; `"cpu"` and `"gpu"` what their kernels are made for,
    and leave the rest to torch's operations; `"auto"` takes either.

    Raises:
        ValueError: There is no such backend.
        RuntimeError: It cannot be had here.
    """
    _chosen.append(_checked(name, "backend"))
    try:
        yield
    finally:
        _chosen.pop()


def backend_for(*tensors: Tensor | None) -> str:
    """The backend for an operator on these tensors: `"reference"`, `"torch"`, `"cpu"` or `"gpu"`.

    Kernels take plain dense tensors: float32 on the CPU, and float32, bfloat16 and float16 on an
    NVIDIA GPU, where Triton is there. Whatever must see plain operations gets them: exports,
    function transforms, subclasses of tensors, autocast on the CPU.
    """
    name = chosen()
    if name in ("reference", "torch"):
        return name
    if torch.jit.is_tracing() or torch.compiler.is_exporting():
        return "torch"
    there = [tensor for tensor in tensors if tensor is not None]
    backend = KERNELS.get(there[0].device.type, "torch") if there else "torch"
    if backend == "torch" or name not in ("auto", backend):
        return "torch"
    if backend == "cpu" and (torch.is_autocast_enabled("cpu") or not launch.cpu_kernels()):
        return "torch"
    if backend == "gpu" and not launch.gpu_kernels(there[0].device):
        return "torch"
    for tensor in there:
        if (
            tensor.device != there[0].device
            or tensor.dtype not in DTYPES[backend]
            or tensor.layout != torch.strided
            or tensor.numel() == 0
        ):
            return "torch"
    if not torch.compiler.is_compiling():  # which knows what its tensors are
        plain = (Tensor, torch.nn.Parameter, FakeTensor)
        if any(type(tensor) not in plain for tensor in there) or launch.transformed():
            return "torch"
    return backend


# Searches ----------------------------------------------------------------------------------------

SEARCHES = ("triton", "torch-cluster", "pyg-lib", "numba", "kdtree", "torch")
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
    if launch.gpu_kernels(device):
        return "triton"
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
        if name == "triton":
            why = GPU_NEEDS
        else:
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
    if name == "triton":
        return launch.gpu_kernels(torch.device("cuda"))
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
