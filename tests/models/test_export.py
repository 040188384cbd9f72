from __future__ import annotations

import warnings

import pytest
import torch
from torch._dynamo.testing import CompileCounter
from torch_geometric.data import Batch, Data

from pointcluster.models import create_model
from pointcluster.models.point_coc import PointCoC
from pointcluster.models.pointmlp_coc import PointMLPCoC
from tests.models.published import pictures
from tests.models.test_coc import small

TWO_STAGES = {
    "channels": (8, 12),
    "depths": (1, 1),
    "heads": (2, 2),
    "mlp_ratios": (2, 2),
    "centers": 2,
    "strides": (2, 2),
}


def tiny(fold=(2, 1), **options):
    """The regions of the default are of one shape; those of (3, 2) of four, in their own order, and
    the anchors are normalised."""
    options = {"fold": fold, "norm": fold == (3, 2)} | options
    return small(torch.float32, **(TWO_STAGES | options))


@pytest.fixture(params=[(2, 1), (3, 2)], ids=str)
def network(request):
    return tiny(request.param)


@pytest.fixture
def images():
    return pictures(28, 28).float()


def close(found, expected, atol=1e-5):
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


@pytest.mark.slow
def test_compiles_whole(network, images):
    torch.compiler.reset()
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        close(compiled(images), network(images))


@pytest.mark.slow
def test_compiles_whole_in_training(images):
    torch.compiler.reset()
    network = tiny().train()
    gradients = []
    for call in (network, torch.compile(network, fullgraph=True, backend="aot_eager")):
        network.zero_grad()
        call(images).square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in network.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["point_coc_tiny", "pointmlp_coc", "point_coc_tiny_seg"])
def test_networks_of_clouds_compile_whole_and_once_for_clouds_of_one_size(name):
    torch.compiler.reset()
    network, graphs = create_model(name, num_classes=5).eval(), CompileCounter()
    compiled = torch.compile(network, fullgraph=True, backend=graphs)
    for seed in range(3):
        pos = torch.rand(2, 300, 3, generator=torch.Generator().manual_seed(seed))
        batch = Batch.from_data_list([Data(pos=each) for each in pos])
        hierarchy = network.hierarchy(batch)
        with torch.no_grad():
            close(compiled(batch, hierarchy), network(batch, hierarchy))
    assert graphs.frame_count == 1


def small_network(kind):
    torch.manual_seed(0)
    sizes = {"channels": (8, 12), "depths": (1, 1), "ratios": (0.5, 0.5), "k": 6}
    if kind is PointMLPCoC:
        return PointMLPCoC(5, embedding=8, blocks=(1, 1), head_hidden=(8, 8), **sizes).eval()
    return PointCoC(5, heads=(2, 2), encode=(8, 0), head_hidden=8, **sizes).eval()


@pytest.mark.slow
@pytest.mark.parametrize("kind", [PointCoC, PointMLPCoC])
def test_the_geometry_of_clouds_of_one_size_compiles_with_the_network(kind):
    torch.compiler.reset()
    network, graphs = small_network(kind), CompileCounter()
    compiled = torch.compile(network, fullgraph=True, backend=graphs)
    with torch.no_grad():
        for seed in range(3):
            pos = torch.rand(2, 90, 3, generator=torch.Generator().manual_seed(seed))
            batch = Batch.from_data_list([Data(pos=each) for each in pos])
            close(compiled(batch), network(batch))
        assert graphs.frame_count == 1
        batch.batch = (torch.arange(180) >= 80).long()  # as many points, of other clouds
        with pytest.raises(RuntimeError, match="compiled for 2 clouds of 90 points and met others"):
            compiled(batch)
        torch.compiler.reset()
        close(compiled(Data(pos=pos[0])), network(Data(pos=pos[0])))


@pytest.mark.slow
def test_the_geometry_of_other_clouds_is_worked_out_beside_the_graph():
    torch.compiler.reset()
    network = small_network(PointCoC)
    compiled = torch.compile(network, backend="eager")
    with torch.no_grad():
        for sizes in [(90, 40), (40, 91), (33, 33), (70, 71, 72)]:
            batch = Batch.from_data_list([Data(pos=torch.rand(n, 3)) for n in sizes])
            close(compiled(batch), network(batch))
    torch.compiler.reset()
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    with pytest.raises(torch._dynamo.exc.Unsupported, match="compiled for clouds of one size"):
        compiled(batch)


@pytest.mark.slow
def test_exports_for_any_number_of_pictures(network, images):
    batch = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(network, (images,), dynamic_shapes=batch)
    with torch.no_grad():
        for found in (images, pictures(28, 28, batch=5).float(), images[:1]):
            close(program.module()(found), network(found))


@pytest.mark.slow
def test_runs_in_onnxruntime(images, tmp_path):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    network, path = tiny(), tmp_path / "net.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        batch = ({0: torch.export.Dim("batch")},)
        program = torch.onnx.export(
            network, (images,), dynamo=True, dynamic_shapes=batch, verbose=False
        )
        program.save(path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    for each in (images, pictures(28, 28, batch=3).float()):
        (found,) = session.run(None, {name: each.numpy()})
        with torch.no_grad():
            close(torch.from_numpy(found), network(each), atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast(network, images, dtype):
    network.train()
    expected = network(images)
    with torch.autocast("cpu", dtype=dtype):
        logits = network(images)
    assert logits.dtype == dtype
    torch.testing.assert_close(logits.float(), expected, rtol=0.05, atol=0.05)
    logits.float().square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.any(), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_weights_of_half_precision(network, images, dtype):
    with torch.no_grad():
        expected = network(images)
        found = network.to(dtype)(images.to(dtype))
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), expected, rtol=0.1, atol=0.1)
