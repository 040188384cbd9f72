from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from pointcluster.models import create_model
from pointcluster.ops import use_backend
from pointcluster.ops.backend import backend_for
from tests.ops.conftest import here


@here
@pytest.mark.filterwarnings("ignore:.torch.jit.trace. is deprecated")
def test_kernels_take_plain_tensors_only():
    x = torch.randn(4, 6)
    assert backend_for(x, None, torch.nn.Parameter(x)) == "cpu"
    for other in (x.double(), x.half(), x[:0], x.to("meta"), x.to_sparse()):
        assert backend_for(x, other) == "torch"
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert backend_for(x) == "torch"
    seen = []
    torch.func.vmap(lambda x: seen.append(backend_for(x)) or x)(x)
    torch.func.grad(lambda x: seen.append(backend_for(x)) or x.sum())(x)
    torch.jit.trace(lambda x: seen.append(backend_for(x)) or x + 1, x, check_trace=False)
    with torch.autograd.forward_ad.dual_level():
        seen.append(backend_for(x))
    assert seen == ["torch"] * 4

    class Other(torch.Tensor):
        pass

    assert backend_for(x.as_subclass(Other)) == "torch"


def test_a_backend_for_a_while():
    x = torch.randn(4, 6)
    before = backend_for(x)
    with use_backend("reference"):
        assert backend_for(x) == "reference"
        with use_backend("torch"):
            assert backend_for(x) == "torch"
        assert backend_for(x.double()) == "reference"
    assert backend_for(x) == before
    with pytest.raises(ValueError, match=r"backend must be one of .*'gpu'\], found 'fast'"):
        with use_backend("fast"):
            pass


@pytest.mark.parametrize(
    ("name", "expected"), [("reference", "reference"), ("torch", "torch"), ("", None), ("x", "x")]
)
def test_a_backend_for_a_process(name, expected):
    code = "import torch; from pointcluster.ops.backend import backend_for as b, chosen"
    code += "\nprint(chosen(), b(torch.ones(2, 2)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=100,
        env=os.environ | {"POINTCLUSTER_BACKEND": name},
    )  # fmt: skip
    if expected == "x":
        assert "POINTCLUSTER_BACKEND must be one of" in done.stderr and "found 'x'" in done.stderr
    else:
        assert done.stdout.split()[0] == (expected or "auto"), done.stderr
        assert expected is None or done.stdout.split()[1] == expected


@here
@pytest.mark.parametrize("train", [False, True])
def test_counters_of_operations_see_all_of_them(train):
    model, images = create_model("coc_tiny", num_classes=3).train(train), torch.randn(1, 3, 64, 64)

    def count(backend):
        with FlopCounterMode(display=False) as counter, use_backend(backend):
            with torch.set_grad_enabled(train):
                y = model(images)
            if train:
                y.sum().backward()
        return counter.get_total_flops()

    assert count("cpu") == pytest.approx(count("torch"), rel=0.02 if train else 1e-9)


@here
def test_fake_tensors_see_one_op():
    seen = []

    class Names(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    model = create_model("coc_tiny", num_classes=3).eval()
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, Names(), torch.no_grad():
        y = model(mode.from_tensor(torch.randn(2, 3, 224, 224)))
    blocks = sum(model.num_blocks)
    assert y.shape == (2, 3)
    assert sum(name.startswith("pointcluster.context_cluster") for name in seen) == blocks
    assert sum(name.startswith("pointcluster.mlp") for name in seen) == blocks


@pytest.mark.parametrize("name", ["coc_micro", "coc_tiny"])
def test_networks_agree_by_every_backend(name):
    torch.manual_seed(0)
    model = create_model(name, num_classes=3)
    for value in model.parameters():
        value.data += torch.randn_like(value) / 20
    images = torch.randn(2, 3, 64, 64)

    def answers(backend, dtype):
        model.zero_grad()
        with use_backend(backend):
            y = model.to(dtype)(images.to(dtype))
            y.square().sum().backward()
        return [y.detach(), *(p.grad.clone() for p in model.parameters())]

    truth = answers("reference", torch.float64)
    found, plain = answers("auto", torch.float32), answers("torch", torch.float32)
    for a, b, c in zip(found, plain, truth, strict=True):
        scale = c.abs().max().clamp_min(1e-3)
        assert (a - c).abs().max() <= 2 * (b - c).abs().max() + 1e-4 * scale


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_gpu_kernels_that_cannot_be_had():
    with pytest.raises(RuntimeError, match="the GPU's kernels: they need Triton, and an NVIDIA"):
        with use_backend("gpu"):
            pass


def test_a_compiler_takes_the_choice_for_granted():
    from pointcluster.ops import launch

    def function(x):
        return x + launch.gpu_kernels(torch.device("cuda", 0)) + launch.gpu_kernels(x.device)

    x = torch.zeros(2)
    compiled = torch.compile(function, fullgraph=True, backend="eager")
    assert torch.equal(compiled(x), function(x))
