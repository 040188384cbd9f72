"""Which code answers on this machine, and why: a table to print."""

from __future__ import annotations

import html
from typing import NamedTuple

import torch

from pointcluster.ops import launch
from pointcluster.ops.backend import (
    GPU_NEEDS,
    VARIABLE,
    available,
    cards,
    chosen,
    extension,
    installed,
    pyg_lib,
    search_backend,
)


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


def backends() -> Backends:
    """Report which backend serves which neighbour search and layer on this machine, and why.

    Every backend gives the same answer, ties included; they differ in speed and in what must be
    installed. `backend=` of each search overrides the choice; for searches and layers alike
    `POINTCLUSTER_BACKEND`, one of `auto`, `reference`, `torch`, `cpu` and `gpu`, does for a
    process.
    """
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    small, on_gpu = search_backend("auto", cpu), search_backend("auto", gpu)
    large = search_backend("auto", cpu, large=True)
    services = [
        ("knn (CPU)", small), ("fps (CPU)", small), ("knn (CPU, large clouds)", large),
        ("knn (GPU)", on_gpu), ("fps (GPU)", on_gpu),
    ]  # fmt: skip
    if small == large:
        del services[2]
    reasons = {
        "triton": _triton(),
        "torch-cluster": extension("torch_cluster")[1],
        "pyg-lib": pyg_lib()[1],
        "numba": extension("numba")[1],
        "kdtree": f"scipy {installed('scipy')}; fewer points to look at",
        "torch": "plain tensors on any device; many small clouds in one go",
    }
    if available("torch-cluster"):
        reasons["torch-cluster"] += "; on the CPU others are faster"
        if available("pyg-lib"):
            reasons["pyg-lib"] += "; second to torch-cluster"
    if available("numba"):
        reasons["numba"] += "; loops compiled when they first run"
    if (asked := chosen()) != "auto":
        reasons["torch"] += f"; {VARIABLE} asks for {asked}"
    rows = []
    for name, reason in reasons.items():
        # The reference is plain torch, too, and has no row of its own.
        served = [s for s, by in services if by == name or (by, name) == ("reference", "torch")]
        rows.append(Backend(name, available(name), tuple(served), reason))
    return Backends([*rows, Backend("kernels", *_kernels()), Backend("GPU kernels", *_on_gpu())])


def _kernels() -> tuple[bool, tuple[str, ...], str]:
    """Whether the operators' kernels for the CPU are here and serve, and why."""
    here, asked = launch.cpu_kernels(), chosen()
    serve = here and asked in ("auto", "cpu")
    if here and not serve:
        why = f"{VARIABLE} asks for {asked}"
    elif here:
        why = "blocks of points through several layers at once; plain torch serves all else"
    else:
        why = "they need Linux, a torch with MKL and Numba; plain torch serves"
    return here, ("layers (CPU, float32)",) if serve else (), why


def _triton() -> str:
    """What there is of Triton, and what it lacks."""
    version = installed("triton")
    if version is None:
        return "not installed; torch's builds for GPUs bring it"
    needs = "NVIDIA GPUs of compute capability 8.0 or newer, none of which torch sees here"
    return version if cards() else f"{version}; for {needs}"


def _on_gpu() -> tuple[bool, tuple[str, ...], str]:
    """Whether the operators' kernels for a GPU are here and serve, and why."""
    here, asked = bool(cards()), chosen()
    serve = here and asked in ("auto", "gpu")
    if here and not serve:
        why = f"{VARIABLE} asks for {asked}"
    elif here:
        why = "what an operator needs in few passes; plain torch serves float64 and other devices"
    else:
        why = f"{GPU_NEEDS}; plain torch serves"
    return here, ("layers (GPU, float32, bfloat16, float16)",) if serve else (), why
