"""Replace an image's pixels by the centroids of superpixels."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from pointcluster.transforms.subset import grid_of, lose_grid


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
        try:
            from skimage.segmentation import slic
        except ImportError as error:
            raise ImportError("Superpixels needs scikit-image: pip install scikit-image") from error

        height, width = grid_of(data, "Superpixels")
        picture = data.x.detach().cpu().double().view(height, width, -1)
        if not picture.isfinite().all():
            raise ValueError("the picture has a colour that is not finite")
        compactness = self.compactness or (10.0 if picture.size(2) == 3 else 0.1)
        found = slic(picture.numpy(), n_segments=self.num, compactness=compactness, channel_axis=2)
        # SLIC may leave numbers out: count on, so that every superpixel has pixels.
        _, label = torch.from_numpy(found).flatten().unique(return_inverse=True)
        label = label.to(data.pos.device)
        count = label.bincount()
        for key, value in data.to_dict().items():
            if not isinstance(value, Tensor) or not value.dim():
                continue
            if value.size(0) != height * width or value.size(0) == 1:
                continue
            if not value.is_floating_point():
                raise TypeError(
                    f"{key!r} has one {value.dtype} a pixel, which has no mean over a superpixel"
                )
            total = value.new_zeros(count.numel(), *value.shape[1:], dtype=torch.float64)
            total.index_add_(0, label, value.double())
            mean = total / count.view(-1, *[1] * (value.dim() - 1))
            data[key] = mean.to(value.dtype)
        return lose_grid(data)

    def __repr__(self) -> str:
        return f"Superpixels({self.num}, compactness={self.compactness})"
