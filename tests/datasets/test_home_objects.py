from __future__ import annotations

import csv
import importlib.util
import io
import itertools
import os
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader

from pointcluster import files
from pointcluster.datasets import HomeObjects, home_objects

FOLDER = Path(__file__).resolve().parents[2] / "datasets" / "home_objects"


@pytest.fixture(scope="module")
def train():
    return HomeObjects(split="train")


@pytest.fixture(scope="module")
def test():
    return HomeObjects(split="test")


def test_counts(train, test):
    assert train.num_classes == test.num_classes == len(set(train.classes)) == 12
    assert train.classes == test.classes == sorted(train.classes)
    per_train = torch.bincount(train.y, minlength=12)
    per_test = torch.bincount(test.y, minlength=12)
    assert len(train) + len(test) >= 400
    assert (per_train + per_test).min() >= 15 and per_test.min() >= 4
    share = per_test / (per_train + per_test)
    assert share.min() >= 0.2 and share.max() <= 0.3
    assert len(HomeObjects(split="all")) == len(train) + len(test)
    assert repr(train) == f"HomeObjects({len(train)}, split='train')"


def test_no_group_on_both_sides(train, test):
    assert not set(train.group.tolist()) & set(test.group.tolist())
    names = [item.name for item in itertools.chain(train, test)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("split", ["train", "test"])
def test_items(split):
    data = HomeObjects(split=split)
    pos, normal = data.pos.view(-1, 2048, 3), data.normal.view(-1, 2048, 3)
    radius = pos.norm(dim=2)
    assert radius.max() <= 1.0005  # rounded to multiples of 1/2047
    assert torch.allclose(radius.amax(1), torch.ones(len(data)), atol=5e-4)
    assert pos.mean(1).abs().max() < 1e-3
    assert torch.allclose(normal.norm(dim=2), torch.ones(len(data), 2048), atol=1e-6)
    item = data[0]
    assert item.pos.dtype == item.normal.dtype == torch.float32
    assert item.y.dtype == torch.int64 and item.y.shape == (1,)
    assert isinstance(item.name, str) and "/" in item.name
    assert 0 <= data.y.min() and data.y.max() < data.num_classes


def test_second_axis_is_up(train):
    # A table's top and a chair's seat are its largest horizontal parts: most normals are vertical.
    table = train.classes.index("table")
    steep = [item.normal[:, 1].abs().gt(0.9).float().mean() for item in train if item.y == table]
    assert np.median(steep) > 0.5
    # People stand or sit with the head up: they are mostly taller than deep.
    person = train.classes.index("person")
    sizes = [item.pos.amax(0) - item.pos.amin(0) for item in train if item.y == person]
    assert np.mean([bool(size[1] > size[2]) for size in sizes]) > 0.7


def test_first_points_are_a_fair_sample(train):
    for item in train[:20]:
        first, rest = item.pos[:1024], item.pos[1024:]
        assert (first.mean(0) - rest.mean(0)).abs().max() < 0.12


def test_same_twice_and_nothing_written(train):
    before = sorted(path.name for path in FOLDER.iterdir())
    again = HomeObjects(split="train")
    assert torch.equal(again.pos, train.pos) and torch.equal(again.y, train.y)
    assert sorted(path.name for path in FOLDER.iterdir()) == before


def test_pickles_to_its_own_size():
    data = HomeObjects(split="test")
    items = [item.pos for item in data]
    pickled = pickle.dumps(data)
    assert len(pickled) < 1.1 * 4 * (data.pos.numel() + data.normal.numel())
    assert torch.equal(pickle.loads(pickled)[7].pos, items[7])


def test_transforms():
    def move(data: Data) -> Data:
        data.pos = data.pos + 1
        return data

    plain, moved = HomeObjects("test"), HomeObjects("test", transform=move)
    baked = HomeObjects("test", pre_transform=move)
    assert torch.equal(moved[3].pos, plain[3].pos + 1)
    assert torch.equal(moved[3].pos, plain[3].pos + 1), "a transform must not change what is stored"
    assert torch.equal(baked[3].pos, plain[3].pos + 1)


def test_batches(train):
    batch = next(iter(DataLoader(train, batch_size=5)))
    assert batch.pos.shape == batch.normal.shape == (5 * 2048, 3)
    assert torch.equal(batch.batch, torch.arange(5).repeat_interleave(2048))
    assert batch.y.tolist() == train.y[:5].tolist() and len(batch.name) == 5
    assert len(train[train.y == 2]) == (train.y == 2).sum()


def test_attribution_covers_every_model(train, test):
    with (FOLDER / "attribution.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["model"]: row for row in csv.DictReader(file)}
    assert len(rows) == len(train) + len(test)
    for data in (train, test):
        for item in data:
            row = rows[item.name]
            assert row["class"] == data.classes[int(item.y)]
            assert row["split"] == data.split and int(row["group"]) == int(item.group)
            assert row["creator"] and row["credit"] and row["name"] and row["library"]
            assert row["licence"] in ("CC0 1.0", "CC BY 3.0", "CC BY 3.0 US")
            assert row["licence_url"].startswith("https://creativecommons.org/")


# --- bad input -----------------------------------------------------------------------------------


def small_file() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    pos = rng.normal(size=(4, 2048, 3))
    pos /= np.linalg.norm(pos, axis=2, keepdims=True)
    return {
        "pos": np.round(pos * 100).astype(np.int16),
        "normal": np.round(pos * 127).astype(np.int8),
        "step": np.float64(0.01),
        "y": np.array([0, 1, 0, 1], np.uint8),
        "test": np.array([False, False, True, True]),
        "group": np.arange(4, dtype=np.int16),
        "model": np.array(["a/a", "a/b", "b/a", "b/b"]),
        "name": np.array(["a", "b", "c", "d"]),
        "classes": np.array(["left", "right"]),
    }


def test_own_file(tmp_path):
    arrays = small_file()
    np.savez(tmp_path / "home_objects.npz", **arrays)
    data = HomeObjects("test", root=tmp_path)
    assert data.classes == ["left", "right"] and data.y.tolist() == [0, 1]
    assert data[0].name == "b/a" and data[1].group.tolist() == [3]
    assert torch.equal(data[0].pos, torch.from_numpy(arrays["pos"][2]).float() * 0.01)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("pos", None, r"lacks the arrays \['pos'\]"),
        ("classes", None, r"lacks the arrays \['classes'\]"),
        ("pos", np.zeros((4, 1024, 3), np.int16), r"'pos' is int16 \[4, 1024, 3\], expected"),
        ("pos", np.zeros((4, 2048, 3), np.float32), "'pos' is float32"),
        ("pos", np.full((4, 2048, 3), 90, np.int16), "1.559 from the origin, expected at most 1"),
        ("normal", np.zeros((3, 2048, 3), np.int8), r"'normal' is int8 \[3, 2048, 3\]"),
        ("normal", np.zeros((4, 2048, 3), np.int8), "a normal is zero"),
        ("y", np.array([0, 1, 2, 0], np.uint8), "class indices must be in 0 to 1"),
        ("y", np.array([0, 1, -1, 0]), "class indices must be in 0 to 1"),
        ("y", np.zeros((4, 1), np.uint8), "'y' is uint8"),
        ("test", np.zeros(4, np.uint8), "'test' is uint8"),
        ("classes", np.array(["left", "left"]), "different names"),
        ("step", np.float64(0), "between 0 and 1"),
        (
            "model",
            np.array([None] * 4),
            "truncated or is no npz file",
        ),  # objects: would need pickle
    ],
)
def test_wrong_structure(tmp_path, key, value, message):
    arrays = {**small_file(), key: value}
    np.savez(tmp_path / "home_objects.npz", **{k: v for k, v in arrays.items() if v is not None})
    with pytest.raises(ValueError, match=message) as error:
        HomeObjects(root=tmp_path)
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize("length", [0, 10, 5000, -1])
def test_truncated_file(tmp_path, length):
    data = (FOLDER / "home_objects.npz").read_bytes()
    (tmp_path / "home_objects.npz").write_bytes(data[:length])
    with pytest.raises(ValueError, match="truncated or is no npz file"):
        HomeObjects(root=tmp_path)


