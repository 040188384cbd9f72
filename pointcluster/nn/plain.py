"""Which layers may be worked out by their weights alone."""

from __future__ import annotations

from torch import nn


def is_plain(*layers: nn.Module) -> bool:
    """Whether layers are just their weights: torch's own linear maps, with no hooks on them.

    What wraps or watches a layer (adapters, quantisation, hooks) needs the layer to be called.
    """
    return all(
        type(layer) is nn.Linear
        and not (
            layer._forward_hooks
            or layer._forward_pre_hooks
            or layer._backward_hooks
            or layer._backward_pre_hooks
        )
        for layer in layers
    )
