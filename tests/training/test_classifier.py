from __future__ import annotations

import copy
import csv
import dataclasses
import math
from types import SimpleNamespace

import lightning
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F
from torchmetrics.classification import MulticlassJaccardIndex

from pointcluster.training import (
    POINT_RECIPES,
    Classifier,
    ImageClassifier,
    ImageDataModule,
    ImageRecipe,
    PointDataModule,
    PointRecipe,
    Recipe,
    RunError,
    evaluate,
    fit_and_test,
)
from pointcluster.training.classifier import MeanClassAccuracy


def test_checkpoint_names_its_network(tiny_network, classes):
    checkpoint = {}
    Classifier(tiny_network(), classes).on_save_checkpoint(checkpoint)
    Classifier(tiny_network(), classes).on_load_checkpoint(checkpoint)
    with pytest.raises(RunError, match="another network"):
        Classifier(tiny_network(width=8), classes).on_load_checkpoint(checkpoint)
    with pytest.raises(RunError, match="another network or data set.*'cube'"):
        Classifier(tiny_network(), ["cube", "b", "c"]).on_load_checkpoint(checkpoint)
    with pytest.raises(RunError, match="holds None"):
        Classifier(tiny_network(), classes).on_load_checkpoint({})


def test_checkpoint_says_how_scans_were_prepared(tiny_network, classes):
    checkpoint, prepared = {}, {"num_points": 64, "up": "z"}
    Classifier(tiny_network(), classes, preprocessing=prepared).on_save_checkpoint(checkpoint)
    assert checkpoint["network"]["preprocessing"] == prepared
    Classifier(tiny_network(), classes).on_load_checkpoint(checkpoint)  # it decides nothing


def test_dropout_is_drawn_from_seed_and_step(tiny_network, classes):
    def draw(seed, step):
        classifier = Classifier(tiny_network(), classes, seed=seed)
        classifier.__class__ = type("At", (Classifier,), {"global_step": step, "global_rank": 0})
        classifier.on_train_batch_start(None, 0)
        return torch.rand(4).tolist()

    assert draw(0, 5) == draw(0, 5)
    assert draw(0, 5) != draw(0, 6)
    assert draw(0, 5) != draw(1, 5)


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_the_run(tiny_network, classes, split, value):
    classifier = Classifier(tiny_network(), classes)
    with pytest.raises(RunError, match=f"the {split} loss is (nan|inf).*lower learning rate"):
        classifier._log_loss(split, torch.tensor(value), 3)


def test_mean_over_classes_leaves_out_a_class_without_items():
    y, found = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 1, 2])
    metric = MeanClassAccuracy(3)
    metric.update(found[:3], y[:3])
    metric.update(found[3:], y[3:])
    assert metric.compute().item() == 0.75  # of 1 and 1/2; the third class has none


@given(st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_mean_over_classes_is_the_mean_of_their_shares(number, seed):
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(number, (20,), generator=generator)
    found = torch.randint(number, (20,), generator=generator)
    shares = [(found[y == k] == k).double().mean() for k in range(number) if (y == k).any()]
    metric = MeanClassAccuracy(max(number, 2))
    metric.update(found, y)
    assert metric.compute().item() == pytest.approx(torch.stack(shares).mean().item(), abs=1e-6)


def optimize(network, recipe, steps_an_epoch=4):
    classifier = Classifier(network, ["a", "b", "c"], recipe=recipe)
    steps = steps_an_epoch * recipe.epochs
    classifier._trainer = SimpleNamespace(estimated_stepping_batches=steps)
    made = classifier.configure_optimizers()
    optimizer, plan = made["optimizer"], made["lr_scheduler"]
    rates = []
    for _ in range(steps if plan["interval"] == "step" else recipe.epochs):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        plan["scheduler"].step()
    return optimizer, rates


def test_published_optimizer(tiny_network):
    recipe = POINT_RECIPES["published"]
    optimizer, rates = optimize(tiny_network(), recipe)
    assert isinstance(optimizer, torch.optim.SGD)
    (group,) = optimizer.param_groups  # biases decay, too
    assert (group["momentum"], group["weight_decay"], group["nesterov"]) == (0.9, 1e-4, False)
    assert len(group["params"]) == 4
    assert len(rates) == 250
    for epoch in (0, 1, 100, 249):  # torch's own cosine, as the published program has it
        cosine = 1 + math.cos(math.pi * epoch / 250)
        assert rates[epoch] == pytest.approx(1e-4 + (0.01 - 1e-4) / 2 * cosine)


def test_modern_optimizer(tiny_network):
    optimizer, rates = optimize(tiny_network(), PointRecipe(epochs=20, warmup_epochs=5))
    assert isinstance(optimizer, torch.optim.AdamW)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.05, 0.0]
    assert len(rates) == 80 and rates[0] == pytest.approx(2e-3 / 20)
    assert max(rates) == rates[20] == pytest.approx(2e-3) and rates[-1] < 1e-5