def test_damaged_byte(tmp_path):
    data = bytearray((FOLDER / "home_objects.npz").read_bytes())
    data[len(data) // 2] ^= 0xFF
    (tmp_path / "home_objects.npz").write_bytes(data)
    with pytest.raises(ValueError, match="truncated or is no npz file"):
        HomeObjects(root=tmp_path)


def test_wrong_split():
    with pytest.raises(ValueError, match="'validation', expected 'train', 'test' or 'all'"):
        HomeObjects(split="validation")


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"home_objects\.npz is missing: root must be"):
        HomeObjects(root=tmp_path)


def test_not_the_bundled_file(monkeypatch, tmp_path):
    np.savez(tmp_path / "home_objects.npz", **small_file())
    monkeypatch.setattr(home_objects, "bundled_file", lambda: tmp_path / "home_objects.npz")
    with pytest.raises(
        ValueError, match=r"not the file that belongs to this version.*git checkout"
    ):
        HomeObjects()


def test_where_a_wheel_puts_it(monkeypatch, tmp_path):
    module = tmp_path / "lib" / "pointcluster" / "files.py"
    monkeypatch.setattr(files, "__file__", str(module))
    monkeypatch.setattr(files.sys, "prefix", str(tmp_path / "prefix"))
    monkeypatch.setattr(files.site, "getuserbase", lambda: str(tmp_path / "user"))
    with pytest.raises(FileNotFoundError, match="did not come with this installation; looked in"):
        home_objects.bundled_file()
    for base in ("lib", "user", "prefix"):  # the later ones go before
        folder = tmp_path / base / "share" / "pointcluster" / "home_objects"
        folder.mkdir(parents=True)
        (folder / "home_objects.npz").touch()
        assert home_objects.bundled_file() == folder / "home_objects.npz"


