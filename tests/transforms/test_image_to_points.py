from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from PIL import Image
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader

from pointcluster.transforms import ImageToPoints, images_to_points

SIZES = [(4, 3), (1, 1), (1, 5), (6, 1)]


def draw(*shape, dtype=torch.float32):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


def expected_pos(position, height, width):
    def place(i, size):
        if position == "pixel":
            return (i + 0.5) / size - 0.5
        return i / (size - 1) - 0.5 if size > 1 else 0.0

    return [
        [place(i, height), place(j, width)]
        for i, j in itertools.product(range(height), range(width))
    ]


@pytest.mark.parametrize("position", ["published", "pixel"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_pixel(position, size, dtype):
    image = draw(3, *size, dtype=dtype)
    data = ImageToPoints(position)(image)
    assert set(data.keys()) == {"x", "pos", "grid"}
    assert type(data.grid) is tuple and data.grid == size
    assert data.x.dtype == data.pos.dtype == dtype and data.x.is_contiguous()
    for i, j in itertools.product(*map(range, size)):
        assert torch.equal(data.x[i * size[1] + j], image[:, i, j])
    truth = torch.tensor(expected_pos(position, *size), dtype=dtype)
    assert torch.allclose(data.pos, truth, atol=1e-7)
    assert data.validate() and data.num_nodes == size[0] * size[1]


def test_the_published_formula():
    # As the published network computes it, there with the column first.
    height, width = 14, 9
    rows = torch.arange(height).view(-1, 1).expand(height, width) / (height - 1) - 0.5
    cols = torch.arange(width).view(1, -1).expand(height, width) / (width - 1) - 0.5
    pos = ImageToPoints()(draw(1, height, width)).pos
    assert torch.allclose(pos, torch.stack([rows, cols], dim=2).view(-1, 2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_pixels_apart(dtype):
    data = ImageToPoints()(torch.zeros(1, 5000, 2, dtype=dtype))
    assert data.x.dtype == dtype and data.pos.dtype == torch.float32
    assert data.pos.unique(dim=0).size(0) == 10_000


def test_data_keeps_what_else_it_has():
    image = draw(3, 2, 2)
    before = Data(image=image, y=torch.tensor([4]), name="cat")
    after = ImageToPoints()(before)
    assert after.y.tolist() == [4] and after.name == "cat" and "image" not in after
    assert torch.equal(before.image, image) and "x" not in before


def test_gradients_reach_the_image():
    for convert, shape in [(ImageToPoints(), (3, 2, 4)), (images_to_points, (2, 3, 2, 4))]:
        image = draw(*shape).requires_grad_()
        convert(image).x.square().sum().backward()
        assert torch.allclose(image.grad, 2 * image)


@pytest.mark.parametrize("position", ["published", "pixel"])
@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_batch_is_that_of_single_images(position, height, width, count, dtype):
    images = draw(count, 3, height, width).to(dtype)
    batch = images_to_points(images, position)
    truth = Batch.from_data_list([ImageToPoints(position)(image) for image in images])
    assert type(batch) is type(truth) and batch.keys() == truth.keys()
    for key in truth.keys():
        one, other = batch[key], truth[key]
        if isinstance(other, torch.Tensor):
            assert torch.equal(one, other) and one.dtype == other.dtype, key
        else:
            assert type(one) is type(other) and one == other, key
    assert batch.num_graphs == truth.num_graphs == batch.batch_size == count
    assert batch._slice_dict.keys() == truth._slice_dict.keys()
    for key, value in truth._slice_dict.items():
        assert torch.equal(batch._slice_dict[key], value), key
    for key, value in truth._inc_dict.items():
        own = batch._inc_dict[key]
        assert own is None if value is None else torch.equal(own, value), key


def test_batch_can_be_taken_apart_and_joined():
    images = draw(3, 2, 4, 5)
    batch = images_to_points(images)
    singles = [ImageToPoints()(image) for image in images]
    for one, other in zip(batch.to_data_list(), singles, strict=True):
        assert one.grid == other.grid == (4, 5) and type(one.grid) is tuple
        assert torch.equal(one.x, other.x) and torch.equal(one.pos, other.pos)
        assert one.keys() == other.keys()
    assert torch.equal(batch[2].x, singles[2].x) and batch[2].grid == (4, 5)
    assert [item.grid for item in batch.index_select([0, 2])] == [(4, 5)] * 2
    again = Batch.from_data_list(batch.to_data_list())
    assert torch.equal(again.x, batch.x) and again.grid == batch.grid
    assert batch.to("cpu").num_graphs == 3 and torch.equal(batch.clone()[1].x, singles[1].x)


def test_mixed_sizes_in_a_loader():
    items = [ImageToPoints()(draw(3, *size)) for size in SIZES]
    batch = next(iter(DataLoader(items, batch_size=len(items))))
    assert batch.grid == SIZES and batch.ptr.tolist() == [0, 12, 13, 18, 24]
    pairs = [(item, label) for label, item in enumerate(items)]
    points, labels = next(iter(DataLoader(pairs, batch_size=len(items))))
    assert points.grid == SIZES and labels.tolist() == [0, 1, 2, 3]


def test_after_torchvisions_transforms():
    transforms = pytest.importorskip("torchvision.transforms")
    picture = Image.fromarray(np.arange(24, dtype=np.uint8).reshape(2, 4, 3))
    data = transforms.Compose([transforms.ToTensor(), ImageToPoints("pixel")])(picture)
    assert data.grid == (2, 4) and torch.allclose(data.x[5] * 255, torch.tensor([15.0, 16, 17]))


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (torch.zeros(3, 2, 2, dtype=torch.uint8), TypeError, "found torch.uint8; torchvision's To"),
        (torch.zeros(3, 2, 2, dtype=torch.int64), TypeError, "found torch.int64"),
        (np.zeros((3, 2, 2)), TypeError, "found ndarray"),
        (Image.new("RGB", (2, 2)), TypeError, "found Image"),
        (torch.zeros(2, 2), ValueError, r"\[C, H, W\] with pixels, found \[2, 2\]"),
        (torch.zeros(1, 3, 2, 2), ValueError, r"found \[1, 3, 2, 2\]"),
        (torch.zeros(3, 0, 2), ValueError, r"found \[3, 0, 2\]"),
        (Data(x=torch.zeros(3, 2)), ValueError, r"no attribute 'image'; it has \['x'\]"),
        (Data(image=torch.zeros(2, 2)), ValueError, r"found \[2, 2\]"),
    ],
)
def test_refuses(image, error, message):
    with pytest.raises(error, match=message):
        ImageToPoints()(image)


def test_batch_refuses():
    with pytest.raises(TypeError, match=r"\[B, C, H, W\], found torch.uint8"):
        images_to_points(torch.zeros(1, 3, 2, 2, dtype=torch.uint8))
    for shape in [(3, 2, 2), (0, 3, 2, 2), (2, 3, 0, 2)]:
        with pytest.raises(ValueError, match="with pixels, found"):
            images_to_points(torch.zeros(shape))
    with pytest.raises(ValueError, match="position must be 'published' or 'pixel'"):
        images_to_points(torch.zeros(1, 3, 2, 2), "centre")
    with pytest.raises(ValueError, match="position must be 'published' or 'pixel'"):
        ImageToPoints("centre")


def test_says_what_it_is():
    assert repr(ImageToPoints("pixel")) == "ImageToPoints('pixel')"
