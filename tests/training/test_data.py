from __future__ import annotations

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch, Data
from torch_geometric.transforms import FixedPoints, RandomJitter

from pointcluster.models import create_model
from pointcluster.training import (
    ImageClassifier,
    ImageDataModule,
    ImageRecipe,
    PointDataModule,
    RunError,
    evaluate,
    searching_collate,
)
from pointcluster.training.data import EpochSampler, SeededDataset, ShardSampler, mix, seeded


def test_loaders(clouds):
    data = PointDataModule(
        clouds[:20],
        clouds[20:],
        batch_size=8,
        train_transform=FixedPoints(5, replace=False),
    )
    assert [batch.num_graphs for batch in data.train_dataloader()] == [8, 8]
    assert next(iter(data.train_dataloader())).pos.shape == (40, 3)
    test = list(data.test_dataloader())
    assert [batch.num_graphs for batch in test] == [8, 2]
    assert torch.equal(test[1].pos[:24], clouds[28].pos)


def test_fewer_clouds_than_a_batch(clouds):
    data = PointDataModule(clouds[:5], clouds[5:], batch_size=8)
    assert [batch.num_graphs for batch in data.train_dataloader()] == [5]


def test_validation_is_carved_from_training(clouds):
    first = PointDataModule(clouds, clouds, val_fraction=0.2, seed=0)
    second = PointDataModule(clouds, clouds, val_fraction=0.2, seed=1)
    assert first.val.items == second.val.items
    assert sorted(first.train.items + first.val.items) == list(range(30))
    labels = [int(clouds[i].y) for i in first.val.items]
    assert sorted(labels) == [0, 0, 1, 1, 2, 2]


def test_every_process_has_a_cloud(clouds):
    data = PointDataModule(clouds[:6], clouds[6:9], val_fraction=0.5)
    shares = []
    for rank in range(3):
        data.trainer = SimpleNamespace(
            global_rank=rank, world_size=3,
            strategy=SimpleNamespace(root_device=torch.device("cpu")),
        )  # fmt: skip
        shares += [len(batch.y) for batch in data.test_dataloader()]
    assert shares == [1, 1, 1]
    data.trainer.world_size = 4
    with pytest.raises(RunError, match="3 test items for 4 processes, .* use fewer processes"):
        data.test_dataloader()
    data = PointDataModule(clouds[:6], clouds[6:], val_fraction=0.5)
    data.check_shares(3)
    with pytest.raises(RunError, match="3 validation items for 4 processes"):
        data.check_shares(4)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_what_makes_a_batch(clouds, workers):
    def collate(items):
        batch = Batch.from_data_list(items)
        batch.total = batch.pos.sum()
        return batch

    options = {"batch_size": 8, "num_workers": workers, "train_transform": RandomJitter(0.1)}
    plain = PointDataModule(clouds[:20], clouds[20:], **options)
    data = PointDataModule(clouds[:20], clouds[20:], collate=collate, **options)
    for loaders in zip(
        (data.train_dataloader(), data.test_dataloader()),
        (plain.train_dataloader(), plain.test_dataloader()),
        strict=True,
    ):
        for batch, same in zip(*loaders, strict=True):
            assert torch.equal(batch.pos, same.pos) and torch.equal(batch.batch, same.batch)
            assert torch.equal(batch.total, same.pos.sum()) and "total" not in same


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"val_fraction": 1.0}])
def test_bad_options(clouds, options):
    with pytest.raises(ValueError, match="expected"):
        PointDataModule(clouds, clouds, **options)


def test_a_part_that_holds_nothing_or_all_of_a_class_is_an_error(clouds):
    with pytest.raises(RunError, match=r"--val-fraction 0\.1 holds none of the 9 training clouds"):
        PointDataModule(clouds[:9], clouds, val_fraction=0.1)
    with pytest.raises(RunError, match=r"--val-fraction 0\.6 leaves no training cloud of class 0, "
                       "of 3 such"):  # fmt: skip
        PointDataModule(clouds[:3], clouds, val_fraction=0.6)


