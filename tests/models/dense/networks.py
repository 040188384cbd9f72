"""Small networks with random weights that let every branch count."""

from __future__ import annotations

import torch

from pointcluster.models import create_model

SMALL = {
    "channels": (8, 12, 16, 16),
    "depths": (1, 1, 1, 1),
    "heads": (2, 2, 2, 2),
    "head_channels": 4,
    "mlp_ratios": (2, 2, 2, 2),
    "layer_scale": None,
}


def shaken(model, dtype=torch.float64, by=0.1, seed=0):
    """A network whose weights are moved at random, in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    model = model.to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += by * torch.randn(parameter.shape, generator=generator).to(dtype)
    return model.eval()


def pyramid(**options):
    torch.manual_seed(0)
    return create_model("coc_tiny", features_only=True, **(SMALL | options))


def pictures(*sizes, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(3, *size, generator=generator).to(dtype) for size in sizes]


def padded(images):
    """A batch, with zeros below and on the right."""
    height, width = (max(image.size(axis) for image in images) for axis in (1, 2))
    batch = images[0].new_zeros(len(images), 3, height, width)
    for row, image in zip(batch, images, strict=True):
        row[:, : image.size(1), : image.size(2)] = image
    return batch
