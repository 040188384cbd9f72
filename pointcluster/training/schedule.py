"""Learning rate and weight decay."""

from __future__ import annotations

import math

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def cosine_with_warmup(
    optimizer: Optimizer, steps: int, warmup: int, *, low: float = 0.0
) -> LambdaLR:
    r"""A learning rate that rises in a line and falls as a cosine, step by step.

    .. math:: \eta_t / \eta = (t + 1) / w \ (t < w), \qquad
        l + \tfrac{1 - l}{2} \left(1 + \cos \pi \tfrac{t - w}{T - w}\right) \ (t \ge w)

    Args:
        optimizer: Holds the highest rate.
        steps: :math:`T`, steps in all.
        warmup: :math:`w`, steps to the highest rate.
        low: :math:`l`, the rate at the end as a part of the highest.
    """

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        progress = min(1.0, (step - warmup) / max(1, steps - warmup))
        return low + 0.5 * (1 - low) * (1 + math.cos(math.pi * progress))

    return LambdaLR(optimizer, factor)


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Parameter groups in which matrices decay; biases, scales and scalars do not."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
