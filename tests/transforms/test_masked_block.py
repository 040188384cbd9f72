from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.data import Data

from pointcluster.transforms import ImageToPoints, MaskedBlock, RandomPixels
from pointcluster.transforms.masked_block import block_sides


def picture(height, width, dtype=torch.float32):
    return ImageToPoints("pixel")(torch.rand(2, height, width, dtype=dtype))


@pytest.mark.parametrize("size", [(12, 12), (7, 10), (30, 4), (2, 1), (1, 9), (1, 1)])
@pytest.mark.parametrize("share", [1.0, 0.75, 0.5, 0.1])
def test_one_rectangle_is_missing(size, share):
    whole = picture(*size)
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
        whole = picture(4, 4)
        whole.index = torch.arange(16)
        kept[block(whole).index] += 1
    assert kept.min() > 0 and kept.max() < 200


def test_seed_goes_with_the_picture():
    one, block = picture(9, 9), MaskedBlock(0.5, seed=1)
    assert torch.equal(block(one).pos, block(one).pos)
    places = {tuple(block(picture(9, 9)).pos.flatten().tolist()) for _ in range(10)}
    assert len(places) > 1


def test_refuses():
    for share in (0, 1.5, float("nan")):
        with pytest.raises(ValueError, match="expected above 0 and at most 1"):
            MaskedBlock(share)
    with pytest.raises(ValueError, match="MaskedBlock needs a whole picture with 'grid'"):
        MaskedBlock(0.5)(RandomPixels(0.5)(picture(4, 4)))
    with pytest.raises(ValueError, match="grid is 2 x 3, but there are 5 points"):
        MaskedBlock(0.5)(Data(pos=torch.zeros(5, 2), grid=(2, 3)))


def test_says_what_it_is():
    assert repr(MaskedBlock(0.5)) == "MaskedBlock(0.5, seed=None)"
