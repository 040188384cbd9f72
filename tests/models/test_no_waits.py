"""No operation of a forward waits for a GPU, and there are few of them.

Shown without one, by tensors that say they are on `cuda` and hold nothing: whoever asks for a value
of theirs is an error.
"""

from __future__ import annotations

import importlib.util
from contextlib import contextmanager, nullcontext

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch_geometric.data import Batch, Data

from pointcluster.models import create_model, list_models
from pointcluster.ops import use_backend

# Most operations of a forward that are not just another view of memory, geometry and all.
MOST = {
    "coc_micro": 140, "coc_nano": 130, "coc_tiny": 240, "coc_tiny2": 300, "coc_tiny_plain": 250,
    "coc_small": 220,
    "coc_small_feat5": 300, "coc_small_feat7": 400, "coc_medium": 350, "coc_medium_feat5": 430,
    "coc_medium_feat7": 530, "coc_base_dim64": 550, "coc_base_dim96": 350,
    "point_coc_tiny": 230, "point_coc_small": 340, "pointmlp_coc": 690,
}  # fmt: skip
triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None,
    reason="Triton is not installed; it comes with torch's builds for GPUs",
)


class Count(TorchDispatchMode):
    """How many operations there are that are not just another view of memory, how many of them
    bring numbers from the host, which a CUDA graph cannot hold, and how many copy what a norm gave,
    or GELU of that: in another order or to another type, before a product takes it."""

    def __init__(self):
        super().__init__()
        self.seen = self.brought = self.copied = self.norms = 0
        self.normed = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name
        aliases = [r.alias_info for r in func._schema.returns]
        view = any(alias is not None and not alias.is_write for alias in aliases)
        self.seen += not (view or func.namespace == "prim" or "empty" in name)
        out = func(*args, **(kwargs or {}))
        given = [each for each in args if isinstance(each, torch.Tensor)]
        after = any(each.untyped_storage()._cdata in self.normed for each in given)
        if "norm" in name.split("::")[1]:
            self.norms += 1
            self.normed[out[0].untyped_storage()._cdata] = out[0]
        elif after and "gelu" in name:
            self.normed[out.untyped_storage()._cdata] = out
        elif "copy" in name or "clone" in name:
            self.copied += after
            self.brought += given[0].device.type == "cpu" and out.device.type == "cuda"
        return out


@contextmanager
def autocast():
    """bfloat16 on a GPU that is not there, where `torch.autocast` would do nothing."""
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    torch.set_autocast_enabled("cuda", True)
    torch.autocast_increment_nesting()
    try:
        yield
    finally:
        torch.autocast_decrement_nesting()
        torch.clear_autocast_cache()
        torch.set_autocast_enabled("cuda", False)


def on_fake_gpu(mode, module):
    """Let a network's parameters and buffers be on a GPU that is not there."""
    for part in module.modules():
        for name, value in part._parameters.items():
            if value is not None:
                fake = mode.from_tensor(value.data).to("cuda")
                part._parameters[name] = torch.nn.Parameter(fake, value.requires_grad)
        for name, value in part._buffers.items():
            if value is not None:
                part._buffers[name] = mode.from_tensor(value).to("cuda")
    return module


def clouds(*sizes):
    items = [Data(pos=torch.rand(size, 3), y=torch.tensor([0])) for size in sizes]
    return Batch.from_data_list(items)


def fake(mode, data):
    """A batch on a GPU that is not there; what PyG keeps on the host stays there."""
    if isinstance(data, torch.Tensor):
        return mode.from_tensor(data).to("cuda")
    for key in data.keys():
        if isinstance(data[key], torch.Tensor):
            data[key] = mode.from_tensor(data[key]).to("cuda")
    return data


def forward(name, data, train=False, half=False):
    """What a network gives on such a GPU, and a count of the operations of that."""
    model = create_model(name, num_classes=5).train(train)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        model, data = on_fake_gpu(mode, model), fake(mode, data)
        cast = autocast() if half else nullcontext()
        with Count() as count, torch.set_grad_enabled(train), cast:
            y = model(data)
    return y, count


@triton
@pytest.mark.parametrize(
    ("name", "train"),
    [(name, False) for name in list_models()]
    + [(name, True) for name in ("coc_tiny", *list_models("point*"))],
)
def test_a_forward_asks_a_gpu_for_nothing(name, train):
    data = torch.rand(2, 3, 224, 224) if name.startswith("coc") else clouds(1024, 1024)
    y, count = forward(name, data, train)
    assert y.shape == (2, 5) and y.device.type == "cuda"
    assert count.seen <= MOST[name]
    assert count.norms and not count.copied
    assert not (name.startswith("point_coc") and count.brought)  # lattices come once


@triton
@pytest.mark.parametrize("name", [*list_models("point_*"), "pointmlp_coc"])
def test_nor_does_one_of_clouds_of_any_sizes(name):
    y, count = forward(name, clouds(700, 1024, 900))
    assert y.shape == (3, 5) and not count.copied


@triton
@pytest.mark.parametrize("name", ["coc_tiny", "point_coc_small"])
def test_nor_in_half_precision_and_nothing_is_copied_before_a_product(name):
    data = torch.rand(2, 3, 224, 224) if name.startswith("coc") else clouds(1024, 1024)
    y, count = forward(name, data, train=True, half=True)
    assert y.dtype == torch.bfloat16 and not count.copied


def test_plain_operations_of_pictures_copy_nothing_between_a_norm_and_a_product():
    model = create_model("coc_micro", num_classes=5).eval()
    with use_backend("torch"), Count() as count, torch.no_grad():
        model(torch.rand(2, 3, 28, 28))
    assert count.norms and not count.copied


@triton
@pytest.mark.parametrize("name", [*list_models("point_*"), "pointmlp_coc"])
def test_nor_does_one_whose_geometry_came_along(name):
    """Its positions are compared by the GPU, which would stop."""
    model, data = create_model(name, num_classes=5).eval(), clouds(300, 300)
    hierarchy = model.hierarchy(data)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, torch.no_grad():
        hierarchy = tree_map_only(torch.Tensor, lambda t: fake(mode, t), hierarchy)
        y = on_fake_gpu(mode, model)(fake(mode, data), hierarchy)
    assert y.shape == (2, 5) and y.device.type == "cuda"


def test_a_batch_vector_alone_has_to_be_asked():
    batch = torch.zeros(600, dtype=torch.int64)
    with pytest.raises(DataDependentOutputException):
        forward("point_coc_tiny", Data(pos=torch.rand(600, 3), batch=batch))


def test_a_batch_whose_points_changed_is_checked():
    """What the batch remembers is of other points then."""
    data = clouds(300, 300)
    keep = torch.rand(600) < 0.9
    data.pos, data.batch = data.pos[keep], data.batch[keep]
    with pytest.raises(DataDependentOutputException):
        forward("point_coc_tiny", data)
