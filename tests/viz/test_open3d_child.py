from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from pointcluster.viz import open3d, open3d_child
from pointcluster.viz.open3d import show_window
from pointcluster.viz.open3d_child import Stepper
from pointcluster.viz.scene import make_scene


class Cloud:
    """Stands for open3d.geometry.PointCloud, and a mesh."""

    def __getattr__(self, name):
        return lambda *_, **__: None


class Window:
    """Stands for Open3D's window: presses keys, and notes the colours after each."""

    works = True

    def __init__(self, keys):
        self.keys, self.calls, self.seen, self.meshes = keys, {}, [], 0

    def create_window(self, **options):
        self.name = options["window_name"]
        return self.works

    def register_key_callback(self, key, call):
        self.calls[key] = call

    def add_geometry(self, what, reset_bounding_box=True):
        if reset_bounding_box:
            self.cloud = what
        else:
            self.meshes += 1

    def remove_geometry(self, what, reset_bounding_box=True):
        self.meshes -= 1

    def run(self):
        for key in self.keys:
            assert self.calls[key](self) is False
            self.seen.append((np.asarray(self.cloud.colors).copy(), self.meshes))

    def __getattr__(self, name):
        return lambda *_: SimpleNamespace(
            set_lookat=print, set_front=lambda _: None, set_up=lambda _: None
        )


def fake(window):
    return SimpleNamespace(
        geometry=SimpleNamespace(
            PointCloud=Cloud, TriangleMesh=SimpleNamespace(create_sphere=lambda *_: Cloud())
        ),
        utility=SimpleNamespace(Vector3dVector=lambda values: values),
        visualization=SimpleNamespace(VisualizerWithKeyCallback=lambda: window),
    )


def arrays_of_window(monkeypatch, scene):
    """What the process of a window is given."""
    kept = {}

    def ask(kind, arrays):
        assert kind == "window"
        kept.update(arrays)

    monkeypatch.setattr(open3d, "_ask", ask)
    show_window(scene)
    return kept


def test_keys_change_what_the_window_shows(monkeypatch, cloud, capsys):
    data, found = cloud
    both = {
        "stage 0, block 0": found,
        "stage 1, block 0": found._replace(index=1 - found.index % 2),
    }
    scene = make_scene(data, both, title="so")
    arrays = arrays_of_window(monkeypatch, scene)
    assert arrays["colours"].shape == (4, 300, 3)
    assert np.linalg.norm(arrays["points"], axis=1).max() == pytest.approx(1)
    assert [tuple(each) for each in json.loads(arrays["told"])["panels"]] == [
        (panel.entry, panel.head) for panel in scene.panels
    ]
    right, left = 262, 263
    window = Window([ord("H"), ord("S"), ord("B"), ord("C"), ord("C"), right, left])
    open3d_child.open_window(fake(window), **arrays)
    panels = [1, 3, 3, 3, 3, 0, 3]
    for (colours, meshes), panel, centers in zip(
        window.seen, panels, [4, 4, 4, 0, 4, 4, 4], strict=True
    ):
        np.testing.assert_array_equal(colours, arrays["colours"][panel])
        assert meshes == centers
    assert "so (keys: S stage" in window.name
    assert "stage 1, block 0, head 1" in capsys.readouterr().out


def test_a_window_that_does_not_open(monkeypatch, cloud):
    arrays = arrays_of_window(monkeypatch, make_scene(*cloud, centers=False))
    assert len(arrays["where_0"]) == 0
    window = Window([])
    window.works = False
    with pytest.raises(RuntimeError, match="cannot open a window"):
        open3d_child.open_window(fake(window), **arrays)


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
