from __future__ import annotations

import numpy as np
import pytest
import torch

from pointcluster.nn import PointReducer
from pointcluster.ops import launch, mlp
from pointcluster.ops.launch import Field, Table
from tests.ops.conftest import here

TABLE = Table(
    "rows width",
    {"x": "float32 rows 2*width", "index": "int64 rows", "more": "?float32 rows"},
    {"room": "float32 rows width", "other": "int64 width"},
)
SIZES = {"rows": 3, "width": 5}


def tensors(**change):
    given = {"x": torch.zeros(3, 10), "index": torch.zeros(3, dtype=torch.int64), "more": None}
    return given | change


def test_fields_say_their_shapes():
    field = Field.parse("?float32 rows 2*width*rows 7")
    assert field.optional and field.at(SIZES) == (3, 30, 7)
    assert Field.parse("int64 rows").room(SIZES) == 64
    assert Field.parse("float32 rows width 2").room(SIZES) == 128  # 120 bytes, in whole lines


def test_a_record_holds_sizes_addresses_and_scratch_for_all_threads():
    given = tensors(more=torch.zeros(3))
    record, alive = TABLE.fill(SIZES, given, threads=4)
    assert record["rows"] == 3 and record["width"] == 5 and record["room"] == 128
    assert record["x"] == given["x"].data_ptr() and record["more"] == given["more"].data_ptr()
    memory, counters = alive
    assert int(record["memory"][0]) % launch.LINE == 0
    end = int(record["memory"][0]) + 4 * 128
    assert end <= memory.ctypes.data + memory.nbytes
    assert record["counter"] == counters.ctypes.data and not counters.any()
    assert TABLE.fill(SIZES, tensors(), threads=1)[0]["more"] == 0


@pytest.mark.parametrize("change", [
    {"x": torch.zeros(3, 9)}, {"x": torch.zeros(2, 10)}, {"x": torch.zeros(30)}, {"x": None},
    {"x": torch.zeros(3, 10).double()}, {"x": torch.zeros(10, 3).t()}, {"more": torch.zeros(4)},
    {"x": torch.zeros(3, 10, device="meta")}, {"index": torch.zeros(3, dtype=torch.int32)},
])  # fmt: skip
def test_a_wrong_tensor_is_an_error(change):
    name = next(iter(change))
    with pytest.raises(ValueError, match=f"{name} must be dense .* on the CPU, found"):
        TABLE.fill(SIZES, tensors(**change), threads=1)


@here
def test_compiled_code_sees_the_same_arrays():
    from pointcluster.ops.loops import carray

    opened = TABLE.opened

    def kernel(pointer):
        a = carray(pointer, (1,))[0]
        v = opened(a)
        for n in range(a.rows):
            v.index[n] = len(v.more)
            for i in range(2 * a.width):
                v.x[n, i] = 100 * n + i
        for i in range(a.width):
            v.other[i] = 1
            for n in range(a.rows):
                v.room[n, i] = 1

    run, given = launch.Kernel(TABLE, kernel), tensors()
    run(SIZES, **given)
    assert given["x"].tolist() == [[100 * n + i for i in range(10)] for n in range(3)]
    assert given["index"].tolist() == [0, 0, 0]
    run(SIZES, **tensors(index=given["index"], more=torch.zeros(3)))
    assert given["index"].tolist() == [3, 3, 3]


@here
def test_kernels_compile_where_nothing_can_be_cached(monkeypatch):
    from pointcluster.ops import loops

    kept = []

    def cfunc(signature, cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        kept.append(options)
        return lambda function: "compiled"

    monkeypatch.setattr(loops, "cfunc", cfunc)
    assert loops.compiled(np.dtype([("a", np.int64)]), len) == "compiled" and len(kept) == 1


# Torch's own libraries ----------------------------------------------------------------------------


@pytest.fixture
def anew():
    launch._torch.cache_clear()
    yield
    launch._torch.cache_clear()


def test_another_function_is_not_taken_for_a_product():
    calls = []

    def silent(*arguments):
        calls.append(arguments)

    assert not launch.multiplies(silent)
    assert len(calls) == 1


def test_a_torch_without_a_private_name_is_served_by_its_operations(monkeypatch, anew):
    with monkeypatch.context() as patch:
        patch.delattr(torch._C, "_functorch")
        assert not launch.cpu_kernels()
        assert mlp(*(torch.ones(shape) for shape in [(2, 3), (4, 3), 4, (5, 4), 5])).shape == (2, 5)


def test_without_numba_torch_serves(monkeypatch, anew):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert not launch.cpu_kernels()
    x, w1, b1, w2, b2 = (torch.rand(shape) for shape in [(2, 3), (4, 3), 4, (5, 4), 5])
    truth = torch.nn.functional.gelu(x @ w1.t() + b1) @ w2.t() + b2
    torch.testing.assert_close(mlp(x, w1, b1, w2, b2), truth)
    monkeypatch.undo()
    reducer = PointReducer(3, 4, k=2, mode="max")
    assert reducer(torch.randn(8, 3), torch.randn(8, 3))[0].shape == (4, 4)
