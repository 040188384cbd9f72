from __future__ import annotations

import pytest
import torch
from torch_geometric.data import Batch, Data

pytest.importorskip("lightning")

from pointcluster import training
from pointcluster.models import create_model
from pointcluster.training.segmenter import (
    PartIoU,
    PointSegmenter,
    SceneBlocks,
    SceneDataModule,
    SceneRecipe,
    class_table,
    fingerprint_scenes,
)


def scene(seed=0, size=1200):
    """Ground, and what lies 2 m above it on one side; some points without a class."""
    generator = torch.Generator().manual_seed(seed)
    pos = torch.rand(size, 3, generator=generator) * torch.tensor([60.0, 60.0, 0.2])
    y = (pos[:, 0] > 40).long()
    pos[:, 2] += 2.0 * y
    y[:30] = -1
    return Data(pos=pos, x=pos[:, 2:] / 2, y=y)


RECIPE = SceneRecipe(epochs=4, batch_size=2, num_points=256, warmup_epochs=1, drop=0.1)


def parts(recipe=RECIPE, seed=0, **options):
    torch.manual_seed(seed)
    model = create_model("point_coc_tiny_seg", num_classes=2, in_channels=1, place=False)
    train, test = [scene(0), scene(1)], [scene(2)]
    data = SceneDataModule(train, test, recipe=recipe, seed=seed, **options)
    segmenter = PointSegmenter(
        model,
        ["low", "high"],
        recipe=recipe,
        edge=data.blocks.edge(recipe.num_points),
        weights=recipe.class_weights(train, 2),
        seed=seed,
        preprocessing={"features": ["height"]},
    )
    return segmenter, data


@pytest.mark.slow
def test_it_learns_is_resumed_and_measures_whole_scenes(tmp_path):
    segmenter, data = parts(val=[scene(3)])
    metrics = training.fit_and_test(segmenter, data, folder=tmp_path / "a", accelerator="cpu")
    assert metrics["test_accuracy"] > 0.9 and metrics["test_miou"] > 0.8
    assert int(segmenter.test_confusion.sum()) == 1170  # points without a class count nowhere
    hits = segmenter.test_confusion.diag().sum() / 1170
    assert abs(float(hits) - metrics["test_accuracy"]) < 1e-6
    header = (tmp_path / "a" / "metrics.csv").read_text().splitlines()[0]
    assert "val_miou" in header and "train_miou" in header
    # stopped after two epochs and gone on with: the same weights
    again, data = parts(val=[scene(3)])
    folder = tmp_path / "b"

    class Stop(Exception):
        pass

    def halt(trainer, module):
        if trainer.current_epoch == 2:
            raise Stop

    from lightning.pytorch.callbacks import LambdaCallback

    with pytest.raises(Stop):
        callbacks = (LambdaCallback(on_train_epoch_start=halt),)
        training.fit_and_test(again, data, folder=folder, accelerator="cpu", callbacks=callbacks)
    again, data = parts(val=[scene(3)])
    training.fit_and_test(again, data, folder=folder, accelerator="cpu", resume=True)
    for one, other in zip(segmenter.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_blocks_are_alike_for_any_number_of_workers():
    batches = []
    for workers in (0, 2):
        _, data = parts(num_workers=workers)
        data.trainer = None
        batches.append([batch.pos for batch in data.train_dataloader()])
    assert len(batches[0]) == 5  # of 2 x 1,200 points in blocks of 256, two a step
    assert all(torch.equal(one, other) for one, other in zip(*batches, strict=True))


def test_the_loader_may_search(tmp_path):
    segmenter, _ = parts()
    collate = training.searching_collate(segmenter.model, "loader", 0)
    _, data = parts(collate=collate)
    batch = next(iter(data.train_dataloader()))
    assert batch.hierarchy.carries
    plain = Batch.from_data_list([Data(pos=d.pos, x=d.x) for d in batch.to_data_list()])
    segmenter.eval()
    assert torch.equal(segmenter(batch), segmenter(plain))


def test_scenes_are_items_as_often_as_they_are_large_and_thinned():
    blocks = SceneBlocks([scene(0, 1000), scene(1, 250)], 250)
    assert blocks.items == [0, 0, 0, 0, 1]
    edge = blocks.edge(250)
    assert 38 < edge < 42  # 1,250 points on two areas of 64 by 64 m
    thin = SceneBlocks([scene(0, 1000)], 250, voxel_size=10.0)
    assert len(thin[0].pos) <= 72 and len(thin[0].pos) == len(thin[0].x) == len(thin[0].y)


def test_weights_are_one_on_average_and_rare_classes_count_more():
    scenes = [Data(y=torch.tensor([0] * 90 + [1] * 10 + [-1] * 50))]
    weights = RECIPE.class_weights(scenes, 3)
    assert abs(float(0.9 * weights[0] + 0.1 * weights[1]) - 1) < 1e-6
    assert abs(float(weights[1] / weights[0]) - 3) < 1e-5 and weights[2] == 0
    plain = SceneRecipe(weighting=0.0).class_weights(scenes, 2)
    assert torch.allclose(plain, torch.ones(2))


def test_a_batch_without_classes_moves_nothing():
    segmenter, _ = parts()
    loss = segmenter.loss(torch.randn(4, 2, requires_grad=True), torch.full((4,), -1))
    assert loss == 0


def test_table_and_fingerprint():
    table = class_table(torch.tensor([[8, 2, 0], [1, 4, 0], [0, 0, 0]]), ["a", "b", "c"])
    assert table[0] == ["class", "points", "iou", "recall", "precision"]
    assert table[1][:2] == ["a", 10] and abs(table[1][2] - 8 / 11) < 1e-9
    assert table[2][2:] == [4 / 7, 4 / 5, 4 / 6] and table[3] == ["c", 0, None, None, None]
    one = fingerprint_scenes([scene(0)], [scene(1)])
    assert one == fingerprint_scenes([scene(0)], [scene(1)])
    assert one != fingerprint_scenes([scene(0)], [scene(2)])


def test_part_iou_counts_as_the_papers_do():
    metric = PartIoU([[0, 1], [2, 3, 4]])
    # an object of the first category: 3 of 4 points right
    logits = torch.zeros(7, 5)
    logits[[0, 1], 0] = logits[[2, 3], 1] = 1.0
    logits[:4, 4] = 9.0  # parts of another category cannot be told
    y = torch.tensor([0, 1, 1, 1, 2, 2, 3])
    # one of the second: part 4 is neither there nor told, and counts 1
    logits[[4, 5, 6], 2] = 1.0
    batch = torch.tensor([0, 0, 0, 0, 1, 1, 1])
    metric.update(logits, y, batch, torch.tensor([0, 1]))
    first, second = (1 / 2 + 2 / 3) / 2, (2 / 3 + 0 + 1) / 3
    found = metric.compute()
    assert abs(float(found["instance"]) - (first + second) / 2) < 1e-9
    metric.update(logits[:4], y[:4], batch[:4], torch.tensor([0]))
    found = metric.compute()
    assert abs(float(found["instance"]) - (2 * first + second) / 3) < 1e-9
    assert abs(float(found["category"]) - (first + second) / 2) < 1e-9
