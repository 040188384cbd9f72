"""Whether two hierarchies are the same, field by field, to the last bit."""

from __future__ import annotations

from torch import Tensor


def assert_same(found, expected, where="hierarchy"):
    assert type(found) is type(expected), where
    if isinstance(expected, Tensor):
        assert found.dtype == expected.dtype and found.shape == expected.shape, where
        assert found.device == expected.device, where
        assert found.equal(expected), where
    elif isinstance(expected, tuple):
        assert len(found) == len(expected), where
        names = getattr(expected, "_fields", range(len(expected)))
        for name, a, b in zip(names, found, expected, strict=True):
            assert_same(a, b, f"{where}.{name}")
    else:
        assert found == expected, where
