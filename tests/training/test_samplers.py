from __future__ import annotations

import pytest

from pointcluster.training.samplers import EpochSampler, ShardSampler


def test_order_depends_on_seed_and_epoch():
    def order(seed, epoch):
        sampler = EpochSampler(range(20), num_replicas=1, rank=0, seed=seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(0, 3) == order(0, 3)
    assert {epoch for epoch, _ in order(0, 3)} == {3}
    assert sorted(index for _, index in order(0, 3)) == list(range(20))
    assert [index for _, index in order(0, 3)] != [index for _, index in order(0, 4)]
    assert [index for _, index in order(0, 3)] != [index for _, index in order(1, 3)]


@pytest.mark.parametrize("processes", [1, 2, 3, 7])
def test_shards_hold_every_item_once(processes):
    shards = [ShardSampler(20, rank, processes) for rank in range(processes)]
    items = [index for shard in shards for _, index in shard]
    assert sorted(items) == list(range(20))
    assert [len(shard) for shard in shards] == [len(list(shard)) for shard in shards]
