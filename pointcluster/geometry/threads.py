"""Work of the CPU's searches, shared out to threads."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

Item = TypeVar("Item")
_given = threading.local()


def thread_count() -> int:
    """How many threads a search may use: as many as torch may."""
    return getattr(_given, "count", None) or min(torch.get_num_threads(), os.cpu_count() or 1)


def in_threads(work: Callable[[Item], None], items: Sequence[Item]) -> None:
    """Call `work` for each item, in as many threads as there are; items may end in any order.

    It pays for calls that spend their time outside Python's lock, as SciPy's queries and NumPy's
    operations on large arrays do.
    """
    threads = min(thread_count(), len(items))
    if threads <= 1:
        for item in items:
            work(item)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, items))


@contextmanager
def threads_for_searches() -> Iterator[None]:
    """Leave all threads to the searches: torch works in one meanwhile.

    Between its parallel loops, torch's threads wait in turmoil; on the small tensors of geometry
    that takes more from the searches than those loops gain.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        yield
        return
    _given.count = thread_count()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        _given.count = None
        torch.set_num_threads(threads)
