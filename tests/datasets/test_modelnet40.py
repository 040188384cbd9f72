from __future__ import annotations

import os
import zipfile

import h5py
import numpy as np
import pytest
import torch

from pointcluster.datasets import ModelNet40, fetch
from pointcluster.datasets import modelnet40 as module

# --- the HDF5 form -------------------------------------------------------------------------------


FOLDER = "modelnet40_ply_hdf5_2048"
SIZES = (5, 2)


def write(path, count, *, first=0, points=2048, dtype="float32", normal=True):
    """The four arrays of a genuine file; ``normal`` may be left out."""
    rng = np.random.default_rng(first)
    with h5py.File(path, "w") as file:
        file["data"] = rng.uniform(-1, 1, (count, points, 3)).astype(dtype)
        file["faceId"] = rng.integers(0, 9000, (count, points), dtype="int32")
        file["label"] = np.arange(first, first + count, dtype="uint8")[:, None]
        if normal:
            file["normal"] = rng.normal(size=(count, points, 3)).astype("float32")


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / FOLDER
    folder.mkdir()
    (folder / "shape_names.txt").write_text("\n".join(f"class{i}" for i in range(40)))
    paths = "data/modelnet40_ply_hdf5_2048/ply_data_{}.h5\n"
    (folder / "train_files.txt").write_text(paths.format("train0") + paths.format("train1"))
    (folder / "test_files.txt").write_text(paths.format("test0"))
    write(folder / "ply_data_train0.h5", 3)
    write(folder / "ply_data_train1.h5", 2, first=3)
    write(folder / "ply_data_test0.h5", 2)
    return tmp_path


@pytest.mark.parametrize("inside", [False, True])
def test_reads_folder_or_the_one_above(root, inside):
    train = ModelNet40(root / FOLDER if inside else root, "train", sizes=SIZES)
    assert (len(train), train.num_classes, train.classes[1]) == (5, 40, "class1")
    assert [int(item.y) for item in train] == [0, 1, 2, 3, 4]
    item = train[4]
    assert (item.pos.shape, item.pos.dtype) == ((2048, 3), torch.float32)
    assert (item.y.shape, item.y.dtype) == ((1,), torch.int64)
    with h5py.File(root / FOLDER / "ply_data_train1.h5") as file:
        assert np.array_equal(item.pos.numpy(), file["data"][1])
    assert len(ModelNet40(root, "test", sizes=SIZES)) == 2


@pytest.mark.parametrize("num_points", [None, 100])
def test_normals_have_length_one(root, num_points):
    with h5py.File(root / FOLDER / "ply_data_train1.h5", "a") as file:
        file["normal"][1, 3] = 0
        expected = file["normal"][1][:num_points].astype("float64")
    item = ModelNet40(root, num_points=num_points, sizes=SIZES)[4]
    assert (item.normal.shape, item.normal.dtype) == (item.pos.shape, torch.float32)
    assert item.normal[3].tolist() == [0, 0, 0]
    expected[3, 0] = 1e-30
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    expected[3] = 0
    assert np.abs(item.normal.numpy() - expected).max() < 1e-6
    assert "normal" in ModelNet40(root, "test", normals=True, sizes=SIZES)[0]
    assert "normal" not in ModelNet40(root, normals=False, sizes=SIZES)[4]


def test_files_without_normals(root):
    for name, count, first in (("train0", 3, 0), ("train1", 2, 3), ("test0", 2, 0)):
        write(root / FOLDER / f"ply_data_{name}.h5", count, first=first, normal=False)
    assert set(ModelNet40(root, sizes=SIZES)[0].keys()) == {"pos", "y"}
    message = "ply_data_train0.h5 holds no array 'normal', which 0 of the 2 files for train have"
    with pytest.raises(ValueError, match=message):
        ModelNet40(root, normals=True, sizes=SIZES)


