"""k nearest neighbours on packed point sets of any dimension."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from pointcluster import ops
from pointcluster.geometry.check import (
    check_extent,
    check_positive,
    cloud_sizes,
    geometry_dtype,
)
from pointcluster.ops.search.threads import searching


@searching
def knn(
    pos: Tensor,
    query: Tensor,
    k: int,
    batch: Tensor | None = None,
    query_batch: Tensor | None = None,
    *,
    batch_size: int | None = None,
    sizes: Sequence[int] | None = None,
    query_sizes: Sequence[int] | None = None,
    backend: str = "auto",
) -> Tensor:
    r"""Find the `k` nearest points of the same cloud for each query, nearest first.

    Ties: of points at the same :func:`squared_distance`, that of the lower index comes first.
    Every backend keeps this rule. A cloud with $n < k$ points gives all of them, nearest first,
    and then repeats them from the start: slot $j$ holds neighbour $j \bmod n$. A cloud without
    points must have no queries.

    Args:
        pos: Positions of the points.
        query: Positions of the queries.
        k: How many neighbours.
        batch: Sorted cloud index of each point.
        query_batch: Sorted cloud index of each query.
        batch_size: Number of clouds, when the last ones may be empty.
        sizes: Points of each cloud, where the host knows them: together with `query_sizes`, nothing
            is checked then, and no device is waited for.
        query_sizes: Queries of each cloud, where the host knows them.
        backend: `"auto"`, or a name that :func:`pointcluster.backends` lists.

    Shapes:
        - **pos:** $(N, D)$, **query:** $(M, D)$
        - **output:** $(M, k)$, indices into `pos`

    Raises:
        TypeError, ValueError: The point sets are malformed, or a query's cloud has no points.
        ModuleNotFoundError: The backend asked for is not installed.
    """
    check_positive("k", k)
    known = sizes is not None and query_sizes is not None
    sizes = cloud_sizes(pos, batch, batch_size, sizes=sizes)
    query_sizes = cloud_sizes(query, query_batch, batch_size, sizes=query_sizes, name="query")
    if query.size(1) != pos.size(1) or query.dtype != pos.dtype or query.device != pos.device:
        raise ValueError(
            "pos and query must agree in dimension, dtype and device: "
            f"pos is {list(pos.shape)} {pos.dtype} on {pos.device}, "
            f"query {list(query.shape)} {query.dtype} on {query.device}"
        )
    if not known:
        check_extent("pos with query", pos, query)
    clouds = max(len(sizes), len(query_sizes))
    sizes += [0] * (clouds - len(sizes))
    query_sizes += [0] * (clouds - len(query_sizes))
    for cloud, (n, m) in enumerate(zip(sizes, query_sizes, strict=True)):
        if m and not n:
            raise ValueError(f"cloud {cloud} has {m} queries but no points to find")
    pos, query = geometry_dtype(pos.detach()), geometry_dtype(query.detach())
    return ops.knn(pos, query, k, sizes, query_sizes, backend=backend)
