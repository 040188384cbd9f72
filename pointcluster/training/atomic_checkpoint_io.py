"""Checkpoints that are whole or not there, and that hold no code."""

from __future__ import annotations

import os
import pickle
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from pointcluster.files import replacing
from pointcluster.training.run_folder import RunError


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the old checkpoint and renames; reads with ``weights_only=True``.

    Lightning's own writes to the system's temporary folder, and moving a file from another disk is
    a copy that can be cut short.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        try:
            with replacing(path) as temporary:
                torch.save(checkpoint, temporary)
        except (OSError, RuntimeError) as error:  # torch's own writer raises the second
            full = f"is the disk full? torch says {_first_line(error)}"
            reason = getattr(error, "strerror", None) or full
            told = RunError(f"{path} cannot be written: {reason}; the last epoch is lost")
            told.in_one_process = True
            raise told from error

    def load_checkpoint(
        self,
        path: str | os.PathLike[str],
        map_location: Any = "cpu",
        weights_only: bool | None = True,
    ) -> dict[str, Any]:
        """Read a checkpoint.

        Raises:
            FileNotFoundError: There is none.
            RunError: It is damaged, or holds more than tensors and plain values.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"there is no checkpoint {path}")
        try:
            with zipfile.ZipFile(path) as file:  # torch does not compare its checksums
                if wrong := file.testzip():
                    raise zipfile.BadZipFile(f"bad CRC-32 for {wrong}")
            return torch.load(path, map_location=map_location, weights_only=True)
        except DAMAGE as error:
            reason = _first_line(error)
            raise RunError(f"{path} is damaged or is no training checkpoint: {reason}") from error


DAMAGE = (
    RuntimeError, EOFError, OSError, KeyError, ValueError, NotImplementedError, zlib.error,
    pickle.UnpicklingError, zipfile.BadZipFile,
)  # fmt: skip


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