@pytest.mark.parametrize("number", [2, 3, 15])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_smoothing_over_other_classes_is_the_published_loss(tiny_network, number, dtype):
    recipe = POINT_RECIPES["published"]
    names = [f"class{i}" for i in range(number)]
    classifier = Classifier(tiny_network(num_classes=number), names, recipe=recipe)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(8, number, generator=generator, dtype=dtype)
    y = torch.randint(number, (8,), generator=generator)
    loss = F.cross_entropy(logits, y, label_smoothing=classifier.label_smoothing)
    expected = 0.0
    for row, label in zip(logits.log_softmax(dim=1), y, strict=True):
        for k in range(number):
            share = 0.8 if k == label else 0.2 / (number - 1)
            expected -= float(share * row[k]) / 8
    assert float(loss) == pytest.approx(expected, rel=1e-6)


def test_smoothing_that_leaves_nothing(tiny_network):
    recipe = PointRecipe(label_smoothing=0.7, smooth_over="others")
    with pytest.raises(ValueError, match=r"label_smoothing is 0.7: .*3 classes it can be 0.667"):
        Classifier(tiny_network(), ["a", "b", "c"], recipe=recipe)
    assert Classifier(
        tiny_network(), ["a", "b", "c"], recipe=PointRecipe(label_smoothing=0.7)
    ).label_smoothing == pytest.approx(0.7)


COLOURS = ["red", "green", "blue"]
RECIPE = ImageRecipe(
    batch_size=4, epochs=4, cooldown_epochs=1, warmup_epochs=1, lr=0.05, lr_batch=4, ema=0.9
)
UPDATES = 5  # of an epoch: 21 training pictures, 4 a batch


