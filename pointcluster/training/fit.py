"""One call that trains, resumes and tests."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import lightning
from lightning.fabric.plugins.environments import TorchElasticEnvironment
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.warnings import PossibleUserWarning

from pointcluster.training.atomic_checkpoint_io import AtomicCheckpointIO
from pointcluster.training.callbacks import EpochTable, LastCheckpoint
from pointcluster.training.classifier import Classifier
from pointcluster.training.data_module import SeededDataModule
from pointcluster.training.run_folder import RunError, RunFolder

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]


def fit_and_test(
    classifier: Classifier,
    data: SeededDataModule,
    *,
    folder: str | Path,
    epochs: int,
    resume: bool = False,
    accelerator: str = "auto",
    devices: str | int = "auto",
    precision: Precision = "32-true",
    title: str = "",
    accumulate: int = 1,
    clip_grad: float = 0.0,
    limit_batches: int | None = None,
    val_every: int = 1,
    say: Callable[[str], None] | None = None,
    callbacks: tuple[lightning.Callback, ...] = (),
) -> dict[str, float]:
    """Train to the last epoch and test once, with the weights of that epoch.

    Leaves ``metrics.csv``, TensorBoard's events and ``checkpoints/last.ckpt`` in the folder.

    Args:
        classifier: What is trained.
        data: On what.
        folder: Where the run is written.
        epochs: How often every training item is seen.
        resume: Go on from the folder's last checkpoint, if it has one.
        accelerator: Lightning's, as are ``devices`` and ``precision``; several devices, or
            ``torchrun``, train with DistributedDataParallel.
        devices: Which or how many; under ``torchrun``, ``"auto"`` is as many as it started.
        precision: ``"32-true"``, ``"bf16-mixed"`` or ``"16-mixed"``.
        title: Stands before every printed line.
        accumulate: Steps whose gradients are added up before an update.
        clip_grad: Highest norm of all gradients together; 0 leaves them.
        limit_batches: Only so many batches of every split, to try a run.
        val_every: Epochs from one validation to the next; it changes nothing of the result.
        say: Prints a line.
        callbacks: More of Lightning's callbacks.

    Returns:
        Every measure of the test, such as ``test_accuracy`` and ``test_loss``.

    Raises:
        KeyboardInterrupt: Ctrl-C; the checkpoint of the last whole epoch is on disk.
        RunError: The checkpoint is damaged or of another network, Lightning refuses the
            accelerator, the devices or the precision, or a file of the data cannot be read.
    """
    run = RunFolder(folder)
    bar = sys.stdout.isatty()
    with quiet_lightning():
        trainer = make_trainer(
            accelerator,
            devices,
            precision,
            max_epochs=epochs,
            accumulate_grad_batches=accumulate,
            gradient_clip_val=clip_grad or None,
            default_root_dir=run.path,
            logger=TensorBoardLogger(run.path, name="", version="tensorboard"),
            callbacks=[
                EpochTable(run.metrics, title=title, say=say),
                LastCheckpoint(run.checkpoint),
                *([TQDMProgressBar(leave=False)] if bar else []),
                *callbacks,
            ],
            plugins=[AtomicCheckpointIO()],
            enable_progress_bar=bar,
            limit_train_batches=limit_batches,
            limit_val_batches=limit_batches if len(data.val) else 0,
            limit_test_batches=limit_batches,
            num_sanity_val_steps=0,
            check_val_every_n_epoch=val_every,
            log_every_n_steps=1,
        )
        keep_memory()
        data.check_shares(trainer.world_size)  # not after hours of training
        last = str(run.checkpoint) if resume and run.checkpoint.exists() else None
        with keyboard_interrupts(trainer), errors_of_workers():
            trainer.fit(classifier, datamodule=data, ckpt_path=last)
            (metrics,) = trainer.test(classifier, datamodule=data, verbose=False)
    return {name: float(value) for name, value in metrics.items()}


def evaluate(
    classifier: Classifier,
    data: SeededDataModule,
    *,
    accelerator: str = "auto",
    devices: str | int = "auto",
    precision: Precision = "32-true",
    limit_batches: int | None = None,
) -> dict[str, float]:
    """Test without training; arguments, result and errors are those of :func:`fit_and_test`."""
    bar = sys.stdout.isatty()
    with quiet_lightning():
        trainer = make_trainer(
            accelerator,
            devices,
            precision,
            logger=False,
            enable_checkpointing=False,
            callbacks=[TQDMProgressBar(leave=False)] if bar else [],
            enable_progress_bar=bar,
            limit_test_batches=limit_batches,
        )
        with keyboard_interrupts(trainer), errors_of_workers():
            (metrics,) = trainer.test(classifier, datamodule=data, verbose=False)
    return {name: float(value) for name, value in metrics.items()}


def make_trainer(
    accelerator: str, devices: str | int, precision: Precision, **options: Any
) -> lightning.Trainer:
    """Lightning's trainer on the machine as it is asked for, or as ``torchrun`` laid it out.

    Args:
        accelerator: Lightning's, as are ``devices`` and ``precision``.
        devices: Which or how many on each machine; under ``torchrun``, ``"auto"`` is as many as it
            started here.
        precision: Of the network's arithmetic.
        options: Of ``lightning.Trainer``.

    Raises:
        RunError: Lightning refuses one of the three, or would take another precision.
    """
    machines = 1
    if TorchElasticEnvironment.detect():
        here = int(os.environ["LOCAL_WORLD_SIZE"])
        machines = int(os.environ["WORLD_SIZE"]) // here
        devices = here if devices == "auto" else devices
    try:
        trainer = lightning.Trainer(
            accelerator=accelerator,
            devices=devices,
            num_nodes=machines,
            precision=precision,
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


def is_first_process() -> bool:
    """Whether this process is the one that prints and writes, under ``torchrun`` or alone."""
    return getattr(rank_zero_only, "rank", 0) == 0


def keep_memory() -> None:
    """Let the process keep large pieces of memory that a step frees, for the next one.

    The C library of most Linux systems gives pieces above 32 MB back at once, and the next step
    takes them anew, page by page: a third of a training step of large networks of clouds on a CPU.
    """
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL("libc.so.6")
        for option in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD):
            library.mallopt(option, ctypes.c_int(2**31 - 1))


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # as malloc.h has them


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keeps advertisements and advice that does not fit here off the screen."""
    wanted = {
        "lightning.pytorch": logging.WARNING,
        "lightning.fabric": logging.WARNING,
        "timm.scheduler": logging.ERROR,  # warns that one epoch alone has one learning rate
    }
    loggers = [logging.getLogger(name) for name in wanted]
    levels = [logger.level for logger in loggers]
    for logger, level in zip(loggers, wanted.values(), strict=True):
        logger.setLevel(level)
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


@contextmanager
def errors_of_workers() -> Iterator[None]:
    """Takes torch's copy of a worker's traceback off the message of a RunError."""
    try:
        yield
    except RunError as error:
        text = str(error).strip()
        if text.startswith("Caught RunError in DataLoader worker"):
            raise RunError(text.rpartition("RunError: ")[2]) from error
        raise


@contextmanager
def keyboard_interrupts(trainer: lightning.Trainer) -> Iterator[None]:
    """Turns Lightning's way of ending on Ctrl-C (``sys.exit(1)``) back into KeyboardInterrupt."""
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT) if main else None
    try:
        yield
    except SystemExit:
        if trainer.interrupted:
            raise KeyboardInterrupt from None
        raise
    finally:
        if main:  # Lightning leaves Ctrl-C ignored
            signal.signal(signal.SIGINT, handler)
