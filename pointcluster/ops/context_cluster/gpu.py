"""The context cluster on a GPU: linear maps by torch, and between them Triton's kernels."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pointcluster.ops.context_cluster.weights import Weights, shapes_fit
from pointcluster.ops.launch import power_of_two
from pointcluster.ops.regions import Regions

TILE_POINTS, TILE_NUMBERS = 256, 8192
"""Points, and numbers of f, of a region that a program takes whole; larger ones go in chunks."""
STEP_NUMBERS = 2048
"""Numbers of f that a program takes at a time."""
PROGRAMS = 2048
"""About as many programs work on the chunks of a large batch."""
MOST_NUMBERS = 1 << 27
"""Numbers of f and v of all heads that are held at a time; of more, heads go one after another."""


def fits(
    x: Tensor, regions: Regions, w: Weights, heads: int, residual: Tensor | None = None
) -> bool:
    """Whether the shapes are those of a context cluster, all on one device, and at most 256
    channels a head and as many centres; else torch's operations serve, or raise their errors."""
    there = [each for each in (*w, residual, *regions) if isinstance(each, Tensor)]
    return (
        shapes_fit(x, regions, w, heads, residual)
        and w.out.size(1) // heads <= 256
        and regions.num_centers <= 256
        and all(each.device == x.device for each in there)
    )


class Plan(NamedTuple):
    """What programs take, and what all kernels are told of the shapes."""

    numbers: tuple[Any, ...]
    """Regions, points, points a region (`None`: by `ptr`), heads, channels a head."""
    blocks: dict[str, Any]
    """Sizes of blocks and what else is compiled in."""
    programs: int
    """Tiles, or chunks."""
    chunk: int | None
    """Points a chunk; `None`: programs take whole regions."""


