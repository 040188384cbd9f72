"""The mean accuracy over classes."""

from __future__ import annotations

from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix


class MeanClassAccuracy(MulticlassConfusionMatrix):
    r"""The mean, over the classes that have items, of the share that is recognised.

    .. math:: \frac1{|K|} \sum_{k \in K} \frac{C_{kk}}{\sum_j C_{kj}}, \quad
        K = \{k : \sum_j C_{kj} > 0\}

    with :math:`C_{kj}` items of class :math:`k` taken for :math:`j`. Torchmetrics' macro average
    counts a class without items as 0 as soon as one item is taken for it.

    Args:
        num_classes: Number of classes.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)

    def compute(self) -> Tensor:
        counts = super().compute()  # [true, predicted]
        items = counts.sum(dim=1)
        return (counts.diag()[items > 0] / items[items > 0]).mean()