def to_tensor(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float()


def noisy(image):
    return to_tensor(image) + torch.rand(())


def make_images(pictures, **options):
    return ImageDataModule(
        pictures[:20], pictures[20:], train_transform=noisy, test_transform=to_tensor, **options
    )


def test_image_loaders(pictures):
    data = make_images(pictures, batch_size=8)
    batches = list(data.train_dataloader())
    assert [tuple(images.shape) for images, _ in batches] == [(8, 3, 8, 8)] * 2
    for loader in (data.val_dataloader(), data.test_dataloader()):
        (first, labels), (_, last) = loader
        assert torch.equal(first[0], to_tensor(pictures[20][0]))
        assert [*labels.tolist(), *last.tolist()] == [label for _, label in pictures[20:]]


def test_workers_change_no_image(pictures):
    for first, second in zip(
        make_images(pictures, batch_size=8, seed=3).train_dataloader(),
        make_images(pictures, batch_size=8, seed=3, num_workers=1).train_dataloader(),
        strict=True,
    ):
        assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])


def test_fewer_images_than_a_batch(pictures):
    data = make_images(pictures, batch_size=32)
    with pytest.raises(RunError, match="--batch-size is 32, and a process has only 20"):
        data.train_dataloader()
    with pytest.raises(ValueError, match="batch_size is 0"):
        make_images(pictures, batch_size=0)


class Broken(list):
    def __getitem__(self, index):
        if index == 5:
            raise ValueError("a.jpg is damaged: RunError or not")
        return super().__getitem__(index)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_refused_picture_is_one_line(pictures, tiny_image_network, workers):
    recipe = ImageRecipe(batch_size=4)
    classifier = ImageClassifier(
        tiny_image_network(), ["a", "b", "c"], recipe=recipe, data_config={}
    )
    data = ImageDataModule(
        [], Broken(pictures), train_transform=noisy, test_transform=to_tensor, num_workers=workers
    )
    with pytest.raises(RunError) as caught:
        evaluate(classifier, data, accelerator="cpu")
    assert str(caught.value) == "a.jpg is damaged: RunError or not"


class Holes(list):
    """Pictures of which some cannot be read."""

    def __init__(self, pictures, holes):
        super().__init__(None if i in holes else each for i, each in enumerate(pictures))


@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_test_pictures_count_for_nothing(pictures, tiny_image_network, workers):
    holes = [0, 4, 5, 6, 7, 9]  # the second batch has nothing left
    results = []
    for test in (Holes(pictures, holes), [p for i, p in enumerate(pictures) if i not in holes]):
        torch.manual_seed(0)
        classifier = ImageClassifier(
            tiny_image_network(), ["a", "b", "c"], recipe=ImageRecipe(batch_size=4), data_config={}
        )
        data = ImageDataModule(
            [], test, train_transform=noisy, test_transform=to_tensor, batch_size=4,
            num_workers=workers,
        )  # fmt: skip
        results.append(evaluate(classifier, data, accelerator="cpu"))
        assert classifier.test_confusion.sum() == len(pictures) - len(holes)
    assert results[0] == pytest.approx(results[1], rel=1e-5)


def test_no_readable_test_picture(pictures, tiny_image_network):
    classifier = ImageClassifier(
        tiny_image_network(), ["a", "b", "c"], recipe=ImageRecipe(batch_size=4), data_config={}
    )
    data = ImageDataModule(
        [], Holes(pictures, range(30)), train_transform=noisy, test_transform=to_tensor
    )
    with pytest.raises(RunError, match="none of the test images of a process can be read"):
        evaluate(classifier, data, accelerator="cpu")


def test_training_pictures_are_not_left_out(pictures):
    class Folder(list):
        on_error = "drop"

    with pytest.raises(ValueError, match="give on_error='skip', not 'drop'"):
        ImageDataModule(Folder(pictures), [], train_transform=noisy, test_transform=to_tensor)


