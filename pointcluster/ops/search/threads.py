"""Work of the CPU's searches, shared out to threads."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, TypeVar

import torch

from pointcluster.ops.launch import outside_transforms

PARTS_A_THREAD, STEPS_A_PART = 4, 1_000_000
"""Parts that a thread gets of the work, as threads are not equally fast; and what makes a part
worth its call, a millisecond or so."""
Item = TypeVar("Item")
Call = TypeVar("Call", bound=Callable[..., Any])
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


def in_parts(work: Callable[[int, int], None], count: int, steps: int) -> None:
    """Call `work(begin, end)` for parts of `range(count)`, several for each thread there is.

    For compiled loops of `steps` steps in all: of few, one thread is through before another begins.
    """
    parts = min(count, steps // STEPS_A_PART)
    if parts < 2 or (threads := thread_count()) == 1:
        work(0, count)
        return
    parts = min(parts, PARTS_A_THREAD * threads)
    ends = [count * i // parts for i in range(parts + 1)]
    in_threads(lambda part: work(*part), list(pairwise(ends)))


def searching(function: Call) -> Call:
    """For functions that search: made outside of transforms, and with all threads for the searches.

    What a compiler traces stays as it is; the searches are operations to it, and find their threads
    when they run.
    """

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():
            return function(*args, **kwargs)
        with threads_for_searches():
            return function(*args, **kwargs)

    wrapped: Any = outside_transforms(call)
    return wrapped


@contextmanager
def threads_for_searches() -> Iterator[None]:
    """Leave all threads to the searches: torch works in one meanwhile.

    Between its parallel loops, torch's threads wait in turmoil; on the small tensors of geometry
    that takes more from the searches than those loops gain. Only the main thread does so: torch's
    number is also the one that new threads begin with, and two that set it back could mix it up.
    """
    threads = torch.get_num_threads()
    if threads == 1 or threading.current_thread() is not threading.main_thread():
        yield
        return
    _given.count = thread_count()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        _given.count = None
        torch.set_num_threads(threads)
