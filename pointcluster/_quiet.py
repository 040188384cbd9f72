"""Imports PyTorch Geometric first, without the warnings that its own code gives meanwhile."""

import warnings

with warnings.catch_warnings():
    # Calls of its own that torch, or it itself, has called deprecated: nobody here can mend them.
    warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated")
    warnings.filterwarnings("ignore", "'torch-cluster' is no longer necessary")
    import torch_geometric  # noqa: F401