def plan(n: int, regions: Regions, heads: int, channels: int) -> Plan:
    """How the work is cut up: by shapes alone, and without asking the GPU."""
    size, most = regions.size, regions.size or regions.most
    count = n // size if size else len(regions.starts(n)) - 1
    m = regions.num_centers
    block_c = power_of_two(channels)
    blocks = {"M": m, "BC": block_c}
    numbers = (count, n, size, heads, channels)
    if most is not None and power_of_two(most) <= min(TILE_POINTS, TILE_NUMBERS // block_c):
        block_p = power_of_two(most)
        together = max(1, min(64, STEP_NUMBERS // (block_p * block_c)))
        blocks |= {
            "BR": together,
            "BP": block_p,
            "BK": min(16, power_of_two(regions.group.size(2))),
        }
        blocks["num_warps"] = _warps(together * block_p * block_c)
        return Plan(numbers, blocks, -(-count // together), None)
    block_p = max(1, min(128, STEP_NUMBERS // block_c))
    chunk = block_p * max(1, min(64, power_of_two(n * heads // (block_p * PROGRAMS))))
    blocks |= {"BM": power_of_two(m), "BP": block_p, "num_warps": _warps(block_p * block_c)}
    programs = n // chunk + count if size is None else count * -(-size // chunk)
    return Plan(numbers, blocks, programs, chunk)


def _warps(numbers: int) -> int:
    """So many that a thread has 8 numbers of f: on the way back six such arrays are held."""
    return max(1, min(16, numbers // 256))


def context_cluster(
    x: Tensor, regions: Regions, w: Weights, heads: int, residual: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """See :func:`pointcluster.ops.context_cluster`.

    The GPU is not asked whether groupings name points that are there: where one does not, what
    comes out is no number.
    """
    out, assigned = None, []
    for some, which in _groups_of_heads(x, w, heads):
        fv = F.linear(x, some.fv, some.fv_bias)
        y, *given = gather_around(fv, regions, w.alpha, w.beta, which.stop - which.start)
        out = F.linear(y, some.out, w.out_bias) if out is None else out.addmm_(y, some.out.t())
        assigned.append(given)
        del fv, y  # before those of the next heads
    assert out is not None
    index, similarity = (_joined(each, dim=1) for each in zip(*assigned, strict=True))
    return out if residual is None else residual + out, index, similarity


def context_cluster_backward(
    x: Tensor,
    regions: Regions,
    w: Weights,
    heads: int,
    index: Tensor,
    similarity: Tensor,
    grad: Tensor,
) -> tuple[Tensor, ...]:
    """The gradients for x and the weights, in their order.

    f, v and y are worked out once more: they are several times as wide as x, and would be kept for
    every layer.
    """
    grad = grad.to(x.dtype)
    to_x: Tensor | None = None
    parts: list[tuple[Tensor, ...]] = []
    for some, which in _groups_of_heads(x, w, heads):
        fv = F.linear(x, some.fv, some.fv_bias)
        i, s = (each[:, which].contiguous() for each in (index, similarity))
        to_fv, numbers, y = gather_around_backward(
            fv, regions, w.alpha, which.stop - which.start, i, s, grad @ some.out
        )
        to_x = to_fv @ some.fv if to_x is None else to_x.addmm_(to_fv, some.fv)
        parts.append((to_fv.t() @ x, to_fv.sum(dim=0), grad.t() @ y, numbers))
        del fv, to_fv, y  # before those of the next heads
    assert to_x is not None
    to_map, to_bias, to_out, to_numbers = zip(*parts, strict=True)
    total = functools.reduce(torch.add, to_numbers)
    return (
        to_x, _of_all_heads(to_map), _of_all_heads(to_bias), _joined(to_out, dim=1),
        grad.sum(dim=0), total[:1].to(w.alpha.dtype), total[1:].to(w.beta.dtype),
    )  # fmt: skip


def _groups_of_heads(x: Tensor, w: Weights, heads: int) -> list[tuple[Weights, slice]]:
    """The weights of heads that are worked out together, and which ones these are."""
    if heads == 1 or len(x) * w.fv.size(0) <= MOST_NUMBERS:
        return [(w, slice(0, heads))]
    f_v, biases = (each.unflatten(0, (2, heads, -1)) for each in (w.fv, w.fv_bias))
    out = w.out.unflatten(1, (heads, -1))
    return [
        (
            w._replace(
                fv=f_v[:, h].flatten(0, 1), fv_bias=biases[:, h].flatten(0, 1), out=out[:, h]
            ),
            slice(h, h + 1),
        )
        for h in range(heads)
    ]


def _of_all_heads(parts: Sequence[Tensor]) -> Tensor:
    """What there is of f and v of each head, with f of all heads before v of all."""
    f_v = [part.unflatten(0, (2, -1)) for part in parts]
    return _joined(f_v, dim=1).flatten(0, 1)


def _joined(parts: Sequence[Tensor], dim: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim)


# Between the linear maps --------------------------------------------------------------------------


def gather_around(
    fv: Tensor, regions: Regions, alpha: Tensor, beta: Tensor, heads: int
) -> tuple[Tensor, Tensor, Tensor]:
    """y $(N, W)$ of f and v $(N, 2 W)$, the assignment and the similarity, both $(N, H)$."""
    from pointcluster.ops.context_cluster import gpu_kernels as kernels

    (n, wide), work = fv.shape, _Work(fv, regions, heads)
    y, index = fv.new_empty(n, wide // 2), fv.new_empty(n, heads, dtype=torch.int64)
    similarity = fv.new_empty(n, heads, dtype=torch.float32)
    closed = None if regions.closed is None else regions.closed.contiguous()
    with torch.cuda.device_of(fv):
        if work.plan.chunk is None:
            kernels.tile_forward[work.grid](
                fv, *work.geometry, closed, alpha, beta, y, index, similarity, *work.plan.numbers,
                work.k, **work.shared, **work.plan.blocks,
            )  # fmt: skip
            return y, index, similarity
        center, (parts, masses) = work.centers(), work.parts()
        kernels.chunk_assign[work.grid](
            fv, work.ptr, center, closed, alpha, beta, index, similarity, parts, masses,
            *work.chunks, **work.shared, **work.plan.blocks,
        )  # fmt: skip
        h, _ = work.clusters(parts, masses, center)
        kernels.chunk_dispatch[work.grid](
            work.ptr, index, similarity, h, y, *work.chunks, **work.some("M", "BP", "BC")
        )
    return y, index, similarity


def gather_around_backward(
    fv: Tensor,
    regions: Regions,
    alpha: Tensor,
    heads: int,
    index: Tensor,
    similarity: Tensor,
    grad: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients for f and v $(N, 2 W)$, for alpha and beta $(2)$; and y $(N, W)$."""
    from pointcluster.ops.context_cluster import gpu_kernels as kernels

    n, wide = fv.shape
    work = _Work(fv, regions, heads)
    to_fv, y = torch.empty_like(fv), fv.new_empty(n, wide // 2)
    numbers = fv.new_empty(work.plan.programs * heads, 2, dtype=torch.float32)
    with torch.cuda.device_of(fv):
        if work.plan.chunk is None:
            kernels.tile_backward[work.grid](
                fv, *work.geometry, alpha, index, similarity, grad, to_fv, numbers, y,
                *work.plan.numbers, work.k, **work.shared, **work.back(),
            )  # fmt: skip
            return to_fv, numbers.sum(dim=0), y
        center, (parts, masses) = work.centers(), work.parts()
        gather = kernels.chunk_gather[work.grid]
        blocks, assigned = work.some("M", "BM", "BP", "BC"), (index, similarity)
        v = fv[:, wide // 2 :]
        gather(work.ptr, *assigned, v, parts, masses, *work.chunks, wide, **blocks)
        h, mass = work.clusters(parts, masses, center)
        gather(work.ptr, *assigned, grad, parts, masses, *work.chunks, wide // 2, **blocks)
        to_sum, to_mass = torch.empty_like(h), torch.empty_like(mass)
        work.add(parts, masses, center, h, mass, to_mass, alpha, to_sum, "gradient")
        kernels.chunk_backward[work.grid](
            fv, work.ptr, center, h, to_sum, to_mass, alpha, *assigned, grad, to_fv, numbers, y,
            parts, masses, *work.chunks, **work.back(),
        )  # fmt: skip
        to_center = torch.empty_like(h)
        work.add(parts, masses, center, h, mass, to_mass, alpha, to_center, "center")
        kernels.spread[(work.plan.numbers[0] * heads,)](
            to_fv, *work.geometry, to_center, to_sum, *work.plan.numbers, work.k, num_warps=1,
            **work.shared, **work.some("M", "BC", warps=False),
        )  # fmt: skip
    return to_fv, numbers.sum(dim=0), y


class _Work:
    """One call's shapes and geometry, in the forms that kernels take them."""

    def __init__(self, fv: Tensor, regions: Regions, heads: int) -> None:
        n, wide = fv.shape
        self.fv, self.heads, self.channels = fv, heads, wide // 2 // heads
        self.plan = plan(n, regions, heads, self.channels)
        self.ptr = None if regions.size else regions.starts(n).contiguous()
        group = regions.group.contiguous()
        self.geometry = self.ptr, group, regions.filled.contiguous()
        self.k, self.centers_a_region = group.size(2), group.size(1)
        self.shared = {"SHARED": group.size(0) == 1}
        self.grid = (self.plan.programs * heads,)
        halvings = self.plan.numbers[0].bit_length()
        self.chunks = (*self.plan.numbers, self.plan.chunk, halvings)

    def back(self) -> dict[str, Any]:
        """The blocks for the way back, with room for two programs of 8 warps on a processor."""
        return self.plan.blocks | {"maxnreg": 128}

    def some(self, *names: str, warps: bool = True) -> dict[str, Any]:
        """Those of the plan's blocks that a kernel takes."""
        return {name: self.plan.blocks[name] for name in (*names, *["num_warps"] * warps)}

    def parts(self) -> tuple[Tensor, Tensor]:
        """Room for what chunks add up."""
        shape = self.plan.programs, self.heads, self.centers_a_region
        dtype = torch.float32
        return self.fv.new_empty(*shape, self.channels, dtype=dtype), self.fv.new_empty(
            shape, dtype=dtype
        )

    def centers(self) -> Tensor:
        """Propose: f and v of the centres, [R, M, 2 W]."""
        from pointcluster.ops.context_cluster import gpu_kernels as kernels

        (count, n, size, *_), wide = self.plan.numbers, self.fv.size(1)
        m = self.centers_a_region
        center = self.fv.new_empty(count, m, wide, dtype=torch.float32)
        block = min(256, power_of_two(wide))
        kernels.centers[(count * m, -(-wide // block))](
            self.fv, *self.geometry, center, count, n, size, wide, self.k, M=m,
            BK=min(16, power_of_two(self.k)), BW=block, num_warps=4, **self.shared,
        )  # fmt: skip
        return center

    def clusters(self, parts: Tensor, masses: Tensor, center: Tensor) -> tuple[Tensor, Tensor]:
        """Aggregate: h and mass of the clusters, [R, H, M, c] and [R, H, M]."""
        shape = self.plan.numbers[0], self.heads, self.centers_a_region
        h, mass = parts.new_empty(*shape, self.channels), parts.new_empty(shape)
        self.add(parts, masses, center, None, mass, None, None, h, "aggregate")
        return h, mass

    def add(self, parts: Tensor, masses: Tensor, *given: Any) -> None:
        """Add up what chunks have, and go on from there."""
        from pointcluster.ops.context_cluster import gpu_kernels as kernels

        m, block = self.centers_a_region, self.plan.blocks["BC"]
        kernels.add_chunks[(self.plan.numbers[0] * self.heads * m,)](
            parts, masses, self.ptr, *given[:-1], *self.plan.numbers, self.plan.chunk, M=m,
            BQ=max(1, 2048 // block), BC=block, WHAT=given[-1], num_warps=4,
        )  # fmt: skip
