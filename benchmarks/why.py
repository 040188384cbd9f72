"""Why the operator helps or does not: what becomes of it in every block while a network trains.

Tasks and training are those of mixers.py. A few items of the test are looked at `--looks` times an
epoch: how sure points are of their centre, whether they stay with it, what the gradients are, and
how much of what a block adds is its region's mean. Last, the trained network is tested with only
that mean, and with nothing, in the operator's place. `--save FILE` keeps it.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from measure import COLORS, RESULTS, machine, picture, table, tidy, write
from mixers import (
    Centred,
    Nothing,
    Pictures,
    Scans,
    normal,
    regional,
    train,
    with_mixer,
)
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.data import Batch

from pointcluster.geometry import LatticeGeometry
from pointcluster.models import create_model, save_model
from pointcluster.nn import ContextCluster, ContextClusterBlock
from pointcluster.transforms import RandomBlock

CLUSTERS = ("clusters", "sharp", "centred", "centred and sharp", "frozen")
FIGURES = {
    "common": "share of the energy of what similarities are of, f, that is its region's mean",
    "doubt": "entropy of a point's similarities to the centres of its region; 1: all alike",
    "margin": "similarity to the centre that is taken, less that to the next one",
    "use": "entropy of the clusters' sizes in a region; 1: all equally large",
    "near": "points that a centre is the mean of and that are assigned to it",
    "moved": "points that have another centre than at the look before",
    "mean": "share of the output's energy that is its region's mean",
    "branch": "size of what the operator adds, by what it is added to",
    "alpha": "scale of the cosines",
    "beta": "bias of the similarities",
    "gradients": "of the similarity's map, by that of the values'; 1: as large",
}


class RegionMean(Nothing):
    """What an operator adds, averaged over each region."""

    def __init__(self, cluster: ContextCluster) -> None:
        super().__init__(cluster)
        self.cluster = cluster

    def mix(self, x: Tensor, geometry: Any) -> Tensor:
        y, there, back = regional(self.cluster(x, geometry), geometry)
        count = y.size(1) if there is None else there.sum(dim=1)[:, None, None]
        return back((y.sum(dim=1, keepdim=True) / count).expand_as(y))


def blocks_of(model: nn.Module) -> dict[str, ContextClusterBlock]:
    named = model.named_modules()
    return {name: part for name, part in named if isinstance(part, ContextClusterBlock)}


@torch.no_grad()
def look(model: nn.Module, probe: Any) -> dict[str, dict[str, Any]]:
    """Of every block what FIGURES says of it now, and its points' centres [R, H, P]."""
    inputs: dict[Any, tuple[Any, ...]] = {}
    blocks = blocks_of(model)
    hooks = [
        part.register_forward_pre_hook(lambda part, args: inputs.update({part: args}))
        for block in blocks.values()
        for part in (block, block.cluster)
    ]
    model.eval()(probe)
    for hook in hooks:
        hook.remove()
    return {
        name: looked_at(block, inputs[block][0], *inputs[block.cluster][:2])
        for name, block in blocks.items()
    }


