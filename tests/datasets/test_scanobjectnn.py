from __future__ import annotations

import os
import pickle
import shutil
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from pointcluster.datasets import ScanObjectNN
from pointcluster.datasets.scanobjectnn import (
    CLASSES,
    PARTS,
    PUBLISHED,
    VARIANTS,
    check_variant,
    find_scanobjectnn,
)

SIZES = (6, 3)
FILES = sorted(set(VARIANTS.values()))


def write(path, count, *, seed=0, points=2048, dtype="float32", mask=True, label=None):
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["data"] = rng.uniform(-1, 1, (count, points, 3)).astype(dtype)
        file["label"] = np.arange(count, dtype="int32") % 15 if label is None else label
        if mask:
            file["mask"] = rng.integers(-1, 3, (count, points)).astype("int32")
    return path


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A miniature of what the archive unpacks to: every cloud tells which file it is from."""
    folder = tmp_path_factory.mktemp("template") / "h5_files"
    for k, part in enumerate(["main_split", "main_split_nobg", "split2", "split2_nobg"]):
        for f, name in enumerate(FILES):
            for s, (split, count) in enumerate(zip(("training", "test"), SIZES, strict=True)):
                path = folder / part / f"{split}_{name}"
                write(path, count, seed=100 * k + 10 * f + s)
                with h5py.File(path, "a") as file:
                    file["data"][:, 0] = [k, f, s]
    return folder.parent


@pytest.fixture
def root(template, tmp_path):
    """A copy that a test may change."""
    return Path(shutil.copytree(template, tmp_path / "data"))


@pytest.fixture
def file(root):
    return root / "h5_files" / "main_split" / "training_objectdataset_augmentedrot_scale75.h5"


def pack(root, archive, top="h5_files/"):
    with zipfile.ZipFile(archive, "w") as packed:
        for path in sorted((root / "h5_files").rglob("*.h5")):
            name = path.relative_to(root / "h5_files").as_posix()
            packed.write(path, f"{top}{name}")
            packed.writestr(f"__MACOSX/{top}{name}", b"junk")
    return archive


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("background", [None, True, False])
@pytest.mark.parametrize("part", ["main_split", "split2"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_every_combination_is_its_own_file(template, variant, background, part, split):
    own = {"OBJ_ONLY": False, "OBJ_BG": True}.get(variant)
    options = {"variant": variant, "background": background, "part": part, "sizes": SIZES}
    if own is not None and background == (not own):
        with pytest.raises(ValueError, match=f"'{variant}' is the one with"):
            ScanObjectNN(template, split, **options)
        return
    data = ScanObjectNN(template, split, **options)
    expected = own if own is not None else background is not False
    assert data.background is expected
    k = 2 * (part == "split2") + (not expected)
    assert data[0].pos[0].tolist() == [k, FILES.index(VARIANTS[variant]), split == "test"]
    assert len(data) == SIZES[split == "test"]


def test_items(root, file):
    data = ScanObjectNN(root, sizes=SIZES)
    item = data[4]
    assert (item.pos.shape, item.pos.dtype) == ((2048, 3), torch.float32)
    assert (item.y.tolist(), item.y.dtype) == ([4], torch.int64)
    assert (item.mask.shape, item.mask.dtype) == ((2048,), torch.bool)
    with h5py.File(file) as h5:
        assert np.array_equal(item.pos.numpy(), h5["data"][4])
        assert np.array_equal(item.mask.numpy(), h5["mask"][4] != -1)
    assert 0 < int(item.mask.sum()) < 2048
    assert data.num_classes == 15 and data.num_points == 2048


def test_classes_stand_in_the_authors_order():
    assert CLASSES[:4] == ("bag", "bin", "box", "cabinet")
    assert CLASSES[9:12] == ("table", "bed", "pillow")  # not sorted
    assert CLASSES[14] == "toilet" and len(set(CLASSES)) == 15


def test_results_name_what_was_tested(root):
    data = ScanObjectNN(root, sizes=SIZES)
    assert data.name == "ScanObjectNN PB_T50_RS with background, main split"
    assert data.describe() == data.name + ", 2,048 points"
    other = ScanObjectNN(root, "test", variant="OBJ_ONLY", part="split2", sizes=SIZES)
    assert other.name == "ScanObjectNN OBJ_ONLY without background, split 2"
    assert repr(other) == (
        "ScanObjectNN(3, split='test', variant='OBJ_ONLY', background=False, part='split2')"
    )


def test_transform_and_pickle(root):
    data = ScanObjectNN(root, transform=lambda item: item.y, sizes=SIZES)
    assert data[3].tolist() == [3]
    data.transform = None
    written = len(pickle.dumps(data))
    assert [int(item.y) for item in data] == [0, 1, 2, 3, 4, 5]  # keeps views
    assert len(pickle.dumps(data)) < 1.1 * written


@pytest.mark.parametrize("level", [".", "h5_files", "h5_files/main_split", ".."])
def test_root_may_be_any_level(root, level):
    data = ScanObjectNN(root / level, sizes=SIZES)
    assert data[0].pos[0, 0] == 0
    # from inside one part the others are found beside it
    assert ScanObjectNN(root / level, background=False, sizes=SIZES)[0].pos[0, 0] == 1


@pytest.mark.parametrize("place", ["h5_files", "h5_files/main_split", "h5_files/main_split_nobg"])
def test_root_may_be_where_one_is(root, tmp_path, monkeypatch, place):
    monkeypatch.chdir(root / place)
    assert find_scanobjectnn(".") and find_scanobjectnn("..")
    for level in (".", ".."):
        assert ScanObjectNN(level, sizes=SIZES)[0].pos[0, 0] == 0
        assert ScanObjectNN(level, background=False, sizes=SIZES)[0].pos[0, 0] == 1


def test_root_may_be_a_link(root, tmp_path):
    (tmp_path / "link").symlink_to(root / "h5_files" / "main_split")
    (root / "h5_files" / "split2").rename(tmp_path / "moved")
    (root / "h5_files" / "split2").symlink_to(tmp_path / "moved")
    for path, part, number in (("link", "main_split", 0), ("data/h5_files/split2", "split2", 2)):
        data = ScanObjectNN(tmp_path / path, part=part, sizes=SIZES)
        assert find_scanobjectnn(tmp_path / path) and data[0].pos[0, 0] == number


def test_float64_and_columns_of_labels(root, file):
    write(file, 6, dtype="float64", label=np.arange(6.0)[:, None], mask=False)
    item = ScanObjectNN(root, sizes=SIZES)[5]
    assert item.pos.dtype == torch.float32 and item.y.tolist() == [5]
    assert "mask" not in item


@pytest.mark.parametrize("top", ["h5_files/", ""])
@pytest.mark.parametrize("inside", [True, False])
def test_archive_as_root(root, tmp_path, top, inside):
    folder = tmp_path / "fetched"
    folder.mkdir()
    archive = pack(root, folder / "h5_files.zip", top)
    data = ScanObjectNN(folder if inside else archive, "test", sizes=SIZES)
    assert len(data) == 3 and data[0].pos[0, 0] == 0
    unpacked = [path for path in (folder / "h5_files").rglob("*") if path.is_file()]
    assert [path.name for path in unpacked] == ["test_objectdataset_augmentedrot_scale75.h5"]
    before = unpacked[0].stat().st_mtime_ns
    assert len(ScanObjectNN(archive, "test", sizes=SIZES)) == 3
    assert unpacked[0].stat().st_mtime_ns == before  # not unpacked again
    # a newer archive is
    os.utime(archive, ns=(before + 10**10, before + 10**10))
    ScanObjectNN(archive, "test", sizes=SIZES)
    assert unpacked[0].stat().st_mtime_ns != before


def test_archive_that_climbs_out(tmp_path):
    archive = tmp_path / "in" / "h5_files.zip"
    archive.parent.mkdir()
    name = "main_split/training_objectdataset_augmentedrot_scale75.h5"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr(f"../../{name}", b"x")
    with pytest.raises(ValueError, match="would be written outside"):
        ScanObjectNN(archive)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["h5_files.zip", "in"]


def test_damaged_archive(root, tmp_path):
    archive = pack(root, tmp_path / "h5_files.zip")
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="is not a whole zip archive: .*root must be the archive"):
        ScanObjectNN(archive)
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("main_split/other.h5", b"x")
    with pytest.raises(FileNotFoundError, match=r"(?s)not there in .*accept.*terms"):
        ScanObjectNN(archive)


def test_archive_with_a_damaged_member(root, tmp_path):
    archive = pack(root, tmp_path / "h5_files.zip")
    content = bytearray(archive.read_bytes())
    with zipfile.ZipFile(archive) as packed:
        name = "h5_files/main_split/training_objectdataset_augmentedrot_scale75.h5"
        start = packed.getinfo(name).header_offset
    content[start + 5000] ^= 255
    archive.write_bytes(content)
    with pytest.raises(ValueError, match="not a whole zip archive: .*CRC"):
        ScanObjectNN(archive, sizes=SIZES)
    assert not [path for path in (tmp_path / "h5_files").rglob("*") if path.is_file()]


def test_missing_file_tells_the_steps(root, file, tmp_path):
    file.unlink()
    steps = r"(?s)no main_split/training_objectdataset_augmentedrot_scale75.h5 in .*" \
            r"hkust-vgd.github.io/scanobjectnn.*terms.*h5_files.zip.*root"  # fmt: skip
    for place in (root, tmp_path / "nowhere"):
        with pytest.raises(FileNotFoundError, match=steps):
            ScanObjectNN(place, sizes=SIZES)


def test_a_folder_must_tell_its_background(root, file, tmp_path):
    flat = tmp_path / "flat"
    flat.mkdir()
    file.rename(flat / file.name)
    with pytest.raises(ValueError, match="does not tell whether .* named main_split, if"):
        ScanObjectNN(flat)


def test_two_copies(root, file, tmp_path):
    write(root / "old" / "main_split" / file.name, 6)
    with pytest.raises(ValueError, match="holds .* and .*: give the folder above one"):
        ScanObjectNN(root, sizes=SIZES)
    assert len(ScanObjectNN(root / "old", sizes=SIZES)) == 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "val"}, "split is 'val', expected 'train' or 'test'"),
        ({"variant": "PB_T75"}, "variant is 'PB_T75', expected one of OBJ_ONLY, OBJ_BG"),
        ({"part": "main"}, "part is 'main', expected one of main_split, split1"),
        ({"background": "yes"}, "background is 'yes', expected True, False or None"),
        ({"variant": "OBJ_ONLY", "background": True}, "without background: .* take 'OBJ_BG'"),
        ({"variant": "OBJ_BG", "background": False}, "with background: .* take 'OBJ_ONLY'"),
        ({"sizes": "any"}, "sizes is 'any', expected 'published'"),
    ],
)
def test_arguments(root, options, message):
    with pytest.raises(ValueError, match=message):
        ScanObjectNN(root, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "train split has 6 clouds, not 11,416"),
        ({"split": "test"}, "test split has 3 clouds, not 2,882"),
        ({"variant": "OBJ_BG"}, "has 6 clouds, not 2,309"),
        ({"variant": "OBJ_ONLY", "split": "test"}, "has 3 clouds, not 581"),
        ({"variant": "PB_T25"}, "has 6 clouds, expected 10,996 to 11,575"),
        ({"background": False}, "has 6 clouds, expected 10,996 to 11,575"),
        ({"variant": "OBJ_BG", "part": "split2", "split": "test"}, "expected 530 to 558"),
        ({"sizes": (7, 3)}, "has 6 clouds, not 7"),
    ],
)
def test_number_of_clouds_is_checked(root, options, message):
    with pytest.raises(ValueError, match=message):
        ScanObjectNN(root, **options)
    assert len(ScanObjectNN(root, **options | {"sizes": None})) in SIZES


def test_the_published_numbers_fit_the_lists_of_objects():
    for variant, numbers in PUBLISHED.items():
        for found, objects in zip(numbers, PARTS["main_split"], strict=True):
            most = objects * (5 if variant.startswith("PB") else 1)
            assert 0.95 * most <= found <= most
    assert {sum(objects) for objects in PARTS.values()} == {2902}
    assert check_variant("PB_T25", False, "split4") is False


@pytest.mark.parametrize("keep", [0, 100, 100_000])
def test_truncated_file(root, file, keep):
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ValueError, match="scale75.h5 is truncated or is no HDF5 file"):
        ScanObjectNN(root, sizes=SIZES)


@pytest.mark.parametrize("label", [15, -1])
def test_label_out_of_range(root, file, label):
    with h5py.File(file, "a") as h5:
        h5["label"][2] = label
    with pytest.raises(ValueError, match=r"class indices go from .*, expected 0 to 14"):
        ScanObjectNN(root, sizes=SIZES)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan(root, file, value):
    with h5py.File(file, "a") as h5:
        h5["data"][3, 7, 1] = value
    with pytest.raises(ValueError, match="cloud 3 has NaN or infinite"):
        ScanObjectNN(root, sizes=SIZES)


def test_where_it_is(root, tmp_path):
    assert not find_scanobjectnn(tmp_path / "nowhere")
    assert find_scanobjectnn(root) and find_scanobjectnn(root / "h5_files" / "split2")
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "README.md").write_text("")
    assert not find_scanobjectnn(empty)
    assert find_scanobjectnn(pack(root, empty / "h5_files.zip")) and find_scanobjectnn(empty)
