from __future__ import annotations

import os

import pytest
import torch

from pointcluster.datasets.cloud_dataset import cached, fingerprint


@pytest.fixture
def make():
    def call():
        call.calls += 1
        return {"pos": torch.arange(24.0).view(2, 4, 3), "y": torch.tensor([1, call.calls])}

    call.calls = 0
    return call


def test_made_once_for_each_key(tmp_path, make):
    path = tmp_path / "train.safetensors"
    first = cached(path, "a", make)
    second = cached(path, "a", make)
    assert make.calls == 1 and all(torch.equal(first[key], second[key]) for key in first)
    assert cached(path, "b", make)["y"].tolist() == [1, 2]
    assert [file.name for file in tmp_path.iterdir()] == ["train.safetensors"]


@pytest.mark.parametrize("first", [1, 3, 4, 9])
def test_first_points(tmp_path, make, first):
    for _ in range(2):  # made, then read
        tensors = cached(tmp_path / "a", "key", make, first=first)
        assert torch.equal(tensors["pos"], make()["pos"][:, :first])
        assert tensors["pos"].is_contiguous() and tensors["y"].shape == (2,)


@pytest.mark.parametrize("content", [b"", b"no such file", bytes(1000)])
def test_damaged_file_is_made_anew(tmp_path, make, content):
    (tmp_path / "a").write_bytes(content)
    cached(tmp_path / "a", "key", make)
    cached(tmp_path / "a", "key", make)
    assert make.calls == 1


def test_folder_that_cannot_be_written(tmp_path, make):
    (tmp_path / "a").mkdir()  # in the way: the file cannot be renamed to it
    with pytest.warns(UserWarning, match="cannot be written, the files will be read again"):
        assert cached(tmp_path / "a", "key", make)["pos"].shape == (2, 4, 3)
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


def test_interrupted_reading_leaves_nothing(tmp_path):
    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached(tmp_path / "a", "key", stop)
    assert not list(tmp_path.iterdir())


def test_fingerprint_follows_the_files(tmp_path):
    files = [tmp_path / name for name in "ab"]
    for file in files:
        file.write_text("x")
    seen = {fingerprint(files), fingerprint(files, 1), fingerprint(files[::-1])}
    os.utime(files[0], ns=(1, 1))
    seen.add(fingerprint(files))
    files[0].write_text("xy")
    os.utime(files[0], ns=(1, 1))
    seen.add(fingerprint(files))
    assert len(seen) == 5
    assert fingerprint(files) == fingerprint(files)
