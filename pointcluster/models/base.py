"""What all networks share: stages of features, a classifier or the features alone, and clusters."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch_geometric.data import Data

from pointcluster.geometry import Hierarchy
from pointcluster.geometry.check import check_positive
from pointcluster.geometry.known_hierarchy import known_hierarchy
from pointcluster.models.clusters import block_clusters, chosen_block, evaluating
from pointcluster.models.results import Features, PointClusters, place
from pointcluster.nn import BatchNorm
from pointcluster.nn.batch_norm import statistics_kept


class Network(nn.Module):
    """A network of context clusters; a subclass says what makes it different from the others.

    That is its parts (`plans`, what geometry its stages need; `stages`, their blocks; `norm`,
    `neck` and `head`), :meth:`check`, :meth:`build_hierarchy`, :meth:`forward_stages` and
    :meth:`pool`. Methods are named as timm names them.

    Args:
        num_classes: Number of classes; 0 leaves the classifier out.
        in_channels: Channels of the input's features.
        channels: Channels of the stages.
        reductions: How many points of the input a point of each stage stands for; of a picture,
            pixels along an axis.
        features_only: Answer with the stages' features instead of class scores.
        out_indices: Which stages to answer with, in this order; all, if not said.

    Raises:
        IndexError: A stage to answer with does not exist.
        ValueError: `out_indices` repeat a stage, are none, or come without `features_only`.
    """

    plans: list[Any]
    stages: Any
    norm: nn.Module
    neck: Any
    head: nn.Module
    head_hidden_size: int

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        channels: Sequence[int],
        reductions: Sequence[int],
        *,
        features_only: bool = False,
        out_indices: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        check_positive("num_classes", num_classes, least=0)
        check_positive("in_channels", in_channels, least=0)
        if out_indices is not None and not features_only:
            raise ValueError("out_indices say which features to give: set features_only=True")
        self.config: dict[str, Any] = {}  # what create_model() builds it from
        self.num_classes, self.in_channels = num_classes, in_channels
        self.features_only = features_only
        self.out_indices = tuple(chosen_stages(out_indices, len(channels)))
        if not 0 < len(set(self.out_indices)) == len(self.out_indices):
            raise ValueError(
                f"out_indices must name stages, each once, found {tuple(out_indices or ())}: "
                f"choose of 0 to {len(channels) - 1}"
            )
        self.feature_info: Any = [
            {"num_chs": wide, "reduction": reduction, "module": f"stages.{s}"}
            for s, (wide, reduction) in enumerate(zip(channels, reductions, strict=True))
        ]
        self.grad_checkpointing = False

    # What a subclass says.

    def check(self, data: Any) -> None:
        """Turn away what does not fit the network; the geometry checks the rest.

        Raises:
            TypeError, ValueError: It does not fit.
        """
        raise NotImplementedError

    def build_hierarchy(self, data: Data) -> Hierarchy:
        """Work out the geometry of all stages by the network's plans."""
        raise NotImplementedError

    def forward_stages(
        self, data: Any, hierarchy: Hierarchy | None = None, *, stop: tuple[int, int] | None = None
    ) -> Iterator[Any]:
        """The features after each stage, worked out as they are asked for.

        Args:
            data: What the network takes.
            hierarchy: Geometry worked out before.
            stop: Stage and block before which to stop.
        """
        raise NotImplementedError

    def pool(self, features: Any) -> Tensor:
        """The last stage's features as one row a cloud or picture. [B, C]"""
        raise NotImplementedError

    # What all do.

    def forward(self, data: Any, hierarchy: Hierarchy | None = None) -> Any:
        """Class scores of each cloud or picture [B, classes], or the chosen stages' features.

        Args:
            data: What the network takes.
            hierarchy: Geometry worked out before, by :meth:`hierarchy`.

        Raises:
            TypeError, ValueError: The input does not fit the network.
        """
        if not self.features_only:
            return self.forward_head(self.forward_features(data, hierarchy))
        return self.forward_intermediates(
            data, self.out_indices, True, True, intermediates_only=True, hierarchy=hierarchy
        )

    def forward_features(self, data: Any, hierarchy: Hierarchy | None = None) -> Any:
        """The last stage's features, normalised: a map for a tensor, :class:`Features` else."""
        for x in self.forward_stages(data, hierarchy):  # noqa: B007  (one stage's at a time)
            pass
        return normalised(self.norm_of(len(self.feature_info) - 1), x)

    def forward_intermediates(
        self,
        data: Any,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
        *,
        hierarchy: Hierarchy | None = None,
    ) -> Any:
        """The features of stages, and those that :meth:`forward_head` takes.

        Args:
            data: What the network takes.
            indices: Which stages, in this order, or how many of the last; all, if not said.
            norm: Normalise them, where the network has a norm for a stage.
            stop_early: Leave out the stages after the last one that is asked for.
            output_fmt: `"NCHW"` is the only layout of a tensor's features.
            intermediates_only: Answer with the stages' features alone.
            hierarchy: Geometry worked out before, by :meth:`hierarchy`.

        Returns:
            The last stage's features, normalised, and a list of the stages': maps for a tensor,
            :class:`Features` for points.

        Raises:
            IndexError: A stage does not exist.
            ValueError: The layout is another.
        """
        if output_fmt != "NCHW":
            raise ValueError(f"features are maps: output_fmt = 'NCHW', found {output_fmt!r}")
        count = len(self.feature_info)
        chosen = chosen_stages(indices, count)
        most = max(chosen) + 1 if stop_early and intermediates_only else count
        kept = {}
        for s, x in zip(range(most), self.forward_stages(data, hierarchy), strict=False):
            if s in chosen:
                kept[s] = normalised(self.norm_of(s), x) if norm else x
        features = [kept[s] for s in chosen]
        return (
            features if intermediates_only else (normalised(self.norm_of(count - 1), x), features)
        )

    def forward_head(self, features: Any, pre_logits: bool = False) -> Tensor:
        """Pool each cloud's points and classify; `pre_logits` stops before the classifier."""
        x: Tensor = self.neck(self.pool(features))
        return x if pre_logits else self.head(x)

    def norm_of(self, stage: int) -> nn.Module | None:
        """What normalises a stage's features, where the network has something for it."""
        last = len(self.feature_info) - 1
        return self.norm if stage == last and not self.features_only else None

    def run(self, stage: int, x: Tensor, geometry: Any, stop: tuple[int, int] | None) -> Tensor:
        """The blocks of a stage, up to where to stop. [N, C]"""
        for number, block in enumerate(self.stages[stage]):
            if (stage, number) == stop:
                break
            x = self.call(block, x, geometry)
        return x

    def call(self, part: nn.Module, *inputs: Any) -> Any:
        """Call a part; with gradient checkpointing only what goes in is kept for the way back."""
        if not (self.grad_checkpointing and torch.is_grad_enabled()):
            return part(*inputs)
        options: dict[str, Any] = {"use_reentrant": False}
        if any(isinstance(each, BatchNorm) for each in part.modules()):
            # What is worked out again was counted the first time.
            options["context_fn"] = lambda: (nullcontext(), statistics_kept(part))
        return checkpoint(part, *inputs, **options)

    def hierarchy(self, data: Data, given: Hierarchy | None = None) -> Hierarchy:
        """The geometry of all stages for these points.

        It is the one that is given beside them, which must be theirs; else what
        :class:`~pointcluster.transforms.PrecomputeHierarchy` worked out, where it did.

        Raises:
            TypeError, ValueError: It does not fit, or the data are malformed.
        """
        known = known_hierarchy(data, self.plans, given)
        return self.build_hierarchy(data) if known is None else known

    def checked_hierarchy(self, data: Data, hierarchy: Hierarchy | None) -> Hierarchy:
        """The same, for points that fit the network."""
        self.check(data)
        return self.hierarchy(data, hierarchy)

    def new_head(self, num_classes: int, **options: Any) -> nn.Module:
        """A classifier of what the neck gives; nothing for 0 classes."""
        if not num_classes:
            return nn.Identity()
        return nn.Linear(self.head_hidden_size, num_classes, **options)

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the classifier by a new one; 0 leaves it out."""
        check_positive("num_classes", num_classes, least=0)
        if self.features_only:
            raise ValueError("a network of features only has no classifier")
        self.num_classes = num_classes
        if self.config:
            self.config["num_classes"] = num_classes
        like = next(self.parameters())
        self.head = self.new_head(num_classes, device=like.device, dtype=like.dtype)

    def get_classifier(self) -> nn.Module:
        """The last linear map."""
        return self.head

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """In training keep only what goes into each block, and work the rest out again."""
        self.grad_checkpointing = enable

    @property
    def heads(self) -> list[list[int]]:
        """Heads of every block of every stage."""
        return [[block.cluster.heads for block in blocks] for blocks in self.stages]

    @property
    def num_blocks(self) -> list[int]:
        """Blocks of each stage."""
        return [len(heads) for heads in self.heads]

    @torch.no_grad()
    def clusters(
        self,
        data: Any,
        stage: int = -1,
        block: int = -1,
        head: int | None = None,
        *,
        hierarchy: Hierarchy | None = None,
    ) -> PointClusters:
        """The assignment in one block, for every point of the input.

        A point belongs to the cluster of its nearest anchor, stage by stage; a pixel of a whole
        picture to that of the cell that covers it.

        Args:
            data: What the network takes; a tensor's pixels count picture by picture, row by row.
            stage: Which stage; negative ones count from the end.
            block: Which of its blocks; negative ones count from the end.
            head: Which of its heads; negative ones count from the end. `None`: all.
            hierarchy: Geometry worked out before.

        Raises:
            IndexError: There is no such stage, block or head.
            TypeError: One of them is no integer.
        """
        stage, block, head = chosen_block(self.heads, stage, block, head)
        with evaluating(self):
            return self.clusters_of(data, stage, block, hierarchy).of_head(head)

    def clusters_of(
        self, data: Data, stage: int, block: int, hierarchy: Hierarchy | None
    ) -> PointClusters:
        """All heads' assignment in a block, by its numbers from the front."""
        hierarchy = self.checked_hierarchy(data, hierarchy)
        x = self.before(data, stage, block, hierarchy).x
        return block_clusters(self.stages[stage][block], x, data, hierarchy.stages[: stage + 1])

    def before(self, data: Any, stage: int, block: int, hierarchy: Hierarchy | None) -> Any:
        """What goes into a block, as :meth:`forward_stages` gives it."""
        stages = self.forward_stages(data, hierarchy, stop=(stage, block))
        return next(itertools.islice(stages, stage, None))


