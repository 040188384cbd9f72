"""What the context cluster is worth: the same network with something else in its place.

Every block keeps its norms, MLP and residual sums; what mixes points is the operator, or one of
MIXERS, started alike. All see the same items in the same order for as many epochs (`--epochs`) or
minutes of processor time (`--minutes`), and whether they are right is kept item by item, so that
differences are paired. `--cifar10 FOLDER` has `train/CLASS/*` and `test/CLASS/*` or torchvision's
copy, `--lidar FOLDER` the four tiles (datasets/lidar_hd/README.md), `--home FOLDS` trains on
HomeObjects, which ships, by folds of the training clouds. Runs that are in the results are not
run again. (operator.py would be a better name, were it not one of Python's own modules.)
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import MIB, RESULTS, machine, peak_memory, table, write
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.data import Batch
from torch_geometric.utils import scatter, to_dense_batch

from pointcluster import ops
from pointcluster.datasets import HomeObjects, LidarHD
from pointcluster.geometry import LatticeGeometry
from pointcluster.models import create_model, segment_scene
from pointcluster.nn import ContextCluster, ContextClusterBlock
from pointcluster.training.recipe import POINT_RECIPES, Recipe
from pointcluster.training.segmenter import SceneBlocks, SceneRecipe, class_table

CELL = 50.0  # metres: what of a scan counts as one item of a test; neighbours are no two
Found = tuple[list[int], list[int]]  # how many of how many points or pictures an item is right

# What may stand in the operator's place ----------------------------------------------------------


def regional(x: Tensor, geometry: Any) -> tuple[Tensor, Tensor | None, Callable[[Tensor], Tensor]]:
    """Points region by region [R, P, C], which of them are there, and the way back to [N, C]."""
    if isinstance(geometry, LatticeGeometry):
        (part,) = geometry.parts  # one shape of regions: the fold divides the lattice
        return x.unflatten(0, (-1, part.height * part.width)), None, lambda y: y.flatten(0, 1)
    regions, order = geometry.regions, geometry.order
    x = x if order is None else x[order]
    if regions.size is None:
        dense, there = to_dense_batch(x, regions.region(len(x)))
    else:
        dense, there = x.unflatten(0, (-1, regions.size)), None

    def back(y: Tensor) -> Tensor:
        y = y.flatten(0, 1) if there is None else y[there]
        return y if order is None else torch.empty_like(y).index_copy(0, order, y)

    return dense, there, back


class Nothing(nn.Module):
    """Adds nothing; the others have the operator's maps to values and back, and mix between."""

    def __init__(self, cluster: ContextCluster) -> None:
        super().__init__()
        self.channels, self.heads, self.geometry = cluster.channels, cluster.heads, cluster.geometry
        self.register_buffer("alpha", torch.zeros(1), persistent=False)  # where the network is

    def forward(
        self, x: Tensor, geometry: Any, *, residual: Tensor | None = None,
        scale: Tensor | None = None, return_clusters: bool = False,
    ) -> Tensor:  # fmt: skip
        y = self.mix(x, geometry)
        y = y if scale is None else y * scale
        return y if residual is None else residual + y

    def mix(self, x: Tensor, geometry: Any) -> Tensor:
        return torch.zeros_like(x)


class Mean(Nothing):
    """The mean over the region, the same for all of its points."""

    def __init__(self, cluster: ContextCluster) -> None:
        super().__init__(cluster)
        width = cluster.proj.in_features
        self.v, self.proj = nn.Linear(cluster.channels, width), cluster.proj
        with torch.no_grad():
            self.v.weight.copy_(cluster.fv.weight[width:])
            self.v.bias.copy_(cluster.fv.bias[width:])

    def mix(self, x: Tensor, geometry: Any) -> Tensor:
        x, there, back = regional(x, geometry)
        count = x.size(1) if there is None else there.sum(dim=1, keepdim=True)
        y = self.proj(self.v(x.sum(dim=1) / count))  # [R, C]
        return back(y[:, None].expand_as(x))


class Windows(Mean):
    """The mean over the window of the region where a point lies, as many windows as centres."""

    def mix(self, x: Tensor, geometry: Any) -> Tensor:
        x, _, back = regional(x, geometry)
        pool = geometry.parts[0].regions.pooling(x.dtype)[0]  # [M, P]
        means = (pool / pool.sum(dim=1, keepdim=True)) @ self.v(x)  # [R, M, c]
        return back(self.proj(means)[:, pool.argmax(dim=0)])


