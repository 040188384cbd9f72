"""Images as point sets."""

from __future__ import annotations

import copy

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data
from torch_geometric.transforms import BaseTransform

from pointcluster.geometry.lattice import lattice_positions


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