@pytest.mark.parametrize("normals", [None, True])
def test_one_file_without_normals(root, normals):
    write(root / FOLDER / "ply_data_train1.h5", 2, first=3, normal=False)
    with pytest.raises(ValueError, match="train1.h5 holds no array 'normal', which 1 of the 2"):
        ModelNet40(root, normals=normals, sizes=SIZES)
    assert len(ModelNet40(root, normals=False, sizes=SIZES)) == 5


def test_transform_is_applied_to_a_copy(root):
    def cut(data):
        data.pos = data.pos[:7]
        return data

    train = ModelNet40(root, transform=cut, sizes=SIZES)
    assert train[0].pos.size(0) == train[0].pos.size(0) == 7
    train.transform = None
    assert train[0].pos.size(0) == 2048


def test_split_is_checked(root):
    with pytest.raises(ValueError, match="'val', expected 'train' or 'test'"):
        ModelNet40(root, "val")


def test_number_of_clouds_is_checked(root):
    with pytest.raises(ValueError, match="train split has 5 clouds, not 9,840"):
        ModelNet40(root)
    assert len(ModelNet40(root, sizes=None)) == 5


def test_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no ModelNet40 in .*expected train_files.txt"):
        ModelNet40(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["ply_data_train1.h5", "shape_names.txt"])
def test_missing_file(root, name):
    (root / FOLDER / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"{name} is missing"):
        ModelNet40(root, sizes=SIZES)


@pytest.mark.parametrize("keep", [0, 100, 30_000])
def test_truncated_file(root, keep):
    path = root / FOLDER / "ply_data_train1.h5"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match="ply_data_train1.h5 is truncated or is no HDF5"):
        ModelNet40(root, sizes=SIZES)


def test_missing_array(root):
    with h5py.File(root / FOLDER / "ply_data_train0.h5", "a") as file:
        del file["label"]
    with pytest.raises(
        ValueError, match=r"holds \['data', 'faceId', .*expected.*'data' and 'label'"
    ):
        ModelNet40(root, sizes=SIZES)


@pytest.mark.parametrize("options", [{"points": 1024}, {"dtype": "float64"}])
def test_wrong_shape_or_type(root, options):
    write(root / FOLDER / "ply_data_train0.h5", 3, **options)
    with pytest.raises(ValueError, match=r"'data' is .*expected float32 \[n, 2048, 3\]"):
        ModelNet40(root, sizes=SIZES)


def test_labels_of_another_length(root):
    with h5py.File(root / FOLDER / "ply_data_train0.h5", "a") as file:
        del file["label"]
        file["label"] = np.zeros((2, 1), dtype="uint8")
    with pytest.raises(ValueError, match=r"'label' is uint8 \[2, 1\], expected integers \[3, 1\]"):
        ModelNet40(root, sizes=SIZES)


def test_class_index_out_of_range(root):
    with h5py.File(root / FOLDER / "ply_data_train0.h5", "a") as file:
        file["label"][1] = 40
    with pytest.raises(ValueError, match="class indices go from 0 to 40, expected 0 to 39"):
        ModelNet40(root, sizes=SIZES)


def test_nan(root):
    with h5py.File(root / FOLDER / "ply_data_train0.h5", "a") as file:
        file["data"][2, 7, 1] = np.nan
    with pytest.raises(ValueError, match="cloud 2 has NaN or infinite positions"):
        ModelNet40(root, sizes=SIZES)


def test_number_of_classes_is_checked(root):
    (root / FOLDER / "shape_names.txt").write_text("chair\ntable\n")
    with pytest.raises(ValueError, match="names 2 classes, expected 40"):
        ModelNet40(root, sizes=SIZES)


def test_failed_download_tells_the_steps(tmp_path, monkeypatch):
    def fail(urls, path, check):
        assert all(url.startswith("https://") for url in urls)
        raise OSError("no mirror gave the file")

    monkeypatch.setattr("pointcluster.datasets.fetch.download", fail)
    with pytest.raises(OSError, match=r"(?s)no mirror gave the file.*by hand.*give that folder"):
        ModelNet40(tmp_path, download=True)