class Depthwise(Mean):
    """A convolution of 5 x 5, channel by channel; of lattices alone."""

    def __init__(self, cluster: ContextCluster) -> None:
        super().__init__(cluster)
        width = cluster.proj.in_features
        self.near = nn.Conv2d(width, width, 5, padding=2, groups=width)

    def mix(self, x: Tensor, geometry: Any) -> Tensor:
        v = geometry.to_rows(self.v(x)).permute(0, 3, 1, 2)
        return self.proj(geometry.from_rows(self.near(v).permute(0, 2, 3, 1)))


class Attention(Mean):
    """Attention among the points of a region, with as many heads."""

    def __init__(self, cluster: ContextCluster) -> None:
        super().__init__(cluster)
        self.qk = nn.Linear(cluster.channels, 2 * cluster.proj.in_features)

    def mix(self, x: Tensor, geometry: Any) -> Tensor:
        x, there, back = regional(x, geometry)
        maps = torch.cat([self.qk(x), self.v(x)], dim=2)
        q, k, v = maps.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # [R, H, P, c]
        mask = None if there is None else there[:, None, None]
        y = F.scaled_dot_product_attention(q, k, v, mask)
        return back(self.proj(y.transpose(1, 2).flatten(2)))


def frozen(cluster: ContextCluster) -> ContextCluster:
    """The operator whose similarity stays as it began: nothing is learned about it."""
    width = cluster.proj.in_features
    for weight in cluster.fv.parameters():
        weight.register_hook(lambda grad: torch.cat([torch.zeros_like(grad[:width]), grad[width:]]))
    for number in (cluster.alpha, cluster.beta):
        number.register_hook(torch.zeros_like)
    return cluster


def sharp(cluster: ContextCluster) -> ContextCluster:
    """The operator with similarities that begin at 0.02 to 0.98, not at 0.27 to 0.73."""
    with torch.no_grad():
        cluster.alpha.fill_(8.0)
        cluster.beta.fill_(-4.0)
    return cluster


