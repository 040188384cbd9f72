from __future__ import annotations

import sys

import h5py
import numpy as np
import pytest

from pointcluster.datasets.readers.h5 import read_h5

CHUNKS = {"chunks": (1, 2048, 3)}


@pytest.fixture
def path(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"] = np.zeros((2, 2048, 3), dtype="float32")
        file["label"] = np.array([0, 2], dtype="uint8")
        file["mask"] = np.zeros((2, 2048))
        file["normal"] = np.full((2, 2048, 3), 2, dtype="float32")
    return tmp_path / "a.h5"


def replace(path, name, value):
    with h5py.File(path, "a") as file:
        del file[name]
        file[name] = value


def test_arrays(path):
    assert set(read_h5(path, 3)) == {"pos", "y"}
    read = read_h5(path, 3, mask=True)
    assert read["pos"].shape == (2, 2048, 3) and read["y"].tolist() == [0, 2]
    assert read["y"].dtype == np.int64 and read["mask"].shape == (2, 2048)
    read = read_h5(path, 3, normal=True)
    assert set(read) == {"pos", "y", "normal"} and read["normal"].dtype == np.float32
    assert np.allclose(read["normal"], 3**-0.5)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("label", np.array([0.5, 1]), r"'label' is float64 \[2\], expected integers \[2, 1\]"),
        ("label", np.array([0, 3]), "go from 0 to 3, expected 0 to 2"),
        ("mask", np.zeros((2, 7)), r"'mask' is float64 \[2, 7\], expected numbers \[2, 2048\]"),
        ("normal", np.zeros((2, 2048)), r"'normal' is float64 \[2, 2048\], expected float32"),
        ("normal", np.zeros((2, 2048, 3), dtype="int32"), r"'normal' is int32 .*expected float32"),
        ("normal", np.full((2, 2048, 3), np.nan), "cloud 0 has NaN or infinite normals"),
        ("data", np.zeros((2, 2048, 3)), r"float64 .*expected float32 \[n, 2048, 3\]"),
        ("data", np.zeros((0, 2048, 3), dtype="float32"), "holds no cloud"),
    ],
)
def test_arrays_of_another_form(path, name, value, message):
    replace(path, name, value)
    with pytest.raises(ValueError, match=message):
        read_h5(path, 3, mask=True, normal=True)


@pytest.mark.parametrize("options", [{}, CHUNKS, CHUNKS | {"compression": "gzip"}])
def test_more_clouds_than_are_there_take_no_memory(path, options):
    with h5py.File(path, "a") as file:
        del file["data"]
        data = file.create_dataset("data", (10**8, 2048, 3), "float32", **options)
        if options:  # one cloud is there
            data[7] = 1
    assert path.stat().st_size < 1e6
    with pytest.raises(
        ValueError, match=r"a\.h5: 'data' announces 100,000,000 clouds, 2,4.* holds"
    ):
        read_h5(path, 3)


@pytest.mark.parametrize("key", ["data", "label", "mask", "normal"])
def test_an_array_of_another_form_takes_no_memory(path, key):
    with h5py.File(path, "a") as file:
        del file[key]
        file.create_dataset(key, (10**8, 2048, 4), "float32", chunks=(1, 2048, 4))
    with pytest.raises(ValueError, match=rf"a\.h5: '{key}' is float32 \[100000000, 2048, 4\], exp"):
        read_h5(path, 3, mask=True, normal=True)


@pytest.mark.parametrize("key", ["data", "label"])
def test_an_empty_array(path, key):
    replace(path, key, h5py.Empty("float32"))
    with pytest.raises(ValueError, match=rf"a\.h5: '{key}' is float32 \[\], expected"):
        read_h5(path, 3)


@pytest.mark.parametrize("compression", ["gzip", "lzf"])
def test_arrays_that_are_compressed_as_far_as_it_goes(path, compression):
    with h5py.File(path, "a") as file:
        del file["data"]
        data = np.zeros((2, 2048, 3), "float32")
        file.create_dataset("data", data=data, compression=compression, shuffle=True)
    assert read_h5(path, 3)["pos"].shape == (2, 2048, 3)


def test_an_array_made_of_parts_of_another_file(path, tmp_path):
    layout = h5py.VirtualLayout((2, 2048, 3), "float32")
    path.rename(tmp_path / "b.h5")
    layout[:] = h5py.VirtualSource(tmp_path / "b.h5", "data", (2, 2048, 3))
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("data", layout)
        file["label"] = [0, 2]
    assert read_h5(path, 3)["pos"].shape == (2, 2048, 3)


def test_more_than_there_is_memory_for(path, monkeypatch):
    def full(*args):
        raise MemoryError("Unable to allocate 2.2 TiB")

    monkeypatch.setattr(h5py.Dataset, "__getitem__", full)
    with pytest.raises(ValueError, match=r"a\.h5 announces more .* memory for: Unable to allocate"):
        read_h5(path, 3)


def test_a_group(path):
    with h5py.File(path, "a") as file:
        del file["label"]
        file.create_group("label")
    with pytest.raises(ValueError, match="'label' is a group"):
        read_h5(path, 3)


@pytest.mark.parametrize("key", ["data", "label", "mask"])
@pytest.mark.parametrize(
    ("link", "target"),
    [
        (h5py.SoftLink("/gone"), "'/gone'"),
        (h5py.ExternalLink("gone.h5", "/there"), r"'/there' in gone\.h5"),
    ],
)
def test_a_link_to_nothing(path, key, link, target):
    replace(path, key, link)
    message = rf"a\.h5: '{key}' is a link to {target}, which is not there"
    with pytest.raises(ValueError, match=message):
        read_h5(path, 3, mask=True)


def test_a_link_to_an_array(path):
    with h5py.File(path, "a") as file:
        file["other"] = file["label"][()]
    replace(path, "label", h5py.SoftLink("/other"))
    assert read_h5(path, 3)["y"].tolist() == [0, 2]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_mask_that_is_not_finite(path, value):
    mask = np.zeros((2, 2048))
    mask[1, 7] = value
    replace(path, "mask", mask)
    with pytest.raises(ValueError, match=r"a\.h5: cloud 1 has a 'mask' that is NaN or infinite"):
        read_h5(path, 3, mask=True)


def test_without_h5py(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match="pip install h5py"):
        read_h5(path, 3)
