from __future__ import annotations

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch, Data

from pointcluster.transforms import ImageToPoints, RandomPixels, Superpixels, images_to_points
from pointcluster.viz.subject import subject_of


def colours(subject):
    """The picture that a subject shows."""
    return subject.color[subject.shows]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_picture_in_every_form(dtype):
    image = torch.rand(2, 3, 7, 9, dtype=dtype)
    expected = image[1].permute(1, 2, 0).numpy()
    points = [ImageToPoints(position)(image[1]) for position in ("published", "pixel")]
    loose = points[1].clone()
    order = torch.randperm(63)
    loose.x, loose.pos, loose.extent = loose.x[order], loose.pos[order], loose.grid
    del loose.grid
    for data, cloud in [
        (image[1], 0), (image, 1), (image, -1), (points[0], 0), (points[1], 0), (loose, 0),
        (Batch.from_data_list([loose, loose]), 0), (images_to_points(image), 1),
    ]:  # fmt: skip
        subject = subject_of(data, cloud)
        assert subject.is_picture and subject.size == (7, 9)
        np.testing.assert_allclose(colours(subject), expected, atol=1e-7)
        place = np.rint(subject.pos).astype(int)
        assert (subject.shows[place[:, 0], place[:, 1]] == np.arange(63)).all()


def test_some_pixels_leave_the_others_out():
    data = RandomPixels(0.3, seed=0)(ImageToPoints()(torch.rand(1, 12, 10)))
    subject = subject_of(data)
    assert (subject.shows >= 0).sum() == len(data.pos) == 36
    assert sorted(subject.shows[subject.shows >= 0]) == list(range(36))


def test_points_between_pixels_fill_what_is_around_them():
    data = Superpixels(8)(ImageToPoints()(torch.rand(3, 24, 24)))
    subject = subject_of(data)
    assert (subject.shows >= 0).all() and len(np.unique(subject.shows)) == len(data.pos)


def test_normalisation_is_undone_and_other_channels_become_grey():
    image = torch.rand(3, 4, 5)
    mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.3, 0.1])
    given = (image - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    subject = subject_of(given, mean=mean.tolist(), std=std.tolist())
    np.testing.assert_allclose(colours(subject), image.permute(1, 2, 0), atol=1e-5)
    stretched = colours(subject_of(given))
    assert stretched.min() == 0 and stretched.max() == 1
    five = torch.rand(5, 4, 5)
    grey = colours(subject_of(five))
    assert (np.ptp(grey, axis=2) == 0).all()
    np.testing.assert_allclose(grey[..., 0], five.mean(dim=0), atol=1e-6)


def test_one_cloud_of_a_batch_with_its_own_colours():
    clouds = [Data(pos=torch.rand(n, 3), color=torch.rand(n, 3)) for n in (5, 0, 7)]
    batch = Batch.from_data_list(clouds)
    subject = subject_of(batch, -1)
    assert (subject.first, subject.total, subject.is_picture) == (5, 12, False)
    np.testing.assert_allclose(subject.pos, clouds[2].pos)
    np.testing.assert_allclose(subject.color, clouds[2].color)
    assert subject_of(Data(pos=torch.rand(4, 2))).color is None
    with pytest.raises(ValueError, match="cloud 1 has no points"):
        subject_of(batch, 1)
    with pytest.raises(IndexError, match="no cloud number 3: choose 0 to 2"):
        subject_of(batch, 3)


@pytest.mark.parametrize(
    ("data", "options", "error", "message"),
    [
        ([1], {}, TypeError, "expected a tensor of pictures, or PyG Data or Batch, found list"),
        (torch.zeros(3, 4, 5, dtype=torch.uint8), {}, TypeError, "found torch.uint8: scale them"),
        (torch.rand(4, 5), {}, ValueError, "found \\[4, 5\\]"),
        (torch.rand(2, 3, 4, 5), {"cloud": 2}, IndexError, "choose 0 to 1"),
        (torch.rand(3, 4, 5), {"mean": [0.1, 0.2]}, ValueError, "mean has 2 entries"),
        (torch.rand(3, 4, 5), {"mean": "abc"}, TypeError, "mean is 'abc', expected a number, or"),
        (torch.rand(3, 4, 5), {"std": ["a"]}, TypeError, "one of each of 3 channels"),
        (torch.rand(3, 4, 5), {"cloud": "x"}, TypeError, "found 'x': there is only 0"),
        (Data(), {}, ValueError, "can be drawn, found NoneType"),
        (Data(pos=torch.rand(4, 5)), {}, ValueError, "found \\[4, 5\\]"),
        (Data(pos=torch.full((2, 3), float("nan"))), {}, ValueError, "NaN or infinite"),
        (Data(pos=torch.rand(2, 3)), {"std": 0.5}, ValueError, "these are clouds"),
        (Data(pos=torch.rand(4, 2), grid=(2, 2)), {}, ValueError, "found None"),
    ],
)
def test_what_cannot_be_drawn_is_turned_away(data, options, error, message):
    with pytest.raises(error, match=message):
        subject_of(data, **options)