def test_download_unpacks(root, tmp_path, monkeypatch):
    import zipfile

    def serve(urls, path, check):
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path, "w") as file:
            for member in sorted((root / FOLDER).iterdir()):
                file.write(member, f"{FOLDER}/{member.name}")

    monkeypatch.setattr("pointcluster.datasets.fetch.download", serve)
    fresh = tmp_path / "fresh"
    assert len(ModelNet40(fresh, download=True, sizes=SIZES)) == 5
    assert module.find_modelnet40(fresh) == fresh / FOLDER


def test_results_name_the_form(root):
    data = ModelNet40(root, sizes=SIZES)
    assert (data.name, data.describe()) == ("ModelNet40 HDF5", "ModelNet40 HDF5, 2,048 points")
    some = ModelNet40(root, num_points=100, sizes=SIZES)
    assert some.describe() == "ModelNet40 HDF5, 100 points"
    assert torch.equal(some[3].pos, data[3].pos[:100])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "ply"}, "form is 'ply', expected one of hdf5, resampled, meshes"),
        ({"num_points": 4096}, "num_points is 4096, expected 1 to 2,048 for form 'hdf5'"),
        ({"num_points": 0}, "num_points is 0, expected 1 to 2,048"),
        ({"form": "meshes", "num_points": 0}, "num_points is 0, expected at least 1"),
        ({"form": "meshes", "seed": -1}, "seed is -1, expected at least 0"),
        ({"seed": 1}, "seed is 1: form 'hdf5' has its points already"),
        ({"form": "resampled", "download": True}, "not fetched by this program: .*README"),
        ({"sizes": 3}, "sizes is 3, expected 'published'"),
    ],
)
def test_arguments(root, options, message):
    with pytest.raises(ValueError, match=message):
        ModelNet40(root, **options)


def test_another_form_is_there(root):
    with pytest.raises(FileNotFoundError, match="expected .*off there.*it holds the form 'hdf5'"):
        ModelNet40(root, form="meshes")


# --- its archive ---------------------------------------------------------------------------------


NAME = module.FORMS["hdf5"][1]
ARCHIVE_SIZES = (4, 1)


def archive_write(path, count):
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
        archive_write(folder / f"ply_data_{name}.h5", count)
    return pack(folder, folder.parent / f"{NAME}.zip")


@pytest.fixture
def archive_root(archive, tmp_path):
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


def test_an_archive_is_unpacked_without_the_network(archive_root, no_network):
    assert len(ModelNet40(archive_root, download=True, sizes=ARCHIVE_SIZES)) == 4
    assert names(archive_root) == [NAME, f"{NAME}.zip"] and len(names(archive_root / NAME)) == 6


@pytest.mark.parametrize(
    ("damage", "inside"),
    [("missing", False), ("missing", True), ("cut", False), ("cut", True), ("no list", False)],
)
def test_an_interrupted_unpacking_is_resumed(archive_root, no_network, damage, inside):
    fetch.unpack(archive_root / f"{NAME}.zip", archive_root)
    folder = archive_root / NAME
    lost = folder / ("train_files.txt" if damage == "no list" else "ply_data_train1.h5")
    if damage == "cut":
        lost.write_bytes(lost.read_bytes()[:5000])
    else:
        lost.unlink()
    (folder / "mine.txt").write_text("stays")
    assert module.fetch_modelnet40(folder if inside else archive_root) == folder
    assert len(ModelNet40(archive_root, sizes=ARCHIVE_SIZES)) == 4
    assert (folder / "mine.txt").read_text() == "stays"
    assert names(archive_root) == sorted({"__MACOSX", NAME, f"{NAME}.zip"})


