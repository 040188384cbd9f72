"""Hierarchies as tables that are joined by laying them end to end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pointcluster.geometry.anchors import AnchorGeometry, AnchorHierarchy
from pointcluster.geometry.distance import starts_of
from pointcluster.geometry.hierarchy import Hierarchy, StageGeometry, anchors_of
from pointcluster.geometry.region import ClusterGeometry


class _Anchors(NamedTuple):
    """What the tables of anchors do not tell; a size that is not common to all is 0."""

    size: int
    cloud_size: int
    outside: bool


class _Clusters(NamedTuple):
    """What the tables of regions and centres do not tell; likewise."""

    regions: int
    num_centers: int
    center_k: int
    region_size: int
    repeated: bool
    ordered: bool


class _Part(NamedTuple):
    """What the tables of one hierarchy do not tell."""

    batch_size: int
    num_points: int
    anchors: list[_Anchors]
    clusters: list[_Clusters]
    regions: bool  # whether there are any; without, points are anchors alone


def pack_hierarchy(hierarchy: Hierarchy | AnchorHierarchy) -> dict[str, Any]:
    """Lay a hierarchy out as named tables.

    Tables of the same name can be concatenated along their first axis, and their layouts listed, as
    a PyG `Batch` does with a dictionary. Indices count from the part that they belong to;
    :func:`unpack_hierarchy` makes one hierarchy of all.

    Returns:
        Tensors by names such as `"0.grouping"`; and `"layout"`, plain numbers that stay where they
        are when a batch moves to another device.
    """
    tables: dict[str, Any] = {}
    rows: list[_Anchors] = []
    more: list[_Clusters] = []
    stages: Sequence[StageGeometry | AnchorGeometry] = hierarchy.stages
    for number, stage in enumerate(stages):
        anchors = anchors_of(stage)
        packed = _pack_anchors(anchors)
        rows.append(_Anchors(len(anchors.anchor), anchors.cloud_size or 0, anchors.outside))
        if isinstance(stage, StageGeometry):
            tables_of_clusters, row = _pack_clusters(stage.clusters)
            packed |= tables_of_clusters
            more.append(row)
        tables |= {f"{number}.{name}": table for name, table in packed.items()}
    num_points = anchors_of(stages[0]).num_points if rows else 0
    regions = isinstance(hierarchy, Hierarchy)
    layout = (hierarchy.batch_size, num_points, _plain(rows), _plain(more), regions)
    return {**tables, "layout": layout}


def _plain(rows: Sequence[tuple]) -> tuple[tuple, ...]:
    return tuple(tuple(row) for row in rows)


def _pack_anchors(anchors: AnchorGeometry) -> dict[str, Tensor]:
    return {
        "anchor": anchors.anchor,
        "grouping": anchors.grouping,
        "relative": anchors.relative,
        "radius": anchors.radius,
        "pos": anchors.pos,
        "cloud": anchors.batch,
    }


def _pack_clusters(clusters: ClusterGeometry) -> tuple[dict[str, Tensor], _Clusters]:
    center, m = clusters.center, clusters.num_centers
    repeats, pool, order = clusters.repeats, clusters.pool, clusters.order
    tables = {
        "region": clusters.region,
        "center": center,
        # Flat: another part's may have more columns.
        "members": clusters.grouping.reshape(-1),
        "weight": clusters.weight.reshape(-1),
        "pool": clusters.weight.new_empty(0) if pool is None else pool.reshape(-1),
        # Dense: another part may have some.
        "repeats": center.new_zeros(len(center), 2, dtype=torch.bool)
        if repeats is None
        else repeats.t().contiguous(),
        "order": center.new_empty(0) if order is None else order,
    }
    return tables, _Clusters(
        regions=len(center) // m,
        num_centers=m,
        center_k=clusters.grouping.size(1),
        region_size=0 if pool is None else pool.size(2),
        repeated=repeats is not None,
        ordered=order is not None,
    )


def unpack_hierarchy(tables: Mapping[str, Any]) -> Hierarchy | AnchorHierarchy:
    """The hierarchy that tables hold: of one part, or of several laid end to end.

    All that is done is to add offsets: nothing is searched, nothing waits for a device, and with
    one part no tensor is copied.
    """
    parts = list(_parts(tables["layout"]))
    clouds = [part.batch_size for part in parts]
    before = [part.num_points for part in parts]
    stages: list[Any] = []
    for number in range(len(parts[0].anchors)):
        start = f"{number}."
        stage = {name[len(start) :]: t for name, t in tables.items() if name.startswith(start)}
        rows = [part.anchors[number] for part in parts]
        points = [row.size for row in rows]
        of_point = _part_of_rows(points, stage["anchor"].device)
        anchors = _unpack_anchors(stage, rows, of_point, before, clouds)
        if parts[0].regions:
            more = [part.clusters[number] for part in parts]
            clusters = _unpack_clusters(stage, more, of_point, points, anchors)
            stages.append(StageGeometry(anchors, clusters))
        else:
            stages.append(anchors)
        before = points
    kind = Hierarchy if parts[0].regions else AnchorHierarchy
    return kind(tuple(stages), sum(clouds))


def _parts(layout: Sequence[Any]) -> Iterator[_Part]:
    """From one layout, or from lists of them: a batch has a list, a batch of batches lists."""
    if not isinstance(layout[0], int):
        for each in layout:
            yield from _parts(each)
        return
    batch_size, num_points, anchors, clusters, regions = layout
    rows, more = [_Anchors(*row) for row in anchors], [_Clusters(*row) for row in clusters]
    yield _Part(batch_size, num_points, rows, more, regions)


def _unpack_anchors(
    tables: Mapping[str, Tensor],
    rows: Sequence[_Anchors],
    of_point: Tensor | None,
    before: list[int],
    clouds: list[int],
) -> AnchorGeometry:
    """The anchors of all parts, which had so many points before and have so many clouds."""
    outside = any(row.outside for row in rows)
    return AnchorGeometry(
        anchor=_counted_on(tables["anchor"], of_point, before, border=outside),
        grouping=_counted_on(tables["grouping"], of_point, before, border=outside),
        relative=tables["relative"],
        radius=tables["radius"],
        pos=tables["pos"],
        batch=_counted_on(tables["cloud"], of_point, clouds),
        num_points=sum(before),
        batch_size=sum(clouds),
        # A part without clouds has no say in their size.
        cloud_size=_common(
            row.cloud_size for row, count in zip(rows, clouds, strict=True) if count
        ),
        outside=outside,
    )


def _unpack_clusters(
    tables: Mapping[str, Tensor],
    rows: Sequence[_Clusters],
    of_point: Tensor | None,
    points: list[int],
    anchors: AnchorGeometry,
) -> ClusterGeometry:
    """The regions and centres of all parts, whose stages have so many points."""
    m, regions = rows[0].num_centers, [row.regions for row in rows]
    of_center = _part_of_rows([count * m for count in regions], anchors.anchor.device)
    # Nor has one without regions in theirs.
    region_size = _common(row.region_size for row in rows if row.regions)
    members, weight = _as_wide(tables["members"], tables["weight"], rows)
    return ClusterGeometry(
        order=_order(tables["order"], rows, points, of_point),
        region=_counted_on(tables["region"], of_point, regions),
        center=_counted_on(tables["center"], of_center, points),
        grouping=_counted_on(members, of_center, points),
        weight=weight,
        repeats=tables["repeats"].t().contiguous() if any(r.repeated for r in rows) else None,
        pool=None if region_size is None else tables["pool"].view(-1, m, region_size),
        batch=anchors.batch,
        batch_size=anchors.batch_size,
        num_centers=m,
        region_size=region_size,
        cloud_size=anchors.cloud_size,
    )


def _common(sizes: Iterable[int]) -> int | None:
    """The size that all have, if there is one."""
    found = set(sizes)
    return found.pop() or None if len(found) == 1 else None


def _part_of_rows(counts: list[int], device: torch.device) -> Tensor | None:
    """The part of each row of a table, given the parts' rows; `None`: there is only one."""
    if len(counts) == 1:
        return None
    part = torch.arange(len(counts), device=device)
    count = torch.tensor(counts, device=device)
    return torch.repeat_interleave(part, count, output_size=sum(counts))


