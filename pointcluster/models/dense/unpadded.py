"""Networks on pictures of several sizes, without the padding that changes their answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointcluster.geometry.check import check_positive
from pointcluster.geometry.pixels import picture_sizes

Grid = tuple[int, int]


class Unpadded(nn.Module):
    r"""A network of whole pictures that answers for each as if it came alone.

    A batch of pictures of several sizes is padded to the largest. What mixes positions then mixes
    the padding in: clusters, their regions and positions, normalisations over a map, and every
    second convolution of a decoder. Here the padding is cut off again, pictures of one size go
    through the whole network together, and what it answers is put back in the pictures' order.

    It takes networks of segmentation_models_pytorch and transformers and any other that is called
    with pictures $(B, C, H, W)$ and answers with tensors whose first axis is the pictures', alone
    or in tuples, lists and mappings. Losses are better worked out from those answers, with a label
    that is ignored where a picture is padded. In training, batch normalisation sees the pictures
    of one size at a time.

    Args:
        model: The network.
        divisor: What both sides of a picture must be multiples of, where the network says so, as
            decoders that double a map do. Other pictures are stretched to the next multiple, and
            maps of that size back; no picture is padded.

    Shapes:
        - **pictures:** $(B, C, H, W)$, padded below and on the right, or $B$ pictures $(C, H, W)$
        - **output:** as the network's; maps and other axes that differ in length between sizes are
          filled up with zeros. For a sequence of pictures, a list of their answers, not filled up
    """

    def __init__(self, model: nn.Module, divisor: int = 1) -> None:
        super().__init__()
        check_positive("divisor", divisor)
        self.model, self.divisor = model, divisor
        self.training = model.training

    def forward(
        self,
        pictures: Tensor | Sequence[Tensor],
        sizes: Tensor | Sequence[Grid] | None = None,
        mask: Tensor | None = None,
        **options: Any,
    ) -> Any:
        r"""The network's answers.

        Args:
            pictures: The pictures.
            sizes: How much of each is picture, (H, W); all of it, if neither is said. $(B, 2)$
            mask: Or where it is, as transformers' `pixel_mask`. $(B, H, W)$
            options: What else the network is called with, the same for all pictures.

        Raises:
            ValueError: Both are said, they do not fit the pictures, or a mask is no rectangle that
                begins at the upper left.
        """
        if isinstance(pictures, Tensor):
            if pictures.dim() != 4:
                raise ValueError(f"expected pictures [B, C, H, W], found {list(pictures.shape)}")
            parts = [
                picture[:, :h, :w]
                for picture, (h, w) in zip(pictures, sizes_of(pictures, sizes, mask), strict=True)
            ]
        else:
            if sizes is not None or mask is not None:
                raise ValueError("pictures in a sequence have their sizes: say no sizes or mask")
            parts = list(pictures)
            if not parts or any(picture.dim() != 3 for picture in parts):
                raise ValueError("expected at least one picture [C, H, W]")
        answers = [
            (own, self._run(torch.stack([parts[i] for i in own]), options))
            for own in alike([_size(picture) for picture in parts]).values()
        ]
        if isinstance(pictures, Tensor):
            return _joined(answers, len(parts))
        rows = {i: _row(answer, row) for own, answer in answers for row, i in enumerate(own)}
        return [rows[i] for i in range(len(parts))]

    def _run(self, pictures: Tensor, options: dict[str, Any]) -> Any:
        """The network's answer for pictures of one size, stretched where it must be."""
        size = _size(pictures)
        stretched = tuple(-(-side // self.divisor) * self.divisor for side in size)
        if stretched == size:
            return self.model(pictures, **options)
        return _resized(self.model(_stretch(pictures, stretched), **options), stretched, size)


def alike(sizes: Sequence[Grid]) -> dict[Grid, list[int]]:
    """The pictures of each size, by their numbers."""
    groups: dict[Grid, list[int]] = {}
    for i, size in enumerate(sizes):
        groups.setdefault(size, []).append(i)
    return groups


def sizes_of(
    pictures: Tensor, sizes: Tensor | Sequence[Grid] | None, mask: Tensor | None
) -> list[Grid]:
    """How much of each padded picture is picture.

    Args:
        pictures: The pictures. [B, C, H, W]
        sizes: Their sizes. [B, 2]
        mask: Or where they are. [B, H, W]

    Raises:
        ValueError: Both are said, or they do not fit the pictures.
    """
    count, whole = len(pictures), _size(pictures)
    if sizes is not None and mask is not None:
        raise ValueError("say the pictures' sizes or a mask, not both")
    if sizes is not None:
        found = picture_sizes("sizes", sizes)
        if len(found) != count or any(h > whole[0] or w > whole[1] for h, w in found):
            raise ValueError(
                f"sizes must be {count} of at most {whole[0]} x {whole[1]}, found {found}"
            )
        return found
    if mask is None:
        return [whole] * count
    if mask.shape != (count, *whole):
        raise ValueError(f"mask must be [{count}, {whole[0]}, {whole[1]}], found {mask.shape}")
    filled = mask.bool()
    down, across = filled.any(2), filled.any(1)  # [B, H], [B, W]
    height, width = down.sum(1), across.sum(1)
    rows = torch.arange(whole[0], device=mask.device) < height[:, None]
    columns = torch.arange(whole[1], device=mask.device) < width[:, None]
    if not torch.equal(filled, rows[:, :, None] & columns[:, None]) or not bool(height.all()):
        raise ValueError("mask must be a rectangle that begins at the upper left, in every picture")
    return list(zip(height.tolist(), width.tolist(), strict=True))


def _size(pictures: Tensor) -> Grid:
    return pictures.size(-2), pictures.size(-1)


def _stretch(maps: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(maps, tuple(size), mode="bilinear", align_corners=False)


def _resized(answer: Any, before: Sequence[int], after: Sequence[int]) -> Any:
    """The same with maps of the one size stretched to the other."""
    if isinstance(answer, Tensor):
        map_of_it = answer.dim() == 4 and _size(answer) == tuple(before)
        return _stretch(answer, after) if map_of_it else answer
    return _mapped(answer, [answer], lambda values: _resized(values[0], before, after))


def _joined(answers: list[tuple[list[int], Any]], count: int) -> Any:
    """The answers for all pictures in their order, from those for the pictures of each size."""
    first = answers[0][1]
    if not isinstance(first, Tensor):
        numbers = [own for own, _ in answers]
        return _mapped(
            first,
            [answer for _, answer in answers],
            lambda values: _joined(list(zip(numbers, values, strict=True)), count),
        )
    if not first.dim():  # a mean over pictures
        return sum((len(own) / count * value for own, value in answers), torch.zeros_like(first))
    longest = [max(axis) for axis in zip(*(value.shape[1:] for _, value in answers), strict=True)]
    if len(answers) == 1:
        return first
    whole = first.new_zeros(count, *longest)
    for own, value in answers:
        inside: Any = tuple(slice(0, length) for length in value.shape[1:])
        whole[(torch.tensor(own, device=first.device), *inside)] = value
    return whole


def _row(answer: Any, row: int) -> Any:
    """What is for one picture."""
    if isinstance(answer, Tensor):
        return answer[row] if answer.dim() else answer
    return _mapped(answer, [answer], lambda values: _row(values[0], row))


def _mapped(like: Any, answers: Sequence[Any], join: Any) -> Any:
    """A structure of tensors like the first, of what several of its kind hold."""
    if like is None:
        return None
    if isinstance(like, Mapping):
        kind: Any = type(like)
        joined = {key: join([answer[key] for answer in answers]) for key in like}
        # transformers' answers are dataclasses, which take fields; keys of others may be numbers.
        return kind(**joined) if is_dataclass(like) else kind(joined)
    if isinstance(like, tuple | list):
        values = [join(list(each)) for each in zip(*answers, strict=True)]
        return type(like)(*values) if hasattr(like, "_fields") else type(like)(values)
    raise TypeError(
        f"expected tensors, alone or in tuples, lists and mappings, found {type(like).__name__}"
    )