def test_what_is_whole_is_left_alone(archive_root, no_network):
    folder = module.fetch_modelnet40(archive_root)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    os.utime(archive_root / f"{NAME}.zip")
    assert module.fetch_modelnet40(archive_root) == folder
    (archive_root / f"{NAME}.zip").write_bytes(b"damaged, but nobody needs it")
    assert module.fetch_modelnet40(archive_root) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_unpacking_that_fails_leaves_nothing(archive_root, no_network, monkeypatch):
    def stop(*arguments):
        (archive_root / f"{NAME}.part" / NAME).mkdir(parents=True)
        (archive_root / f"{NAME}.part" / NAME / "train_files.txt").write_text("x.h5")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fetch, "unpack", stop)
        with pytest.raises(KeyboardInterrupt):
            module.fetch_modelnet40(archive_root)
        assert names(archive_root) == [f"{NAME}.zip"]
    (archive_root / f"{NAME}.part").mkdir()  # of a process that was killed
    (archive_root / f"{NAME}.part" / "half").write_text("")
    module.fetch_modelnet40(archive_root)
    assert names(archive_root) == [NAME, f"{NAME}.zip"]


def test_a_folder_without_its_archive_is_fetched(archive_root, network):
    folder = module.fetch_modelnet40(archive_root)
    (archive_root / f"{NAME}.zip").unlink()
    assert module.fetch_modelnet40(archive_root) == folder and not network
    (folder / "ply_data_train1.h5").unlink()
    assert module.missing_file(folder) == "ply_data_train1.h5"
    assert module.fetch_modelnet40(archive_root) == folder
    assert (
        network == list(module.MIRRORS) and len(ModelNet40(archive_root, sizes=ARCHIVE_SIZES)) == 4
    )


def test_a_truncated_archive_is_fetched_again(archive_root, network):
    path = archive_root / f"{NAME}.zip"
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.warns(UserWarning, match="not a whole zip archive.*: it is fetched again"):
        assert len(ModelNet40(archive_root, download=True, sizes=ARCHIVE_SIZES)) == 4
    assert network == list(module.MIRRORS)


def test_a_truncated_archive_is_to_be_deleted(archive_root, no_network):
    path = archive_root / f"{NAME}.zip"
    path.write_bytes(path.read_bytes()[:-2000])
    message = (
        r"not be fetched \(.*zip is there, but is damaged or not whole: delete it\): no mirror"
    )
    with pytest.warns(UserWarning), pytest.raises(OSError, match=message):
        module.fetch_modelnet40(archive_root)
    with pytest.raises(ValueError, match=r"not a whole zip archive.*\(delete it, and fetch"):
        module.fetch_modelnet40(path)
    assert names(archive_root) == [f"{NAME}.zip"]


def test_who_does_not_download_is_told_of_the_archive(archive_root):
    with pytest.raises(FileNotFoundError, match=r"zip is not unpacked: .*fetch.py modelnet40 --ro"):
        ModelNet40(archive_root)


@pytest.mark.parametrize("top", [f"{NAME}/", "", "a/b/"])
def test_root_may_be_an_archive_of_any_name(archive_root, no_network, top):
    fetch.unpack(archive_root / f"{NAME}.zip", archive_root.parent)
    archive = pack(archive_root.parent / NAME, archive_root.parent / "fetched.zip", top)
    (archive_root / f"{NAME}.zip").unlink()
    archive = archive.rename(archive_root / "fetched.zip")
    assert module.fetch_modelnet40(archive) == archive_root / NAME
    assert len(ModelNet40(archive_root, "test", sizes=ARCHIVE_SIZES)) == 1


def test_archives_of_something_else(archive_root, archive, no_network, tmp_path):
    path = archive_root / f"{NAME}.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("readme.txt", "hello")
    with pytest.raises(ValueError, match=r"holds no train_files.txt: it is another archive, del"):
        module.fetch_modelnet40(archive_root)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a/train_files.txt", "x.h5")
        file.writestr("b/train_files.txt", "x.h5")
    with pytest.raises(ValueError, match="holds train_files.txt in a and in b"):
        module.fetch_modelnet40(archive_root)


def test_a_download_that_lacks_a_file(tmp_path, monkeypatch):
    def download(urls, path, check):
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path, "w") as file:
            file.writestr(f"{NAME}/train_files.txt", "x/ply_data_train0.h5")

    monkeypatch.setattr(fetch, "download", download)
    with pytest.raises(ValueError, match="lacks ply_data_train0.h5: it is not ModelNet40's HDF5"):
        module.fetch_modelnet40(tmp_path)


