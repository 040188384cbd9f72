"""Slices of any sizes cut into chunks, for Triton's kernels: without asking a GPU for the sizes.

Slices (regions, clouds) of N points are told by `ptr`, or all have `size` points, where `ptr` is
None. Chunks of up to `chunk` points end where slices do. They are numbered such that nobody has to
know the sizes before: slice r begins with chunk `ptr[r] // chunk + r`, which leaves room for all of
its chunks, and some numbers empty. So there are `N // chunk + slices` numbers.
"""

# Triton's language has no types.
# mypy: ignore-errors

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def slice_of(ptr, region, size, points):
    """Where a slice begins and ends."""
    if ptr is None:
        low, high = region * size, region * size + size
    else:
        low, high = tl.load(ptr + region), tl.load(ptr + region + 1)
    return tl.maximum(low, 0), tl.minimum(high, points)


@triton.jit
def first_chunk(low, region, size, chunk):
    """The number of a slice's first chunk: `size` is None where slices differ."""
    if size is None:
        first = low // chunk + region
    else:
        first = region * ((size + chunk - 1) // chunk)
    return first


@triton.jit
def chunk_of(ptr, t, slices, size, points, chunk, halvings):
    """The slice of a chunk, its first point, and its number of points."""
    if ptr is None:
        region = t // ((size + chunk - 1) // chunk)
        low, high = slice_of(ptr, region, size, points)
        begin = low + (t - first_chunk(low, region, size, chunk)) * chunk
    else:
        region, last = t * 0, t * 0 + slices
        for _ in range(halvings):  # the last slice whose first chunk is not beyond this one
            middle = (region + last) // 2
            there = tl.load(ptr + middle) // chunk + middle <= t
            region, last = tl.where(there, middle, region), tl.where(there, last, middle)
        low, high = slice_of(ptr, region, size, points)
        begin = low + (t - first_chunk(low, region, None, chunk)) * chunk
    return region, begin, tl.maximum(tl.minimum(high - begin, chunk), 0).to(tl.int32)
