from __future__ import annotations

import pytest
import torch

from pointcluster.nn import group_rows
from pointcluster.nn.group_rows import chunks, gathered, sum_by


@pytest.mark.parametrize(("groups", "width"), [(0, 5), (1, 1000), (7, 10), (100, 3)])
def test_chunks_are_all_groups_in_turn(groups, width, monkeypatch):
    monkeypatch.setattr(group_rows, "ELEMENTS", 40)
    parts = list(chunks(groups, width, torch.device("cpu")))
    assert [i for part in parts for i in range(part.start, part.stop)] == list(range(groups))
    assert all((part.stop - part.start) * width <= 40 + width for part in parts)


def test_gathered_is_a_sum_of_point_and_anchor():
    u, a = torch.randn(6, 3), torch.randn(4, 3)
    index = torch.randint(0, 6, (4, 5))
    x = gathered(u, a, index, slice(1, 3))
    for m in (1, 2):
        for j in range(5):
            assert torch.equal(x[m - 1, j], u[index[m, j]] + a[m])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("some", [False, True])
def test_sums_by_a_plain_loop(dtype, some):
    index = torch.tensor([2, 0, 2, 2, 4])
    rows = torch.randn(3 if some else 5, 4, dtype=dtype)
    row = torch.tensor([0, 2, 1, 1, 0]) if some else None
    expected = torch.zeros(6, 4, dtype=dtype)
    for n, i in enumerate(index):
        expected[i] += rows[row[n] if some else n]
    torch.testing.assert_close(sum_by(index, rows, 6, row), expected)