# --- text files ----------------------------------------------------------------------------------


RESAMPLED_FOLDER = "modelnet40_normal_resampled"
RESAMPLED_SIZES = (3, 1)
CLASSES = ["night_stand", *(f"class{i}" for i in range(39))]


def cloud(seed):
    rng = np.random.default_rng(seed)
    normal = rng.normal(size=(10_000, 3))
    pos = 3 + 2 * normal / np.linalg.norm(normal, axis=1, keepdims=True) * [1, 0.5, 0.2]
    return np.hstack([pos, normal / np.linalg.norm(normal, axis=1, keepdims=True)])


@pytest.fixture(scope="module")
def texts():
    """The genuine form: a line a point, with six decimals."""
    rows = [np.char.mod("%.6f", cloud(seed)) for seed in range(4)]
    return ["\n".join(map(",".join, lines)) + "\n" for lines in rows]


@pytest.fixture
def resampled_root(tmp_path, texts):
    folder = tmp_path / RESAMPLED_FOLDER
    folder.mkdir()
    (folder / "modelnet40_shape_names.txt").write_text("\n".join(CLASSES) + "\n")
    train = ["night_stand_0001", "class7_0002", "class7_0001"]
    (folder / "modelnet40_train.txt").write_text("\n".join(train) + "\n")
    (folder / "modelnet40_test.txt").write_text("class38_0101\n")
    for shape, text in zip([*train, "class38_0101"], texts, strict=True):
        name = shape.rpartition("_")[0]
        (folder / name).mkdir(exist_ok=True)
        (folder / name / f"{shape}.txt").write_text(text)
    return tmp_path


@pytest.mark.parametrize("inside", [False, True])
def test_reads_text_files(resampled_root, inside):
    data = ModelNet40(
        resampled_root / RESAMPLED_FOLDER if inside else resampled_root,
        form="resampled",
        sizes=RESAMPLED_SIZES,
    )
    assert [int(item.y) for item in data] == [0, 8, 8]  # in the order of the list
    assert (len(data), data.num_points, data.classes[0]) == (3, 10_000, "night_stand")
    assert data.describe() == "ModelNet40 resampled, 10,000 points"
    assert repr(data) == "ModelNet40(3, split='train', form='resampled')"
    item, expected = data[1], cloud(1)
    assert item.pos.dtype == item.normal.dtype == torch.float32
    pos = expected[:, :3] - expected[:, :3].mean(axis=0)
    pos /= np.linalg.norm(pos, axis=1).max()
    assert np.abs(item.pos.numpy() - pos).max() < 2e-6
    assert np.abs(item.normal.numpy() - expected[:, 3:]).max() < 1e-6
    assert ModelNet40(resampled_root, "test", form="resampled", sizes=RESAMPLED_SIZES)[
        0
    ].y.tolist() == [39]


def test_first_points_of_each(resampled_root):
    whole = ModelNet40(resampled_root, form="resampled", sizes=RESAMPLED_SIZES)
    some = ModelNet40(resampled_root, form="resampled", num_points=64, sizes=RESAMPLED_SIZES)
    assert some.num_points == 64
    without = ModelNet40(
        resampled_root, form="resampled", num_points=64, normals=False, sizes=RESAMPLED_SIZES
    )
    assert set(without[0].keys()) == {"pos", "y"} and torch.equal(without[0].pos, some[0].pos)
    for a, b in zip(whole, some, strict=True):
        assert torch.equal(a.pos[:64], b.pos) and torch.equal(a.normal[:64], b.normal)


