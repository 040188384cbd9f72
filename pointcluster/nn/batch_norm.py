"""Batch normalisation of points."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointcluster.nn.hooks import is_plain, is_watched
from pointcluster.ops.precision import at_least_float32, no_autocast


# PyG's BatchNorm(allow_single_element=True) takes one point, too, but each process by itself, and
# torch's SyncBatchNorm runs on GPUs alone: two processes would not learn what one does.
class BatchNorm(nn.BatchNorm1d):
    r"""Batch normalisation of points, over all processes that train together.

    A batch of one single point, too, can be trained through: by the running statistics. Where
    torch.distributed runs several processes, mean and variance are those of all their points, as
    :class:`torch.nn.SyncBatchNorm`'s are, but on every device and by numbers of points that may
    differ. ("Batch Normalization", Ioffe and Szegedy, ICML 2015.)

    Args:
        num_features: Channels C.
        synchronise: Whether statistics are those of all processes.
        options: As for :class:`torch.nn.BatchNorm1d`.

    Shapes:
        - **x:** $(N, C)$ or $(B, C, \ldots)$
        - **output:** The same
    """

    def __init__(self, num_features: int, *, synchronise: bool = True, **options: Any) -> None:
        super().__init__(num_features, **options)
        self.synchronise = synchronise

    def _check_input_dim(self, x: Tensor) -> None:
        if x.dim() < 2:
            raise ValueError(f"expected points (N, C) or maps (B, C, ...), found {list(x.shape)}")

    def forward(self, x: Tensor) -> Tensor:
        """Normalise every channel."""
        self._check_input_dim(x)
        if self.training and self.synchronise and _processes() > 1:
            return self._over_processes(x)
        if self.training and x.numel() // max(1, x.size(1)) < 2:
            args = (self.running_mean, self.running_var, self.weight, self.bias)
            return F.batch_norm(x, *args, training=False, eps=self.eps)
        return super().forward(x)

    def _over_processes(self, x: Tensor) -> Tensor:
        """By the sums of all processes, in two passes, so that no digits are lost."""
        from torch.distributed.nn.functional import all_reduce

        axes, shape = [0, *range(2, x.dim())], [1, -1] + [1] * (x.dim() - 2)
        with no_autocast(x):
            wide = at_least_float32(x)
            number = wide.new_full((1,), float(x.numel() // x.size(1)))
            # (The loss is a mean of each process's own: sums go back to all of them.)
            first = all_reduce(torch.cat([wide.sum(dim=axes), number]))
            count = first[-1].detach()
            if float(count) < 2:
                args = (self.running_mean, self.running_var, self.weight, self.bias)
                return F.batch_norm(x, *args, training=False, eps=self.eps)
            mean = first[:-1] / count
            wide = wide - mean.view(shape)
            var = all_reduce(wide.square().sum(dim=axes)) / count
            self._track(mean.detach(), var.detach() * (count / (count - 1)))
            wide = wide * (var + self.eps).rsqrt().view(shape)
            if self.weight is not None:
                weight, bias = self.weight.to(wide.dtype), self.bias.to(wide.dtype)
                wide = torch.addcmul(bias.view(shape), wide, weight.view(shape))
            return wide.to(x.dtype)

    def _track(self, mean: Tensor, var: Tensor) -> None:
        """Take a batch's statistics into the running ones, as torch does."""
        if self.running_mean is None or self.running_var is None:
            return
        factor = self.momentum
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if factor is None:
                factor = 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean), factor or 0.0)
        self.running_var.lerp_(var.to(self.running_var), factor or 0.0)

    def extra_repr(self) -> str:
        return super().extra_repr() + ("" if self.synchronise else ", synchronise=False")


def _processes() -> int:
    """How many processes train together."""
    here = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if here else 1


@contextmanager
def statistics_kept(module: nn.Module) -> Iterator[None]:
    """Lets a module work out again what it did before, without counting the batch twice."""
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm1d)]
    known = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, number) in zip(norms, known, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, number


def normed_linear(x: Tensor, linear: Any, norm: Any) -> Tensor:
    """A linear map without bias and the normalisation of what it gives.

    By known statistics the two are one linear map, a pass over the points less.
    """
    if (
        is_plain(linear, bias=False)
        and type(norm) is BatchNorm
        and not (norm.training or norm.running_mean is None or is_watched(norm))
    ):
        known: Any = norm
        scale = known.weight * (known.running_var + known.eps).rsqrt()
        shift = known.bias - known.running_mean * scale
        return F.linear(x, linear.weight * scale[:, None], shift)
    y: Tensor = norm(linear(x))
    return y