# --- datasets/home_objects/prepare.py ------------------------------------------------------------


@pytest.fixture(scope="module")
def prepare():
    spec = importlib.util.spec_from_file_location("prepare_home_objects", FOLDER / "prepare.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("category", "name", "expected"),
    [
        ("Characters", "Sitting girl", "person"),
        ("Characters", "Siamese cat", None),
        ("Vehicles", "Peugeot 308 CC", "vehicle"),
        ("Vehicles", "Stroller", None),
        ("Doors and windows", "Double-hung window", "door_or_window"),
        ("Doors and windows", "Elevator", None),
        ("Living room", "Ficus", "plant"),
        ("Exterior", "Pine under snow", "plant"),
        ("Bedroom", "Bunk bed", "bed"),
        ("Bedroom", "Opened convertible sofa BZ", "bed"),
        ("Bedroom", "Convertible sofa BZ", "sofa"),
        ("Bedroom", "Bedside table", "cabinet"),
        ("Bathroom", "Double vanity", None),
        ("Bathroom", "Washbasin", "sanitary"),
        ("Office", "Chair", "chair"),
        ("Miscellaneous", "Wheelchair", None),
        ("Kitchen", "Chest freezer", None),
        ("Kitchen", "Glass", "vessel"),
        ("Kitchen", "Glass door cabinet", "cabinet"),
        ("Living room", "Glass table", "table"),
        ("Miscellaneous", "Table fan", None),
        ("Miscellaneous", "Glasses", None),
        ("Lights", "Candle", None),
        ("Lights", "Street lamp", "lamp"),
    ],
)
def test_rules(prepare, category, name, expected):
    assert prepare.label({"model": "x/y", "category": category, "name": name}) == expected


def test_exceptions_come_first(prepare):
    entry = {"model": "scopia/ext_chair", "category": "Exterior", "name": "Chair"}
    assert prepare.label(entry) is None
    entry = {"model": "scopia/office_box", "category": "Office", "name": "Box"}
    assert prepare.label(entry) == "cabinet"


def test_properties(prepare):
    text = "# name#1=no\nname#1=Caf\\u00e9 \\\n    chair\nempty#1=\n\nformula = a=b\n"
    expected = {"name#1": "Café chair", "empty#1": "", "formula": "a=b"}
    assert prepare.parse_properties(text) == expected


def boxes_as_obj(*boxes: tuple[tuple[float, ...], tuple[float, ...]]) -> bytes:
    """An OBJ file of boxes, each given by two opposite corners."""
    lines = []
    for low, high in boxes:
        first = sum(line.startswith("v ") for line in lines) + 1
        lines += [f"v {x} {y} {z}" for x, y, z in itertools.product(*zip(low, high, strict=True))]
        faces = ((0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3))
        lines += ["f " + " ".join(str(first + corner) for corner in face) for face in faces]
    return "\n".join(lines).encode()


CHAIR = (((0, 0, 0), (5, 4, 5)), ((0, 4, 0), (5, 9, 1)))  # a seat, and a back at low z
MIRRORED = (((0, 0, 0), (5, 4, 5)), ((0, 4, 4), (5, 9, 5)))
STRETCHED = (((0, 0, 0), (10, 4, 5)), ((0, 4, 0), (10, 9, 1)))
TABLE = (((0, 8, 0), (20, 9, 10)), ((9, 0, 4), (11, 8, 6)))
EYE, QUARTER = "1 0 0 0 1 0 0 0 1", "0 0 1 0 1 0 -1 0 0"


