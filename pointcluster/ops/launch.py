"""How compiled kernels are called: their arguments, said once, and the threads that torch brings.

This is the one file that relies on what torch does not promise:

- `GOMP_parallel` and `sgemm_` in `libtorch_cpu.so` (Linux, builds with MKL): the team of threads
  that torch's own operations use, and its product of float32 matrices. The product is tried once,
  on numbers of ours, before it is trusted. Where either is missing, :func:`cpu_kernels` is false.
- `torch._C._functorch.peek_interpreter_stack` and `torch.autograd.forward_ad._current_level`:
  whether a function transform is at work (:func:`transformed`), which must see plain operations.
  Where they are missing, kernels are not used at all.
- What unwraps a transform's tensors, and `temporarily_clear_interpreter_stack`: searches are made
  outside of transforms (:func:`outside_transforms`). Where they are missing, a search under a
  transform is torch's error.
- `torch._assert_async`: what a device finds wrong is said by it (:func:`stop_unless`).
"""

from __future__ import annotations

import ctypes
import functools
import platform
from collections.abc import Callable, Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

Call = TypeVar("Call", bound=Callable[..., Any])
DTYPES = {"float32": torch.float32, "int64": torch.int64, "int32": torch.int32}
SIZES = {"float32": 4, "int64": 8, "int32": 4}
LINE = 64
"""Bytes of a line of a cache: what threads write begins one."""


class Torch(NamedTuple):
    """What torch's libraries hold, and Python does not show."""

    team: Any
    """Calls a function in all threads of a team."""
    gemm: int
    """Address of BLAS's product of float32 matrices."""


@torch.compiler.assume_constant_result
def cpu_kernels() -> bool:
    """Whether kernels for the CPU can be had here."""
    return _torch() is not None


def gpu_kernels(device: torch.device) -> bool:
    """Whether Triton's kernels run on a device: NVIDIA's from compute capability 8.0 on.

    A fake tensor may say that it is on such a device where there is none.
    """
    return device.type == "cuda" and _triton_serves(device.index or 0)


@torch.compiler.assume_constant_result
def _triton_serves(index: int) -> bool:
    return _has_triton() and _is_new(index)


@cache
def _has_triton() -> bool:
    from importlib.util import find_spec

    return torch.version.hip is None and find_spec("triton") is not None


@cache
def _is_new(index: int) -> bool:
    here = torch.cuda.is_available()
    return not here or torch.cuda.get_device_capability(index) >= (8, 0)


def stop_unless(true: Tensor, text: str) -> None:
    """Stop where a value is false, without waiting for the device that knows it; compilers keep it
    as an operation. On a CPU that is a `RuntimeError` at once."""
    torch._assert_async(true, text)


def power_of_two(number: int, least: int = 1) -> int:
    """The lowest power of two that is no smaller."""
    return max(least, 1 << max(0, number - 1).bit_length())


@cache
def _torch() -> Torch | None:
    from importlib.util import find_spec

    if platform.system() != "Linux" or not torch.backends.mkl.is_available():
        return None
    try:
        if find_spec("numba") is None:
            return None
        import numba  # noqa: F401 - a wheel may be there and not load
    except (ImportError, OSError, RuntimeError, ValueError):
        return None
    try:
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        team, gemm = library.GOMP_parallel, library.sgemm_
        transformed()
    except (OSError, AttributeError):
        return None
    team.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    team.restype = None
    address = ctypes.cast(gemm, ctypes.c_void_p).value
    return Torch(team, address) if address is not None and multiplies(gemm) else None


