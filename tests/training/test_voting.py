from __future__ import annotations

import pytest
import torch
from torch import nn
from torch_geometric.data import Batch, Data
from torch_geometric.transforms import Compose, FixedPoints, RandomJitter

from pointcluster.training import Classifier, PointDataModule, evaluate, vote
from pointcluster.training.seeding import mix, seeded


@pytest.fixture
def classifier(tiny_network, classes):
    torch.manual_seed(3)
    return Classifier(tiny_network(), classes)


def test_equals_a_plain_loop(classifier, clouds):
    transform = Compose([FixedPoints(6, replace=False), RandomJitter(0.5)])
    found = vote(
        classifier, clouds, 4, transform=transform, batch_size=7, seed=5, accelerator="cpu"
    )
    right, by_class = 0, torch.zeros(3, 2)
    classifier.eval()
    for i, cloud in enumerate(clouds):
        shares = torch.zeros(3)
        for view in range(4):
            with seeded(mix(5, view, 1), 0, i), torch.no_grad():
                batch = Batch.from_data_list([transform(cloud.clone())])
                shares += classifier(batch)[0].softmax(dim=0)
        hit = int(shares.argmax()) == int(cloud.y)
        right += hit
        by_class[cloud.y] += torch.tensor([hit, 1.0])
    assert found["voted_accuracy"] == pytest.approx(right / len(clouds))
    mean = float((by_class[:, 0] / by_class[:, 1]).mean())
    assert found["voted_mean_class_accuracy"] == pytest.approx(mean)
    assert set(found) == {"voted_accuracy", "voted_mean_class_accuracy"}


class FirstPoint(nn.Module):
    """Gives the first point of each cloud as the logits of three classes."""

    def __init__(self):
        super().__init__()
        self.config = {"name": "first"}

    def forward(self, batch):
        return batch.pos[batch.ptr[:-1]]


@pytest.mark.parametrize(
    ("second", "winner"),
    [
        (2.0, 1),  # by probabilities: 1.21 against 1.57; by logits it would be the first class
        (0.2, 0),  # by probabilities: 1.62 against 0.76; by counting views it would be the second
    ],
)
def test_probabilities_are_averaged_not_logits_or_choices(classes, second, winner):
    views = torch.tensor([[[9.0, 0, 0]], [[0, second, 0]], [[0, second, 0]]])
    for label in range(3):
        cloud = Data(pos=torch.zeros(1, 3), y=torch.tensor([label]))
        drawn = iter(views)
        found = vote(
            Classifier(FirstPoint(), classes),
            [cloud],
            3,
            transform=lambda cloud, drawn=drawn: Data(pos=next(drawn), y=cloud.y),
            accelerator="cpu",
        )
        assert found["voted_accuracy"] == (label == winner)


def test_views_that_are_the_cloud_vote_as_the_test_does(classifier, clouds):
    found = vote(classifier, clouds, 3, transform=lambda cloud: cloud, accelerator="cpu")
    data = PointDataModule(clouds, clouds)
    plain = evaluate(classifier, data, accelerator="cpu")
    assert found["voted_accuracy"] == pytest.approx(plain["test_accuracy"])


def test_same_views_for_any_batches_and_workers(classifier, clouds):
    options = {"transform": RandomJitter(1.0), "seed": 1, "accelerator": "cpu"}
    first = vote(classifier, clouds, 3, batch_size=4, **options)
    assert vote(classifier, clouds, 3, batch_size=30, num_workers=1, **options) == first


def test_batches_may_be_made_another_way(classifier, clouds):
    made = []

    def collate(items):
        made.append(len(items))
        return Batch.from_data_list(items)

    options = {"transform": RandomJitter(1.0), "batch_size": 20, "accelerator": "cpu"}
    assert vote(classifier, clouds, 2, collate=collate, **options) == vote(
        classifier, clouds, 2, **options
    )
    assert made == [20, 10] * 2


def test_number_of_votes_is_checked(classifier, clouds):
    with pytest.raises(ValueError, match="votes is 0, expected at least 1"):
        vote(classifier, clouds, 0, transform=lambda cloud: cloud)