class Centred(ContextCluster):
    """The operator on what differs inside a region: cosines are of f without the region's mean."""

    def _cluster(
        self, x: Tensor, regions: ops.Regions, residual: Tensor | None, scale: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        f, v = self.fv(x).unflatten(1, (2, self.heads, self.head_channels)).unbind(1)
        region = regions.region(len(f))
        f = f - scatter(f, region, reduce="mean")[region]
        y, index, s = ops.gather_around(f, v, regions, self.alpha, self.beta)
        y = self.proj(y.flatten(1))
        y = y if scale is None else y * scale
        return y if residual is None else residual + y, index, s


class Varied(ContextCluster):
    """The operator with one of its steps changed, in plain torch: its seconds say nothing.

    - `soft`: a point asks all centres in training, by the softmax of its scores, with what the
      hardest choice gives as the value (straight-through: Bengio et al., 2013; of clusters in
      Gumbel-softmax grouping: "GroupViT", Xu et al., CVPR 2022);
    - `twice`: centres move to the weighted mean of their points, which then choose again, as in
      k-means ("k-means Mask Transformer", Yu et al., ECCV 2022, and ClusterFormer's recurrent
      centres, Liang et al., NeurIPS 2023);
    - `offset`: dispatched is the cluster and how the point's value differs from the centre's
      (residuals to centres: "NetVLAD", Arandjelovic et al., CVPR 2016);
    - `placed`: what a point gives to its cluster and takes from it is scaled, channel by channel,
      by 1 and a small MLP of where the point lies from the centre; of pictures alone
      (ours; functions of relative positions are those of "PointConv", Wu et al., CVPR 2019).
    """

    step = ""
    places: Any

    def forward(self, x: Tensor, geometry: Any, **options: Any) -> Any:  # type: ignore[override]
        if self.step == "placed":
            (part,) = geometry.parts
            axes = [torch.arange(size, device=x.device) for size in (part.height, part.width)]
            at = torch.cartesian_prod(*axes).to(x.dtype) / max(part.height, part.width)
            away = at[:, None] - at[part.regions.group[0]].mean(dim=1)  # [P, M, 2]
            self.tables = [1 + way(away).unflatten(2, (self.heads, -1)) for way in self.places]
        return super().forward(x, geometry, **options)

    def placed(self, t: Tensor, way: int, one: Tensor) -> Tensor:
        """Values by the places of their points from their centres. [R, P, H, c]"""
        if self.step != "placed":
            return t
        return t * torch.einsum("rpmh,pmhc->rphc", one, self.tables[way])

    def _cluster(
        self, x: Tensor, regions: ops.Regions, residual: Tensor | None, scale: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        f, v = self.fv(x).unflatten(1, (2, self.heads, self.head_channels)).unbind(1)  # [N, H, c]
        starts, of, there = regions.starts(len(f)), regions.region(len(f)), None
        near = regions.group + starts[:-1, None, None]  # [R, M, k]
        share = regions.counting(f.dtype)
        share = (share / share.sum(dim=2, keepdim=True)).expand(len(near), -1, -1)
        c, g = (torch.einsum("rmk,rmkhc->rmhc", share, t[near]) for t in (f, v))
        if regions.size is None:
            (f, there), (v, _) = to_dense_batch(f, of), to_dense_batch(v, of)
        else:
            f, v = (t.unflatten(0, (-1, regions.size)) for t in (f, v))  # [R, P, H, c]
        closed = None if regions.closed is None else regions.closed[:, None, :, None]

        def choose(c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            """How like centres points are, whose they are, by how much. [R, P, M, H], [R, P, H]"""
            alike = torch.einsum("rphc,rmhc->rpmh", *(F.normalize(t, dim=3) for t in (f, c)))
            score = self.beta + self.alpha * alike
            score = score if closed is None else score.masked_fill(closed, -torch.inf)
            best, index = score.max(dim=2)
            s = best.sigmoid()
            one = F.one_hot(index, score.size(2)).movedim(3, 2).to(s.dtype)
            return score, one, s if there is None else s * there[..., None]

        def cluster_mean(t: Tensor, center: Tensor, one: Tensor, s: Tensor) -> Tensor:
            """Of a centre and its points, by similarity. [R, M, H, c]"""
            mine = one * s[:, :, None]
            total = torch.einsum("rpmh,rphc->rmhc", mine, t)
            return (center + total) / (1 + mine.sum(dim=1))[..., None]

        def of_centers(one: Tensor, h: Tensor) -> Tensor:
            return torch.einsum("rpmh,rmhc->rphc", one, h)

        score, one, s = choose(c)
        if self.step == "twice":
            score, one, s = choose(cluster_mean(f, c, one, s))
        h = cluster_mean(self.placed(v, 0, one), g, one, s)
        y = of_centers(one, h)
        if self.step == "soft" and self.training:
            soft = of_centers(score.softmax(dim=2), h)
            y = soft + (y - soft).detach()
        elif self.step == "offset":
            y = y + v - of_centers(one, g)
        y = (s[..., None] * self.placed(y, 1, one)).flatten(2)
        index = one.argmax(dim=2)
        y, index, s = (t.flatten(0, 1) if there is None else t[there] for t in (y, index, s))
        y = self.proj(y)
        y = y if scale is None else y * scale
        return y if residual is None else residual + y, index, s


class Shifted(ContextCluster):
    """The operator on regions that are moved by half of one, so that clusters cross borders.

    As windows are in "Swin Transformer", Liu et al., ICCV 2021; what leaves the picture comes in at
    the other side.
    """

    def forward(self, x: Tensor, geometry: Any, **options: Any) -> Any:  # type: ignore[override]
        (part,) = geometry.parts
        by = (part.height // 2, part.width // 2)

        def moved(t: Tensor, sign: int) -> Tensor:
            rows = geometry.to_rows(t).roll((sign * by[0], sign * by[1]), (1, 2))
            back: Tensor = geometry.from_rows(rows)
            return back

        residual = options.pop("residual", None)
        y = moved(super().forward(moved(x, -1), geometry, **options), 1)
        return y if residual is None else residual + y


def become(kind: type, **options: Any) -> Callable[[ContextCluster], ContextCluster]:
    """Let an operator with its weights be of another kind."""

    def change(cluster: ContextCluster) -> ContextCluster:
        cluster.__class__ = kind
        vars(cluster).update(options)
        return cluster

    return change


centred, shifted = become(Centred), become(Shifted)


def varied(step: str) -> Callable[[ContextCluster], ContextCluster]:
    return become(Varied, step=step)


def placed(cluster: ContextCluster) -> ContextCluster:
    cluster = varied("placed")(cluster)
    cluster.places = nn.ModuleList(
        nn.Sequential(nn.Linear(2, 16), nn.GELU(), nn.Linear(16, cluster.proj.in_features))
        for _ in range(2)
    )
    return cluster


MIXERS: dict[str, Callable[[ContextCluster], nn.Module]] = {
    "clusters": lambda cluster: cluster,
    "sharp": sharp,
    "centred": centred,
    "centred and sharp": lambda cluster: sharp(centred(cluster)),
    "soft": varied("soft"),
    "twice": varied("twice"),
    "offset": varied("offset"),
    "shifted": shifted,
    "placed": placed,
    "placed and sharp": lambda cluster: sharp(placed(cluster)),
    "frozen": frozen,
    "windows": Windows,
    "mean": Mean,
    "depthwise": Depthwise,
    "attention": Attention,
    "nothing": Nothing,
}
LATTICES = {
    "windows",
    "depthwise",
    "shifted",
    "placed",
    "placed and sharp",
}  # what only pictures have


def with_mixer(model: nn.Module, mixer: str) -> nn.Module:
    """Replace the operator in every block; all else starts as it was."""
    for block in list(model.modules()):
        if isinstance(block, ContextClusterBlock):
            block.cluster = MIXERS[mixer](block.cluster)
    return model


# What is learned ---------------------------------------------------------------------------------


class Pictures:
    """CIFAR-10, moved by up to 4 pixels and mirrored."""

    recipe = Recipe(lr=2e-3, label_smoothing=0.1, batch_size=128)
    data, default, pictures = "CIFAR-10", "coc_micro", True

    def __init__(
        self, folder: Path, model: str | None = None, options: dict[str, Any] | None = None
    ) -> None:
        self.model, self.options = model or self.default, options or {}
        self.train, self.test = (read_pictures(folder, part) for part in ("train", "test"))
        self.steps = len(self.train[0]) // self.recipe.batch_size

    def build(self) -> nn.Module:
        return create_model(self.model, num_classes=10, **self.options)

    def batches(self, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches for ever."""
        images, labels = self.train
        while True:
            order = torch.randperm(len(images), generator=generator)
            for rows in order[: self.steps * self.recipe.batch_size].chunk(self.steps):
                padded = F.pad(normal(images[rows]), (4,) * 4)
                top, left = torch.randint(9, (2, len(rows)), generator=generator)
                near = torch.arange(32)
                down, right = (top[:, None] + near)[:, :, None], (left[:, None] + near)[:, None]
                moved = padded[torch.arange(len(rows))[:, None, None], :, down, right]
                moved = moved.permute(0, 3, 1, 2)
                mirrored = torch.rand(len(rows), generator=generator) < 0.5
                yield torch.where(mirrored[:, None, None, None], moved.flip(3), moved), labels[rows]

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(
            model(batch[0]), batch[1], label_smoothing=self.recipe.label_smoothing
        )

    def right(self, model: nn.Module) -> Found:
        images, labels = self.test
        told = torch.cat([model(normal(part)).argmax(dim=1) for part in images.split(500)])
        return (told == labels).int().tolist(), [1] * len(labels)


def normal(images: Tensor) -> Tensor:
    return (images / 255 - 0.47) / 0.25


def read_pictures(folder: Path, part: str) -> tuple[Tensor, Tensor]:
    """CIFAR-10 in memory: bytes [N, 3, 32, 32] and labels."""
    from torchvision.datasets import CIFAR10, ImageFolder

    if (folder / part).is_dir():
        data: Any = ImageFolder(folder / part)
    else:
        data = CIFAR10(folder, train=part == "train")
    pixels = torch.from_numpy(np.stack([np.array(image) for image, _ in data]))
    return pixels.permute(0, 3, 1, 2).contiguous(), torch.tensor(data.targets)


class Scans:
    """LiDAR HD: blocks of three tiles; an item of the test is a square of the fourth."""

    recipe = SceneRecipe(lr=2.5e-3, batch_size=2, voxel_size=1.0, brighten=0.3)
    data, default, pictures = "LiDAR HD", "point_coc_small_seg", False

    def __init__(
        self, folder: Path, model: str | None = None, options: dict[str, Any] | None = None
    ) -> None:
        self.model, self.options = model or self.default, options or {}
        self.train, self.test = LidarHD(folder), LidarHD(folder, "test")
        self.weights = self.recipe.class_weights(self.train, len(self.train.classes))
        self.blocks = SceneBlocks(
            self.train, self.recipe.num_points, voxel_size=self.recipe.voxel_size
        )
        self.steps = len(self.blocks) // self.recipe.batch_size

    def build(self) -> nn.Module:
        sizes = {"num_classes": len(self.train.classes), "in_channels": self.train.in_channels}
        return create_model(self.model, place=False, **sizes, **self.options)

    def batches(self, generator: torch.Generator) -> Iterator[Batch]:
        change = self.recipe.train_transform()
        while True:
            some = torch.randint(len(self.blocks), (self.recipe.batch_size,), generator=generator)
            yield Batch.from_data_list([change(self.blocks[number]) for number in some.tolist()])

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return F.cross_entropy(model(batch), batch.y, self.weights, ignore_index=-1)

    def right(self, model: nn.Module) -> Found:
        (scene,) = self.test
        size = self.recipe.num_points
        options = {"num_points": size, "voxel_size": self.recipe.voxel_size}
        edge = SceneBlocks(self.train, size).edge(size)
        told = segment_scene(model, scene, edge=edge, **options).argmax(dim=1)
        known, classes = scene.y >= 0, len(self.train.classes)
        pairs = scene.y[known] * classes + told[known]
        confusion = torch.bincount(pairs, minlength=classes**2).view(classes, classes)
        ious = [row[2] for row in class_table(confusion, self.test.classes)[1:]]
        self.miou = statistics.fmean(iou for iou in ious if iou is not None)
        cell = torch.floor(scene.pos[known, :2].double() / CELL).long()
        _, cell = cell.unique(dim=0, return_inverse=True)
        hits = cell[told[known] == scene.y[known]].bincount(minlength=int(cell.max()) + 1)
        return hits.tolist(), cell.bincount().tolist()


class Clouds:
    """HomeObjects without a fold of its training clouds, and that fold."""

    recipe = POINT_RECIPES["small"]
    data, default, pictures = "HomeObjects", "point_coc_tiny", False

    def __init__(
        self, folds: int, fold: int, model: str | None = None,
        options: dict[str, Any] | None = None, points: int = 512,
    ) -> None:  # fmt: skip
        from peers import without_fold

        self.model, self.options = model or self.default, options or {}
        whole = HomeObjects(split="train")
        self.train, self.test = without_fold(whole, folds, fold)
        self.classes, self.points = len(whole.classes), points
        self.steps = len(self.train) // self.recipe.batch_size

    def build(self) -> nn.Module:
        return create_model(self.model, num_classes=self.classes, **self.options)

    def batches(self, generator: torch.Generator) -> Iterator[Batch]:
        change = self.recipe.train_transform(self.points)
        while True:
            order = torch.randperm(len(self.train), generator=generator)
            for rows in order[: self.steps * self.recipe.batch_size].chunk(self.steps):
                yield Batch.from_data_list([change(self.train[i]) for i in rows.tolist()])

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return F.cross_entropy(model(batch), batch.y, label_smoothing=0.1)

    def right(self, model: nn.Module) -> Found:
        change = self.recipe.test_transform(self.points)
        clouds = [Batch.from_data_list([change(cloud)]) for cloud in self.test]
        return [int(model(cloud).argmax() == cloud.y) for cloud in clouds], [1] * len(clouds)


# The runs ----------------------------------------------------------------------------------------


def train(
    task: Any, model: nn.Module, seed: int, budget: dict[str, float],
    watch: Callable[[float, int], None] | None = None,
) -> tuple[int, float, float]:  # fmt: skip
    """Train; the steps, the processor's seconds, and MiB that a step adds.

    Args:
        task: What is learned.
        model: What learns it.
        seed: Of the items' order and changes.
        budget: `epochs` or `minutes`.
        watch: Is called before every update with the epochs and steps so far.
    """
    optimizer = task.recipe.optimizer_of(model, task.recipe.lr)
    batches = task.batches(torch.Generator().manual_seed(seed))
    torch.manual_seed(seed)
    begin, steps = time.process_time(), 0

    def step() -> None:
        loss = task.loss(model.train(), next(batches))
        optimizer.zero_grad()
        loss.backward()
        if task.recipe.clip_grad:
            nn.utils.clip_grad_norm_(model.parameters(), task.recipe.clip_grad)

    while True:
        seconds = time.process_time() - begin
        done = (
            seconds / 60 / budget["minutes"] if "minutes" in budget
            else steps / (budget["epochs"] * task.steps)
        )  # fmt: skip
        if done >= 1:
            break
        for group in optimizer.param_groups:
            rate = min(1.0, done / 0.1 + 0.02) * 0.5 * (1 + math.cos(math.pi * done))
            group["lr"] = task.recipe.lr * rate
        step()
        if watch is not None:
            watch(steps / task.steps, steps)
        optimizer.step()
        steps += 1
    return steps, seconds, peak_memory(step) / MIB


def run(tasks: Sequence[Any], mixer: str, seed: int, budget: dict[str, float]) -> dict[str, Any]:
    """One run: of several tasks, folds, all their items together."""
    out: dict[str, Any] = {"steps": 0, "seconds": 0.0, "hits": [], "of": []}
    for task in tasks:
        torch.manual_seed(seed)
        model = with_mixer(task.build(), mixer)
        steps, seconds, memory = train(task, model, seed, budget)
        with torch.inference_mode():
            hits, of = task.right(model.eval())
        out |= {"steps": out["steps"] + steps, "seconds": out["seconds"] + seconds}
        out |= {"hits": out["hits"] + hits, "of": out["of"] + of, "step_mib": memory}
        if hasattr(task, "miou"):
            out["miou"] = task.miou
    out["parameters"] = sum(p.numel() for p in model.parameters())
    out["accuracy"] = sum(out["hits"]) / sum(out["of"])
    if set(out["of"]) == {1}:  # then a digit an item will do
        out |= {"hits": "".join(map(str, out["hits"])), "of": 1}
    return out


# What they say -----------------------------------------------------------------------------------


def interval(
    differences: Any, weights: Any = None, draws: int = 2000
) -> tuple[float, float, float]:
    r"""The mean of paired differences, and its 95 % interval by bootstrap.

    Items are drawn anew and, where there are several runs, runs, too (Owen, "The pigeonhole
    bootstrap", 2007): with 3 runs their part of the variance comes out a third too small.

    Shapes:
        - **differences:** $(S, N)$ or $(N)$, **weights:** $(N)$
    """
    table = np.atleast_2d(np.asarray(differences, float))
    weights = np.ones(table.shape[1]) if weights is None else np.asarray(weights, float)
    random, means = np.random.default_rng(0), []
    for _ in range(draws):
        rows = random.integers(0, len(table), len(table))
        count = np.bincount(random.integers(0, table.shape[1], table.shape[1]),
                            minlength=table.shape[1]) * weights  # fmt: skip
        means.append(table[rows].mean(axis=0) @ count / count.sum())
    low, high = np.quantile(means, [0.025, 0.975])
    return float(table.mean(axis=0) @ weights / weights.sum()), float(low), float(high)


def rows_of(runs: list[dict[str, Any]], against: str) -> list[list[str]]:
    """A row a mixer: accuracy, what it is ahead of another one, and what it costs."""
    by = {name: {run["seed"]: run for run in runs if run["mixer"] == name} for name in MIXERS}
    rows = []
    for name, mine in ((name, mine) for name, mine in by.items() if mine):
        cells = [name, str(len(mine)), spread([100 * run["accuracy"] for run in mine.values()])]
        cells.append(spread([100 * run["miou"] for run in mine.values() if "miou" in run]))
        seeds = sorted(mine.keys() & by[against].keys()) if name != against else []
        if seeds:
            hits, other = (
                np.array([[int(count) for count in some[seed]["hits"]] for seed in seeds])
                for some in (mine, by[against])
            )
            of = np.broadcast_to(mine[seeds[0]]["of"], hits.shape[1:])
            mean, low, high = (100 * x for x in interval((hits - other) / of, of))
            cells += [f"{mean:+.2f} ({low:+.2f} to {high:+.2f})",
                      f"{(hits > other).sum():,} : {(hits < other).sum():,}"]  # fmt: skip
        else:
            cells += ["", ""]
        middle = [statistics.median(run[key] for run in mine.values())
                  for key in ("seconds", "steps", "step_mib", "parameters")]  # fmt: skip
        cells += [f"{middle[0] / 60:.1f}", f"{middle[1]:,.0f}", f"{middle[2]:.0f}",
                  f"{middle[3] / 1e6:.3f}M"]  # fmt: skip
        rows.append(cells)
    return rows


def spread(values: list[float]) -> str:
    if not values:
        return ""
    text = f"{statistics.fmean(values):.2f}"
    return text + (f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else "")


def page(runs: list[dict[str, Any]], against: str) -> str:
    parts = [
        "# What the operator is worth",
        f"Mean ± standard deviation over seeds, after the last step. Ahead of `{against}`: points "
        "of accuracy, with a 95 % interval that draws items and seeds anew; and items that one is "
        "right about more often than the other. Minutes are the processor's, with one thread "
        f"(geometry of regions and centres included for all); memory is what a step adds. "
        f"{machine()}.",
    ]
    for key in dict.fromkeys((run["data"], run["model"], run["budget"]) for run in runs):
        mine = [run for run in runs if (run["data"], run["model"], run["budget"]) == key]
        header = ["mixer", "seeds", "accuracy, %", "mIoU, %", f"ahead of {against}", "won : lost",
                  "minutes", "steps", "step, MiB", "parameters"]  # fmt: skip
        parts += [f"## {', '.join(key)}", table(header, rows_of(mine, against))]
    return "\n\n".join(parts) + "\n"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--cifar10", type=Path, metavar="FOLDER")
    add("--lidar", type=Path, metavar="FOLDER")
    add("--home", type=int, metavar="FOLDS", help="folds of HomeObjects, such as 4")
    add("--model", metavar="NAME", help="another network than the usual one")
    add("--options", type=json.loads, default={}, metavar="JSON",
        help="""of the network, such as '{"centers": [4, 4, 4, 4, 4]}'""")  # fmt: skip
    add("--mixers", nargs="+", choices=MIXERS, default=list(MIXERS), metavar="NAME",
        help=", ".join(MIXERS))  # fmt: skip
    add("--against", choices=MIXERS, default="nothing", metavar="NAME")
    add("--seeds", type=int, default=3)
    add("--epochs", type=float, default=10.0)
    add("--minutes", type=float, help="of processor time for a task, instead of epochs")
    add("--out", type=Path, default=RESULTS)
    args = parser.parse_args(argv)
    budget = {"minutes": args.minutes} if args.minutes else {"epochs": args.epochs}
    tasks: list[list[Any]] = []
    if args.cifar10:
        tasks.append([Pictures(args.cifar10, args.model, args.options)])
    if args.lidar:
        tasks.append([Scans(args.lidar, args.model, args.options)])
    if args.home:
        tasks.append(
            [Clouds(args.home, fold, args.model, args.options) for fold in range(args.home)]
        )
    file = args.out / "mixers.json"
    runs: list[dict[str, Any]] = json.loads(file.read_text()) if file.exists() else []
    text = "".join(f"{value:g} {name}" for name, value in budget.items())
    for folds in tasks:
        some = [name for name in args.mixers if folds[0].pictures or name not in LATTICES]
        for seed, mixer in ((seed, mixer) for seed in range(args.seeds) for mixer in some):
            network = " ".join([folds[0].model, *(f"{k}={v}" for k, v in args.options.items())])
            key = {"data": folds[0].data, "model": network, "budget": text,
                   "mixer": mixer, "seed": seed}  # fmt: skip
            if not any(key.items() <= known.items() for known in runs):
                runs.append(key | run(folds, mixer, seed, budget))
                write(file, json.dumps(runs) + "\n")
                print(f"{key} {runs[-1]['accuracy']:.2%} {runs[-1]['seconds']:.0f} s", flush=True)
    write(args.out / "mixers.md", page(runs, args.against))
    print(page(runs, args.against))


if __name__ == "__main__":
    main()
