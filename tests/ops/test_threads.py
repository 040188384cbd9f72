from __future__ import annotations

import threading

import pytest
import torch

from pointcluster.geometry import StagePlan, build_hierarchy, fps, knn
from pointcluster.ops.search.threads import in_threads, thread_count, threads_for_searches


@pytest.fixture
def two_threads():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


def test_every_item_is_worked_on_in_several_threads(two_threads, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    meet, done = threading.Barrier(2, timeout=20), []

    def work(item):
        meet.wait()  # nobody passes alone
        done.append(item)

    in_threads(work, range(6))
    assert sorted(done) == list(range(6))


def test_an_error_in_a_thread_is_raised(two_threads):
    def work(item):
        raise ValueError(f"item {item}")

    with pytest.raises(ValueError, match="item 0"):
        in_threads(work, range(4))


def test_torch_gets_its_threads_back(two_threads, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    with pytest.raises(KeyError), threads_for_searches():
        assert torch.get_num_threads() == 1 and thread_count() == 2
        with threads_for_searches():
            assert thread_count() == 2
        assert thread_count() == 2
        raise KeyError
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    assert thread_count() == 1


def test_other_threads_keep_theirs(two_threads, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    seen = []

    def search():
        torch.set_num_threads(2)
        with threads_for_searches():
            seen.append((torch.get_num_threads(), thread_count()))
        seen.append((torch.get_num_threads(), thread_count()))

    other = threading.Thread(target=search)
    other.start()
    other.join(timeout=20)
    assert seen == [(2, 2), (2, 2)]
    assert torch.get_num_threads() == 2


def test_threads_change_nothing(two_threads):
    sizes = torch.tensor([700, 0, 90, 300, 300, 1, 660])
    batch = torch.arange(7).repeat_interleave(sizes)
    pos = torch.randint(0, 40, (len(batch), 3), generator=torch.Generator().manual_seed(0)).float()
    plans = [StagePlan(0.5, 12, 16, 4, 5)] * 2

    def all_of_it():
        anchors = fps(pos, 0.5, batch)
        found = [anchors, knn(pos, pos[anchors], 12, batch, batch[anchors])]
        for stage in build_hierarchy(pos, plans, batch).stages:
            found += [part for part in (*stage.anchors, *stage.clusters) if torch.is_tensor(part)]
        return found

    several = all_of_it()
    torch.set_num_threads(1)
    for a, b in zip(several, all_of_it(), strict=True):
        assert torch.equal(a, b)
