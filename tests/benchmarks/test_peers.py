from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch, Data


def clouds(*sizes: int) -> Batch:
    generator = torch.Generator().manual_seed(0)
    return Batch.from_data_list([Data(pos=torch.rand(n, 3, generator=generator)) for n in sizes])


SIZES = {
    "pointnet": (3.4e6, 3.6e6),
    "pointnet2": (1.4e6, 1.6e6),
    "dgcnn": (1.75e6, 1.85e6),
    "pointmlp": (0.6e6, 0.8e6),
}


@pytest.mark.parametrize(("name", "low", "high"), [(k, *v) for k, v in SIZES.items()])
def test_peers_have_their_size_and_shapes(script, name, low, high):
    model = script("peers").create(name, 11)
    assert low < sum(p.numel() for p in model.parameters()) < high
    assert model.config == {"name": name, "num_classes": 11}
    logits = model(clouds(64, 64, 64))
    assert logits.shape == (3, 11)
    (logits.sum() + getattr(model, "penalty", 0)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", SIZES)
def test_peers_see_each_cloud_alone_in_any_order(script, name):
    model = script("peers").create(name, 5).double().eval()
    parts = [cloud.pos.double() for cloud in clouds(40, 33, 15).to_data_list()]
    together = model(Batch.from_data_list([Data(pos=pos) for pos in parts]))
    for row, pos in zip(together, parts, strict=True):
        shuffled = pos[torch.randperm(len(pos), generator=torch.Generator().manual_seed(1))]
        alone = model(Batch.from_data_list([Data(pos=shuffled)]))[0]
        assert torch.allclose(alone, row, atol=1e-10)


def test_equal_clouds_take_a_shorter_way_to_the_same_answer(script):
    peers = script("peer_networks")
    x = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
    matrix = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(1))
    batch = torch.arange(3).repeat_interleave(4)
    assert peers.equal_clouds(batch, 3)
    assert not peers.equal_clouds(torch.tensor([0] * 5 + [1] * 3 + [2] * 4), 3)
    assert torch.equal(peers.maximum(x, batch, 3), x.view(3, 4, 4).amax(dim=1))
    expected = torch.stack([x[n] @ matrix[batch[n]] for n in range(12)])
    assert torch.allclose(peers.turned(x, matrix, batch), expected, atol=1e-6)
    ragged = torch.tensor([0] * 5 + [1] * 3 + [2] * 4)
    expected = torch.stack([x[n] @ matrix[ragged[n]] for n in range(12)])
    assert torch.allclose(peers.turned(x, matrix, ragged), expected, atol=1e-6)
    expected = torch.stack([x[:5].amax(0), x[5:8].amax(0), x[8:].amax(0)])
    assert torch.equal(peers.maximum(x, ragged, 3), expected)


def test_an_edge_convolution_is_a_network_of_every_edge(script):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(30, 6, dtype=torch.float64, generator=generator)
    near = torch.randint(30, (30, 4), generator=generator)
    layer = script("peers").DGCNN(3).convs[0].__class__(6, 5).double()
    edges = torch.stack(
        [torch.cat([x[j] - x[i], x[i]]) for i, row in enumerate(near.tolist()) for j in row]
    )
    with torch.no_grad():  # a negative scale turns the order of the edges around
        layer.norm.weight.copy_(torch.tensor([1.0, -2, 0.5, -1, 3]))
    twin = copy.deepcopy(layer)
    for step in range(3):
        if step == 2:
            layer.eval(), twin.eval()
        plain = torch.nn.functional.leaky_relu(twin.norm(twin.linear(edges)), 0.2)
        plain = plain.view(30, 4, 5).amax(dim=1)
        found = layer(x, near)
        assert torch.allclose(found, plain, atol=1e-12)
        out = torch.randn(30, 5, dtype=torch.float64, generator=generator)
        expected = torch.autograd.grad((plain * out).sum(), list(twin.parameters()))
        given = torch.autograd.grad((found * out).sum(), list(layer.parameters()))
        for one, other in zip(given, expected, strict=True):
            assert torch.allclose(one, other, atol=1e-10)
    for one, other in zip(layer.norm.buffers(), twin.norm.buffers(), strict=True):
        assert torch.allclose(one, other, atol=1e-12)