def test_read_once_until_a_file_changes(resampled_root, monkeypatch):
    first = ModelNet40(resampled_root, form="resampled", sizes=RESAMPLED_SIZES)
    read, calls = module._read_text, []
    monkeypatch.setattr(module, "_read_text", lambda path: calls.append(path) or read(path))
    second = ModelNet40(resampled_root, form="resampled", sizes=RESAMPLED_SIZES)
    assert not calls and torch.equal(first[2].pos, second[2].pos)
    path = resampled_root / RESAMPLED_FOLDER / "class7" / "class7_0001.txt"
    path.write_text(
        (resampled_root / RESAMPLED_FOLDER / "night_stand" / "night_stand_0001.txt").read_text()
        + "\n"
    )
    third = ModelNet40(resampled_root, form="resampled", sizes=RESAMPLED_SIZES)
    assert len(calls) == 3 and torch.equal(third[2].pos, first[0].pos)
    # another order of the same files is another data set
    listing = resampled_root / RESAMPLED_FOLDER / "modelnet40_train.txt"
    listing.write_text("class7_0002\nnight_stand_0001\nclass7_0001\n")
    assert [
        int(y) for y in ModelNet40(resampled_root, form="resampled", sizes=RESAMPLED_SIZES).y
    ] == [8, 0, 8]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is damaged or is no list of numbers"),
        ("1,2,3,4,5,6\n1,2,x,4,5,6\n", "is damaged or is no list of numbers"),
        ("1,2,3,4,5,6\n1,2,3\n", "is damaged or is no list of numbers"),
        ("1,2,3,4,5,6\n", "holds 1 lines of 6 numbers, expected 10,000 of 6"),
        ("1,2,3\n" * 10_000, "holds 10,000 lines of 3 numbers"),
        ("1,2,3,4,5,6\n" * 9_999 + "1,2,nan,4,5,6\n", "has NaN or infinite"),
    ],
)
def test_damaged_file(resampled_root, text, message):
    (resampled_root / RESAMPLED_FOLDER / "class7" / "class7_0001.txt").write_text(text)
    with pytest.raises(ValueError, match=f"class7_0001.txt {message}"):
        ModelNet40(resampled_root, form="resampled", sizes=RESAMPLED_SIZES)
    assert not list((resampled_root / RESAMPLED_FOLDER).glob("*.safetensors"))


