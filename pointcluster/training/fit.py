"""One call that trains, resumes and tests; one that tests; one that lets several views vote."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torch_geometric.data import Batch, Data
from torchmetrics import MetricCollection

from pointcluster.training.callbacks import EpochTable, LastCheckpoint
from pointcluster.training.classifier import Classifier
from pointcluster.training.data import SeededDataModule, SeededDataset, mix
from pointcluster.training.run import RunFolder
from pointcluster.training.trainer import AtomicCheckpointIO, keep_memory, running_trainer

UNRECORDED: dict[str, Any] = {"logger": False, "enable_checkpointing": False}
"""What Lightning's trainer is told where a test alone is run."""


def fit_and_test(
    classifier: Classifier,
    data: SeededDataModule,
    *,
    folder: str | Path,
    resume: bool = False,
    accelerator: str = "auto",
    devices: str | int = "auto",
    precision: str = "32-true",
    title: str = "",
    limit_batches: int | None = None,
    val_every: int = 1,
    say: Callable[[str], None] | None = None,
    callbacks: Sequence[lightning.Callback] = (),
) -> dict[str, float]:
    """Train to the last epoch and test once, with the weights of that epoch.

    Leaves ``metrics.csv``, TensorBoard's events and ``checkpoints/last.ckpt`` in the folder.

    Args:
        classifier: What is trained, by its recipe.
        data: On what.
        folder: Where the run is written.
        resume: Go on from the folder's last checkpoint, if it has one.
        accelerator: Lightning's, as are ``devices`` and ``precision``; several devices, or
            ``torchrun``, train with DistributedDataParallel.
        devices: Which or how many; under ``torchrun``, ``"auto"`` is as many as it started.
        precision: ``"32-true"``, ``"bf16"`` (Lightning's ``"bf16-mixed"``) or ``"16-mixed"``.
        title: Stands before every printed line.
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
    run, recipe = RunFolder(folder), classifier.recipe
    table = EpochTable(run.metrics, title=title, say=say)
    with running_trainer(
        accelerator,
        devices,
        precision,
        max_epochs=recipe.epochs,
        accumulate_grad_batches=recipe.accumulate,
        gradient_clip_val=recipe.clip_grad or None,
        default_root_dir=run.path,
        logger=TensorBoardLogger(run.path, name="", version="tensorboard"),
        callbacks=[table, LastCheckpoint(run.checkpoint), *callbacks],
        plugins=[AtomicCheckpointIO()],
        limit_train_batches=limit_batches,
        limit_val_batches=limit_batches if len(data.val) else 0,
        limit_test_batches=limit_batches,
        num_sanity_val_steps=0,
        check_val_every_n_epoch=val_every,
        log_every_n_steps=1,
    ) as trainer:
        keep_memory()
        data.check_shares(trainer.world_size)  # not after hours of training
        last = run.checkpoint if resume and run.checkpoint.exists() else None
        trainer.fit(classifier, datamodule=data, ckpt_path=last)
        (metrics,) = trainer.test(classifier, datamodule=data, verbose=False)
    return {name: float(value) for name, value in metrics.items()}


def evaluate(
    classifier: Classifier,
    data: SeededDataModule,
    *,
    accelerator: str = "auto",
    devices: str | int = "auto",
    precision: str = "32-true",
    limit_batches: int | None = None,
) -> dict[str, float]:
    """Test without training; arguments, result and errors are those of :func:`fit_and_test`."""
    options = UNRECORDED | {"limit_test_batches": limit_batches}
    with running_trainer(accelerator, devices, precision, **options) as trainer:
        (metrics,) = trainer.test(classifier, datamodule=data, verbose=False)
    return {name: float(value) for name, value in metrics.items()}


def vote(
    classifier: Classifier,
    test: Sequence[Data],
    votes: int,
    *,
    transform: Callable[[Data], Data],
    batch_size: int = 32,
    num_workers: int = 0,
    seed: int = 0,
    collate: Callable[[list[Data]], Any] | None = None,
    accelerator: str = "auto",
    devices: str | int = "auto",
    precision: str = "32-true",
) -> dict[str, float]:
    r"""Test on the mean, over several views of a cloud, of the probabilities of the classes.

    .. math:: \hat y = \operatorname{argmax} \tfrac1N \sum_{v=1}^{N}
        \operatorname{softmax} f(t_v(x))

    A figure of its own: it costs N times as much as a test, and is not to be compared with figures
    without voting.

    Args:
        classifier: What was trained.
        test: Test clouds.
        votes: :math:`N`, views of each.
        transform: Draws a view, such as an augmentation.
        batch_size: As :class:`PointDataModule` takes it, as are ``num_workers`` and ``collate``.
        num_workers: Processes that read and transform.
        seed: Of the views, which depend on it, the number of the view and the cloud alone.
        collate: Makes a batch of clouds.
        accelerator: As :func:`fit_and_test` takes it, as are ``devices`` and ``precision``.
        devices: Which or how many.
        precision: Of the network's arithmetic.

    Returns:
        ``voted_accuracy`` and ``voted_mean_class_accuracy``.

    Raises:
        ValueError: ``votes`` is below 1.
        RunError: Lightning refuses the accelerator, the devices or the precision.
    """
    if votes < 1:
        raise ValueError(f"votes is {votes}, expected at least 1")
    data = _Views(
        [
            SeededDataset(test, transform=transform, seed=mix(seed, view, 1))
            for view in range(votes)
        ],
        batch_size=batch_size,
        num_workers=num_workers,
        seed=seed,
        collate=collate or Batch.from_data_list,
    )
    with running_trainer(accelerator, devices, precision, bar=False, **UNRECORDED) as trainer:
        trainer.test(_Voter(classifier), datamodule=data, verbose=False)
        return {name: float(value) for name, value in trainer.callback_metrics.items()}


class _Views(SeededDataModule):
    """One loader a view."""

    def __init__(self, views: list[SeededDataset], **options: Any) -> None:
        none = SeededDataset(views[0].dataset, items=[])
        super().__init__(none, none, views[0], **options)
        self.views = views

    def test_dataloader(self) -> Any:
        sampler = self._every_item_once(self.test)
        return [self._loader(view, sampler) for view in self.views]


class _Voter(lightning.LightningModule):
    """Adds up probabilities over loaders that give the same clouds in the same batches."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier
        self.sums: list[Tensor] = []
        self.labels: list[Tensor] = []
        measures = classifier.measures(len(classifier.classes))
        self.voted = MetricCollection({**measures}, prefix="voted_")

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        inputs, y = self.classifier.unpack(batch)
        share = self.classifier.evaluated()(inputs).float().softmax(dim=1)
        if dataloader_idx == 0:
            self.sums.append(share)
            self.labels.append(y)
        else:
            self.sums[batch_idx] += share

    def on_test_epoch_end(self) -> None:
        self.voted.update(torch.cat(self.sums), torch.cat(self.labels))
        self.log_dict(self.voted)
