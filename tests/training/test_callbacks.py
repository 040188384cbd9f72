from __future__ import annotations

import csv
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torch_geometric.data import Batch, Data

from pointcluster.models import create_model
from pointcluster.training import (
    Classifier,
    ClusterFilm,
    PointDataModule,
    Recipe,
    evaluate,
    fit_and_test,
)
from pointcluster.training.callbacks import EpochTable, LastCheckpoint, TestEachEpoch


def end_epoch(table, epoch, *, first=True, every_second=False, **metrics):
    printed = []
    trainer = SimpleNamespace(
        current_epoch=epoch,
        max_epochs=3,
        check_val_every_n_epoch=2 if every_second else 1,
        is_global_zero=first,
        optimizers=[SimpleNamespace(param_groups=[{"lr": 0.5}])],
        callback_metrics={name: torch.tensor(value) for name, value in metrics.items()},
    )
    module = SimpleNamespace(print=printed.append)
    table.on_train_epoch_start(trainer, module)
    table.on_before_optimizer_step(trainer, module, trainer.optimizers[0])
    table.on_train_epoch_end(trainer, module)
    return printed


def test_a_line_and_a_row(tmp_path):
    table = EpochTable(tmp_path / "metrics.csv", title="Shapes ")
    (line,) = end_epoch(table, 0, train_loss=1.5, train_accuracy=0.25, val_accuracy=0.5)
    assert line.startswith("Shapes epoch   1/3  loss 1.500  train  25.0%  validation  50.0%  ")
    with open(tmp_path / "metrics.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert (float(row["epoch"]), float(row["train_loss"]), float(row["lr"])) == (1, 1.5, 0.5)


def test_an_earlier_validation_is_not_told_again(tmp_path):
    table = EpochTable(tmp_path / "metrics.csv")
    measures = {"train_loss": 1.5, "train_accuracy": 0.25, "val_accuracy": 0.5}
    lines = [end_epoch(table, n, every_second=True, **measures)[0] for n in range(3)]
    assert ["validation" in line for line in lines] == [False, True, False]
    with open(tmp_path / "metrics.csv", newline="") as file:
        assert [row["val_accuracy"] for row in csv.DictReader(file)] == ["", "0.5", ""]


def test_rows_go_through_the_checkpoint(tmp_path):
    first = EpochTable(tmp_path / "a.csv")
    end_epoch(first, 0, train_loss=1.5, train_accuracy=0.25)
    second = EpochTable(tmp_path / "b.csv")
    second.load_state_dict(first.state_dict())
    end_epoch(second, 1, train_loss=1.0, train_accuracy=0.5)
    with open(tmp_path / "b.csv", newline="") as file:
        assert [float(row["train_loss"]) for row in csv.DictReader(file)] == [1.5, 1.0]


def test_other_processes_write_nothing(tmp_path):
    table = EpochTable(tmp_path / "a.csv")
    assert end_epoch(table, 0, first=False, train_loss=1.5, train_accuracy=0.25) == []
    assert list(tmp_path.iterdir()) == []


def test_checkpoint_is_saved_at_the_end_of_an_epoch(tmp_path):
    saved = []
    trainer = SimpleNamespace(save_checkpoint=saved.append)
    LastCheckpoint(tmp_path / "last.ckpt").on_train_epoch_end(trainer, None)
    assert saved == [tmp_path / "last.ckpt"]


@pytest.fixture
def fit(tmp_path, tiny_network, clouds, classes):
    def run(name, epochs, *callbacks, resume=False):
        torch.manual_seed(5)
        recipe = Recipe(lr=0.02, epochs=epochs, warmup_epochs=0, label_smoothing=0.1)
        classifier = Classifier(tiny_network(), classes, recipe=recipe, seed=5)
        data = PointDataModule(clouds[:21], clouds[21:], batch_size=4, seed=5)
        metrics = fit_and_test(
            classifier,
            data,
            folder=tmp_path / name,
            resume=resume,
            accelerator="cpu",
            callbacks=callbacks,
            say=lambda text: None,
        )
        return classifier, data, metrics

    return run


def test_testing_each_epoch_changes_nothing_and_is_right(fit, tmp_path):
    each = TestEachEpoch(tmp_path / "each.csv")
    classifier, data, metrics = fit("a", 3, each)
    plain, _, expected = fit("b", 3)
    assert metrics == expected
    for name, value in plain.state_dict().items():
        assert torch.equal(value, classifier.state_dict()[name]), name
    with open(tmp_path / "each.csv", newline="") as file:
        rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert rows[-1]["test_accuracy"] == metrics["test_accuracy"]
    assert rows[-1]["test_mean_class_accuracy"] == metrics["test_mean_class_accuracy"]
    state = torch.load(tmp_path / "a/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    classifier.load_state_dict(state)
    assert (
        evaluate(classifier, data, accelerator="cpu")["test_accuracy"] == metrics["test_accuracy"]
    )
    best = each.best()
    assert best["test_accuracy"] == max(row["test_accuracy"] for row in rows)
    assert rows[best["epoch"] - 1]["test_accuracy"] == best["test_accuracy"]
    assert "not a result" in best["label"]


@pytest.mark.parametrize("frozen", [(), ("inner",), ("inner.2", "head"), ("",)])
def test_every_part_gets_its_mode_back(tiny_network, clouds, classes, tmp_path, frozen):
    classifier = Classifier(tiny_network(), classes)
    for name in frozen:
        classifier.model.get_submodule(name).eval()
    before = {name: part.training for name, part in classifier.named_modules()}
    during = []
    classifier.model.register_forward_hook(
        lambda model, *_: during.extend(part.training for part in model.modules())
    )
    batch = Batch.from_data_list(clouds)
    trainer = SimpleNamespace(
        current_epoch=0,
        is_global_zero=True,
        datamodule=SimpleNamespace(test_dataloader=lambda: [batch]),
        strategy=SimpleNamespace(batch_to_device=lambda batch: batch),
        precision_plugin=SimpleNamespace(forward_context=nullcontext),
    )
    TestEachEpoch(tmp_path / "each.csv").on_train_epoch_end(trainer, classifier)
    assert during and not any(during)
    assert {name: part.training for name, part in classifier.named_modules()} == before
    assert (not all(before.values())) == bool(frozen)


def test_rows_of_a_run_that_is_through_come_back(fit, tmp_path):
    first, second = TestEachEpoch(tmp_path / "a.csv"), TestEachEpoch(tmp_path / "b.csv")
    fit("a", 2, first)
    fit("a", 2, second, resume=True)
    assert second.rows == first.rows and second.best() == first.best()


def test_the_first_of_equal_epochs_is_the_best(tmp_path):
    each = TestEachEpoch(tmp_path / "a.csv")
    accuracies = [0.5, 0.75, 0.75, 0.25]
    each.load_state_dict({"rows": [
        {"epoch": float(i + 1), "test_accuracy": value} for i, value in enumerate(accuracies)
    ]})  # fmt: skip
    assert each.best()["epoch"] == 2


def film_items(count=2):
    generator = torch.Generator().manual_seed(0)
    return [Data(pos=torch.randn(60, 3, generator=generator)) for _ in range(count)]


class FilmRun:
    """Stands for Lightning's trainer and module: "trains" by changing the weights."""

    def __init__(self, epochs=3, first=True):
        torch.manual_seed(0)
        self.network = create_model("point_coc_tiny", num_classes=2).train()
        self.trainer = SimpleNamespace(current_epoch=0, max_epochs=epochs, is_global_zero=first)
        self.module = SimpleNamespace(
            evaluated=lambda: self.network, device=torch.device("cpu")
        )  # fmt: skip

    def train(self, film, start=0, stop=None):
        film.on_train_start(self.trainer, self.module)
        for epoch in range(start, stop or self.trainer.max_epochs):
            self.trainer.current_epoch = epoch
            with torch.no_grad():
                for parameter in self.network.parameters():
                    parameter += 0.1 * torch.randn_like(parameter)
            film.on_train_epoch_end(self.trainer, self.module)
        if stop is None:
            film.on_train_end(self.trainer, self.module)


def test_one_picture_before_and_after_every_epoch(tmp_path):
    run, film = FilmRun(), ClusterFilm(tmp_path / "a.gif", film_items(), titles=["a", "b"], stage=0)
    run.train(film)
    assert film.epochs == [0, 1, 2, 3]
    last = run.network.clusters(film.items[1], 0, -1, 0)
    assert torch.equal(film.kept[-1][1]["index"].long(), last.index)
    assert not torch.equal(film.kept[0][1]["index"].long(), last.index)
    with Image.open(tmp_path / "a.gif") as picture:
        assert picture.n_frames == 4
    assert run.network.training


def test_training_is_not_touched(tmp_path):
    with_film, without = FilmRun(), FilmRun()
    with_film.train(ClusterFilm(tmp_path / "a.gif", film_items(1), every=2))
    torch.manual_seed(0)
    create_model("point_coc_tiny", num_classes=2)
    quiet = SimpleNamespace(**dict.fromkeys(
        ("on_train_start", "on_train_epoch_end", "on_train_end"), lambda *_: None
    ))  # fmt: skip
    torch.manual_seed(0)
    without = FilmRun()
    without.train(quiet)
    own, other = with_film.network.state_dict(), without.network.state_dict()
    assert all(torch.equal(own[name], other[name]) for name in own)


def test_a_resumed_run_goes_on(tmp_path):
    run = FilmRun()
    first = ClusterFilm(tmp_path / "a.gif", film_items(1))
    run.train(first, stop=2)
    file = tmp_path / "state.ckpt"
    torch.save(first.state_dict(), file)
    second = ClusterFilm(tmp_path / "a.gif", film_items(1))
    second.load_state_dict(torch.load(file, weights_only=True))
    run.train(second, start=2)
    assert second.epochs == [0, 1, 2, 3]
    with Image.open(tmp_path / "a.gif") as picture:
        assert picture.n_frames == 4


def test_some_epochs_and_the_last_and_one_process(tmp_path):
    film = ClusterFilm(tmp_path / "a.gif", film_items(1), every=2)
    FilmRun(epochs=5).train(film)
    assert film.epochs == [0, 2, 4, 5]
    other = ClusterFilm(tmp_path / "b.gif", film_items(1))
    FilmRun(first=False).train(other)
    assert other.epochs == [] and not (tmp_path / "b.gif").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": "a.png"}, "written as .gif or .mp4"),
        ({"titles": ["a"]}, "2 items and 1 titles"),
        ({"items": []}, "0 items"),
        ({"every": 0}, "every is 0"),
    ],
)
def test_what_makes_no_film(options, message):
    options = {"path": "a.gif", "items": film_items()} | options
    with pytest.raises(ValueError, match=message):
        ClusterFilm(**options)
