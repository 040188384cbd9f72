from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pointcluster.ops import Regions, Weights, launch, use_backend

here = pytest.mark.skipif(not launch.cpu_kernels(), reason="needs Numba, OpenMP's team and MKL")

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Whether Triton's kernels are run by its interpreter, on CPU tensors."""
card = "cpu" if INTERPRETED else "cuda"
"""The device that tests of GPU kernels take."""


def pytest_collection_modifyitems(config, items):
    """Tests of GPU kernels run where there is a GPU, and in a child process by the interpreter.

    Triton decides when it is imported, and PyTorch Geometric imports it: too late for this process.
    """
    child = test_by_the_interpreter.__name__
    direct = INTERPRETED or torch.cuda.is_available()

    def runs(item):
        if item.path.parent != Path(__file__).parent or not item.path.stem.endswith("_gpu"):
            return True
        return not INTERPRETED if item.name == child else direct

    left = [item for item in items if not runs(item)]
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if runs(item)]


def test_by_the_interpreter(request):
    """All other tests of the file, by Triton's interpreter on a CPU."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not installed; it comes with torch's builds for GPUs")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(request.path)],
        env=os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        cwd=request.config.rootpath, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


@pytest.fixture
def kernels(monkeypatch):
    """Let operators take Triton's kernels for CPU tensors, too: by the interpreter."""
    if not INTERPRETED:
        yield
        return
    from pointcluster.ops import backend, launch
    from pointcluster.ops.context_cluster import op as context_cluster_op
    from pointcluster.ops.gather_max import op as gather_max_op
    from pointcluster.ops.norm import op as cloud_norm_op

    monkeypatch.setattr(launch, "gpu_kernels", lambda device: True)
    monkeypatch.setattr(backend, "KERNELS", {"cpu": "gpu"})
    library = torch.library.Library("pointcluster", "IMPL")
    operators = {
        "context_cluster": context_cluster_op,
        "gather_max": gather_max_op,
        "cloud_norm": cloud_norm_op,
    }
    for name, operator in operators.items():
        library.impl(name, operator._forward_gpu, "CPU")
        library.impl(f"{name}_backward", operator._backward_gpu, "CPU")
    yield
    library._destroy()


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
