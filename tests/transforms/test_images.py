from __future__ import annotations

import itertools
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader

from pointcluster.transforms import (
    ImageToPoints,
    MaskedBlock,
    RandomPixels,
    Superpixels,
    images_to_points,
)
from pointcluster.transforms.images import block_sides

# --- ImageToPoints -------------------------------------------------------------------------------


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


# --- RandomPixels --------------------------------------------------------------------------------


def picture(height=8, width=10, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return ImageToPoints()(torch.rand(3, height, width, generator=generator))


@pytest.mark.parametrize(
    ("share", "count"), [(1.0, 80), (0.5, 40), (0.25, 20), (0.1, 8), (0.001, 1)]
)
def test_keeps_a_share_in_order(share, count):
    whole = picture()
    whole.normal = torch.arange(80.0)
    whole.y = torch.tensor([3])
    part = RandomPixels(share, seed=0)(whole)
    index = part.normal.long()
    assert len(index) == count and (index.diff() > 0).all()
    assert torch.equal(part.x, whole.x[index]) and torch.equal(part.pos, whole.pos[index])
    assert part.extent == (8, 10) and type(part.extent) is tuple and "grid" not in part
    assert part.y.tolist() == [3]
    assert whole.grid == (8, 10) and whole.num_nodes == 80, "the input was changed"


def test_every_point_is_as_likely():
    torch.manual_seed(0)
    whole = Data(pos=torch.zeros(6, 2), x=torch.eye(6))
    counts = sum(RandomPixels(1 / 3)(whole).x.sum(0) for _ in range(1500))
    assert counts.sum() == 3000 and (counts / 500 - 1).abs().max() < 0.15


def test_seed_goes_with_the_picture_and_not_with_the_order():
    one, other = picture(seed=1), picture(seed=2)
    draw = RandomPixels(0.3, seed=7)
    torch.manual_seed(0)
    first, second = draw(one).pos, draw(other).pos
    state = torch.get_rng_state()
    assert torch.equal(draw(other).pos, second) and torch.equal(draw(one).pos, first)
    assert torch.equal(torch.get_rng_state(), state), "a seeded draw must not move the generator"
    assert not torch.equal(first, second)
    assert not torch.equal(RandomPixels(0.3, seed=8)(one).pos, first)
    free = RandomPixels(0.3)
    assert not torch.equal(free(one).pos, free(one).pos)
    torch.manual_seed(3)
    drawn = free(one).pos
    torch.manual_seed(3)
    assert torch.equal(free(one).pos, drawn)


def test_smallest_pictures_and_clouds_without_a_lattice():
    part = RandomPixels(0.1)(picture(1, 1))
    assert part.num_nodes == 1 and part.extent == (1, 1)
    cloud = RandomPixels(0.5, seed=-1)(Data(pos=torch.rand(9, 3)))
    assert cloud.num_nodes == 4 and "extent" not in cloud
    again = RandomPixels(0.5)(RandomPixels(0.5)(picture()))
    assert again.num_nodes == 20 and again.extent == (8, 10)


def test_mixed_sizes_in_a_batch():
    items = [RandomPixels(0.5)(picture(*size)) for size in [(1, 1), (2, 3), (4, 4)]]
    batch = next(iter(DataLoader(items, batch_size=3)))
    assert batch.extent == [(1, 1), (2, 3), (4, 4)] and batch.ptr.tolist() == [0, 1, 4, 12]
    assert [item.extent for item in batch.to_data_list()] == batch.extent


@pytest.mark.parametrize("share", [0, -0.1, 1.1, float("nan")])
def test_refuses_a_share(share):
    with pytest.raises(ValueError, match="expected above 0 and at most 1"):
        RandomPixels(share)


def test_refuses_what_has_no_points():
    with pytest.raises(ValueError, match="RandomPixels needs points with 'pos'"):
        RandomPixels(0.5)(Data(x=torch.zeros(3, 2)))
    with pytest.raises(ValueError, match="no point to keep: the point set is empty"):
        RandomPixels(0.5)(Data(pos=torch.zeros(0, 2)))


def test_says_what_it_is_of_random_pixels():
    assert repr(RandomPixels(0.5, seed=1)) == "RandomPixels(0.5, seed=1)"


def test_a_seed_works_for_one_channel():
    image = torch.rand(1, 6, 7)
    first, second = (RandomPixels(0.3, seed=1)(ImageToPoints()(image)) for _ in range(2))
    assert torch.equal(first.pos, second.pos)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.uint8])
