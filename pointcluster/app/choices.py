"""Which stages, blocks and heads a network has."""

from __future__ import annotations

from typing import Any, NamedTuple

from pointcluster.models import PointMLPCoC


class Place(NamedTuple):
    """One head of one block of one stage, each counted from 0."""

    stage: int = 0
    block: int = 0
    head: int = 0

    def __str__(self) -> str:
        return f"stage {self.stage}, block {self.block}, head {self.head}"


def heads_of(model: Any) -> list[list[int]]:
    """Heads of every block of every stage.

    Args:
        model: A network of :mod:`pointcluster.models`.
    """
    if isinstance(model, PointMLPCoC):  # a group has one centre: all heads are one there
        return [[1] * len(encoder.clusters) for encoder in model.encoders]
    return [[block.cluster.heads for block in blocks] for blocks in model.stages]


def stages(model: Any) -> list[int]:
    """The numbers of the stages."""
    return list(range(len(heads_of(model))))


def blocks(model: Any, stage: int) -> list[int]:
    """The numbers of a stage's blocks."""
    return list(range(len(heads_of(model)[stage])))


def heads(model: Any, stage: int, block: int) -> list[int]:
    """The numbers of a block's heads."""
    return list(range(heads_of(model)[stage][block]))


def nearest_place(model: Any, wanted: Place) -> Place:
    """The place of the network that is next to the one that is asked for, itself if it exists."""
    stage = _within(wanted.stage, stages(model))
    block = _within(wanted.block, blocks(model, stage))
    return Place(stage, block, _within(wanted.head, heads(model, stage, block)))


def first_place(model: Any) -> Place:
    """What is shown at first: the last block of the middle stage, where clusters are neither tiny
    nor few."""
    stage = (len(stages(model)) - 1) // 2
    return Place(stage, blocks(model, stage)[-1], 0)


def _within(value: int | None, there: list[int]) -> int:
    return min(max(int(value or 0), there[0]), there[-1])
