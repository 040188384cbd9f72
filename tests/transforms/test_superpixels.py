from __future__ import annotations

import sys

import pytest
import torch
from torch_geometric.data import Batch, Data

from pointcluster.transforms import ImageToPoints, Superpixels


def quarters(channels=3, side=10):
    """A picture of four flat quarters, each of another colour."""
    colors = torch.rand(4, channels, generator=torch.Generator().manual_seed(0))
    image = colors.T.reshape(channels, 2, 2)
    return image.repeat_interleave(side, 1).repeat_interleave(side, 2), colors


@pytest.fixture
def slic():
    pytest.importorskip("skimage")


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_flat_quarters_become_four_points(slic, channels, dtype):
    image, colors = quarters(channels)
    whole = ImageToPoints("pixel")(image.to(dtype))
    part = Superpixels(4)(whole)
    assert part.x.shape == (4, channels) and part.x.dtype == part.pos.dtype == dtype
    order = (part.pos[:, 0] > 0).long() * 2 + (part.pos[:, 1] > 0).long()
    assert sorted(order.tolist()) == [0, 1, 2, 3]
    assert torch.allclose(part.x, colors[order].to(dtype), atol=1e-6)
    middles = torch.tensor([[-0.25, -0.25], [-0.25, 0.25], [0.25, -0.25], [0.25, 0.25]])
    assert torch.allclose(part.pos, middles[order].to(dtype), atol=1e-6)
    assert part.extent == (20, 20) and "grid" not in part and whole.grid == (20, 20)


def test_means_are_those_of_scikit_images_labels(slic):
    from skimage.segmentation import slic

    image = torch.rand(3, 20, 30, generator=torch.Generator().manual_seed(0)) * 4 - 2
    whole = ImageToPoints()(image)
    whole.y = torch.tensor([1])
    part = Superpixels(30, compactness=100)(whole)
    labels = slic(image.permute(1, 2, 0).double().numpy(), n_segments=30, compactness=100)
    numbers = sorted(set(labels.flatten().tolist()))
    assert part.num_nodes == len(numbers) > 10
    for row, number in enumerate(numbers):
        own = torch.from_numpy(labels == number).flatten()
        assert torch.allclose(part.x[row], whole.x[own].mean(0), atol=1e-6)
        assert torch.allclose(part.pos[row], whole.pos[own].mean(0), atol=1e-6)
    assert part.y.tolist() == [1]
    assert torch.equal(Superpixels(30, compactness=100)(whole).x, part.x)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (6, 1), (2, 2), (5000, 30)])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_size(slic, size, channels):
    image = torch.linspace(0, 1, size[0] * size[1]).view(1, *size).repeat(channels, 1, 1)
    part = Superpixels(50)(ImageToPoints()(image))
    assert 1 <= part.num_nodes <= min(200, size[0] * size[1])
    assert part.x.isfinite().all() and part.extent == size


def test_one_colour(slic):
    part = Superpixels(9)(ImageToPoints()(torch.full((3, 12, 12), 0.5)))
    assert 1 <= part.num_nodes <= 20 and torch.allclose(part.x, torch.tensor(0.5))


def test_into_a_batch(slic):
    items = [Superpixels(n)(ImageToPoints()(quarters()[0])) for n in (4, 16)]
    batch = Batch.from_data_list(items)
    assert batch.extent == [(20, 20)] * 2 and batch.num_graphs == 2


def test_refuses(slic):
    whole = ImageToPoints()(torch.rand(3, 4, 4))
    whole.y = torch.zeros(16, dtype=torch.long)
    with pytest.raises(TypeError, match="'y' has one torch.int64 a pixel, which has no mean"):
        Superpixels(4)(whole)
    with pytest.raises(ValueError, match="a colour that is not finite"):
        Superpixels(4)(ImageToPoints()(torch.full((3, 4, 4), float("nan"))))
    batch = Batch.from_data_list([ImageToPoints()(torch.rand(3, 4, 4))] * 2)
    with pytest.raises(ValueError, match="Superpixels takes one picture or cloud, found a batch"):
        Superpixels(4)(batch)
    with pytest.raises(ValueError, match="Superpixels needs a whole picture with 'grid'"):
        Superpixels(4)(Data(pos=torch.zeros(5, 2)))


def test_refuses_arguments():
    with pytest.raises(ValueError, match="num is 0, expected at least 1"):
        Superpixels(0)
    for num in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"num is {num}, expected at least 1"):
            Superpixels(num)
    with pytest.raises(ValueError, match="compactness is 0, expected above 0"):
        Superpixels(4, compactness=0)


def test_without_scikit_image(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.segmentation", None)
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(ImportError, match="pip install scikit-image"):
        Superpixels(4)(ImageToPoints()(torch.rand(3, 4, 4)))


def test_says_what_it_is():
    assert repr(Superpixels(9)) == "Superpixels(9, compactness=None)"