def test_sample_is_even_by_area(prepare):
    pytest.importorskip("trimesh")
    item = prepare.sample(boxes_as_obj(((0, 0, 0), (6, 1, 2))), np.eye(3), [0])
    assert item["pos"].shape == item["normal"].shape == (prepare.DENSE, 3)
    assert np.allclose(np.linalg.norm(item["normal"], axis=1), 1)
    areas = np.array([1 * 2, 6 * 2, 6 * 1]) * 2  # of the faces across x, y and z
    share = np.abs(item["normal"]).mean(0)
    assert np.allclose(share, areas / areas.sum(), atol=0.02)
    assert np.allclose(item["box"], [[0, 0, 0], [6, 1, 2]]) and item["counts"] == (8, 12)
    again = prepare.sample(boxes_as_obj(((0, 0, 0), (6, 1, 2))), np.eye(3), [0])
    other = prepare.sample(boxes_as_obj(((0, 0, 0), (6, 1, 2))), np.eye(3), [1])
    assert np.array_equal(again["pos"], item["pos"]) and not np.array_equal(
        other["pos"], item["pos"]
    )


def test_sample_obeys_the_rotation(prepare):
    pytest.importorskip("trimesh")
    turn = np.array(QUARTER.split(), float).reshape(3, 3)
    plain = prepare.sample(boxes_as_obj(*CHAIR), np.eye(3), [0])
    turned = prepare.sample(boxes_as_obj(*CHAIR), turn, [0])
    assert np.allclose(turned["pos"], plain["pos"] @ turn.T)
    assert np.allclose(turned["box"][1] - turned["box"][0], [5, 9, 5])


def test_sample_refuses_a_mesh_without_area(prepare):
    pytest.importorskip("trimesh")
    with pytest.raises(ValueError, match="no face with an area"):
        prepare.sample(b"v 0 0 0\nv 1 0 0\nv 2 0 0\nf 1 2 3\n", np.eye(3), [0])


def test_grouping(prepare):
    pytest.importorskip("trimesh")
    objs = [boxes_as_obj(*boxes) for boxes in (CHAIR, MIRRORED, STRETCHED, TABLE)]
    objs.append(objs[0] + b"\nv 0 0 0\nv 5 0 0\nv 5 0 5\nf 17 18 19")  # one triangle more
    samples = [prepare.sample(obj, np.eye(3), [i]) for i, obj in enumerate(objs)]
    turn = np.array(QUARTER.split(), float).reshape(3, 3)
    samples.append(prepare.sample(objs[0], turn, [9]))
    pairs = prepare.compare(samples)
    assert prepare.group(samples, pairs).tolist() == [0, 0, 0, 1, 0, 0]
    for item in samples[:2]:  # a posed mesh: equal counts join, whatever the shape
        item["counts"] = (500, 900)
    assert prepare.group(samples, []).tolist() == [0, 0, 1, 2, 3, 4]


def test_split_keeps_groups_together(prepare):
    rng = np.random.default_rng(0)
    y, groups = np.repeat(np.arange(3), 40), rng.integers(0, 60, 120)
    groups = np.unique(groups, return_inverse=True)[1]
    test = prepare.split(y, groups, 0)
    assert not set(groups[test]) & set(groups[~test])
    assert np.array_equal(prepare.split(y, groups, 0), test)
    assert not np.array_equal(prepare.split(y, groups, 1), test)
    assert (np.abs(np.bincount(y[test]) - 10) <= 2).all()
    alone = prepare.split(y, np.arange(120), 0)
    assert np.bincount(y[alone]).tolist() == [10, 10, 10]


def models() -> list[tuple[str, str, str, str, bytes]]:
    """Category, name, model, rotation and mesh."""
    rows = [
        ("Office", "Chair", "lib/one", EYE, boxes_as_obj(*CHAIR)),
        ("Office", "Armchair", "lib/two", QUARTER, boxes_as_obj(*MIRRORED)),
        ("Office", "Desk", "lib/flat", EYE, b"v 0 0 0\nv 1 0 0\nv 2 0 0\nf 1 2 3\n"),
        ("Kitchen", "Knife", "lib/knife", EYE, boxes_as_obj(*CHAIR)),
    ]
    for i in range(4):
        table = (((0, 8, 0), (20, 9, 10)), ((i * 4, 0, 4), (i * 4 + 2 + i, 8, 6)))
        rows.append(("Office", "Table", f"lib/table{i}", EYE, boxes_as_obj(*table)))
    return rows


