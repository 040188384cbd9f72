"""Lightning's trainer as a run needs it: its checkpoints, its messages, and how it ends."""

from __future__ import annotations

import ctypes
import logging
import os
import pickle
import signal
import sys
import threading
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins.environments import TorchElasticEnvironment
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.warnings import PossibleUserWarning

from pointcluster.files import replacing
from pointcluster.training.arguments import PRECISIONS
from pointcluster.training.run import RunError


@contextmanager
def running_trainer(
    accelerator: str,
    devices: str | int,
    precision: str,
    *,
    bar: bool = True,
    callbacks: Sequence[lightning.Callback] = (),
    **options: Any,
) -> Iterator[lightning.Trainer]:
    """A trainer for the block, which ends with this library's errors and prints no advice.

    Ctrl-C, of which Lightning makes ``sys.exit(1)``, stays a KeyboardInterrupt, and a RunError in a
    loader's worker comes without torch's copy of the worker's traceback.

    Args:
        accelerator: As :func:`make_trainer` takes it, as are ``devices`` and ``precision``.
        devices: Which or how many.
        precision: Of the network's arithmetic.
        bar: Show progress, in a terminal.
        callbacks: Lightning's.
        options: Of ``lightning.Trainer``.
    """
    bar = bar and sys.stdout.isatty()
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT) if main else None
    with quiet_lightning():
        trainer = make_trainer(
            accelerator,
            devices,
            precision,
            enable_progress_bar=bar,
            callbacks=[*callbacks, *([TQDMProgressBar(leave=False)] if bar else [])],
            **options,
        )
        try:
            yield trainer
        except SystemExit:
            if trainer.interrupted:
                raise KeyboardInterrupt from None
            raise
        except RunError as error:
            text = str(error).strip()
            if text.startswith("Caught RunError in DataLoader worker"):
                raise RunError(text.rpartition("RunError: ")[2]) from error
            raise
        finally:
            if main:  # Lightning leaves Ctrl-C ignored
                signal.signal(signal.SIGINT, handler)


def make_trainer(
    accelerator: str, devices: str | int, precision: str, **options: Any
) -> lightning.Trainer:
    """Lightning's trainer on the machine as it is asked for, or as ``torchrun`` laid it out.

    Args:
        accelerator: Lightning's, as are ``devices`` and ``precision``.
        devices: Which or how many on each machine; under ``torchrun``, ``"auto"`` is as many as it
            started here.
        precision: Of the network's arithmetic: ``"32-true"``, ``"bf16"`` or ``"16-mixed"``.
        options: Of ``lightning.Trainer``.

    Raises:
        RunError: Lightning refuses one of the three, or would take another precision.
    """
    machines, precision = 1, PRECISIONS.get(precision, precision)
    if TorchElasticEnvironment.detect():
        here = int(os.environ["LOCAL_WORLD_SIZE"])
        machines = int(os.environ["WORLD_SIZE"]) // here
        devices = here if devices == "auto" else devices
    try:
        trainer = lightning.Trainer(
            accelerator=accelerator,
            devices=devices,
            num_nodes=machines,
            precision=precision,  # type: ignore[arg-type]
            enable_model_summary=False,
            use_distributed_sampler=False,  # the data module's samplers shard
            **options,
        )
    except (MisconfigurationException, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise RunError(
            f"accelerator {accelerator!r}, devices {devices!r}, precision {precision!r}: {reason}"
        ) from error
    if trainer.precision != precision:  # no float16 on a CPU
        raise RunError(
            f"precision {precision!r} needs a GPU: here it would be {trainer.precision!r}, which "
            "can be asked for by its name"
        )
    return trainer


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keeps advertisements and advice that does not fit here off the screen."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        # Clouds are small and in memory; on a few CPU cores workers take time from training.
        warnings.filterwarnings("ignore", ".*does not have many workers", PossibleUserWarning)
        # Lightning 2.6 makes a torch class that torch 2.13 deprecates.
        warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)
        # --accelerator cpu beside a GPU is a choice.
        warnings.filterwarnings("ignore", "GPU available but not used")
        # make_trainer() makes an error of it.
        warnings.filterwarnings("ignore", ".*fp16 is not supported on CPU")
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def keep_memory() -> None:
    """Let the process keep large pieces of memory that a step frees, for the next one.

    The C library of most Linux systems gives pieces above 32 MB back at once, and the next step
    takes them anew, page by page: a third of a training step of large networks of clouds on a CPU.
    """
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL("libc.so.6")
        for option in (-3, -1):  # M_MMAP_THRESHOLD and M_TRIM_THRESHOLD of malloc.h
            library.mallopt(option, ctypes.c_int(2**31 - 1))


DAMAGE = (
    RuntimeError, EOFError, OSError, KeyError, ValueError, NotImplementedError, zlib.error,
    pickle.UnpicklingError, zipfile.BadZipFile,
)  # fmt: skip
"""What torch raises when it reads a damaged file."""


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


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
