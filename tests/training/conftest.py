"""A tiny data set and a tiny network, so that a run takes a second."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

CLASSES = ["ball", "stick", "plate"]


class TinyNetwork(nn.Module):
    """One layer with dropout, so that the random state matters."""

    def __init__(self, num_classes: int = 3, width: int = 16) -> None:
        super().__init__()
        self.config = {"name": "tiny", "num_classes": num_classes, "width": width}
        self.inner = nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Dropout(0.2))
        self.head = nn.Linear(width, num_classes)

    def forward(self, batch: Batch) -> Tensor:
        clouds = self.inner(batch.pos).split(batch.batch.bincount().tolist())
        return self.head(torch.stack([cloud.amax(dim=0) for cloud in clouds]))


def make_clouds(count: int, seed: int = 0) -> list[Data]:
    generator = torch.Generator().manual_seed(seed)
    shapes = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.05, 0.05], [1.0, 0.05, 1.0]])
    clouds = []
    for i in range(count):
        pos = torch.randn(24, 3, generator=generator) * shapes[i % 3]
        clouds.append(Data(pos=pos, normal=pos.clone(), y=torch.tensor([i % 3])))
    return clouds


@pytest.fixture
def tiny_network() -> type[TinyNetwork]:
    return TinyNetwork


@pytest.fixture
def clouds() -> list[Data]:
    return make_clouds(30)


@pytest.fixture
def classes() -> list[str]:
    return CLASSES


class TinyImageNetwork(nn.Module):
    """Pooling, one layer and dropout, so that the random state matters."""

    def __init__(self, num_classes: int = 3, width: int = 8) -> None:
        super().__init__()
        self.config = {"name": "tiny", "num_classes": num_classes, "width": width}
        self.inner = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.Dropout(0.1))
        self.head = nn.Linear(width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.inner(images).mean(dim=(2, 3)))


def make_pictures(count: int, seed: int = 0) -> list[tuple[Image.Image, int]]:
    """Noisy squares of 8 x 8, red, green or blue."""
    generator = torch.Generator().manual_seed(seed)
    pictures = []
    for i in range(count):
        pixels = torch.rand(8, 8, 3, generator=generator) * 150
        pixels[..., i % 3] += 100
        pictures.append((Image.fromarray(pixels.byte().numpy()), i % 3))
    return pictures


@pytest.fixture
def tiny_image_network() -> type[TinyImageNetwork]:
    return TinyImageNetwork


@pytest.fixture
def pictures() -> list[tuple[Image.Image, int]]:
    return make_pictures(30)
