from __future__ import annotations

import pytest
import torch

from pointcluster.ops import Regions, Weights, launch, use_backend

here = pytest.mark.skipif(not launch.cpu_kernels(), reason="needs Numba, OpenMP's team and MKL")


def draw(*shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def close(found, truth, tolerance=2e-5, least=1e-6):
    """Equal up to float32's rounding, measured by the largest number, or a larger one."""
    assert found.shape == truth.shape
    if truth.numel():
        error = (found.double() - truth.double()).abs().max()
        assert error <= tolerance * truth.abs().max().clamp_min(least), float(error)


def gradients(function, inputs, slope, dtype, backend):
    """What a function gives for some inputs by a backend, and its gradients."""
    inputs = [each.to(dtype).requires_grad_() for each in inputs]
    with use_backend(backend):
        y = function(*inputs)
        grads = torch.autograd.grad(y, inputs, slope.to(dtype))
    return [y.detach(), *grads]


def second(function, inputs, dtype, backend):
    """The gradients of the sum of squares of a function's gradients."""
    inputs = [each.to(dtype).requires_grad_() for each in inputs]
    with use_backend(backend):
        y = function(*inputs)
        grads = torch.autograd.grad(y.square().sum(), inputs, create_graph=True)
        return torch.autograd.grad(sum(each.square().sum() for each in grads), inputs)


def make_regions(sizes, centers, k, kind="own", seed=0):
    """Regions of these sizes: `"own"` groupings, `"alike"` ones of equal regions, or `"dense"`,
    equal regions with all that is known of them."""
    generator = torch.Generator().manual_seed(seed)

    def grouping(size):
        if size == 0:
            return torch.zeros(centers, k, dtype=torch.int64), 0
        rows = [torch.randperm(size, generator=generator) for _ in range(centers)]
        return torch.stack([row[torch.arange(k) % size] for row in rows]), min(k, size)

    rows = [grouping(size) for size in (sizes[:1] if kind == "alike" else sizes)]
    group = torch.stack([near for near, _ in rows])
    filled = torch.tensor([[used] * centers for _, used in rows])
    points = group.masked_fill(torch.arange(k) >= filled[..., None], -1).sort(dim=2).values
    closed = torch.zeros_like(filled, dtype=torch.bool)
    for m in range(1, centers):
        closed[:, m] = (points[:, :m] == points[:, m : m + 1]).all(dim=2).any(dim=1)
    regions = Regions(group, filled, closed if closed.any() else None)
    if kind == "alike":
        return regions._replace(size=sizes[0])
    ptr = torch.tensor([0, *sizes]).cumsum(0)
    of = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    regions = regions._replace(ptr=ptr, of=of)
    if kind == "dense":
        regions = regions._replace(size=sizes[0])
        regions = regions._replace(pool=regions.pooling(torch.float32))
    return regions


def make_weights(channels, heads, size, out, seed=0):
    width = heads * size
    shapes = (2 * width, channels), (2 * width,), (out, width), (out,)
    scaled = (each / max(1, each.shape[-1]) ** 0.5 for each in draw(*shapes, seed=seed + 100))
    alpha = torch.tensor([1.5 - 3 * (seed % 2)])
    return Weights(*scaled, alpha, torch.tensor([0.2]))
