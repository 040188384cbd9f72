from __future__ import annotations

import os
import pickle
import sys
import warnings

import numpy as np
import pytest
import torch
from torch_geometric.loader import DataLoader

from pointcluster.datasets import PointFolder
from pointcluster.datasets import point_folder as module
from pointcluster.datasets.point_folder import CACHE


def write(path, size=40, seed=0, columns=3):
    path.parent.mkdir(parents=True, exist_ok=True)
    points = np.random.default_rng(seed).normal(size=(size, columns)).astype(np.float32)
    if columns == 6:
        points[:, 3:] /= np.linalg.norm(points[:, 3:], axis=1, keepdims=True)
    np.save(path, points)
    return points


@pytest.fixture
def root(tmp_path):
    """Two classes of eight scans."""
    for number in range(16):
        write(tmp_path / ("cup", "jar")[number // 8] / f"{number:02}.npy", seed=number)
    return tmp_path


@pytest.fixture
def reads(monkeypatch):
    """Names of the files that were read, and not taken from the cache."""
    names = []

    def read(path, **options):
        names.append(path.name)
        return original(path, **options)

    original = module.read_points
    monkeypatch.setattr(module, "read_points", read)
    return names


def test_items(root):
    data = PointFolder(root, num_points=30)
    assert (len(data), data.num_classes, data.classes) == (16, 2, ["cup", "jar"])
    assert data.targets.tolist() == [0] * 8 + [1] * 8 == [int(item.y) for item in data]
    item = data[9]
    assert (item.pos.shape, item.pos.dtype) == ((30, 3), torch.float32)
    assert (item.y.shape, item.y.dtype, item.name) == ((1,), torch.int64, "jar/09.npy")
    assert data.path(9) == root / "jar" / "09.npy"
    assert abs(float(item.pos.norm(dim=1).max()) - 1) < 1e-6
    world = item.pos.double() * item.scale + torch.tensor(item.origin, dtype=torch.float64)
    truth = torch.from_numpy(np.load(data.path(9))).double()
    assert float(torch.cdist(world, truth).amin(dim=1).max()) < 1e-6
    plain = PointFolder(root, num_points=30, normalize=False)[9]
    torch.testing.assert_close(plain.pos.double(), world, rtol=0, atol=1e-6)
    assert repr(data) == f"PointFolder({str(root)!r}, 16, split=None)"


def test_as_the_other_data_sets(root):
    def cut(data):
        data.pos = data.pos[:7]
        return data

    data = PointFolder(root, "train", num_points=30, transform=cut)
    assert data[0].num_nodes == data[0].num_nodes == 7
    data.transform = None
    assert data[0].num_nodes == 30 and len(data[2:5]) == 3
    assert data[2:5][0].name == data[2].name and data[2:5].path(0) == data.path(2)
    for workers in (0, 2):
        batches = list(DataLoader(data, batch_size=5, num_workers=workers))
        assert torch.cat([batch.y for batch in batches]).tolist() == data.targets.tolist()
    assert torch.equal(pickle.loads(pickle.dumps(data))[3].pos, data[3].pos)


def test_a_stratified_split(root):
    both = [PointFolder(root, split) for split in ("train", "test")]
    assert [len(each) for each in both] == [12, 4]
    assert [torch.bincount(each.targets).tolist() for each in both] == [[6, 6], [2, 2]]
    assert sorted(both[0].names + both[1].names) == PointFolder(root).names
    assert PointFolder(root, "test", seed=5).names == both[1].names
    others = {tuple(PointFolder(root, "test", split_seed=s).names) for s in range(5)}
    assert len(others) > 1
    assert len(PointFolder(root, "test", test_fraction=0.01)) == 2  # one at least
    assert len(PointFolder(root, "train", test_fraction=0.99)) == 2
    # One more file moves at most one across.
    write(root / "cup" / "more.npy")
    assert len({*both[1].names} - {*PointFolder(root, "test").names}) <= 1
    for split, fraction in (("train", 1.0), ("test", 0.0)):
        with pytest.raises(ValueError, match=f"has no {split} files: its 17 files are all on"):
            PointFolder(root, split, test_fraction=fraction)


@pytest.mark.parametrize("form", ["{split}/{name}", "{name}/{split}"])
def test_splits_in_folders(tmp_path, form):
    for number, split in enumerate(["train"] * 3 + ["test"]):
        for name in ("bed", "cat"):
            write(tmp_path / form.format(split=split, name=name) / f"{number}.npy", seed=number)
    train, test = (PointFolder(tmp_path, split) for split in ("train", "test"))
    assert (len(train), len(test), len(PointFolder(tmp_path))) == (6, 2, 8)
    assert train.classes == test.classes == ["bed", "cat"]
    assert test.names == [form.format(split="test", name=n) + "/3.npy" for n in ("bed", "cat")]
    assert test.targets.tolist() == [0, 1]


def test_classes_called_train_and_test(tmp_path):
    for name in ("bus", "test", "train"):
        write(tmp_path / name / "a.npy")
    assert PointFolder(tmp_path).classes == ["bus", "test", "train"]


def test_other_files_are_passed_over(root):
    (root / "cup" / "notes.md").touch()
    (root / "cup" / ".hidden.npy").touch()
    (root / "cup" / "deeper.npy").mkdir()
    (root / ".git").mkdir()
    (root / "list.csv").touch()
    assert len(PointFolder(root)) == 16


@pytest.mark.parametrize(
    ("form", "others", "where"),
    [
        ("{name}", ["cup/sub/a.npy", "cup/sub/deeper/b.npy"], "cup/sub, cup/sub/deeper: .* as cup"),
        ("{name}", ["cup/val/a.npy", "jar/val/a.npy"], "cup/val, jar/val"),
        ("{name}", ["a.npy"], "the root itself"),
        ("{split}/{name}", ["val/cup/a.npy", "val/jar/a.npy"], "val/cup, val/jar: .* test/cup"),
        ("{split}/{name}", ["bag/a.npy", "b.npy", "val/c.npy"], "bag, the root itself, val"),
        ("{split}/{name}", ["train/cup/sub/a.npy"], "train/cup/sub"),
        ("{name}/{split}", ["cup/val/a.npy", "jar/val/a.npy"], "cup/val, jar/val: .* cup/test"),
        ("{name}/{split}", ["cup/test/more/a.npy"], "cup/test/more"),
    ],
)
def test_scans_that_are_not_read_are_named(tmp_path, form, others, where):
    for split in ("train", "test"):
        for name in ("cup", "jar"):
            write(tmp_path / form.format(split=split, name=name) / f"{split}.npy")
    names = PointFolder(tmp_path).names
    for other in others:
        write(tmp_path / other)
    for split in ("train", "test", None):
        message = f"{len(others)} of its scans will not be read, those in {where}"
        with pytest.warns(UserWarning, match=message) as caught:
            data = PointFolder(tmp_path, split)
        assert len(caught) == 1 and caught[0].filename == __file__
        assert set(data.names) <= set(names)


def test_lists_and_notes_are_no_scans(root):
    (root / "cup" / "sub").mkdir()
    notes = ["", "# notes\n", "cup/00.npy 1 2\n", "0\n1\n", "cup,jar\n", "\xff\n"]
    for number, text in enumerate(notes):
        for folder in (root, root / "cup" / "sub"):
            (folder / f"{number}.txt").write_bytes(text.encode("latin-1"))
    (root / "gone.txt").symlink_to(root / "nowhere.txt")
    (root / "jar" / "gone").symlink_to(root / "nowhere", target_is_directory=True)
    assert len(PointFolder(root)) == 16
    for number, text in enumerate(["1 2 3\n", "# a\n\n1,2,3,4 # b\n", '"x","y","z"\n1,2,3\n']):
        (root / f"scan{number}.csv").write_text(text)
        with pytest.warns(UserWarning, match=f"{number + 1} of its scans will not be read"):
            PointFolder(root)


@pytest.mark.parametrize(
    ("others", "first"),
    [
        (["cup/train/a.npy", "cup/test/a.npy"], "cup/test/a.npy"),
        (["bag/train/a.npy", "bag/test/a.npy"], "bag/test/a.npy"),
        (["train/a.npy", "train/cup/a.npy", "test/b.npy", "test/cup/b.npy"], "test/cup/b.npy"),
    ],
)
def test_folders_of_splits_for_some_scans_alone(root, others, first):
    for other in others:
        write(root / other)
    message = f"{first} lies in a folder of a class and a split, cup/00.npy does not"
    with pytest.raises(ValueError, match=message):
        PointFolder(root)


def test_a_class_called_train_with_scans_deeper(root):
    write(root / "train" / "a.npy")
    write(root / "train" / "old" / "b.npy")
    with pytest.warns(UserWarning, match="1 of its scans will not be read, those in train/old"):
        assert PointFolder(root).classes == ["cup", "jar", "train"]


def test_meshes(tmp_path):
    trimesh = pytest.importorskip("trimesh")
    for name in ("a", "b"):
        (tmp_path / "box").mkdir(exist_ok=True)
        trimesh.creation.box((1, 2, 3)).export(tmp_path / "box" / f"{name}.off")
    first, second = PointFolder(tmp_path, num_points=100)
    assert first.pos.shape == first.normal.shape == (100, 3)
    assert not torch.equal(first.pos, second.pos)  # each file has a seed of its own
    assert torch.equal(PointFolder(tmp_path, num_points=100, cache=False)[0].pos, first.pos)
    other = PointFolder(tmp_path, num_points=100, seed=1)[0]
    assert not torch.equal(other.pos, first.pos)


def test_fields(root):
    write(root / "jar" / "99.npy", columns=6)
    data = PointFolder(root)
    assert data.fields == () and "normal" not in data[16]
    data = PointFolder(root, fields=["normal"])
    assert data[16].normal.shape == (40, 3)
    with pytest.raises(ValueError, match=r"cup/00\.npy has no normal, which this data set keeps"):
        data[0]
    write(root / "cup" / "00.npy", columns=6)
    data = PointFolder(root, "test")  # of both splits the first file
    assert data.fields == ("normal",)
    with pytest.raises(ValueError, match="fields=\\(\\) keeps positions alone"):
        list(data)
    assert len(list(PointFolder(root, "test", fields=()))) == len(data)


def test_large_scans_and_three_points(tmp_path):
    write(tmp_path / "a" / "large.npy", 20_000)
    write(tmp_path / "a" / "small.npy", 3)
    large, small = PointFolder(tmp_path, num_points=500)
    assert (large.num_nodes, small.num_nodes) == (500, 3)
    assert small.pos.isfinite().all()
    assert PointFolder(tmp_path, voxel_size=1.0)[0].num_nodes < 500


# --- the cache -----------------------------------------------------------------------------------


def test_files_are_read_once(root, reads):
    first = [item.pos for item in PointFolder(root)]
    assert len(reads) == 16
    again = PointFolder(root)
    assert all(torch.equal(a, item.pos) for a, item in zip(first, again, strict=True))
    assert len(reads) == 16 and again[0].origin == PointFolder(root, cache=False)[0].origin
    kept = sorted((root / CACHE).rglob("*.*"))
    assert len(kept) == 16 and all(path.name.endswith(".npz") for path in kept)


def test_a_file_that_changes_is_read_again(root, reads):
    data = PointFolder(root)
    before = data[0].pos
    path = data.path(0)
    write(path, seed=77)
    os.utime(path, ns=(1, 1))
    assert not torch.equal(data[0].pos, before) and reads == ["00.npy"] * 2
    write(path, size=41, seed=77)
    assert data[0].num_nodes == 41 and reads == ["00.npy"] * 3


def test_settings_have_caches_of_their_own(root, reads):
    settings = [{"num_points": 20}, {"seed": 1}, {"voxel_size": 0.5}, {"drop_invalid": True}, {}]
    sizes = [PointFolder(root, **each)[0].num_nodes for each in settings]
    assert sizes[0] == 20 and sizes[1] == sizes[4] == 40
    assert reads == ["00.npy"] * 5
    assert torch.equal(
        PointFolder(root, normalize=False)[0].pos,
        PointFolder(root, normalize=False, cache=False)[0].pos,
    )


@pytest.mark.parametrize("content", [b"", b"PK\3\4 half", b"x" * 300])
def test_a_damaged_cache_is_replaced(root, reads, content):
    before = PointFolder(root)[0].pos
    [kept] = (root / CACHE / "cup").glob("00*.npz")
    whole = kept.read_bytes()
    kept.write_bytes(content or whole[:400])
    assert torch.equal(PointFolder(root)[0].pos, before)
    assert len(reads) == 2 and kept.read_bytes() == whole
    np.savez(kept, stamp=np.array([None], dtype=object))  # would have to be unpickled
    assert torch.equal(PointFolder(root)[0].pos, before) and len(reads) == 3


def test_a_folder_that_cannot_be_written(root, reads):
    (root / CACHE).write_text("in the way")
    data = PointFolder(root)
    assert len(list(data)) == len(list(data)) == 16 and len(reads) == 33


def test_a_write_that_fails_leaves_nothing(root, monkeypatch):
    def full(*args, **kwargs):
        raise OSError("no space left")

    monkeypatch.setattr(np, "savez", full)
    assert PointFolder(root)[0].num_nodes == 40
    assert not [path for path in (root / CACHE).rglob("*") if path.is_file()]


def test_another_folder_and_none(root, tmp_path_factory, reads):
    other = tmp_path_factory.mktemp("cache")
    assert len(list(PointFolder(root, cache=other))) == 16
    PointFolder(root, cache=False)
    assert not (root / CACHE).exists() and len(list(other.rglob("*.npz"))) == 16


# --- what is wrong -------------------------------------------------------------------------------


def test_raise_and_skip(root):
    (root / "cup" / "00.npy").write_bytes(b"")
    (root / "jar" / "15.npy").write_text("no array")
    with pytest.raises(ValueError, match=r"00\.npy is empty"):
        PointFolder(root)
    with pytest.raises(ValueError, match=r"15\.npy is refused"):
        PointFolder(root, fields=())[15]
    data = PointFolder(root, on_error="skip")
    with pytest.warns(UserWarning) as caught:
        names = [item.name for item in data]
    assert [str(each.message).split(": ")[0] for each in caught] == ["skipped"] * 2
    assert len(data) == 16 and names[0] == names[1] == names[15] == "cup/01.npy"
    assert int(data[15].y) == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # once warned, it is quiet
        assert [item.name for item in data] == names
    data.path(3).unlink()
    with pytest.raises(FileNotFoundError):
        data[3]


@pytest.mark.parametrize("on_error", ["raise", "skip"])
@pytest.mark.parametrize(
    ("suffix", "package", "command"),
    [(".ply", "trimesh", "trimesh"), (".obj", "trimesh", "trimesh"), (".pcd", "pypcd4", "pypcd4"),
     (".las", "laspy", "'laspy[lazrs]'")],
)  # fmt: skip
def test_a_missing_package_is_no_bad_file(
    tmp_path, monkeypatch, on_error, suffix, package, command
):
    monkeypatch.setitem(sys.modules, package, None)
    for name in ("cup", "jar"):
        write(tmp_path / name / "0.npy")
        (tmp_path / name / f"1{suffix}").write_text("anything")
    data = PointFolder(tmp_path, on_error=on_error)
    assert data[0].name == "cup/0.npy"
    with pytest.raises(ImportError, match=f"needs .*{package}.*pip install") as caught:
        list(data)
    assert f"pip install {command}" in str(caught.value)
    for name in ("cup", "jar"):
        (tmp_path / name / "0.npy").unlink()
    with pytest.raises(ImportError, match=f"needs .*{package}"):
        PointFolder(tmp_path, on_error=on_error)


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_three_points_and_bad_ones(root, on_error):
    write(root / "cup" / "00.npy", size=3)
    (root / "cup" / "01.npy").write_bytes((root / "cup" / "02.npy").read_bytes()[:-7])
    data = PointFolder(root, on_error=on_error)
    assert data[0].num_nodes == 3 and data[0].pos.isfinite().all()
    if on_error == "raise":
        with pytest.raises(ValueError, match=r"01\.npy is truncated"):
            data[1]
    else:
        with pytest.warns(UserWarning, match=r"skipped: .*01\.npy is truncated"):
            assert data[1].name == "cup/02.npy"


def test_nothing_can_be_read(root):
    for path in root.rglob("*.npy"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="none of the 16 files of"):
        PointFolder(root, on_error="skip")
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="none of the 16 files of"):
        PointFolder(root, on_error="skip", fields=())[0]


def test_nan(root):
    points = write(root / "cup" / "00.npy")
    points[3, 1] = np.nan
    np.save(root / "cup" / "00.npy", points)
    with pytest.raises(ValueError, match=r"00\.npy: 1 of 40 points have a NaN"):
        PointFolder(root)
    assert PointFolder(root, drop_invalid=True)[0].num_nodes == 39


def test_folders_of_another_form(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere is no folder"):
        PointFolder(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"has no class folders: expected .*CLASS/\*\.ply"):
        PointFolder(tmp_path)
    write(tmp_path / "loose.npy")
    with pytest.raises(ValueError, match=r"no class folders, only files such as loose\.npy"):
        PointFolder(tmp_path)
    (tmp_path / "cup").mkdir()
    with pytest.raises(ValueError, match="no scans in cup of"):
        PointFolder(tmp_path)
    write(tmp_path / "jar" / "a.npy")
    with pytest.raises(ValueError, match=r"no scans in cup of .*: expected files of the form"):
        PointFolder(tmp_path)


def test_classes_of_train_and_test_differ(tmp_path):
    for name in ("train/bed", "train/cat", "test/bed", "test/dog"):
        write(tmp_path / name / "a.npy")
    message = "differ: only train has cat and only test has dog"
    for split in ("train", "test", None):
        with pytest.raises(ValueError, match=message):
            PointFolder(tmp_path, split)
    (tmp_path / "test" / "cat").mkdir()  # a class without test files
    (tmp_path / "test" / "dog").rename(tmp_path / "dog")
    with pytest.warns(
        UserWarning, match="1 of its scans will not be read, those in dog: .* as test/bed"
    ):
        assert PointFolder(tmp_path, "test").names == ["test/bed/a.npy"]
    (tmp_path / "train" / "cat" / "a.npy").rename(tmp_path / "test" / "cat" / "a.npy")
    with pytest.raises(ValueError, match="cat has test files and no training files"):
        PointFolder(tmp_path)


def test_only_one_of_the_two_folders(tmp_path):
    write(tmp_path / "train" / "bed" / "a.npy")
    with pytest.raises(ValueError, match="has a folder train of classes, but no folder test"):
        PointFolder(tmp_path)
    write(tmp_path / "val" / "bed" / "a.npy")
    with pytest.raises(ValueError, match="has a folder train of classes, but no folder test"):
        PointFolder(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "val"}, "split is 'val'"),
        ({"on_error": "ignore"}, "on_error is 'ignore'"),
        ({"num_points": 0}, "num_points is 0"),
        ({"seed": -1, "on_error": "skip"}, "seed is -1, expected at least 0"),
        ({"voxel_size": -1.0}, "voxel_size is -1.0"),
        ({"voxel_size": float("nan")}, "voxel_size is nan"),
        ({"test_fraction": 1.5}, "test_fraction is 1.5"),
        ({"fields": ["intensity"]}, r"fields names \['intensity'\]"),
    ],
)
def test_arguments(root, options, message):
    with pytest.raises(ValueError, match=message):
        PointFolder(root, **options)


