"""Pictures as point sets, whole or in part."""

from __future__ import annotations

import copy
import math
import zlib

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data
from torch_geometric.transforms import BaseTransform

from pointcluster._optional import needed_for
from pointcluster.geometry.lattice import lattice_positions
from pointcluster.transforms.clouds import by_point, cut_points


class ImageToPoints(BaseTransform):
    r"""Takes an image as the set of its pixels, as in `"Image as Set of Points"
    <https://arxiv.org/abs/2303.01494>`_.

    Pixel :math:`(i, j)` becomes point :math:`i W + j`, with its colour as feature and the position

    .. math:: \left(\frac{i}{H - 1} - \frac12, \frac{j}{W - 1} - \frac12\right) \quad\text{or}\quad
        \left(\frac{i + 1/2}{H} - \frac12, \frac{j + 1/2}{W} - \frac12\right).

    The first is that of the published networks; where an axis has one pixel, which would divide 0
    by 0, it is 0. The second is the pixel's centre.

    Args:
        position: ``"published"`` or ``"pixel"``.

    Shapes and units:
        A floating tensor ``[C, H, W]``, or ``Data(image [C, H, W])`` whose other attributes stay,
        becomes ``Data(x [H * W, C], pos [H * W, 2], grid (H, W))``. ``x`` has the image's dtype;
        ``pos`` is float64 for a float64 image and float32 for all others, as half precision cannot
        tell a large picture's pixels apart.

    Raises:
        TypeError: The image is no floating tensor, such as uint8, whose range is not 0 to 1.
        ValueError: It has another shape or no pixels, or there is no such ``position``.
    """

    def __init__(self, position: str = "published") -> None:
        lattice_positions((1, 1), position)  # is there such a convention?
        self.position = position

    def __call__(self, image: Tensor | Data) -> Data:
        # A copy of a tensor would lose its gradient; nothing is written into it.
        return self.forward(image if isinstance(image, Tensor) else copy.copy(image))

    def forward(self, data: Tensor | Data) -> Data:
        if isinstance(data, Data):
            if "image" not in data:
                raise ValueError(f"the data has no attribute 'image'; it has {data.keys()}")
            image = data.image
            del data.image
        else:
            image, data = data, Data()
        _check(image, 3, "[C, H, W]")
        grid = (image.size(1), image.size(2))
        data.x = image.flatten(1).T.contiguous()
        data.pos = _positions(grid, self.position, image)
        data.grid = grid
        return data

    def __repr__(self) -> str:
        return f"ImageToPoints({self.position!r})"


def images_to_points(images: Tensor, position: str = "published") -> Batch:
    r"""Take images of one size as a batch of point sets, all at once.

    The answer is that of ``Batch.from_data_list`` on the single images' point sets (see
    :class:`ImageToPoints`), without a loop over images or pixels.

    Args:
        images: The images.
        position: ``"published"`` or ``"pixel"``.

    Shapes:
        - **images:** :math:`(B, C, H, W)`, floating
        - **output:** ``Batch(x [B * H * W, C], pos [B * H * W, 2], grid [(H, W)] * B)``

    Raises:
        TypeError: The images are no floating tensor.
        ValueError: They have another shape or no pixels, or there is no such ``position``.
    """
    _check(images, 4, "[B, C, H, W]")
    count, _, height, width = images.shape
    size = height * width
    number = torch.arange(count + 1)
    ptr = number * size
    batch = Batch(
        _base_cls=Data,
        x=images.permute(0, 2, 3, 1).flatten(0, 2).contiguous(),
        pos=_positions((height, width), position, images).repeat(count, 1),
        grid=[(height, width)] * count,
        batch=torch.arange(count, device=images.device).repeat_interleave(size),
        ptr=ptr.to(images.device),
    )
    # What from_data_list notes, so that the batch can be taken apart again.
    none = torch.zeros(count, dtype=torch.long)
    batch._num_graphs = count
    batch._slice_dict = {"x": ptr, "pos": ptr.clone(), "grid": number}
    batch._inc_dict = {"x": none, "pos": none.clone(), "grid": None}
    return batch


class _Share(BaseTransform):
    """Keeps a share of a picture's points."""

    def __init__(self, share: float, *, seed: int | None = None) -> None:
        if not 0 < share <= 1:
            raise ValueError(f"share is {share}, expected above 0 and at most 1")
        self.share, self.seed = share, seed

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.share}, seed={self.seed})"