@torch.no_grad()
def looked_at(block: ContextClusterBlock, residual: Tensor, x: Tensor, geometry: Any) -> dict:
    """What FIGURES says of a block, for the points that go into its operator; of equal regions."""
    cluster: Any = block.cluster
    parts = geometry.parts if isinstance(geometry, LatticeGeometry) else (geometry,)
    regions, size = parts[0].regions, cluster.head_channels
    dense = regional(x, geometry)[0]  # [R, P, C]
    f = cluster.fv(dense)[..., : cluster.heads * size].unflatten(2, (cluster.heads, size))
    if isinstance(cluster, Centred):
        f = f - f.mean(dim=1, keepdim=True)
    pool = regions.pooling(f.dtype)  # [R or 1, M, P]
    center = (pool / pool.sum(dim=2, keepdim=True)).expand(len(f), -1, -1)
    c = torch.einsum("rmp,rphc->rhmc", center, f)
    cos = F.normalize(f.transpose(1, 2), dim=3) @ F.normalize(c, dim=3).mT  # [R, H, P, M]
    s = (cluster.beta + cluster.alpha * cos).sigmoid()
    index = s.argmax(dim=3)
    best = s.topk(2, dim=3).values
    most = math.log(regions.num_centers)
    sizes = F.one_hot(index, regions.num_centers).float().mean(dim=2)  # [R, H, M]
    kept = torch.einsum("rhpm,rmp->", F.one_hot(index, regions.num_centers).float(),
                        (pool > 0).float().expand(len(f), -1, -1))  # fmt: skip
    y = cluster(x, geometry)
    scaled = y if block.scale1 is None else y * block.scale1
    return {
        "common": energy_of_mean(f.flatten(2)),
        "doubt": float(entropy(s / s.sum(dim=3, keepdim=True)) / most),
        "margin": float((best[..., 0] - best[..., 1]).mean()),
        "use": float(entropy(sizes) / most),
        "near": float(kept / (pool > 0).expand(len(f), -1, -1).sum() / cluster.heads),
        "mean": energy_of_mean(regional(y, geometry)[0]),
        "branch": float(scaled.norm() / residual.norm()),
        "alpha": float(cluster.alpha),
        "beta": float(cluster.beta),
        "index": index,
    }


def energy_of_mean(dense: Tensor) -> float:
    """How much of values [R, P, C] their region's mean makes up, 0 to 1."""
    return float(dense.mean(dim=1).square().sum() * dense.size(1) / dense.square().sum())


def entropy(share: Tensor) -> Tensor:
    """The mean entropy of shares in the last dimension."""
    return torch.special.entr(share).sum(dim=-1).mean()


def probe_of(task: Any) -> Any:
    """Some items of the test, as the network takes them."""
    if isinstance(task, Pictures):
        some = torch.linspace(0, len(task.test[0]) - 1, 256).long()
        return normal(task.test[0][some])
    torch.manual_seed(0)
    cut = RandomBlock(task.recipe.num_points)
    return Batch.from_data_list([cut(task.test[0].clone()) for _ in range(4)])


def watched(
    task: Any, mixer: str, epochs: float, looks: int, seed: int = 0
) -> tuple[nn.Module, list[dict[str, Any]]]:
    """A trained network, and a record a look: the epoch, and of every block the figures."""
    torch.manual_seed(seed)
    model = with_mixer(task.build(), mixer)
    probe, records, before = probe_of(task), [], {}
    marks = torch.linspace(0, epochs * task.steps - 1, round(epochs * looks) + 1).long().tolist()

    def watch(epoch: float, step: int) -> None:
        if step not in marks:
            return
        state = torch.get_rng_state()  # looking changes nothing
        blocks = look(model, probe)
        torch.set_rng_state(state)
        for name, found in blocks.items():
            cluster = model.get_submodule(name).cluster
            of_f, of_v = cluster.fv.weight.grad.chunk(2)
            found["gradients"] = float(of_f.norm() / of_v.norm())
            index = found.pop("index")
            found["moved"] = float((index != before[name]).float().mean()) if before else None
            blocks[name] = found | {"now": index}
        before.update({name: found.pop("now") for name, found in blocks.items()})
        records.append({"epoch": epoch, "blocks": blocks})
        print(f"epoch {epoch:.2f}", flush=True)

    train(task, model, seed, {"epochs": epochs}, watch)
    return model, records


def tested(task: Any, model: nn.Module) -> dict[str, float]:
    """Accuracy as it was trained, with the mean of what operators add, and without it."""
    found, blocks = {}, blocks_of(model)
    clusters = {name: block.cluster for name, block in blocks.items()}
    for kind, build in (("clusters", lambda c: c), ("region's mean", RegionMean),
                        ("nothing", Nothing)):  # fmt: skip
        for name, block in blocks.items():
            block.cluster = build(clusters[name])
        with torch.inference_mode():
            hits, of = task.right(model.eval())
        found[kind] = sum(hits) / sum(of)
    for name, block in blocks.items():
        block.cluster = clusters[name]
    return found