def test_parts_and_shuffled_ones_have_their_own_names_and_targets(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(5):
            np.save(tmp_path / name / f"{i}.npy", np.random.default_rng(i).normal(size=(9, 3)))
    whole = PointFolder(tmp_path)
    assert len(whole.names) == len(whole.targets) == 10
    for part, rows in (
        (whole[3:7], [3, 4, 5, 6]),
        (whole[torch.tensor([9, 0])], [9, 0]),
        (whole[[2, 8]][[1]], [8]),
        (whole.index_select([1]), [1]),
    ):
        assert part.names == [whole.names[i] for i in rows]
        assert part.targets.tolist() == whole.targets[rows].tolist()
        assert [item.name for item in part] == part.names
        assert [int(item.y) for item in part] == part.targets.tolist()
        assert part.path(0) == whole.path(rows[0])
    mixed, order = whole.shuffle(return_perm=True)
    assert mixed.names == [whole.names[i] for i in order.tolist()]


def test_links_in_deeper_folders_and_links_to_nowhere_are_told(tmp_path):
    root, away = tmp_path / "root", tmp_path / "away"
    (root / "a" / "deep").mkdir(parents=True)
    (away / "more").mkdir(parents=True)
    for path in (root / "a" / "0.npy", root / "a" / "1.npy", away / "more" / "2.npy"):
        np.save(path, np.eye(3))
    (root / "a" / "deep" / "link").symlink_to(away)
    (root / "a" / "deep" / "back").symlink_to(root)
    (root / "a" / "gone.ply").symlink_to(tmp_path / "nowhere.ply")
    with pytest.warns(UserWarning, match="2 of its scans will not be read, those in a, a/deep/lin"):
        data = PointFolder(root)
    assert data.names == ["a/0.npy", "a/1.npy"]


def test_columns_and_labels_of_tables(tmp_path):
    (tmp_path / "a").mkdir()
    for i in range(2):
        (tmp_path / "a" / f"{i}.txt").write_text("0 0 0 200 100 50 7\n1 0 0 9 8 7 6\n")
    data = PointFolder(tmp_path, columns="x y z r g b label", normalize=False)
    assert data.fields == ("color",) and "label" not in data[0]
    data = PointFolder(tmp_path, columns="x y z r g b label", fields=["label"])
    for _ in range(2):  # read, and from what was kept
        assert sorted(data[0].label.tolist()) == [6, 7] and data[0].label.dtype == torch.int64
    with pytest.raises(ValueError, match="may be"):
        PointFolder(tmp_path)