def test_nearest_features_are_those_of_the_library(script):
    peers = script("peer_networks")
    x = torch.randn(70, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    batch = torch.tensor([0] * 40 + [1] * 30)
    expected = peers.knn(x, x, 20, batch, batch)
    assert torch.equal(peers.nearest_features(x, 20, [40, 30]), expected)


def test_a_ball_without_enough_points_repeats_the_nearest(script):
    nets = script("peer_networks")
    layer = nets.SetAbstraction(0.5, 0.3, [3, 8], k=5).double().eval()
    pos = torch.rand(40, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found, middle, _ = layer(None, pos, torch.zeros(40, dtype=torch.int64), 1)
    for row, center in zip(found, middle, strict=True):
        d = (pos - center).norm(dim=1)
        ball = d.argsort()[:5]
        ball = ball[d[ball] <= 0.3]
        expected = layer.mlp(pos[ball] - center).amax(dim=0)
        assert torch.allclose(row, expected, atol=1e-12)


class Stop(Exception):
    pass


def test_training_is_that_of_the_example(script, monkeypatch, tmp_path):
    """Same data, augmentation, optimiser and seed: the comparison stands and falls with this."""
    peers = script("peers")
    seen = []

    def stop(model, classes, **options):
        seen.append((options, next(model.parameters()).detach().clone()))
        raise Stop

    monkeypatch.setattr(peers.training, "PointDataModule", lambda *_, **given: seen.append(given))
    monkeypatch.setattr(peers.training, "Classifier", stop)
    monkeypatch.setattr(peers, "Classifier", stop)
    train = peers.HomeObjects(split="train")

    few = peers.training.Clouds("HomeObjects", train[:9], train[:9], peers.POINTS)
    monkeypatch.setattr(peers.modelnet40, "load_data", lambda args: few)
    command = ["modelnet40.py", "--num-points", "64", "--seed", "3", "--out", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(Stop):
        peers.modelnet40.run(peers.modelnet40.parse_arguments())

    args = peers.parse_arguments(["--num-points", "64", "--work", str(tmp_path)])
    settings = peers.settings_of("point_coc_tiny", 3, args, len(train.classes))
    with pytest.raises(Stop):
        peers.train_and_test(settings, args, train, train)

    example, weight, ours, own_weight = seen[0], seen[1], seen[2], seen[3]
    for name, value in ours.items():
        assert repr(example[name]) == repr(value), name
    assert {*example} - {*ours} <= {"num_workers", "out", "collate"}
    assert weight[0].pop("preprocessing")["num_points"] == 64  # told, without an effect
    assert weight[0] == own_weight[0]
    assert torch.equal(weight[1], own_weight[1])
    assert args.epochs == peers.modelnet40.RECIPES["HomeObjects"].epochs


def test_runs_are_written_compared_and_not_repeated(script, monkeypatch, tmp_path, capsys):
    peers = script("peers")
    accuracy = {"point_coc_tiny": 0.9, "pointnet": 0.85}
    trained = []

    def train_and_test(settings, args, train, test):
        name, seed = settings["model"], settings["seed"]
        trained.append((name, seed))
        return settings | {
            "test_accuracy": accuracy[name] + 0.01 * seed,
            "test_mean_class_accuracy": accuracy[name] - 0.1,
            "train_seconds": 12.0,
            "machine": "a machine",
        }

    monkeypatch.setattr(peers, "train_and_test", train_and_test)
    common = ["--num-points", "64", "--out", str(tmp_path), "--models", *accuracy]
    common += ["--budget", "0", "--work", str(tmp_path / "work")]
    assert peers.main([*common, "--seeds", "1"]) == 0
    assert peers.main([*common, "--seeds", "3", "--lr", "pointnet=0.002"]) == 0
    assert trained == [(name, seed) for seed in range(3) for name in accuracy]
    assert len(json.loads((tmp_path / "peers.json").read_text())["runs"]) == 6
    page = (tmp_path / "peers.md").read_text(encoding="utf-8")
    assert page in capsys.readouterr().out
    assert "| 91.0 ± 1.0 | 80.0 ± 0.0 | – | – | – |" in page
    assert "point_coc_tiny is 5.0 points ahead of pointnet overall" in page

    assert peers.main([*common, "--seeds", "1", "--lr", "pointnet=0.001"]) == 0
    assert trained[6:] == [("pointnet", 0)]
    assert "a highest learning rate of 0.002 (pointnet 0.001)" in (tmp_path / "peers.md").read_text(
        encoding="utf-8"
    )

    assert peers.main([*common, "--seeds", "2", "pointnet=1"]) == 0
    page = (tmp_path / "peers.md").read_text(encoding="utf-8")
    assert "90.5 ± 0.7 |" in page and "| 85.0 (1 run) | 75.0 (1 run) |" in page
    assert "over 2 seeds where no other number of runs is given; one" in page

    timed = [*common, "--seeds", "2", "--budget", "1e-9", "--models", "pointnet", "pointmlp"]
    assert peers.main([*timed, "--untrained", "pointmlp"]) == 0
    page = (tmp_path / "peers.md").read_text(encoding="utf-8")
    rows = {line.split(" | ")[0][2:]: line[:-2].split(" | ") for line in page.splitlines()[8:]}
    assert rows["pointmlp"][3:5] == ["–", "–"] and rows["pointnet"][3].startswith("85.5 ±")
    for name in ("pointnet", "pointmlp"):
        cells = [cell.removesuffix(" MiB").replace(",", "") for cell in rows[name][5:]]
        assert all(float(cell) > 0 for cell in cells)
    assert (tmp_path / "peers.png").stat().st_size > 5000
    assert "![Accuracy against speed](peers.png)" in page
    with pytest.raises(SystemExit):
        peers.parse_arguments(["--models", "pointnet", "--untrained", "pointnet"])


@pytest.mark.parametrize("folds", [2, 4, 8])
def test_folds_part_the_training_clouds_and_keep_groups_together(script, folds):
    peers = script("peers")
    data = peers.HomeObjects(split="train")
    seen, labels = [], []
    for fold in range(folds):
        rest, held = peers.without_fold(data, folds, fold)
        again = peers.without_fold(data, folds, fold)[1]
        assert [item.name for item in held] == [item.name for item in again]
        assert len(rest) + len(held) == len(data)
        assert not {int(item.group) for item in held} & {int(item.group) for item in rest}
        seen += [item.name for item in held]
        labels.append(torch.bincount(torch.tensor([int(item.y) for item in held]), minlength=12))
    assert len(set(seen)) == len(seen) == len(data)
    counts = torch.stack(labels)
    assert (counts > 0).all()  # each class in each fold
    if folds < 8:  # and evenly, but for a class that one large group is most of
        assert (counts.amax(dim=0) - counts.amin(dim=0)).median() <= 2


def test_a_page_of_folds_uses_no_test_cloud(script, monkeypatch, tmp_path, capsys):
    peers = script("peers")
    sizes = []

    class Loaders:
        def __init__(self, train, test, **options):
            sizes.append((len(train), len(test)))

    def fit_and_test(classifier, data, *, folder, title, **options):
        (folder / "metrics.csv").write_text("epoch,seconds\n1,2.5\n")
        share = len(sizes) / 20  # 0.05, 0.1, ...
        return {"test_accuracy": share, "test_mean_class_accuracy": share / 2}

    monkeypatch.setattr(peers.training, "PointDataModule", Loaders)
    monkeypatch.setattr(peers.training, "fit_and_test", fit_and_test)
    common = ["--num-points", "64", "--out", str(tmp_path), "--work", str(tmp_path / "work"),
              "--budget", "0", "--seeds", "2", "--folds", "3"]  # fmt: skip
    assert peers.main([*common, "--models", "point_coc_tiny"]) == 0
    assert len(sizes) == 6 and all(sum(pair) == 312 for pair in sizes)
    assert sum(held for _, held in sizes) == 2 * 312  # each once a seed
    printed = capsys.readouterr().out
    assert "point_coc_tiny seed 1: fold 2 of 3, accuracy 30.0% overall" in printed
    page = (tmp_path / "peers_folds.md").read_text(encoding="utf-8")
    assert "on the 3 folds of the training clouds in turn" in page and "over 2 seeds" in page
    assert "one of the 312 clouds is 0.3 percentage points" in page
    held = np.array([held for _, held in sizes[:3]])
    shares = [np.average(np.array(each) / 20, weights=held) for each in ((1, 2, 3), (4, 5, 6))]
    mean, std = 100 * np.mean(shares), 100 * np.std(shares, ddof=1)
    assert f"| {mean:.1f} ± {std:.1f} | {mean / 2:.1f} ± {std / 2:.1f} |" in page
    assert peers.main([*common, "--models", "point_coc_tiny"]) == 0 and len(sizes) == 6
    with pytest.raises(SystemExit):
        peers.parse_arguments(["--folds", "1"])


def test_runs_that_cannot_be_read(script, tmp_path):
    (tmp_path / "peers.json").write_text('{"runs": [')
    with pytest.raises(SystemExit, match=r"error: .*peers\.json is damaged: restore it"):
        script("peers").main(["--num-points", "64", "--models", "point_coc_tiny", "--out",
                              str(tmp_path), "--work", str(tmp_path)])  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--num-points", "5000"], "--num-points: is 5000, expected from 1 to 2048"),
        (["--seeds", "3", "5"], "--seeds: all networks given twice"),
        (["--lr", "pointnet=1", "pointnet=2"], "--lr: pointnet given twice"),
        (["--untrained", "dgcnn"], "--untrained: dgcnn not among --models"),
    ],
)
def test_arguments_that_would_be_ignored(script, capsys, arguments, message):
    with pytest.raises(SystemExit):
        script("peers").parse_arguments(["--models", "pointnet", *arguments])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    ["pointnet", "pointnet=fast", "dgcnn=0.1", "=0.1", "pointnet=-1", "pointnet=nan",
     "pointnet=inf"],
)  # fmt: skip
def test_a_learning_rate_needs_a_network_and_a_number(script, text, capsys):
    with pytest.raises(SystemExit):
        script("peers").parse_arguments(["--models", "pointnet", "--lr", text])
    assert "--lr" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["0", "pointnet=0", "pointnet=x", "dgcnn=2", "x"])
def test_a_number_of_runs_is_one_or_more(script, text, capsys):
    with pytest.raises(SystemExit):
        script("peers").parse_arguments(["--models", "pointnet", "--seeds", text])
    assert "--seeds" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", ["point_coc_tiny", "pointnet", "dgcnn"])
def test_trains_and_tests(script, name, monkeypatch, tmp_path):
    peers = script("peers")
    arguments = ["--models", name, "--seeds", "1", "--epochs", "1", "--num-points", "32"]
    arguments += ["--out", str(tmp_path), "--work", str(tmp_path / "work"), "--accelerator", "cpu"]
    whole = peers.HomeObjects
    monkeypatch.setattr(peers, "HomeObjects", lambda split: Few(whole(split=split)))
    assert peers.main(arguments) == 0
    (run,) = json.loads((tmp_path / "peers.json").read_text())["runs"]
    assert 0 <= run["test_accuracy"] <= 1 and run["train_seconds"] > 0
    assert run["model"] == name and run["epochs"] == 1


class Few(list):
    """A few clouds of a data set."""

    def __init__(self, items) -> None:
        super().__init__(items[i] for i in range(0, len(items), max(1, len(items) // 40)))
        self.classes = items.classes
