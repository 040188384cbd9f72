from __future__ import annotations

import pytest

from pointcluster.viz.stepper import Stepper

PANELS = [
    (f"stage {stage}, block {block}", f"head {head}")
    for stage, blocks in enumerate([1, 2])
    for block in range(blocks)
    for head in range(2 + stage)
]


def test_keys_step_through_stages_blocks_and_heads():
    stepper = Stepper(PANELS)
    assert stepper.title == "stage 0, block 0, head 0"
    assert PANELS[stepper.head()][1] == "head 1"
    assert PANELS[stepper.stage()] == ("stage 1, block 0", "head 1")
    assert PANELS[stepper.block()] == ("stage 1, block 1", "head 1")
    assert PANELS[stepper.head()][1] == "head 2"
    assert PANELS[stepper.block()] == ("stage 1, block 0", "head 2")
    assert PANELS[stepper.stage()] == ("stage 0, block 0", "head 0")  # it has no head 2
    assert PANELS[stepper.block()] == ("stage 0, block 0", "head 0")  # its only block
    assert PANELS[stepper.previous()] == PANELS[-1]
    assert stepper.next() == 0


def test_every_panel_is_reached():
    stepper = Stepper(PANELS)
    assert {stepper.next() for _ in PANELS} == set(range(len(PANELS)))
    seen = set()
    for _ in range(2):
        stepper.stage()
        for _ in range(2):
            stepper.block()
            for _ in range(3):
                stepper.head()
                seen.add(stepper.title)
    assert len(seen) == len(PANELS)


def test_other_titles_are_stages_of_their_own():
    stepper = Stepper([("epoch 1", ""), ("epoch 2", "")])
    assert stepper.block() == 0 and stepper.head() == 0 and stepper.stage() == 1
    assert stepper.title == "epoch 2"
    with pytest.raises(ValueError, match="no panels"):
        Stepper([])