def to_tensor(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255


def noisy(image):
    return to_tensor(image) + 0.1 * torch.randn(3, 8, 8)


class KilledAt(lightning.Callback):
    """Ends the train in the middle of an epoch."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if trainer.current_epoch == self.epoch and batch_idx == 1:
            raise RuntimeError("killed")


class Notes(lightning.Callback):
    """Keeps the learning rate and the weights of every step."""

    def __init__(self):
        self.rates, self.weights = [], []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.weights.append(copy.deepcopy(module.model.state_dict()))


@pytest.fixture
def train(tmp_path, tiny_image_network, pictures):
    def train(name, recipe=RECIPE, *, width=8, workers=0, **options):
        torch.manual_seed(5)
        classifier = ImageClassifier(
            tiny_image_network(width=width), COLOURS, recipe=recipe, data_config={}, seed=5
        )
        data = ImageDataModule(
            pictures[:21],
            pictures[21:],
            train_transform=noisy,
            test_transform=to_tensor,
            batch_size=recipe.batch_size,
            num_workers=workers,
            seed=5,
        )
        metrics = fit_and_test(
            classifier,
            data,
            folder=tmp_path / name,
            accelerator="cpu",
            **options,
        )
        return classifier, metrics

    return train


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


@pytest.mark.parametrize("schedule", ["epoch", "step"])
def test_killed_and_resumed_equals_uninterrupted(train, tmp_path, schedule):
    recipe = dataclasses.replace(RECIPE, schedule=schedule)
    straight, metrics = train("straight", recipe)
    with pytest.raises(RuntimeError, match="killed"):
        train("resumed", recipe, callbacks=(KilledAt(2),))
    checkpoint = torch.load(tmp_path / "resumed/checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["epoch"] == 1  # counted from 0: two whole epochs
    torch.rand(7)  # the resumed process has another random state
    resumed, again = train("resumed", recipe, resume=True)
    assert again == metrics
    assert equal(straight.state_dict(), resumed.state_dict())
    with open(tmp_path / "resumed/metrics.csv", newline="") as file:
        assert [float(row["epoch"]) for row in csv.DictReader(file)] == [1, 2, 3, 4]


def test_workers_change_nothing(train):
    first, _ = train("none")
    second, _ = train("one", workers=1)
    assert equal(first.state_dict(), second.state_dict())


def test_schedule_by_epoch(train):
    notes = Notes()
    train("a", callbacks=(notes,))
    # timm's: a line from the first rate, a cosine over all three epochs, then the lowest
    expected = [1e-6, *(1e-6 + (0.05 - 1e-6) * part for part in (0.75, 0.25)), 1e-6]
    assert notes.rates[::UPDATES] == pytest.approx(expected)
    assert notes.rates == [rate for rate in notes.rates[::UPDATES] for _ in range(UPDATES)]


def test_schedule_by_step_and_accumulation(train):
    notes = Notes()
    recipe = dataclasses.replace(RECIPE, schedule="step", accumulate=2)
    train("a", recipe, callbacks=(notes,))
    first = notes.rates[:UPDATES]  # two steps an update, and one update of a single step
    assert first == pytest.approx([1e-6 + (0.1 - 1e-6) * k / 3 for k in (0, 0, 1, 1, 2)])
    same = [equal(*pair) for pair in zip(notes.weights, notes.weights[1:], strict=False)]
    assert same[: UPDATES - 1] == [False, True, False, False]  # updates after steps 2, 4 and 5


def test_learning_rate_grows_with_the_images_of_an_update(train):
    recipe = dataclasses.replace(RECIPE, warmup_epochs=0, lr_batch=16, accumulate=3)
    notes = Notes()
    train("a", recipe, callbacks=(notes,))
    assert notes.rates[0] == pytest.approx(0.05 * 12 / 16)


def test_average_of_the_weights(train):
    notes = Notes()
    classifier, _ = train("a", callbacks=(notes,))
    expected = notes.weights[0]["head.weight"]
    for weights in notes.weights[1:]:
        expected = 0.9 * expected + 0.1 * weights["head.weight"]
    torch.testing.assert_close(classifier.evaluated().head.weight, expected)
    assert classifier.evaluated() is not classifier.model
    plain, _ = train("b", dataclasses.replace(RECIPE, ema=0.0))
    assert plain.evaluated() is plain.model
    # the average does not change what is trained, and is what is tested
    assert equal(plain.model.state_dict(), classifier.model.state_dict())


def test_biases_and_scales_do_not_decay(tiny_image_network):
    classifier = ImageClassifier(
        tiny_image_network(), COLOURS, recipe=RECIPE, data_config={}, seed=0
    )
    classifier.trainer = lightning.Trainer(accelerator="cpu", logger=False, max_epochs=4)
    classifier.trainer.fit_loop.epoch_loop.max_steps = 20
    optimizer = classifier.configure_optimizers()["optimizer"]
    decay = {
        parameter: group["weight_decay"]
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    for parameter in classifier.model.parameters():
        assert decay.pop(parameter) == (0.05 if parameter.ndim > 1 else 0.0)
    assert not decay  # the average is not trained


@pytest.fixture
def step(tiny_image_network):
    """A training step by itself: what the network gets to see, and the loss."""

    def step(recipe, images, number):
        classifier = ImageClassifier(
            tiny_image_network(), COLOURS, recipe=recipe, data_config={}, seed=0
        )
        seen = []

        def network(images):
            seen.append(images.clone())
            return torch.zeros(len(images), 3).log_softmax(1)

        classifier.model = torch.nn.Module()
        classifier.model.forward = network
        classifier.log = classifier.log_dict = lambda *arguments, **options: None
        classifier.__class__ = type(
            "At", (ImageClassifier,), {"current_epoch": 0, "global_rank": 0, "global_step": 0}
        )
        y = torch.tensor([0, 1, 2, 0])
        loss = classifier.training_step((images.clone(), y), number)
        return seen[0], loss

    return step


def test_mixup_mixes_pictures_and_smoothed_targets(step):
    recipe = dataclasses.replace(RECIPE, random_erasing=0.0)
    images = torch.eye(4).reshape(4, 4, 1, 1).expand(4, 4, 8, 8).clone()
    seen, loss = step(recipe, images, 3)
    torch.testing.assert_close(loss, torch.tensor(3.0).log())  # of any target that adds up to 1
    mixed = seen.mean((2, 3))
    assert not torch.equal(seen, images)
    torch.testing.assert_close(mixed.sum(1), torch.ones(4))
    torch.testing.assert_close(mixed, mixed.flip(0, 1))  # each with its mirror in the batch
    again, same = step(recipe, images, 3)
    assert torch.equal(same, loss) and torch.equal(again, seen)
    assert not torch.equal(step(recipe, images, 4)[0].mean((2, 3)), mixed)


@pytest.mark.parametrize("mixup", [0.8, 0.0])
def test_a_part_of_each_picture_is_erased_after_mixup(step, mixup):
    recipe = dataclasses.replace(RECIPE, random_erasing=1.0, mixup=mixup, cutmix=0.0)
    images = torch.full((4, 3, 16, 16), 9.0)  # mixed, they stay as they are
    seen, _ = step(recipe, images, 3)
    erased = (seen - 9).abs() > 1e-3
    share = erased.float().mean((1, 2, 3))
    assert (share > 0.01).all() and (share < 0.5).all()
    for one in erased:  # noise in a rectangle
        rows, columns = one.any(0).any(1), one.any(0).any(0)
        assert torch.equal(one.all(0), rows[:, None] & columns)
    assert torch.equal(step(recipe, images, 3)[0], seen)
    assert not torch.equal(step(recipe, images, 4)[0], seen)
    kept = dataclasses.replace(recipe, random_erasing=0.0)
    torch.testing.assert_close(step(kept, images, 3)[0], images)


def test_without_mixup_the_target_is_smoothed(tiny_image_network, pictures):
    recipe = dataclasses.replace(RECIPE, mixup=0.0, cutmix=0.0, random_erasing=0.0)
    classifier = ImageClassifier(
        tiny_image_network(), COLOURS, recipe=recipe, data_config={}, seed=0
    ).eval()
    classifier.log = classifier.log_dict = lambda *arguments, **options: None
    images = torch.stack([to_tensor(image) for image, _ in pictures[:4]])
    y = torch.tensor([label for _, label in pictures[:4]])
    logits = classifier(images)
    expected = F.cross_entropy(logits, y, label_smoothing=0.1)
    torch.testing.assert_close(classifier.training_step((images, y), 0), expected)


def test_top5_counts_the_five_best(tiny_image_network, pictures):
    torch.manual_seed(0)
    model = tiny_image_network(num_classes=8)
    names = [str(i) for i in range(8)]
    classifier = ImageClassifier(model, names, recipe=RECIPE, data_config={}, seed=0)
    data = ImageDataModule(
        [], pictures, train_transform=noisy, test_transform=to_tensor, batch_size=7
    )
    metrics = evaluate(classifier, data, accelerator="cpu")
    with torch.no_grad():
        order = model.eval()(torch.stack([to_tensor(i) for i, _ in pictures])).argsort(1).flip(1)
    y = torch.tensor([label for _, label in pictures])[:, None]
    assert metrics["test_accuracy"] == pytest.approx(float((order[:, :1] == y).float().mean()))
    top5 = float((order[:, :5] == y).any(1).float().mean())
    assert metrics["test_top5_accuracy"] == pytest.approx(top5)
    assert 0 < top5 < 1


def test_learns(train):
    recipe = dataclasses.replace(RECIPE, epochs=8, ema=0.0, mixup=0.0, cutmix=0.0, clip_grad=5.0)
    _, metrics = train("a", recipe)
    assert metrics["test_accuracy"] > 0.8
    assert "test_top5_accuracy" not in metrics  # of three classes


def test_limited_batches(train):
    notes = Notes()
    train("a", callbacks=(notes,), limit_batches=2)
    assert len(notes.rates) == 2 * RECIPE.epochs


def test_checkpoint_of_another_network_of_pictures(train):
    train("a")
    with pytest.raises(RunError, match="another network.*'width': 8.*'width': 4"):
        train("a", width=4, resume=True)


class Segmenter(Classifier):
    """Another task: the class of every point, by the mean over classes of their overlap."""

    def measures(self, number):
        return {"miou": MulticlassJaccardIndex(number)}

    def unpack(self, batch):
        return batch, batch.label


class PointNetwork(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.config = {"name": "points"}
        self.head = torch.nn.Linear(3, 3)

    def forward(self, batch):
        return self.head(batch.pos)


def test_another_task_says_its_data_and_measures(clouds, classes, tmp_path):
    for cloud in clouds:
        cloud.label = cloud.pos.argmax(dim=1)
    data = PointDataModule(clouds[:20], clouds[20:], batch_size=4)
    recipe = Recipe(epochs=4, warmup_epochs=0, lr=0.05)
    classifier = Segmenter(PointNetwork(), classes, recipe=recipe)
    metrics = fit_and_test(classifier, data, folder=tmp_path, accelerator="cpu")
    assert set(metrics) == {"test_miou", "test_loss"} and metrics["test_miou"] > 0.5
    assert classifier.test_confusion.sum() == sum(len(cloud.pos) for cloud in clouds[20:])


def test_random_numbers_of_added_up_steps_differ(tiny_network, classes):
    recipe = Recipe(accumulate=2)
    classifier = Classifier(tiny_network(), classes, recipe=recipe)
    classifier.__class__ = type("At", (Classifier,), {"global_step": 3, "global_rank": 0})
    drawn = set()
    for number in (6, 7):
        classifier.on_train_batch_start(None, number)
        drawn.add(float(torch.rand(())))
    assert len(drawn) == 2
