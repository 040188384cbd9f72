"""One call that trains, resumes and tests."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import lightning
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.warnings import PossibleUserWarning

from pointcluster.training.atomic_checkpoint_io import AtomicCheckpointIO
from pointcluster.training.callbacks import EpochTable, LastCheckpoint
from pointcluster.training.classifier import Classifier
from pointcluster.training.data_module import PointDataModule
from pointcluster.training.run_folder import RunError, RunFolder


def fit_and_test(
    classifier: Classifier,
    data: PointDataModule,
    *,
    folder: str | Path,
    epochs: int,
    resume: bool = False,
    accelerator: str = "auto",
    devices: str | int = "auto",
    precision: Literal["32-true", "bf16-mixed"] = "32-true",
    title: str = "",
    callbacks: tuple[lightning.Callback, ...] = (),
) -> dict[str, float]:
    """Train to the last epoch and test once, with the weights of that epoch.

    Leaves ``metrics.csv``, TensorBoard's events and ``checkpoints/last.ckpt`` in the folder.

    Args:
        classifier: What is trained.
        data: On what.
        folder: Where the run is written.
        epochs: How often every training cloud is seen.
        resume: Go on from the folder's last checkpoint, if it has one.
        accelerator: Lightning's, as are ``devices`` and ``precision``; several devices, or
            ``torchrun``, train with DistributedDataParallel.
        devices: Which or how many.
        precision: ``"32-true"`` or ``"bf16-mixed"``.
        title: Stands before every printed line.
        callbacks: More of Lightning's callbacks.

    Returns:
        ``test_accuracy``, ``test_mean_class_accuracy`` and ``test_loss``.

    Raises:
        KeyboardInterrupt: Ctrl-C; the checkpoint of the last whole epoch is on disk.
        RunError: The checkpoint is damaged or of another network, or Lightning refuses the
            accelerator, the devices or the precision.
    """
    run = RunFolder(folder)
    bar = sys.stdout.isatty()
    with quiet_lightning():
        try:
            trainer = lightning.Trainer(
                max_epochs=epochs,
                accelerator=accelerator,
                devices=devices,
                precision=precision,
                default_root_dir=run.path,
                logger=TensorBoardLogger(run.path, name="", version="tensorboard"),
                callbacks=[
                    EpochTable(run.metrics, title=title),
                    LastCheckpoint(run.checkpoint),
                    *([TQDMProgressBar(leave=False)] if bar else []),
                    *callbacks,
                ],
                plugins=[AtomicCheckpointIO()],
                enable_progress_bar=bar,
                enable_model_summary=False,
                use_distributed_sampler=False,  # the data module's samplers shard
                limit_val_batches=1.0 if len(data.val) else 0,
                num_sanity_val_steps=0,
                log_every_n_steps=1,
            )
        except (MisconfigurationException, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise RunError(
                f"accelerator {accelerator!r}, devices {devices!r}, precision {precision!r}: "
                f"{reason}"
            ) from error
        last = str(run.checkpoint) if resume and run.checkpoint.exists() else None
        with keyboard_interrupts(trainer):
            trainer.fit(classifier, datamodule=data, ckpt_path=last)
            (metrics,) = trainer.test(classifier, datamodule=data, verbose=False)
    return {name: float(value) for name, value in metrics.items()}


def is_first_process() -> bool:
    """Whether this process is the one that prints and writes, under ``torchrun`` or alone."""
    return getattr(rank_zero_only, "rank", 0) == 0


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
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


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
