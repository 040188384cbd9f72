"""Networks are made and asked in unlucky places first: each in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

BEFORE = """
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch_geometric.data import Data
from pointcluster.models import create_model
from pointcluster.ops import launch
def made(): return create_model("coc_micro", num_classes=5).eval()
"""
AFTER = """
torch.set_default_device("cpu"); torch.set_default_dtype(torch.float32); torch.manual_seed(0)
m, x = made(), torch.rand(1, 3, 28, 28)
assert (m(x).double() - m.double()(x.double())).abs().max() < 1e-6
"""
PLACES = {
    "meta": """
torch.set_default_device("meta")
assert made()(torch.rand(1, 3, 28, 28)).is_meta
""",
    "another default": """
m, x = made(), torch.rand(1, 3, 28, 28)
torch.set_default_device("cuda")
assert m(x).device.type == "cpu"
""",
    "fake": """
with FakeTensorMode(allow_non_fake_inputs=True):
    assert made()(torch.rand(1, 3, 28, 28)).shape == (1, 5)
m, x = made(), torch.rand(1, 3, 28, 28)
with FakeTensorMode(allow_non_fake_inputs=True):
    assert m(x).shape == (1, 5)
""",
    "grad": """
m, x = made(), torch.rand(1, 3, 28, 28)
g = torch.func.grad(lambda x: m(x).square().sum())(x)
m(x.requires_grad_()).square().sum().backward()
assert (g - x.grad).abs().max() < 1e-5
""",
    "jvp": """
m, x = made(), torch.rand(1, 3, 28, 28)
_, t = torch.func.jvp(m, (x,), (torch.ones_like(x),))
x.requires_grad_()
slopes = [torch.autograd.grad(m(x)[0, i], x)[0].sum() for i in range(5)]
assert (t[0] - torch.stack(slopes)).abs().max() < 1e-4
""",
    **{
        name: f"""
torch.set_default_dtype(torch.{name})
assert made()(torch.rand(1, 3, 28, 28)).dtype == torch.{name}
assert made().float()(torch.rand(1, 3, 28, 28).float()).dtype == torch.float32
"""
        for name in ("float64", "bfloat16", "float16")
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_the_first_call(place):
    code = f"{BEFORE}available = {{}}\n{PLACES[place]}\nhere = launch.cpu_kernels()\n{AFTER}"
    code += "\nlaunch._torch.cache_clear(); assert launch.cpu_kernels() == here"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
