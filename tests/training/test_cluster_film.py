from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torch_geometric.data import Data

from pointcluster.models import create_model
from pointcluster.training import ClusterFilm


def items(count=2):
    generator = torch.Generator().manual_seed(0)
    return [Data(pos=torch.randn(60, 3, generator=generator)) for _ in range(count)]


class Run:
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
    run, film = Run(), ClusterFilm(tmp_path / "a.gif", items(), titles=["a", "b"], stage=0)
    run.train(film)
    assert film.epochs == [0, 1, 2, 3]
    last = run.network.clusters(film.items[1], 0, -1, 0)
    assert torch.equal(film.kept[-1][1]["index"].long(), last.index)
    assert not torch.equal(film.kept[0][1]["index"].long(), last.index)
    with Image.open(tmp_path / "a.gif") as picture:
        assert picture.n_frames == 4
    assert run.network.training


def test_training_is_not_touched(tmp_path):
    with_film, without = Run(), Run()
    with_film.train(ClusterFilm(tmp_path / "a.gif", items(1), every=2))
    torch.manual_seed(0)
    create_model("point_coc_tiny", num_classes=2)
    quiet = SimpleNamespace(**dict.fromkeys(
        ("on_train_start", "on_train_epoch_end", "on_train_end"), lambda *_: None
    ))  # fmt: skip
    torch.manual_seed(0)
    without = Run()
    without.train(quiet)
    own, other = with_film.network.state_dict(), without.network.state_dict()
    assert all(torch.equal(own[name], other[name]) for name in own)


def test_a_resumed_run_goes_on(tmp_path):
    run = Run()
    first = ClusterFilm(tmp_path / "a.gif", items(1))
    run.train(first, stop=2)
    file = tmp_path / "state.ckpt"
    torch.save(first.state_dict(), file)
    second = ClusterFilm(tmp_path / "a.gif", items(1))
    second.load_state_dict(torch.load(file, weights_only=True))
    run.train(second, start=2)
    assert second.epochs == [0, 1, 2, 3]
    with Image.open(tmp_path / "a.gif") as picture:
        assert picture.n_frames == 4


def test_some_epochs_and_the_last_and_one_process(tmp_path):
    film = ClusterFilm(tmp_path / "a.gif", items(1), every=2)
    Run(epochs=5).train(film)
    assert film.epochs == [0, 2, 4, 5]
    other = ClusterFilm(tmp_path / "b.gif", items(1))
    Run(first=False).train(other)
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
    options = {"path": "a.gif", "items": items()} | options
    with pytest.raises(ValueError, match=message):
        ClusterFilm(**options)