def normalised(norm: nn.Module | None, features: Any) -> Any:
    """A stage's features, each cloud or picture normalised; as they are without a norm."""
    if norm is None:
        return features
    if isinstance(features, Features):
        x, _, batch, size, cloud_size = features
        return features._replace(x=norm(x, batch, size, cloud_size))
    rows = features.permute(0, 2, 3, 1)  # [B, H, W, C]
    x = norm(rows.flatten(0, 2), None, rows.size(0), rows.size(1) * rows.size(2))
    return x.view(rows.shape).permute(0, 3, 1, 2)


def chosen_stages(indices: int | Sequence[int] | None, count: int) -> list[int]:
    """Stages from the front: all, as many of the last, or those of the given numbers.

    Raises:
        IndexError: There are no such ones.
    """
    if indices is None:
        return list(range(count))
    if isinstance(indices, int):
        if not 1 <= indices <= count:
            raise IndexError(f"there are {count} stages: take 1 to {count} of the last")
        return list(range(count - indices, count))
    return [place("stage", i, count) for i in indices]


def check_equally_many(**lists: Sequence[Any]) -> None:
    """Check that a network's lists have an entry a stage, and that there are stages.

    Raises:
        ValueError: They differ in length, or are empty.
    """
    lengths = [len(values) for values in lists.values()]
    if len(set(lengths)) > 1 or 0 in lengths:
        *names, last = lists
        raise ValueError(
            f"{', '.join(names)} and {last} must be equally many, found "
            f"{', '.join(map(str, lengths))}"
        )


def check_entries(least: int, **lists: Sequence[int]) -> None:
    """Check that all entries of a network's lists are integers of at least `least`.

    Raises:
        TypeError: One is no integer.
        ValueError: One is smaller.
    """
    for name, values in lists.items():
        for value in values:
            check_positive(f"each entry of {name}", value, least=least)


def rising(drop_path: float, blocks: int) -> list[float]:
    """Probabilities of stochastic depth: from 0 in the first block evenly to `drop_path`."""
    return [drop_path * number / max(1, blocks - 1) for number in range(blocks)]