def page(results: dict[str, Any]) -> str:
    """First and last look of every block."""
    parts = ["# What becomes of the operator in training", f"{machine()}."]
    parts += ["\n".join(f"- **{name}**: {text}" for name, text in FIGURES.items())]
    for name, result in results.items():
        rows = []
        for block in result["records"][0]["blocks"]:
            cells = [block]
            for key in FIGURES:
                values = [record["blocks"][block].get(key) for record in result["records"]]
                ends = [f"{value:.2f}" for value in values if value is not None]
                cells.append(" → ".join(ends[:1] + ends[1:][-1:]))
            rows.append(cells)
        tests = ", ".join(f"{kind} {value:.1%}" for kind, value in result["tested"].items())
        parts += [f"## {name}", table(["block", *FIGURES], rows)]
        parts += [f"Accuracy of the trained network with, in the operator's place: {tests}."]
    return "\n\n".join([*parts, "![The figures over training](why.png)"]) + "\n"


def draw(figure: Any, results: dict[str, Any]) -> None:
    """A row a network that was trained, a panel a figure, a line a block."""
    results = {name: result for name, result in results.items() if len(result["records"]) > 1}
    shown = ("doubt", "margin", "use", "moved", "mean", "branch", "alpha", "gradients")
    grid = figure.subplots(len(results), len(shown), squeeze=False)
    for axes, (name, result) in zip(grid, results.items(), strict=True):
        epochs = [record["epoch"] for record in result["records"]]
        blocks = list(result["records"][0]["blocks"])
        for panel, key in zip(axes, shown, strict=True):
            for number, block in enumerate(blocks):
                values = [record["blocks"][block][key] for record in result["records"]]
                values = [math.nan if value is None else value for value in values]
                style = {"color": COLORS[number % len(COLORS)], "linewidth": 1.3}
                if number >= len(COLORS):
                    style["linestyle"] = "--"
                panel.plot(epochs, values, label=block, **style)
            tidy(panel, key, x="epoch")
        axes[0].set_ylabel(name, fontsize=9)
        axes[-1].legend(fontsize=6, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--cifar10", type=Path, metavar="FOLDER")
    add("--lidar", type=Path, metavar="FOLDER")
    add("--model", metavar="NAME", help="another network than the usual one")
    add("--mixer", choices=CLUSTERS, default="clusters",
        metavar="NAME", help=", ".join(CLUSTERS))  # fmt: skip
    add("--epochs", type=float, default=3.0, help="0: train nothing")
    add("--looks", type=int, default=4, help="an epoch")
    add("--shipped", action="store_true", help="look at the package's weights for scans, too")
    add("--save", metavar="FILE", help="the trained network, where one task is asked for")
    add("--out", type=Path, default=RESULTS)
    args = parser.parse_args(argv)
    tasks = [Pictures(args.cifar10, args.model)] if args.cifar10 else []
    tasks += [Scans(args.lidar, args.model)] if args.lidar else []
    file = args.out / "why.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    for task in tasks if args.epochs else ():
        model, records = watched(task, args.mixer, args.epochs, args.looks)
        name = f"{task.data}, {task.model}, {args.mixer}, {args.epochs:g} epochs"
        results[name] = {"records": records, "tested": tested(task, model)}
        write(file, json.dumps(results) + "\n")
        if args.save:
            save_model(args.save, model)
    if args.shipped:
        model = create_model(tasks[-1].model, pretrained=True)
        blocks = look(model, probe_of(tasks[-1]))
        for found in blocks.values():
            found.pop("index")
        name = f"{tasks[-1].data}, {tasks[-1].model}, the weights that ship"
        records = [{"epoch": 0.0, "blocks": blocks}]
        results[name] = {"records": records, "tested": tested(tasks[-1], model)}
        write(file, json.dumps(results) + "\n")
    trained = sum(len(result["records"]) > 1 for result in results.values())
    if trained:
        picture(
            args.out / "why.png", lambda figure: draw(figure, results), size=(19, 2.6 * trained)
        )
    write(args.out / "why.md", page(results))
    print(page(results))


if __name__ == "__main__":
    main()
