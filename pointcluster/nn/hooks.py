"""Whether layers are just their weights, which an operator may take, or must be called."""

from __future__ import annotations

import torch.nn.modules.module as module
from torch import nn

_HOOKS = (
    "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks",
)  # fmt: skip
_GLOBAL_HOOKS = (
    "_global_forward_hooks", "_global_forward_pre_hooks", "_global_backward_hooks",
    "_global_backward_pre_hooks",
)  # fmt: skip


def is_watched(*layers: nn.Module) -> bool:
    """Whether somebody hooked onto layers, or onto all layers, and waits for them to be called."""
    if any(getattr(module, name, None) for name in _GLOBAL_HOOKS):
        return True
    return any(getattr(layer, name) for layer in layers for name in _HOOKS)


def is_plain(*layers: nn.Module, bias: bool = True) -> bool:
    """Whether layers are just their weights: torch's own linear maps, with nothing put on them.

    What wraps, replaces or watches a layer (adapters, quantisation, pruning, parametrisations,
    hooks) needs the layer to be called.

    Args:
        layers: The layers.
        bias: Whether they should have one.
    """
    return not is_watched(*layers) and all(
        type(layer) is nn.Linear and (layer.bias is not None) == bias for layer in layers
    )


def is_plain_mlp(mlp: nn.Module) -> bool:
    """Whether an MLP is two plain linear maps with GELU between them and, now, no dropout."""
    if type(mlp) is not nn.Sequential or len(mlp) != 5:
        return False
    first, gelu, drop1, last, drop2 = mlp
    return (
        is_plain(first, last)
        and type(gelu) is nn.GELU
        and gelu.approximate == "none"
        and type(drop1) is type(drop2) is nn.Dropout
        and not (mlp.training and drop1.p + drop2.p > 0)
        and not is_watched(mlp, gelu, drop1, drop2)
    )
