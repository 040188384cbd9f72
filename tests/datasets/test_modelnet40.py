from __future__ import annotations

import h5py
import numpy as np
import pytest
import torch

from pointcluster.datasets import ModelNet40
from pointcluster.datasets import modelnet40 as module

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