def test_a_seed_works_for_every_kind_of_number(dtype):
    whole = picture()
    whole.x = (255 * whole.x).to(dtype)
    first, second = (RandomPixels(0.3, seed=1)(whole) for _ in range(2))
    assert first.x.dtype == dtype and torch.equal(first.pos, second.pos)


def test_a_seed_draws_what_it_always_drew():
    whole = Data(pos=torch.zeros(12, 2), x=torch.arange(12.0).view(12, 1))
    assert RandomPixels(0.25, seed=1)(whole).x.flatten().tolist() == [5, 9, 11]


@pytest.mark.parametrize("seed", [None, 1])
def test_refuses_a_batch(seed):
    batch = Batch.from_data_list([picture(), picture(4, 4)])
    with pytest.raises(ValueError, match="takes one picture or cloud, found a batch of them"):
        RandomPixels(0.5, seed=seed)(batch)
    assert batch.num_nodes == 96


# --- MaskedBlock ---------------------------------------------------------------------------------


def lattice(height, width, dtype=torch.float32):
    return ImageToPoints("pixel")(torch.rand(2, height, width, dtype=dtype))


@pytest.mark.parametrize("size", [(12, 12), (7, 10), (30, 4), (2, 1), (1, 9), (1, 1)])
@pytest.mark.parametrize("share", [1.0, 0.75, 0.5, 0.1])
def test_one_rectangle_is_missing(size, share):
    whole = lattice(*size)
    whole.index = torch.arange(size[0] * size[1])
    part = MaskedBlock(share)(whole)
    missing = torch.ones(size, dtype=torch.bool).flatten()
    missing[part.index] = False
    missing = missing.view(size)
    rows, cols = missing.any(1).nonzero().flatten(), missing.any(0).nonzero().flatten()
    if len(rows):
        top, bottom, left, right = rows[0], rows[-1] + 1, cols[0], cols[-1] + 1
        assert missing[top:bottom, left:right].all()
        assert missing.sum() == (bottom - top) * (right - left)
    assert (len(rows), len(cols)) == block_sides(*size, 1 - share)
    assert part.num_nodes >= 1 and (part.index.diff() > 0).all()
    assert torch.equal(part.x, whole.x[part.index])
    assert torch.equal(part.pos, whole.pos[part.index])
    assert part.extent == size and "grid" not in part and whole.grid == size


@given(st.integers(1, 60), st.integers(1, 60), st.floats(0, 1))
def test_sides(height, width, share):
    rows, cols = block_sides(height, width, share)
    assert 0 <= rows <= height and 0 <= cols <= width and rows * cols < height * width
    # No more off than rounding one side gives, or the pixel that has to stay.
    assert abs(rows * cols - share * height * width) <= max(height, width) / 2 + min(height, width)
    assert (rows, cols) == block_sides(width, height, share)[::-1] or height == width


def test_sides_of_a_usual_picture():
    assert block_sides(224, 224, 0.25) == (112, 112)
    assert block_sides(28, 28, 0.9) == (27, 26)
    assert block_sides(10, 40, 0.25) == (5, 20)
    assert block_sides(5, 5, 0.0) == (0, 0)


def test_places_vary_and_reach_the_borders():
    torch.manual_seed(0)
    block = MaskedBlock(0.75)
    kept = torch.zeros(16)
    for _ in range(200):
        whole = lattice(4, 4)
        whole.index = torch.arange(16)
        kept[block(whole).index] += 1
    assert kept.min() > 0 and kept.max() < 200


def test_seed_goes_with_the_picture():
    one, block = lattice(9, 9), MaskedBlock(0.5, seed=1)
    assert torch.equal(block(one).pos, block(one).pos)
    places = {tuple(block(lattice(9, 9)).pos.flatten().tolist()) for _ in range(10)}
    assert len(places) > 1


def test_refuses_of_masked_block():
    for share in (0, 1.5, float("nan")):
        with pytest.raises(ValueError, match="expected above 0 and at most 1"):
            MaskedBlock(share)
    with pytest.raises(ValueError, match="MaskedBlock needs a whole picture with 'grid'"):
        MaskedBlock(0.5)(RandomPixels(0.5)(lattice(4, 4)))
    with pytest.raises(ValueError, match="grid is 2 x 3, but there are 5 points"):
        MaskedBlock(0.5)(Data(pos=torch.zeros(5, 2), grid=(2, 3)))


def test_says_what_it_is_of_masked_block():
    assert repr(MaskedBlock(0.5)) == "MaskedBlock(0.5, seed=None)"


# --- Superpixels ---------------------------------------------------------------------------------


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


def test_refuses_of_superpixels(slic):
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


def test_says_what_it_is_of_superpixels():
    assert repr(Superpixels(9)) == "Superpixels(9, compactness=None)"