@pytest.mark.parametrize(
    "name", ["class7/class7_0001.txt", "modelnet40_train.txt", "modelnet40_shape_names.txt"]
)
def test_missing_file_of_resampled(resampled_root, name):
    (resampled_root / RESAMPLED_FOLDER / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"{name} is missing|no ModelNet40 in"):
        ModelNet40(resampled_root, form="resampled", sizes=RESAMPLED_SIZES)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("modelnet40_train.txt", "", "is empty"),
        ("modelnet40_train.txt", "lamp_0001\n", "names 'lamp_0001', which is of no class"),
        ("modelnet40_train.txt", "class7_0001\nclass7_0001\n", "names a shape twice"),
        ("modelnet40_shape_names.txt", "night_stand\nclass7\n", "names 2 classes, expected 40"),
    ],
)
def test_lists(resampled_root, name, text, message):
    (resampled_root / RESAMPLED_FOLDER / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        ModelNet40(resampled_root, form="resampled", sizes=RESAMPLED_SIZES)


def test_number_of_clouds_is_checked_of_resampled(resampled_root):
    with pytest.raises(ValueError, match="train split has 3 clouds, not 9,843"):
        ModelNet40(resampled_root, form="resampled")


# --- meshes --------------------------------------------------------------------------------------


MESHES_SIZES = (41, 40)
MESHES_CLASSES = [f"class{i:02}" for i in range(40)]
# A box of 1 x 2 x 4 around (5, 5, 5), the third axis up; squares, as some genuine files have.
VERTICES = [[5 + x / 2, 5 + y, 5 + 2 * z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]
SQUARES = [[0, 1, 3, 2], [4, 5, 7, 6], [0, 1, 5, 4], [2, 3, 7, 6], [0, 2, 6, 4], [1, 3, 7, 5]]
FACES = [face for a, b, c, d in SQUARES for face in ([a, b, c], [a, c, d])]


def off(vertices=VERTICES, faces=FACES, *, head="OFF\n", end="\n"):
    lines = [f"{len(vertices)} {len(faces)} 0"]
    lines += [" ".join(map(str, vertex)) for vertex in vertices]
    lines += [" ".join(map(str, [len(face), *face])) for face in faces]
    return head + "\n".join(lines) + end


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "ModelNet40"
    for name in MESHES_CLASSES:
        for split, number in (("train", 1), ("test", 2)):
            (folder / name / split).mkdir(parents=True)
            (folder / name / split / f"{name}_{number:04}.off").write_text(off())
    (folder / "class03" / "train" / "class03_0009.off").write_text(off(head="OFF"))
    return folder


@pytest.fixture
def one(tmp_path):
    def write(text):
        path = tmp_path / "a.off"
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize("above", [False, True])
def test_draws_points(folder, above):
    root = folder.parent if above else folder
    data = ModelNet40(root, form="meshes", num_points=500, sizes=MESHES_SIZES)
    assert (len(data), data.num_points, data.classes) == (41, 500, MESHES_CLASSES)
    assert data.y.tolist() == sorted([*range(40), 3])
    assert data.describe() == "ModelNet40 meshes, sampled with seed 0, 500 points"
    item = data[0]
    assert item.pos.shape == item.normal.shape == (500, 3)
    assert item.pos.mean(dim=0).abs().max() < 1e-5
    assert item.pos.norm(dim=1).max() == pytest.approx(1, abs=1e-6)
    # up, which is the third axis of the mesh, is the second here
    assert (item.pos.amax(dim=0) - item.pos.amin(dim=0)).argsort().tolist() == [0, 2, 1]
    # normals stand on the sides of the box, each axis as often as its sides are large
    length = item.normal.abs()
    assert torch.allclose(length.amax(dim=1), torch.ones(500))
    share = length.argmax(dim=1).bincount().float() / 500
    assert torch.allclose(share, torch.tensor([8.0, 2, 4]) / 14, atol=0.08)
    assert ModelNet40(root, "test", form="meshes", num_points=8, sizes=MESHES_SIZES)[39].y == 39


def test_up_becomes_the_second_axis_and_nothing_is_mirrored(folder):
    # One triangle without any symmetry, in a plane that no axis is in.
    corners = torch.tensor([[0.0, 0, 0], [0, 3, 1], [6, 3, 8]])
    (folder / "class00" / "train" / "class00_0001.off").write_text(
        off(corners.tolist(), [[0, 1, 2]])
    )
    item = ModelNet40(folder, form="meshes", num_points=4000, sizes=MESHES_SIZES)[0]
    x, y, z = corners.unbind(dim=1)
    turned = torch.stack([x, z, -y], dim=1)
    normal = torch.linalg.cross(turned[1] - turned[0], turned[2] - turned[0])
    normal = normal / normal.norm()
    assert torch.allclose(item.normal, normal.expand(4000, 3), atol=1e-6)
    assert (item.pos @ normal).abs().max() < 1e-5
    turned = turned - turned.mean(dim=0)
    turned = turned / turned.norm(dim=1).max()
    assert torch.allclose(item.pos.amax(dim=0), turned.amax(dim=0), atol=0.05)
    assert torch.allclose(item.pos.amin(dim=0), turned.amin(dim=0), atol=0.05)


def test_two_thousand_points_by_default(folder):
    data = ModelNet40(folder, form="meshes", sizes=MESHES_SIZES)
    assert data.num_points == 2048 and data[0].pos.size(0) == 2048


def test_drawn_from_the_seed_and_the_name(folder, monkeypatch):
    def read(seed=None):
        torch.manual_seed(17)
        return ModelNet40(folder, form="meshes", num_points=64, seed=seed, sizes=None)

    first, state = read(), torch.get_rng_state()
    torch.manual_seed(17)
    assert torch.equal(state, torch.get_rng_state())  # the caller's generator stays
    again = read(0)
    assert torch.equal(first[5].pos, again[5].pos)
    other = read(1)
    assert other.name == "ModelNet40 meshes, sampled with seed 1"
    assert not torch.equal(first[5].pos, other[5].pos)
    assert not torch.equal(first[0].pos, first[1].pos)  # the same box under another name
    (folder / "class00" / "train" / "class00_0001.off").unlink()  # what follows stays as it was
    assert torch.equal(read()[4].pos, first[5].pos)
    calls, sample = [], module._sample_mesh
    monkeypatch.setattr(module, "_sample_mesh", lambda *a: calls.append(a) or sample(*a))
    read()
    assert not calls
    mesh = folder / "class07" / "train" / "class07_0001.off"
    mesh.write_text(off(np.array(VERTICES) * [1, 2, 3]))
    read()
    assert len(calls) == 40


def test_folder_of_pyg(folder, tmp_path):
    folder.rename(tmp_path / "raw")
    assert len(ModelNet40(tmp_path, form="meshes", num_points=4, sizes=MESHES_SIZES)) == 41


def test_mesh_without_a_line_end_at_its_end(one):
    assert module.read_mesh(one(off(end=""))).face.size(1) == 12
    squares = module.read_mesh(one(off(faces=SQUARES, head="OFF \n# a box\n\n")))
    assert squares.face.size(1) == 12


@pytest.mark.parametrize(("faces", "area"), [
    ([[0, 1, 2, 3, 4]], 10.0),  # not convex
    ([[0, 1, 2, 3, 4], [0, 1, 2], [4, 3]], 18.0),  # beside a triangle, and an edge
    ([[0, 3, 4, 5]], 3.0),  # a quad whose last corner points inwards
])  # fmt: skip
def test_polygons_count_whole_and_alone(one, faces, area):
    flat = [[0, 0, 3], [4, 0, 3], [4, 4, 3], [2, 1, 3], [0, 4, 3], [0.5, 1.5, 3]]
    mesh = module.read_mesh(one(off(flat, faces)))
    a, b, c = mesh.pos.double()[mesh.face]
    assert mesh.pos.shape == (6, 3) and mesh.pos.dtype == torch.float32
    assert float((b - a).cross(c - a, dim=1).norm(dim=1).sum() / 2) == pytest.approx(area)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "does not begin with OFF"),
        ("ply\n", "does not begin with OFF"),
        ("OFF\n", ""),
        (off()[:60], "announced, 7 there"),
        (off().rsplit("\n", 2)[0] + "\n", "20 vertices and faces announced, 19 there"),
        (off(faces=[[0, 1, 8]]), "a face has vertex 8 as a corner, of 8"),
        (off(faces=[[0, 1, -1]]), "a face has vertex -1 as a corner"),
        (off(faces=[[0, 1]]), "no triangles"),
        (off(faces=[]), "no triangles"),
        (off().replace("5.5", "five"), ""),
        ("OFF\nmany 1 0\n", ""),
    ],
)
def test_damaged_mesh(one, text, message):
    with pytest.raises(
        ValueError, match=f"a.off is damaged, ends early or is no .off file: .*{message}"
    ):
        module.read_mesh(one(text))


@pytest.mark.parametrize("vertices", [np.zeros((8, 3)), [["nan"] * 3, *VERTICES[1:]]])
def test_mesh_without_a_surface(folder, vertices):
    (folder / "class07" / "train" / "class07_0001.off").write_text(off(vertices))
    with pytest.raises(ValueError, match=r"class07_0001.off: its surface is empty, or a vertex"):
        ModelNet40(folder, form="meshes", sizes=MESHES_SIZES)
    assert not list(folder.glob("*.safetensors"))


def test_classes_and_numbers_are_checked(folder):
    with pytest.raises(ValueError, match="train split has 41 clouds, not 9,843"):
        ModelNet40(folder, form="meshes", num_points=2)
    (folder / "class39" / "train").rename(folder / "class39" / "training")
    with pytest.raises(ValueError, match="names 39 classes, expected 40"):
        ModelNet40(folder, form="meshes")


def test_no_mesh_of_a_split(folder):
    for path in folder.glob("*/test/*.off"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"no mesh in .*: expected CLASS/test/\*.off"):
        ModelNet40(folder, "test", form="meshes")
