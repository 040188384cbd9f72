"""Several looks at each test cloud, averaged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import lightning
import torch
from torch import Tensor
from torch_geometric.data import Data
from torchmetrics import MetricCollection

from pointcluster.training.classifier import Classifier
from pointcluster.training.data_module import SeededDataModule, loader_of
from pointcluster.training.fit import Precision, errors_of_workers, make_trainer, quiet_lightning
from pointcluster.training.seeded_dataset import SeededDataset
from pointcluster.training.seeding import mix


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
    precision: Precision = "32-true",
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
        batch_size: Clouds a batch and process.
        num_workers: Processes that read and transform.
        seed: Of the views, which depend on it, the number of the view and the cloud alone.
        collate: Makes a batch of clouds, as in :class:`PointDataModule`.
        accelerator: Lightning's, as are ``devices`` and ``precision``.
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
    views = [
        SeededDataset(test, transform=transform, seed=mix(seed, view, 1)) for view in range(votes)
    ]
    data = _Views(views, batch_size=batch_size, num_workers=num_workers, seed=seed, collate=collate)
    with quiet_lightning():
        trainer = make_trainer(
            accelerator,
            devices,
            precision,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
        )
        with errors_of_workers():
            trainer.test(_Voter(classifier), datamodule=data, verbose=False)
        metrics = trainer.callback_metrics
    return {name: float(value) for name, value in metrics.items()}


class _Views(SeededDataModule):
    """One loader a view."""

    def __init__(self, views: list[SeededDataset], **options: Any) -> None:
        none = SeededDataset(views[0].dataset, items=[])
        super().__init__(none, none, views[0], loader=loader_of(options["collate"]), **options)
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
        number = len(classifier.classes)
        self.voted = MetricCollection({**classifier.accuracies(number)}, prefix="voted_")

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
        self.sums, self.labels = [], []
