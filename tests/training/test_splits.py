from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch_geometric.data import Data

from pointcluster.training import (
    Clouds,
    Pictures,
    RunError,
    Survey,
    cloud_folder,
    fingerprint,
    hold_out,
    image_folder,
    survey,
)


def test_the_same_data_have_the_same(clouds):
    assert fingerprint(clouds) == fingerprint([cloud.clone() for cloud in clouds])
    assert len(fingerprint(clouds[:0])) == 32


def test_whatever_differs_another(clouds):
    def changed(**options):
        other = [cloud.clone() for cloud in clouds]
        other[7].update(options)
        return fingerprint(other)

    found = [
        fingerprint(clouds),
        fingerprint(clouds[:-1]),
        fingerprint(clouds[:15], clouds[15:]),
        fingerprint(clouds[::-1]),
        changed(pos=clouds[7].pos + 1e-6),
        changed(pos=clouds[7].pos.double()),
        changed(pos=clouds[7].pos.view(-1, 2)),
        changed(y=torch.tensor([2])),
        changed(more=torch.zeros(1)),
    ]
    assert len(set(found)) == len(found)
    assert fingerprint([Data(pos=clouds[0].pos, name="a")]) == fingerprint(
        [Data(pos=clouds[0].pos, name="b")]
    )


def test_groups_stay_together():
    labels = [i % 2 for i in range(40)]
    groups = [i // 2 % 2 * 100 + i // 8 for i in range(40)]
    kept, held = hold_out(Survey(labels, groups, ""), 0.4)
    assert held
    assert not {groups[i] for i in kept} & {groups[i] for i in held}


def test_nothing_is_held_out(clouds):
    assert hold_out(clouds[:9], 0.0) == (list(range(9)), [])


def test_two_splits_in_words(clouds):
    class Few(list):
        classes = ("ball", "stick")

    data = Clouds("Shapes", Few(clouds[:20]), Few(clouds[20:]), 2048)
    assert data.counted() == "20 training and 10 test clouds, 2 classes"
    assert data.title(1024) == "Shapes, 1,024 of 2,048 points"
    assert data._replace(points=None).title(24) == "Shapes, 24 points"
    held, digest = data.look_through(24, 0.2)
    assert held == hold_out(clouds[:20], 0.2) and digest == fingerprint(clouds[:20], clouds[20:])
    with pytest.raises(ValueError, match="--num-points is 4096, Shapes has 2048 points a cloud"):
        data.look_through(4096, 0)
    some = Pictures("Some", (), range(12))
    assert some.left_out(12) == "" and some.left_out(9) == "(3 of 12 unreadable, left out) "


def chair(seed, jitter=0.0):
    """Two boxes of another shape for each seed, and points drawn anew for each jitter."""
    shape = torch.Generator().manual_seed(seed)
    sizes = 0.2 + torch.rand(2, 3, generator=shape)
    draw = torch.Generator().manual_seed(int(jitter * 1e6) + 1)
    boxes = [torch.rand(1024, 3, generator=draw) * size for size in sizes]
    return torch.cat([boxes[0], boxes[1] + torch.tensor([0.0, 0.0, 1.0])])


def test_near_identical_clouds_are_of_one_group():
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0)))[0]
    first = chair(0)
    clouds = [first, chair(1), 3 * first @ turn + 5, chair(2), chair(0, 0.5), chair(3)]
    items = [Data(pos=pos, y=torch.tensor([0])) for pos in clouds]
    groups = survey(items).groups
    assert groups[0] == groups[2] == groups[4] and len(set(groups)) == 4
    kept, held = hold_out(items, 0.34)
    assert held and not {groups[i] for i in held} & {groups[i] for i in kept}
    # Another class is another group, and what a data set says counts.
    items[2].y = torch.tensor([1])
    assert survey(items).groups[2] != survey(items).groups[0]
    for number, item in enumerate(items):
        item.group = torch.tensor([number // 2])
    assert survey(items).groups == [0, 0, 1, 1, 2, 2]


def test_a_class_of_one_shape_is_no_sign_of_copies():
    balls = [torch.nn.functional.normalize(torch.randn(2000, 3), dim=1) for _ in range(6)]
    items = [Data(pos=pos, y=torch.tensor([0])) for pos in [*balls, balls[0]]]
    groups = survey(items).groups
    assert groups[0] == groups[6] and len(set(groups)) == 6


def test_clouds_without_points_and_that_cannot_be_read():
    with pytest.raises(RunError, match="b has no points"):
        survey([Data(pos=torch.zeros(0, 3), y=torch.tensor([0]), name="b")])

    class Broken(list):
        def __getitem__(self, index):
            raise ValueError("a.ply is damaged")

    with pytest.raises(RunError, match="a.ply is damaged"):
        survey(Broken([1]))


def make(root, suffix, parts=("train", "test"), classes=("cup", "hat"), count=2):
    rng = np.random.default_rng(0)
    for part in parts:
        for name in classes:
            folder = root / part / name
            folder.mkdir(parents=True, exist_ok=True)
            for i in range(count):
                path = folder / f"{i}{suffix}"
                if suffix == ".npy":
                    np.save(path, rng.random((50, 3)))
                else:
                    Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(path)
    return root


def test_clouds_have_points_to_choose_from(tmp_path):
    train, test = cloud_folder(make(tmp_path, ".npy"), 16)
    assert (len(train), len(test), list(train.classes)) == (4, 4, ["cup", "hat"])
    assert train[0].pos.shape == (50, 3)


def test_pictures_have_a_part_to_train_on_or_none(tmp_path):
    make(tmp_path, ".png", parts=("train", "val"))
    train, test = image_folder(tmp_path)
    assert (len(train), len(test), test.on_error) == (4, 4, "raise")
    assert image_folder(tmp_path, on_error="skip")[1].on_error == "drop"
    (tmp_path / "train").rename(tmp_path / "away")
    assert image_folder(tmp_path, train=False)[0] == ()
    with pytest.raises(ValueError, match=r"there is no folder .*train"):
        image_folder(tmp_path)


def test_both_parts_have_the_same_classes(tmp_path):
    make(tmp_path / "a", ".npy")
    make(tmp_path / "a", ".npy", parts=("train",), classes=("shoe",))
    with pytest.raises(ValueError, match="train and test differ: only train has shoe"):
        cloud_folder(tmp_path / "a", 16)
    make(tmp_path / "b", ".png", parts=("train", "val"))
    make(tmp_path / "b", ".png", parts=("val",), classes=("shoe",))
    with pytest.raises(ValueError, match="have other classes: shoe is only in val/"):
        image_folder(tmp_path / "b")


def test_one_class_and_no_folder(tmp_path):
    make(tmp_path, ".npy", classes=("cup",))
    with pytest.raises(ValueError, match="there is one class, cup, expected at least two"):
        cloud_folder(tmp_path, 16)
    with pytest.raises(ValueError, match="there is no folder"):
        cloud_folder(tmp_path / "nowhere", 16)