def test_order_depends_on_seed_and_epoch():
    def order(seed, epoch):
        sampler = EpochSampler(range(20), num_replicas=1, rank=0, seed=seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(0, 3) == order(0, 3)
    assert {epoch for epoch, _ in order(0, 3)} == {3}
    assert sorted(index for _, index in order(0, 3)) == list(range(20))
    assert [index for _, index in order(0, 3)] != [index for _, index in order(0, 4)]
    assert [index for _, index in order(0, 3)] != [index for _, index in order(1, 3)]


@pytest.mark.parametrize("processes", [1, 2, 3, 7])
def test_shards_hold_every_item_once(processes):
    shards = [ShardSampler(20, rank, processes) for rank in range(processes)]
    items = [index for shard in shards for _, index in shard]
    assert sorted(items) == list(range(20))
    assert [len(shard) for shard in shards] == [len(list(shard)) for shard in shards]


def test_item_depends_on_seed_epoch_and_index_alone(clouds):
    data = SeededDataset(clouds, transform=RandomJitter(0.1), seed=1)
    first = data[0, 3].pos
    torch.rand(9)
    assert torch.equal(data[0, 3].pos, first)
    assert not torch.equal(data[1, 3].pos, first)
    other = SeededDataset(clouds, transform=RandomJitter(0.1), seed=2)
    assert not torch.equal(other[0, 3].pos, first)


def test_some_items(clouds):
    data = SeededDataset(clouds, items=[4, 2])
    assert len(data) == 2
    assert torch.equal(data[0, 1].pos, clouds[2].pos)


def draw():
    return random.random(), np.random.rand(), torch.rand(()).item()


def test_same_keys_same_numbers():
    with seeded(1, 2, 3):
        first = draw()
    with seeded(1, 2, 3):
        assert draw() == first
    with seeded(1, 3, 2):
        assert all(a != b for a, b in zip(draw(), first, strict=True))


def test_outside_nothing_changes():
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(0)
    expected = draw()
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(0)
    with seeded(5):
        draw()
    assert draw() == expected


def test_mix_spreads():
    seeds = {mix(a, b) for a in range(30) for b in range(30)}
    assert len(seeds) == 900 and 0 <= min(seeds) and max(seeds) < 2**63


@pytest.mark.parametrize(
    ("geometry", "workers", "loader"),
    [("auto", 0, False), ("auto", 2, True), ("step", 2, False), ("loader", 0, True)],
)
def test_who_searches(geometry, workers, loader):
    model = create_model("point_coc_tiny", num_classes=3)
    collate = searching_collate(model, geometry, workers)
    assert (collate is not None) == loader
    if collate is not None:
        batch = collate([Data(pos=torch.rand(9, 3)), Data(pos=torch.rand(5, 3))])
        assert batch.num_graphs == 2 and "hierarchy" in batch


def test_an_unknown_word():
    with pytest.raises(ValueError, match="geometry is 'both', expected 'auto', 'loader' or"):
        searching_collate(None, "both", 0)


def test_clouds_are_copied_while_the_process_goes_on(clouds):
    data = PointDataModule(clouds, clouds)
    given = []
    batch = Batch.from_data_list(clouds[:3])
    batch.__dict__["to"] = lambda device, non_blocking: given.append((device.type, non_blocking))
    for device in ("cpu", "meta"):
        data.transfer_batch_to_device(batch, torch.device(device), 0)
    assert given == [("cpu", False), ("meta", True)]
    moved = data.transfer_batch_to_device([torch.ones(2)], torch.device("meta"), 0)
    assert moved[0].device.type == "meta"


@pytest.mark.parametrize(("device", "pinned"), [("cpu", False), ("cuda", True), ("mps", False)])
def test_memory_is_pinned_where_there_is_a_device_to_copy_to(clouds, device, pinned):
    data = PointDataModule(clouds, clouds)
    data.trainer = SimpleNamespace(
        global_rank=0, world_size=1, strategy=SimpleNamespace(root_device=torch.device(device))
    )
    assert data.test_dataloader().pin_memory is pinned
