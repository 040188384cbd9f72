from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import lightning
import pytest
import torch
from torch import nn
from torch_geometric.data import Batch, Data
from torch_geometric.transforms import Compose, FixedPoints, RandomJitter

from pointcluster.training import (
    Classifier,
    PointDataModule,
    Recipe,
    RunError,
    evaluate,
    fit_and_test,
    vote,
)
from pointcluster.training.data import mix, seeded


class InterruptAt(lightning.Callback):
    """Sends this process the signal that Ctrl-C sends, in the middle of an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        if trainer.current_epoch == self.epoch and batch_idx == 1:
            os.kill(os.getpid(), signal.SIGINT)


def read_table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def run(tmp_path, tiny_network, clouds, classes):
    def run(name: str, *, width: int = 16, workers: int = 0, **options):
        torch.manual_seed(5)
        recipe = Recipe(lr=0.02, epochs=4, warmup_epochs=0, label_smoothing=0.1)
        classifier = Classifier(tiny_network(width=width), classes, recipe=recipe, seed=5)
        data = PointDataModule(
            clouds[:21],
            clouds[21:],
            batch_size=4,
            num_workers=workers,
            seed=5,
            train_transform=Compose([FixedPoints(16, replace=False), RandomJitter(0.05)]),
        )
        metrics = fit_and_test(
            classifier, data, folder=tmp_path / name, accelerator="cpu", **options
        )
        return classifier, metrics

    return run


def test_interrupted_and_resumed_equals_uninterrupted(run, tmp_path):
    straight, metrics = run("straight")
    with pytest.raises(KeyboardInterrupt):
        run("resumed", callbacks=(InterruptAt(2),))
    assert signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
    checkpoint = torch.load(tmp_path / "resumed/checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["epoch"] == 1  # counted from 0: two whole epochs
    torch.rand(7)  # the resumed process has another random state
    resumed, again = run("resumed", resume=True)
    assert again == metrics
    for name, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_workers_change_nothing(run):
    first, _ = run("none")
    second, _ = run("two", workers=2)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_run_learns_and_leaves_its_files(run, tmp_path, capfd):
    classifier, metrics = run("a", title="Shapes ")
    assert metrics["test_accuracy"] > 0.5
    assert classifier.test_confusion.sum() == 9
    trace = classifier.test_confusion.trace() / 9
    assert metrics["test_accuracy"] == pytest.approx(float(trace))
    rows = read_table(tmp_path / "a/metrics.csv")
    assert [float(row["epoch"]) for row in rows] == [1, 2, 3, 4]
    assert float(rows[0]["train_loss"]) > float(rows[-1]["train_loss"])
    assert list((tmp_path / "a/tensorboard").glob("events*"))
    out, err = capfd.readouterr()
    assert [line.split()[:2] for line in out.splitlines()] == [["Shapes", "epoch"]] * 4
    assert err == ""


def test_progress_bar_in_a_terminal(run, monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    run("a", title="Shapes ")
    out, err = capsys.readouterr()
    assert "Epoch 3: 100%" in out + err
    assert (out + err).count("Shapes epoch") == 4


def test_resume_keeps_the_table(run, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run("a", callbacks=(InterruptAt(3),))
    run("a", resume=True)
    rows = read_table(tmp_path / "a/metrics.csv")
    assert [float(row["epoch"]) for row in rows] == [1, 2, 3, 4]


def test_checkpoint_of_another_network(run):
    run("a")
    with pytest.raises(ValueError, match="another network.*'width': 16.*'width': 8"):
        run("a", width=8, resume=True)


def test_damaged_checkpoint(run, tmp_path):
    run("a")
    path = tmp_path / "a/checkpoints/last.ckpt"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ValueError, match="last.ckpt is damaged"):
        run("a", resume=True)


@pytest.mark.parametrize("devices", ["x", "1,1", "-1", "0"])
def test_devices_that_are_none_are_refused_in_a_sentence(run, devices):
    with pytest.raises(RunError, match=f"devices '{devices}'"):
        run("refused", devices=devices)


def test_too_few_test_clouds_for_the_processes_are_found_before_training(run, tmp_path):
    with pytest.raises(RunError, match="9 test items for 10 processes"):
        run("refused", devices=10)
    assert not (tmp_path / "refused" / "metrics.csv").exists()


@pytest.mark.slow
def test_two_processes_count_every_test_cloud_once(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent(
            """
            import sys, torch
            from conftest import TinyNetwork, make_clouds, CLASSES
            from pointcluster.training import Classifier, PointDataModule, Recipe, fit_and_test
            torch.manual_seed(0)
            recipe = Recipe(epochs=1, warmup_epochs=0)
            classifier = Classifier(TinyNetwork(), CLASSES, recipe=recipe)
            clouds = make_clouds(31)
            data = PointDataModule(clouds[:20], clouds[20:], batch_size=4)
            metrics = fit_and_test(
                classifier, data, folder=sys.argv[1], accelerator="cpu", devices=2
            )
            matrix = classifier.test_confusion
            share = float(matrix.trace() / matrix.sum())
            assert int(matrix.sum()) == 11, matrix
            assert abs(metrics["test_accuracy"] - share) < 1e-6
            print("counted", int(matrix.sum()))
            """
        )
    )
    here = Path(__file__).parent
    environment = os.environ | {"PYTHONPATH": f"{here}{os.pathsep}{here.parents[1]}"}
    environment |= {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(program), str(tmp_path / "out")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("counted 11") == 2


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


@pytest.mark.parametrize("precision", ["bf16", "bf16-mixed"])
def test_half_precision_by_either_name(run, precision):
    classifier, metrics = run("half", precision=precision)
    assert classifier.trainer.precision == "bf16-mixed"
    assert metrics["test_accuracy"] > 0.5
    assert all(value.dtype == torch.float32 for value in classifier.model.parameters())