class RandomPixels(_Share):
    """Keeps a random share of the points, in their order, each as likely as any other.

    ``torch_geometric.transforms.FixedPoints`` keeps a number instead of a share and mixes the
    order.

    Args:
        share: Part of the points that is kept, rounded to whole points and to at least one.
        seed: ``None`` draws from PyTorch's generator, another subset each time. A number draws
            from it and from the picture's own values: the same picture loses the same points in
            every epoch, in every worker and in any order, which is what evaluation needs.

    Shapes and units:
        Every tensor whose first dimension is the number of points is cut. ``grid`` becomes
        ``extent``, with the same ``(H, W)``: the size of the picture that the points come from.

    Raises:
        ValueError: ``share`` is not above 0 and at most 1, there is no point, or the points are of
            a batch.
    """

    def forward(self, data: Data) -> Data:
        size = _points_of(data, "RandomPixels")
        order = torch.randperm(size, generator=_drawn_from(data, self.seed))
        kept = order[: max(1, round(self.share * size))].sort().values
        return _keep(data, kept)


class MaskedBlock(_Share):
    """Takes one rectangular block out of a picture, at a random place.

    The block has about the picture's own aspect ratio and lies inside it.

    Args:
        share: Part of the pixels that is *kept*, as for :class:`RandomPixels`; the block is the
            rest, as nearly as a rectangle can be. At least one pixel is kept.
        seed: As for :class:`RandomPixels`.

    Shapes and units:
        Needs ``grid``, from :class:`ImageToPoints`; what is cut and what becomes of ``grid`` is as
        for :class:`RandomPixels`.

    Raises:
        ValueError: ``share`` is not above 0 and at most 1, or the points are not a whole picture.
    """

    def forward(self, data: Data) -> Data:
        height, width = _grid_of(data, "MaskedBlock")
        rows, cols = block_sides(height, width, 1 - self.share)
        generator = _drawn_from(data, self.seed)
        top = int(torch.randint(height - rows + 1, (), generator=generator))
        left = int(torch.randint(width - cols + 1, (), generator=generator))
        kept = torch.ones(height, width, dtype=torch.bool)
        kept[top : top + rows, left : left + cols] = False
        return _keep(data, kept.flatten().nonzero().squeeze(1))


def block_sides(height: int, width: int, share: float) -> tuple[int, int]:
    """Sides of a block that covers a share of a picture, but never all of it."""
    area = min(round(share * height * width), height * width - 1)
    if area < 1:
        return 0, 0
    # First the shorter side, whose rounding weighs more, then the longer one to match the area.
    short, long = sorted((height, width))
    a = min(short, max(1, round(short * math.sqrt(share))))
    b = min(long, max(1, round(area / a)))
    if a * b == short * long:
        b -= 1
    if b == 0:
        return 0, 0
    return (a, b) if height <= width else (b, a)


class Superpixels(BaseTransform):
    """Replaces pixels by the centroids of superpixels, as `"SLIC Superpixels Compared to
    State-of-the-Art Superpixel Methods" <https://doi.org/10.1109/TPAMI.2012.120>`_ finds them.

    A superpixel becomes one point with its pixels' mean colour and mean position. The algorithm
    is scikit-image's.

    Args:
        num: About how many superpixels; SLIC gives more or fewer, at least one.
        compactness: How much nearness counts against likeness of colour. By default 10 for three
            channels, which are compared as CIELAB, and 0.1 for any other number.

    Shapes and units:
        Needs ``grid``, from :class:`ImageToPoints`. Every floating tensor whose first dimension is
        the number of points is averaged, so that ``x`` is ``[n, C]`` and ``pos`` ``[n, 2]``.
        ``grid`` becomes ``extent``, with the same ``(H, W)``: the size of the picture that the
        points come from. Colours may be in any range; SLIC stretches each picture's own to 0 to 1.

    Raises:
        ImportError: scikit-image is not installed.
        TypeError: A tensor of integers or booleans, such as labels of pixels, has an entry a pixel:
            it has no mean.
        ValueError: ``num`` or ``compactness`` is not positive, the points are not a whole picture,
            or a colour is not finite.
    """

    def __init__(self, num: int, *, compactness: float | None = None) -> None:
        if not 1 <= num < math.inf:
            raise ValueError(f"num is {num}, expected at least 1")
        if compactness is not None and not compactness > 0:
            raise ValueError(f"compactness is {compactness}, expected above 0")
        self.num, self.compactness = num, compactness

    def forward(self, data: Data) -> Data:
        with needed_for("Superpixels", "scikit-image"):
            from skimage.segmentation import slic

        height, width = _grid_of(data, "Superpixels")
        picture = data.x.detach().cpu().double().view(height, width, -1)
        if not picture.isfinite().all():
            raise ValueError("the picture has a colour that is not finite")
        compactness = self.compactness or (10.0 if picture.size(2) == 3 else 0.1)
        found = slic(picture.numpy(), n_segments=self.num, compactness=compactness, channel_axis=2)
        # SLIC may leave numbers out: count on, so that every superpixel has pixels.
        _, label = torch.from_numpy(found).flatten().unique(return_inverse=True)
        label = label.to(data.pos.device)
        count = label.bincount()
        for key, value in [*by_point(data)]:
            if not value.is_floating_point():
                raise TypeError(
                    f"{key!r} has one {value.dtype} a pixel, which has no mean over a superpixel"
                )
            total = value.new_zeros(count.numel(), *value.shape[1:], dtype=torch.float64)
            total.index_add_(0, label, value.double())
            mean = total / count.view(-1, *[1] * (value.dim() - 1))
            data[key] = mean.to(value.dtype)
        return _lose_grid(data)

    def __repr__(self) -> str:
        return f"Superpixels({self.num}, compactness={self.compactness})"


