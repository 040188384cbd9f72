from __future__ import annotations

import os
import zipfile

import h5py
import numpy as np
import pytest

from pointcluster.datasets import ModelNet40, fetch
from pointcluster.datasets import modelnet40_archive as module

NAME = module.FOLDER
SIZES = (4, 1)


def write(path, count):
    with h5py.File(path, "w") as file:
        file["data"] = np.random.default_rng(0).normal(size=(count, 2048, 3)).astype("float32")
        file["faceId"] = np.zeros((count, 2048), dtype="int32")
        file["label"] = np.arange(count, dtype="uint8")[:, None]
        file["normal"] = file["data"][()]


def pack(folder, archive, top=f"{NAME}/"):
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(folder.iterdir(), reverse=True):  # the lists first
            file.write(path, f"{top}{path.name}")
            file.writestr(f"__MACOSX/{top}._{path.name}", "junk")
    return archive


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """A miniature of the genuine archive: lists, and files of four arrays."""
    folder = tmp_path_factory.mktemp("archive") / NAME
    folder.mkdir()
    (folder / "shape_names.txt").write_text("\n".join(f"class{i}" for i in range(40)))
    paths = "data/modelnet40_ply_hdf5_2048/ply_data_{}.h5\n"
    (folder / "train_files.txt").write_text(paths.format("train0") + paths.format("train1"))
    (folder / "test_files.txt").write_text(paths.format("test0"))
    for name, count in (("train0", 3), ("train1", 1), ("test0", 1)):
        write(folder / f"ply_data_{name}.h5", count)
    return pack(folder, folder.parent / f"{NAME}.zip")


@pytest.fixture
def root(archive, tmp_path):
    """A folder with the archive alone."""
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / archive.name).write_bytes(archive.read_bytes())
    return tmp_path / "root"


@pytest.fixture
def no_network(monkeypatch):
    def fail(urls, path, check):
        raise OSError("no mirror gave the file")

    monkeypatch.setattr(fetch, "download", fail)


@pytest.fixture
def network(monkeypatch, archive):
    """Downloads give the archive, and note what was asked for."""
    asked = []

    def download(urls, path, check):
        asked.extend(urls)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(archive.read_bytes())

    monkeypatch.setattr(fetch, "download", download)
    return asked


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_an_archive_is_unpacked_without_the_network(root, no_network):
    assert len(ModelNet40(root, download=True, sizes=SIZES)) == 4
    assert names(root) == [NAME, f"{NAME}.zip"] and len(names(root / NAME)) == 6


@pytest.mark.parametrize(
    ("damage", "inside"),
    [("missing", False), ("missing", True), ("cut", False), ("cut", True), ("no list", False)],
)
def test_an_interrupted_unpacking_is_resumed(root, no_network, damage, inside):
    fetch.unpack(root / f"{NAME}.zip", root)
    folder = root / NAME
    lost = folder / ("train_files.txt" if damage == "no list" else "ply_data_train1.h5")
    if damage == "cut":
        lost.write_bytes(lost.read_bytes()[:5000])
    else:
        lost.unlink()
    (folder / "mine.txt").write_text("stays")
    assert module.fetch_modelnet40(folder if inside else root) == folder
    assert len(ModelNet40(root, sizes=SIZES)) == 4
    assert (folder / "mine.txt").read_text() == "stays"
    assert names(root) == sorted({"__MACOSX", NAME, f"{NAME}.zip"})


def test_what_is_whole_is_left_alone(root, no_network):
    folder = module.fetch_modelnet40(root)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    os.utime(root / f"{NAME}.zip")
    assert module.fetch_modelnet40(root) == folder
    (root / f"{NAME}.zip").write_bytes(b"damaged, but nobody needs it")
    assert module.fetch_modelnet40(root) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_unpacking_that_fails_leaves_nothing(root, no_network, monkeypatch):
    def stop(*arguments):
        (root / f"{NAME}.part" / NAME).mkdir(parents=True)
        (root / f"{NAME}.part" / NAME / "train_files.txt").write_text("x.h5")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fetch, "unpack", stop)
        with pytest.raises(KeyboardInterrupt):
            module.fetch_modelnet40(root)
        assert names(root) == [f"{NAME}.zip"]
    (root / f"{NAME}.part").mkdir()  # of a process that was killed
    (root / f"{NAME}.part" / "half").write_text("")
    module.fetch_modelnet40(root)
    assert names(root) == [NAME, f"{NAME}.zip"]


def test_a_folder_without_its_archive_is_fetched(root, network):
    folder = module.fetch_modelnet40(root)
    (root / f"{NAME}.zip").unlink()
    assert module.fetch_modelnet40(root) == folder and not network
    (folder / "ply_data_train1.h5").unlink()
    assert module.missing_file(folder) == "ply_data_train1.h5"
    assert module.fetch_modelnet40(root) == folder
    assert network == list(module.MIRRORS) and len(ModelNet40(root, sizes=SIZES)) == 4


def test_a_truncated_archive_is_fetched_again(root, network):
    path = root / f"{NAME}.zip"
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.warns(UserWarning, match="not a whole zip archive.*: it is fetched again"):
        assert len(ModelNet40(root, download=True, sizes=SIZES)) == 4
    assert network == list(module.MIRRORS)


def test_a_truncated_archive_is_to_be_deleted(root, no_network):
    path = root / f"{NAME}.zip"
    path.write_bytes(path.read_bytes()[:-2000])
    message = (
        r"not be fetched \(.*zip is there, but is damaged or not whole: delete it\): no mirror"
    )
    with pytest.warns(UserWarning), pytest.raises(OSError, match=message):
        module.fetch_modelnet40(root)
    with pytest.raises(ValueError, match=r"not a whole zip archive.*\(delete it, and fetch"):
        module.fetch_modelnet40(path)
    assert names(root) == [f"{NAME}.zip"]


def test_who_does_not_download_is_told_of_the_archive(root):
    with pytest.raises(FileNotFoundError, match=r"zip is not unpacked: .*fetch.py modelnet40 --ro"):
        ModelNet40(root)


@pytest.mark.parametrize("top", [f"{NAME}/", "", "a/b/"])
def test_root_may_be_an_archive_of_any_name(root, no_network, top):
    fetch.unpack(root / f"{NAME}.zip", root.parent)
    archive = pack(root.parent / NAME, root.parent / "fetched.zip", top)
    (root / f"{NAME}.zip").unlink()
    archive = archive.rename(root / "fetched.zip")
    assert module.fetch_modelnet40(archive) == root / NAME
    assert len(ModelNet40(root, "test", sizes=SIZES)) == 1


def test_archives_of_something_else(root, archive, no_network, tmp_path):
    path = root / f"{NAME}.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("readme.txt", "hello")
    with pytest.raises(ValueError, match=r"holds no train_files.txt: it is another archive, del"):
        module.fetch_modelnet40(root)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a/train_files.txt", "x.h5")
        file.writestr("b/train_files.txt", "x.h5")
    with pytest.raises(ValueError, match="holds train_files.txt in a and in b"):
        module.fetch_modelnet40(root)


def test_a_download_that_lacks_a_file(tmp_path, monkeypatch):
    def download(urls, path, check):
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path, "w") as file:
            file.writestr(f"{NAME}/train_files.txt", "x/ply_data_train0.h5")

    monkeypatch.setattr(fetch, "download", download)
    with pytest.raises(ValueError, match="lacks ply_data_train0.h5: it is not ModelNet40's HDF5"):
        module.fetch_modelnet40(tmp_path)
