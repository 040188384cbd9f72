"""Which backend an operator takes: one rule for all of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

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