def multiplies(gemm: Any) -> bool:
    """Whether a function is the product that kernels take it for: asked once, of one product.

    Args:
        gemm: `sgemm` of some BLAS, with Fortran's convention.
    """
    a = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
    b = np.array([[1, 0.5], [-2, 4], [0.25, 8]], np.float32)
    c = np.full((2, 2), 7, np.float32)
    expected = a @ b + 2 * c
    # Row by row, as C has it, is column by column of the transposed matrices.
    longs, floats = [ctypes.c_int64(n) for n in (2, 2, 3, 2, 3, 2)], [ctypes.c_float(1)] * 2
    floats[1] = ctypes.c_float(2)
    (m, n, k, ldb, lda, ldc), (one, two) = map(ctypes.byref, longs), map(ctypes.byref, floats)
    flag = ctypes.create_string_buffer(b"N")
    at = [ctypes.c_void_p(matrix.ctypes.data) for matrix in (a, b, c)]
    gemm.restype = None
    gemm(flag, flag, m, n, k, one, at[1], ldb, at[0], lda, two, at[2], ldc)
    return bool((c == expected).all())


def transformed() -> bool:
    """Whether a function transform (`torch.func`, forward-mode AD) is at work."""
    return (
        torch._C._functorch.peek_interpreter_stack() is not None
        or torch.autograd.forward_ad._current_level >= 0
    )


def outside_transforms(function: Call) -> Call:
    """Let a function of positions, which has no gradients, work on plain values.

    Searches read memory, which tensors that a transform wraps have not. What they find is as
    constant to every transform as it is to autograd.
    """

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            if torch.compiler.is_compiling() or not transformed():
                return function(*args, **kwargs)
            from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
        except (ImportError, AttributeError):
            return function(*args, **kwargs)
        args, kwargs = tree_map_only(Tensor, _value, (args, kwargs))
        with temporarily_clear_interpreter_stack():
            return function(*args, **kwargs)

    wrapped: Any = call
    return wrapped


def _value(tensor: Tensor) -> Tensor:
    functorch = torch._C._functorch
    while functorch.is_functorch_wrapped_tensor(tensor):
        if functorch.is_batchedtensor(tensor):
            raise ValueError(
                "positions cannot be mapped over by vmap: give them as clouds of one batch, or map "
                "over features, with a geometry that was worked out before"
            )
        tensor = functorch.get_unwrapped(tensor)
    if torch.autograd.forward_ad._current_level >= 0:
        tensor = torch.autograd.forward_ad.unpack_dual(tensor).primal
    return tensor.detach()


