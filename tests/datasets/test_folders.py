from __future__ import annotations

import warnings

import pytest

from pointcluster.datasets.folders import (
    files_below,
    files_of,
    first_readable,
    folders_of,
    listed,
    subfolders,
)


@pytest.fixture
def root(tmp_path):
    for name in ("b/1.PLY", "b/deep/2.ply", "a/.3.ply", "a/4.txt", ".c/5.ply", "6.ply"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b" / "folder.ply").mkdir()
    return tmp_path


def test_folders_and_files(root):
    assert subfolders(root) == ["a", "b"] and subfolders(root / "nowhere") == []
    assert files_of(root / "b", (".ply",)) == ["1.PLY"] and files_of(root / "a", (".ply",)) == []
    assert files_of(root / "a", (".ply", ".txt")) == ["4.txt"]


def test_files_below_each_once(root):
    (root / "a" / "back").symlink_to(root)
    (root / "a" / "7.ply").symlink_to(root / "nowhere")
    found = list(files_below(root, (".ply",)))
    assert len(found) == 4 and set(found) == {"b/1.PLY", "b/deep/2.ply", "6.ply", "a/7.ply"}


def test_messages():
    assert listed(["a", "b", "c"]) == "a, b, c" and listed([*"abcde"]) == "a, b, c and 2 more"
    assert folders_of(["b/1", "b/2", "3", "a/c/4"]) == "a/c, b, the root itself"


def test_the_first_that_can_be_read():
    def read(place):
        if place % 3:
            raise ValueError(f"{place} is damaged")
        return -place

    known = {1}
    with pytest.warns(UserWarning, match="^skipped: 2 is damaged$"):
        assert first_readable(iter([1, 2, 3]), read, known, skip=True) == (3, -3)
    assert known == {1, 2}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert first_readable(iter([1, 2]), read, known, skip=True) is None
    with pytest.raises(ValueError, match="4 is damaged"):
        first_readable(iter([4, 3]), read, known, skip=False)