def _counted_on(
    index: Tensor, part: Tensor | None, sizes: list[int], *, border: bool = False
) -> Tensor:
    """Let an index into parts of these sizes count on from the parts before.

    With `border`, a part's size stands for no point of it, and the whole size for none of all.
    """
    if part is None:
        return index
    shape = (-1, *[1] * (index.dim() - 1))
    joined = index + torch.tensor(starts_of(sizes)[:-1], device=index.device)[part].view(shape)
    if border:
        size = torch.tensor(sizes, device=index.device)[part].view(shape)
        joined = joined.where(index < size, sum(sizes))
    return joined


def _as_wide(members: Tensor, weight: Tensor, rows: Sequence[_Clusters]) -> tuple[Tensor, Tensor]:
    """The groupings of centres, flat, as rows that are as wide as the widest part's.

    A grouping is filled up with its first point, which counts for nothing there.
    """
    widest = max((row.center_k for row in rows if row.regions), default=rows[0].center_k)
    if all(row.center_k == widest for row in rows if row.regions):
        return members.view(-1, widest), weight.view(-1, widest)
    counts = [row.regions * row.num_centers for row in rows]
    sizes = [count * row.center_k for count, row in zip(counts, rows, strict=True)]
    wide: list[tuple[Tensor, Tensor]] = []
    for row, m, w in zip(rows, members.split(sizes), weight.split(sizes), strict=True):
        m, w = m.view(-1, row.center_k), w.view(-1, row.center_k)
        more = widest - row.center_k
        w = torch.nn.functional.pad(w, (0, more))
        wide.append((torch.cat([m, m[:, :1].expand(-1, more)], dim=1), w))
    return torch.cat([m for m, _ in wide]), torch.cat([w for _, w in wide])


def _order(
    order: Tensor, rows: Sequence[_Clusters], points: list[int], part: Tensor | None
) -> Tensor | None:
    """The order of the parts' points; parts that are stored as given count up."""
    if not any(row.ordered for row in rows):
        return None
    given = order.split([count * row.ordered for count, row in zip(points, rows, strict=True)])
    each = [
        part if row.ordered else torch.arange(count, device=order.device)
        for part, row, count in zip(given, rows, points, strict=True)
    ]
    return _counted_on(torch.cat(each), part, points)
