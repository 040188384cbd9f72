"""Which code answers a neighbour search."""

from __future__ import annotations

import functools
import html
import importlib.util
from importlib import metadata
from typing import NamedTuple

from pointcluster.ops import launch
from pointcluster.ops.backend import VARIABLE, chosen

BACKENDS = ("torch-cluster", "pyg-lib", "numba", "kdtree", "torch")
"""Names that `backend=` takes besides `"auto"`, in the order of `backends()`."""


class Backend(NamedTuple):
    """What one backend is here, and what it serves unless told otherwise."""

    name: str
    available: bool
    serves: tuple[str, ...]
    reason: str


class Backends(tuple[Backend, ...]):
    """All backends; prints as a table."""

    def _rows(self) -> list[tuple[str, str, str, str]]:
        rows = [("backend", "here", "serves by itself", "why")]
        rows += [
            (b.name, "yes" if b.available else "no", ", ".join(b.serves) or "-", b.reason)
            for b in self
        ]
        return rows

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        names, *rows = [[html.escape(cell) for cell in row] for row in self._rows()]
        head = "".join(f"<th>{name}</th>" for name in names)
        body = "".join(f"<tr>{''.join(f'<td>{c}</td>' for c in row)}</tr>" for row in rows)
        return f"<table><tr>{head}</tr>{body}</table>"

    def __repr__(self) -> str:
        rows = self._rows()
        wide = [max(len(row[i]) for row in rows) for i in range(3)]
        return "\n".join(
            "  ".join([*(cell.ljust(w) for cell, w in zip(row, wide, strict=False)), row[3]])
            for row in rows
        )


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
    available, note = extension("pyg_lib")
    if not available:
        return False, note
    from torch_geometric import typing

    if not (getattr(typing, "WITH_KNN", False) and getattr(typing, "WITH_FPS", False)):
        return False, f"{note} has no knn and fps"
    return True, note


def available(backend: str) -> bool:
    """Whether a backend can be used on this machine."""
    if backend == "torch-cluster":
        return extension("torch_cluster")[0]
    if backend == "pyg-lib":
        return pyg_lib()[0]
    return backend != "numba" or extension("numba")[0]


def choose(backend: str, automatic: str) -> str:
    """The backend to use: the one asked for, or the `automatic` one.

    Raises:
        ValueError: There is no backend of that name.
        ModuleNotFoundError: It is not installed here.
    """
    if backend == "auto":
        return automatic
    if backend not in BACKENDS:
        raise ValueError(f"backend must be 'auto' or one of {list(BACKENDS)}, found {backend!r}")
    if not available(backend):
        why = pyg_lib()[1] if backend == "pyg-lib" else extension(backend.replace("-", "_"))[1]
        how = {
            "torch-cluster": "pip install --no-build-isolation torch-cluster",
            "numba": "pip install 'pointcluster[fast]'",
        }.get(backend)
        raise ModuleNotFoundError(
            f"backend {backend!r} cannot be used: {why}." + (f" To get it: {how}" if how else "")
        )
    return backend


def backends() -> Backends:
    """Report which backend serves which neighbour search and layer on this machine, and why.

    Every backend gives the same answer, ties included; they differ in speed and in what must be
    installed. `backend=` of each search overrides the choice; for layers `POINTCLUSTER_BACKEND`,
    one of `auto`, `reference`, `torch` and `cpu`, does for a process.
    """
    has_cluster, cluster = extension("torch_cluster")
    has_pyg, pyg = pyg_lib()
    has_numba, numba = extension("numba")
    has_fpsample, fpsample = extension("fpsample")
    anchors = f"fpsample {fpsample}" if has_fpsample else "NumPy (fpsample is not installed)"
    cpu = ("knn (CPU)", "fps (CPU)")
    small = tuple(f"{service[:-1]}, small clouds)" for service in cpu)
    large = tuple(f"{service[:-1]}, large clouds)" for service in cpu)
    gpu = "torch-cluster" if has_cluster else "pyg-lib" if has_pyg else None
    extra = ("knn (GPU)", "fps (GPU)")
    return Backends(
        (
            Backend(
                "torch-cluster",
                has_cluster,
                extra if gpu == "torch-cluster" else (),
                cluster + ("; on the CPU the KD-trees are faster" if has_cluster else ""),
            ),
            Backend(
                "pyg-lib",
                has_pyg,
                extra if gpu == "pyg-lib" else (),
                pyg + ("; second to torch-cluster" if has_pyg and has_cluster else ""),
            ),
            Backend(
                "numba",
                has_numba,
                cpu if has_numba else (),
                f"{numba}; loops compiled when they first run" if has_numba else numba,
            ),
            Backend(
                "kdtree",
                True,
                large if has_numba else cpu,
                f"scipy {installed('scipy')} for neighbours; {anchors} for anchors",
            ),
            Backend(
                "torch",
                True,
                (() if has_numba else small) + (() if gpu else extra),
                "plain tensors on any device; many small clouds in one go",
            ),
            Backend("kernels", *_kernels()),
        )
    )


def _kernels() -> tuple[bool, tuple[str, ...], str]:
    """Whether the operators' kernels for the CPU are here and serve, and why."""
    here, asked = launch.cpu_kernels(), chosen()
    serve = here and asked in ("auto", "cpu")
    why = (
        f"{VARIABLE} asks for {asked}" if here and not serve
        else "blocks of points through several layers at once; plain torch serves all else" if here
        else "they need Linux, a torch with MKL and Numba; plain torch serves"
    )  # fmt: skip
    return here, ("layers (CPU, float32)",) if serve else (), why