@pytest.fixture
def source(prepare, tmp_path):
    """A folder with five archives, all but the first without models."""
    folder = tmp_path / "source"
    folder.mkdir()
    for name, *_ in prepare.ARCHIVES:
        lines = ["id=none"]
        with zipfile.ZipFile(folder / name, "w") as archive:
            for i, (category, title, model, rotation, obj) in enumerate(models(), 1):
                if name != prepare.ARCHIVES[0][0]:
                    break
                lines += [f"name#{i}={title}", f"category#{i}={category}", f"creator#{i}=Somebody"]
                lines += [f"model#{i}=/{model}/m.obj", f"modelRotation#{i}={rotation}"]
                archive.writestr(f"{model}/m.obj", obj)
            page = (
                "http://www.blendswap.com/blends/view/7 http://creativecommons.org/licenses/by/3.0/"
            )
            archive.writestr("lib/two/7 - LICENSE.html", page)
            archive.writestr("PluginFurnitureCatalog.properties", "\n".join(lines))
    return folder


def run(prepare, source, out, *more):
    return prepare.main(["--source", str(source), "--out", str(out), *more])


def test_prepare(prepare, source, tmp_path, capsys):
    pytest.importorskip("trimesh")
    out = tmp_path / "out"
    assert run(prepare, source, out, "--force") == 0
    assert "left out lib/flat: the mesh has no face with an area" in capsys.readouterr().err
    assert sorted(path.name for path in out.iterdir()) == ["attribution.csv", "home_objects.npz"]
    data = HomeObjects("all", root=out)
    assert data.classes == list(prepare.CLASSES)
    names = {item.name: item for item in data}
    assert sorted(names) == [
        "lib/one",
        "lib/table0",
        "lib/table1",
        "lib/table2",
        "lib/table3",
        "lib/two",
    ]
    assert names["lib/one"].group == names["lib/two"].group != names["lib/table0"].group
    assert data.classes[int(names["lib/two"].y)] == "chair"
    with (out / "attribution.csv").open(newline="") as file:
        rows = {row["model"]: row for row in csv.DictReader(file)}
    assert rows["lib/one"]["licence"] == "CC0 1.0" and rows["lib/two"]["licence"] == "CC BY 3.0"
    assert rows["lib/two"]["source"] == "http://www.blendswap.com/blends/view/7"
    assert rows["lib/one"]["credit"].startswith("Somebody")

    first = {path.name: path.read_bytes() for path in out.iterdir()}
    assert run(prepare, source, out, "--force") == 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == first
    assert run(prepare, source, out, "--force", "--seed", "1") == 0
    assert (out / "home_objects.npz").read_bytes() != first["home_objects.npz"]


@pytest.mark.slow
def test_sheets(prepare, source, tmp_path):
    pytest.importorskip("trimesh")
    pytest.importorskip("matplotlib")
    sheets = tmp_path / "sheets"
    assert run(prepare, source, tmp_path / "out", "--force", "--sheets", str(sheets)) == 0
    names = {path.name for path in sheets.iterdir()}
    assert {"class_chair_0.png", "class_table_0.png", "groups_0.png"} <= names


def test_other_archives_are_refused(prepare, source, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(prepare, source, out) == 1
    message = capsys.readouterr().err
    assert "SHA-256 is" in message and "--force" in message
    assert not out.exists()


def test_missing_source(prepare, source, tmp_path, capsys):
    assert run(prepare, tmp_path / "nowhere", tmp_path) == 1
    assert "no such file or folder" in capsys.readouterr().err
    (source / "Scopia.sh3f").unlink()
    assert run(prepare, source, tmp_path) == 1
    assert "has no Scopia.sh3f" in capsys.readouterr().err


def debian_package(folder: Path) -> bytes:
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w:xz") as file:
        for path in sorted(folder.iterdir()):
            file.add(path, f"./usr/share/sweethome3d/furniture/{path.name}")
    package = b"!<arch>\n"
    for name, data in (("debian-binary", b"2.0"), ("data.tar.xz", tar.getvalue())):
        package += f"{name:16}{0:<12}{0:<6}{0:<6}{'100644':8}{len(data):<10}`\n".encode()
        package += data + b"\n" * (len(data) % 2)
    return package


def test_debian_package(prepare, source, tmp_path, capsys):
    package = tmp_path / "models.deb"
    package.write_bytes(debian_package(source))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    paths = prepare.find_archives(package, scratch)
    assert {n: p.read_bytes() for n, p in paths.items()} == {
        path.name: path.read_bytes() for path in source.iterdir()
    }
    for data, message in (
        (package.read_bytes()[:-200], "cannot be read"),
        (package.read_bytes()[:80], "truncated: it has no data.tar"),
        (b"PK", "is no Debian package"),
    ):
        package.write_bytes(data)
        assert run(prepare, package, tmp_path) == 1
        assert message in capsys.readouterr().err


def test_write_is_whole_or_nothing(prepare, tmp_path, monkeypatch):
    path = tmp_path / "file"
    prepare.write_whole(path, b"old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        prepare.write_whole(path, b"new")
    assert path.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["file"]
