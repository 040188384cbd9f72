from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch_geometric.nn import BatchNorm as PygBatchNorm

from pointcluster.nn import BatchNorm
from pointcluster.nn.batch_norm import statistics_kept

ROOT = Path(__file__).resolve().parents[2]

# What two processes do with half of a batch each, and one with all of it.
PROGRAM = """
import os, sys, warnings
warnings.filterwarnings("ignore")
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch_geometric.data import Batch, Data
from pointcluster.models import create_model
name, rank, world, store, out = sys.argv[1], *map(int, sys.argv[2:4]), *sys.argv[4:6]
torch.set_num_threads(1)
if world > 1:
    dist.init_process_group("gloo", init_method="file://" + store, rank=rank, world_size=world)
torch.manual_seed(0)
seed = torch.Generator().manual_seed(1)
if name == "coc_micro":
    model = create_model(name, num_classes=4, drop_path=0.0)
    items = torch.rand(8, 3, 28, 28, generator=seed)
    chosen = items[rank * 8 // world : (rank + 1) * 8 // world]
else:
    options = {"dropout": 0.0}
    if name != "pointmlp_coc":
        options |= {"drop_path": 0.0}
    model = create_model(name, num_classes=4, **options)
    sizes = [90, 60, 120, 75, 64, 100, 81, 99]
    items = [Data(pos=torch.rand(n, 3, generator=seed)) for n in sizes]
    chosen = Batch.from_data_list(items[rank * 8 // world : (rank + 1) * 8 // world])
targets = torch.arange(8) % 4
mine = targets[rank * 8 // world : (rank + 1) * 8 // world]
model.double().train()
chosen = chosen.double() if isinstance(chosen, torch.Tensor) else chosen
if not isinstance(chosen, torch.Tensor):
    chosen.pos = chosen.pos.double()
network = DistributedDataParallel(model) if world > 1 else model
optimiser = torch.optim.SGD(model.parameters(), 0.05)
losses = []
for _ in range(3):
    optimiser.zero_grad()
    loss = torch.nn.functional.cross_entropy(network(chosen), mine)
    loss.backward()
    optimiser.step()
    total = loss.detach().clone()
    if world > 1:
        dist.all_reduce(total)
        total /= world
    losses.append(total.item())
if rank == 0:
    torch.save({"losses": losses, "state": model.state_dict()}, out)
if world > 1:
    dist.barrier()
    dist.destroy_process_group()
    os._exit(0)  # gloo's threads may outlive what they use
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["coc_micro", "point_coc_tiny", "pointmlp_coc"])
def test_two_processes_learn_what_one_does_with_twice_the_batch(tmp_path, name):
    found = []
    for world in (1, 2):
        out = tmp_path / f"{world}.pt"
        running = [
            subprocess.Popen(
                [sys.executable, "-c", PROGRAM, name, str(rank), str(world),
                 str(tmp_path / f"store{world}"), str(out)],
                cwd=ROOT, stderr=subprocess.PIPE, text=True,
            )
            for rank in range(world)
        ]  # fmt: skip
        for process in running:
            _, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors
        found.append(torch.load(out, weights_only=True))
    one, two = found
    assert one["losses"] == pytest.approx(two["losses"], abs=1e-5)
    for key, value in one["state"].items():
        torch.testing.assert_close(two["state"][key], value, rtol=1e-5, atol=1e-5, msg=key)


@pytest.mark.parametrize("shape", [(20, 6), (5, 6, 7), (4, 6, 3, 5)])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_alone_it_is_torchs(shape, momentum, monkeypatch):
    from pointcluster.nn import batch_norm

    torch.manual_seed(0)
    kind = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}[len(shape)]
    layers = [BatchNorm(6, momentum=momentum), BatchNorm(6, momentum=momentum)]
    truth = kind(6, momentum=momentum)
    for layer in (*layers, truth):
        layer.double()
        with torch.no_grad():
            layer.weight.copy_(torch.linspace(0.5, 2, 6))
            layer.bias.copy_(torch.linspace(-1, 1, 6))
    # The sums of all processes, of which there is one.
    monkeypatch.setattr("torch.distributed.nn.functional.all_reduce", lambda tensor: tensor)
    for _ in range(2):
        x = 100 + torch.randn(shape, dtype=torch.float64)
        inputs = [x.clone().requires_grad_() for _ in range(3)]
        monkeypatch.setattr(batch_norm, "_processes", lambda: 2)
        first = layers[0](inputs[0])
        monkeypatch.setattr(batch_norm, "_processes", lambda: 1)
        answers = [first, layers[1](inputs[1]), truth(inputs[2])]
        for y in answers:
            (y * torch.arange(y.numel()).view_as(y).sin()).sum().backward()
        for y, leaf in zip(answers, inputs, strict=True):
            torch.testing.assert_close(y, answers[2])
            torch.testing.assert_close(leaf.grad, inputs[2].grad, rtol=1e-6, atol=1e-9)
    for layer in layers:
        for a, b in zip(layer.buffers(), truth.buffers(), strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("processes", [1, 2])
def test_one_single_point(monkeypatch, processes):
    from pointcluster.nn import batch_norm

    monkeypatch.setattr("torch.distributed.nn.functional.all_reduce", lambda tensor: tensor)
    monkeypatch.setattr(batch_norm, "_processes", lambda: processes)
    layer = BatchNorm(3)
    x = torch.randn(1, 3, requires_grad=True)
    y = layer(x)
    torch.testing.assert_close(y, x / (1 + 1e-5) ** 0.5)
    y.sum().backward()
    assert x.grad.isfinite().all() and layer.running_mean.tolist() == [0, 0, 0]


def test_alone_it_is_pygs_too():
    torch.manual_seed(0)
    layer, truth = BatchNorm(3).double(), PygBatchNorm(3, allow_single_element=True).double()
    for n in (9, 1):
        x = torch.randn(n, 3, dtype=torch.float64)
        torch.testing.assert_close(layer(x), truth(x))
    torch.testing.assert_close(layer.running_var, truth.module.running_var)


def test_work_done_again_is_counted_once():
    torch.manual_seed(0)
    for momentum in (0.1, None):
        layer, x = BatchNorm(3, momentum=momentum), torch.randn(9, 3)
        y, before = layer(x), [value.clone() for value in layer.buffers()]
        with statistics_kept(nn.Sequential(layer)):
            assert torch.equal(layer(x), y)
        assert layer.momentum == momentum
        assert all(torch.equal(a, b) for a, b in zip(layer.buffers(), before, strict=True))


def test_it_may_be_left_to_each_process(monkeypatch):
    from pointcluster.nn import batch_norm

    monkeypatch.setattr(batch_norm, "_processes", lambda: 2)
    layer, x = BatchNorm(3, synchronise=False), torch.randn(9, 3)
    torch.testing.assert_close(layer(x), nn.BatchNorm1d(3)(x))
    assert "synchronise=False" in repr(layer)


def test_uneven_items_are_shared_without_a_repetition():
    from pointcluster.training.data import EpochSampler

    for size, processes in [(7, 2), (8, 2), (10, 3)]:
        shares = [
            [i for _, i in EpochSampler(range(size), processes, rank, seed=0, drop_last=True)]
            for rank in range(processes)
        ]
        assert len({len(share) for share in shares}) == 1
        items = [i for share in shares for i in share]
        assert len(items) == len(set(items)) == size // processes * processes
