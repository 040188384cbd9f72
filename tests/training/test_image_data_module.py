from __future__ import annotations

import numpy as np
import pytest
import torch

from pointcluster.training import ImageClassifier, ImageDataModule, ImageRecipe, RunError, evaluate


def to_tensor(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float()


def noisy(image):
    return to_tensor(image) + torch.rand(())


def make(pictures, **options):
    return ImageDataModule(
        pictures[:20], pictures[20:], train_transform=noisy, test_transform=to_tensor, **options
    )


def test_loaders(pictures):
    data = make(pictures, batch_size=8)
    batches = list(data.train_dataloader())
    assert [tuple(images.shape) for images, _ in batches] == [(8, 3, 8, 8)] * 2
    for loader in (data.val_dataloader(), data.test_dataloader()):
        (first, labels), (_, last) = loader
        assert torch.equal(first[0], to_tensor(pictures[20][0]))
        assert [*labels.tolist(), *last.tolist()] == [label for _, label in pictures[20:]]


def test_workers_change_nothing(pictures):
    for first, second in zip(
        make(pictures, batch_size=8, seed=3).train_dataloader(),
        make(pictures, batch_size=8, seed=3, num_workers=1).train_dataloader(),
        strict=True,
    ):
        assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])


def test_fewer_images_than_a_batch(pictures):
    data = make(pictures, batch_size=32)
    with pytest.raises(RunError, match="--batch-size is 32, and a process has only 20"):
        data.train_dataloader()
    with pytest.raises(ValueError, match="batch_size is 0"):
        make(pictures, batch_size=0)


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