class Field(NamedTuple):
    """One array of a kernel."""

    dtype: str
    shape: tuple[str, ...]
    """Products of sizes and numbers, such as `2*width`."""
    optional: bool

    @classmethod
    def parse(cls, text: str) -> Field:
        """From `"float32 points channels"`; a leading `?`: it may be left out."""
        dtype, *shape = text.lstrip("? ").split()
        return cls(dtype, tuple(shape), text.startswith("?"))

    def at(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """Its shape, given all sizes."""
        shape = []
        for axis in self.shape:
            count = 1
            for factor in axis.split("*"):
                count *= int(factor) if factor.isdigit() else sizes[factor]
            shape.append(count)
        return tuple(shape)

    def room(self, sizes: Mapping[str, int]) -> int:
        """Bytes, in whole lines of a cache."""
        count = SIZES[self.dtype]
        for size in self.at(sizes):
            count *= size
        return -(-count // LINE) * LINE


class Table:
    """A kernel's arguments, said once: both the side that calls and the side that is compiled are
    made of it.

    Args:
        sizes: Names of the sizes, all of them whole numbers.
        arrays: Name, dtype and shape of what is read and written.
        scratch: The same of what each thread has to itself.
    """

    def __init__(self, sizes: str, arrays: dict[str, str], scratch: dict[str, str]) -> None:
        self.sizes = sizes.split()
        self.arrays = {name: Field.parse(text) for name, text in arrays.items()}
        self.scratch = {name: Field.parse(text) for name, text in scratch.items()}
        # Addresses and sizes alike: whole numbers of 64 bits.
        self.names = ["gemm", "counter", "places", "memory", "room", *self.sizes, *self.arrays]
        self.record = np.dtype([(name, np.int64) for name in self.names])

    def fill(
        self, sizes: Mapping[str, int], tensors: Mapping[str, Tensor | None], threads: int
    ) -> tuple[np.ndarray, list[Any]]:
        """The arguments of one call, and what must be kept alive while it runs.

        Raises:
            ValueError: A tensor is not what the table says.
        """
        record = np.zeros(1, self.record)
        for name in self.sizes:
            record[name] = sizes[name]
        for name, field in self.arrays.items():
            tensor = tensors[name]
            if tensor is None and field.optional:
                continue
            shape = field.at(sizes)
            if (
                tensor is None
                or tensor.dtype != DTYPES[field.dtype]
                or tuple(tensor.shape) != shape
                or not tensor.is_contiguous()
                or tensor.device.type != "cpu"
            ):
                about = tensor if tensor is None else f"{tensor.dtype} {list(tensor.shape)}"
                raise ValueError(
                    f"{name} must be dense {field.dtype} {list(shape)} on the CPU, found {about}"
                )
            record[name] = tensor.data_ptr()
        room = sum(field.room(sizes) for field in self.scratch.values())
        memory = np.empty(threads * room + LINE, np.uint8)
        counters = np.zeros(2 * LINE, np.uint8)  # on a line each: all threads count them up
        record["memory"] = -(-memory.ctypes.data // LINE) * LINE
        record["room"] = room
        record["counter"], record["places"] = counters.ctypes.data, counters.ctypes.data + LINE
        return record, [memory, counters]

    @cached_property
    def opened(self) -> Any:
        """A function for compiled code: from a record to all arrays, by their names.

        Each call takes the scratch of another thread. An array that was left out is empty.
        """
        from pointcluster.ops import loops

        lines = [
            "def opened(a):",
            "    here = a.memory + a.room * count_up(a.places)",
        ]
        for name, field in self.arrays.items():
            shape = [_expression(axis) for axis in field.shape]
            if field.optional:
                shape[0] = f"({shape[0]} if a.{name} else 0)"
            lines.append(f"    {name} = carray({field.dtype}(a.{name}), ({', '.join(shape)},))")
        for name, field in self.scratch.items():
            shape = [_expression(axis) for axis in field.shape]
            lines.append(f"    {name} = carray({field.dtype}(here), ({', '.join(shape)},))")
            size = " * ".join(map(str, (SIZES[field.dtype], *shape)))
            lines.append(f"    here += ({size} + {LINE - 1}) // {LINE} * {LINE}")
        names = [*self.arrays, *self.scratch]
        lines.append(f"    return Arrays({', '.join(names)})")
        space: dict[str, Any] = {
            "Arrays": NamedTuple("Arrays", [(name, Any) for name in names]),
            "carray": loops.carray, "count_up": loops.count_up,
            "float32": loops.float32_at, "int64": loops.int64_at, "int32": loops.int32_at,
        }  # fmt: skip
        exec("\n".join(lines), space)
        return loops.inlined(loops.EXACT)(space["opened"])


def _expression(axis: str) -> str:
    return "*".join(part if part.isdigit() else f"a.{part}" for part in axis.split("*"))


class Kernel:
    """A function of a table's record, compiled when it is first wanted, run by a team of threads.

    Args:
        table: Its arguments.
        function: Takes a pointer to the record; all threads of the team run it.
    """

    def __init__(self, table: Table, function: Any) -> None:
        self.table, self.function = table, function

    @cached_property
    def _compiled(self) -> Any:
        from pointcluster.ops import loops

        return loops.compiled(self.table.record, self.function)

    def __call__(self, sizes: Mapping[str, int], **tensors: Tensor | None) -> None:
        """Run it in as many threads as torch uses.

        Raises:
            ValueError: A tensor is not what the table says.
        """
        torchs, threads = _torch(), torch.get_num_threads()
        if torchs is None:
            raise RuntimeError("kernels for the CPU need Linux, Numba and a torch with MKL")
        record, alive = self.table.fill(sizes, tensors, threads)
        record["gemm"] = torchs.gemm
        torchs.team(self._compiled.address, record.ctypes.data, threads, 0)
        del alive
