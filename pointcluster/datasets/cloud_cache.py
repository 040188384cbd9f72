"""Clouds that took long to read, kept for the next time."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pointcluster.files import replacing


def fingerprint(files: Iterable[Path], *settings: Any) -> str:
    """A digest that changes with the names, sizes and times of files, and with settings.

    Args:
        files: What was read, in its order.
        settings: What else decides the result.
    """
    sha256 = hashlib.sha256(repr(settings).encode())
    for file in files:
        state = file.stat()
        sha256.update(f"{file.name}\0{state.st_size}\0{state.st_mtime_ns}\n".encode())
    return sha256.hexdigest()


def cached(
    path: Path, key: str, make: Callable[[], dict[str, Tensor]], *, first: int | None = None
) -> dict[str, Tensor]:
    """Tensors from a file of an earlier run, if it has the same key; else made and kept there.

    The file is in safetensors' form, which holds no code, and is written beside the old one and
    renamed. A file that is damaged or has another key is made anew; where the folder cannot be
    written there is a warning, and the same answer.

    Args:
        path: The file.
        key: What the tensors were made from: :func:`fingerprint`.
        make: Makes them.
        first: Give only so many points of each cloud, of ``[n, points, ...]``.
    """
    try:
        with safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get("key") == key:
                return {name: _cut(file.get_slice(name), first) for name in file.keys()}
    except (OSError, SafetensorError):  # not there yet, or damaged
        pass
    tensors = make()
    try:
        with replacing(path) as temporary:
            save_file(tensors, temporary, metadata={"key": key})
    except (OSError, SafetensorError) as error:
        warnings.warn(
            f"{path} cannot be written, the files will be read again next time: {error}",
            stacklevel=2,
        )
    return {name: _cut(tensor, first) for name, tensor in tensors.items()}


def _cut(values: Any, first: int | None) -> Tensor:
    shape = values.get_shape() if hasattr(values, "get_shape") else values.shape
    if first is None or len(shape) < 2 or first >= shape[1]:
        return values if isinstance(values, Tensor) else values[:]
    return torch.as_tensor(values[:, :first]).clone()