def _keep(data: Data, kept: Tensor) -> Data:
    """Keep some points, by their numbers ``[n]``, of a lattice that they no longer fill."""
    return _lose_grid(cut_points(data, kept.to(data.pos.device)))


def _lose_grid(data: Data) -> Data:
    """Note that points no longer fill their lattice: `grid` becomes `extent`."""
    if "grid" in data:
        data.extent = data.grid
        del data.grid
    return data


def _points_of(data: Data, name: str) -> int:
    """How many points there are.

    Raises:
        ValueError: There are none, they have no positions, or they are of a batch.
    """
    _refuse_batch(data, name)
    if data.pos is None:
        raise ValueError(f"{name} needs points with 'pos': put it after ImageToPoints")
    if data.pos.size(0) == 0:
        raise ValueError(f"{name} has no point to keep: the point set is empty")
    return data.pos.size(0)


def _grid_of(data: Data, name: str) -> tuple[int, int]:
    """The lattice that the points fill.

    Raises:
        ValueError: They fill none, or are of a batch.
    """
    _refuse_batch(data, name)
    grid = data.get("grid")
    if grid is None:
        raise ValueError(
            f"{name} needs a whole picture with 'grid': put it after ImageToPoints and before "
            "transforms that drop pixels"
        )
    height, width = grid
    if height * width != (size := _points_of(data, name)):
        raise ValueError(f"the grid is {height} x {width}, but there are {size} points")
    return int(height), int(width)


def _refuse_batch(data: Data, name: str) -> None:
    if isinstance(data, Batch) or "ptr" in data:
        raise ValueError(
            f"{name} takes one picture or cloud, found a batch of them: apply it to each before "
            "they are joined, as a data set's transform"
        )


def _drawn_from(data: Data, seed: int | None) -> torch.Generator | None:
    """A generator that depends on a seed and the points' values; PyTorch's own without a seed."""
    if seed is None:
        return None
    values = data.pos if data.x is None else data.x
    # As bytes: NumPy has no bfloat16.
    content = values.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    # One 32-bit number of both, as PyTorch's generator heeds no more bits of a seed.
    return torch.Generator().manual_seed(zlib.crc32(content, seed % 2**32))


def _positions(grid: tuple[int, int], position: str, image: Tensor) -> Tensor:
    dtype = torch.float64 if image.dtype == torch.float64 else torch.float32
    return lattice_positions(grid, position, dtype=dtype, device=image.device)


def _check(image: Tensor, dim: int, shape: str) -> None:
    if not isinstance(image, Tensor) or not image.is_floating_point():
        found = image.dtype if isinstance(image, Tensor) else type(image).__name__
        raise TypeError(
            f"expected a floating tensor {shape}, found {found}; torchvision's ToTensor, or "
            "v2.ToImage and v2.ToDtype(torch.float32, scale=True), makes one with values in 0 to 1"
        )
    if image.dim() != dim or not image.numel():
        raise ValueError(f"expected a tensor {shape} with pixels, found {list(image.shape)}")
