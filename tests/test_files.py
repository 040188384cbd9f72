from __future__ import annotations

import os
import resource
import subprocess
import sys

import pytest

from pointcluster import files
from pointcluster.files import bundled_folder, check_bundled, replacing, write_whole


def test_what_was_written_takes_the_old_files_place(tmp_path):
    path = tmp_path / "more" / "a.json"
    write_whole(path, "one")
    write_whole(path, b"two")
    assert path.read_bytes() == b"two" and os.listdir(path.parent) == ["a.json"]
    old = os.umask(0o027)
    try:
        write_whole(path, "three")
    finally:
        os.umask(old)
    if sys.platform == "linux":
        assert path.stat().st_mode & 0o777 == 0o640


def test_where_writing_fails_the_old_file_stays(tmp_path):
    path = tmp_path / "a.json"
    write_whole(path, "one")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        assert temporary.suffix == ".json" and temporary.parent == tmp_path
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "one" and os.listdir(tmp_path) == ["a.json"]


def test_it_is_on_the_disk_before_it_has_the_name(tmp_path, monkeypatch):
    seen = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: seen.append("fsync") or fsync(handle))
    monkeypatch.setattr(os, "replace", lambda a, b: seen.append("replace") or replace(a, b))
    write_whole(tmp_path / "a", "one")
    assert seen == ["fsync", "replace", "fsync"]


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files as Linux does")
def test_a_file_that_has_no_room(tmp_path):
    path = tmp_path / "a"
    write_whole(path, "one")
    code = f"""
import resource, runpy, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, {resource.RLIM_INFINITY}))
try:  # the file alone, without what the package imports
    runpy.run_path({files.__file__!r})["write_whole"]({str(path)!r}, bytes(5000))
except OSError as error:
    print(error.strerror)
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True,
                          text=True, timeout=200)  # fmt: skip
    assert done.stdout == "File too large\n", done.stderr
    assert path.read_text() == "one" and os.listdir(tmp_path) == ["a"]


# --- what comes with the package -----------------------------------------------------------------


def test_checkout():
    folder = bundled_folder("fashion_mnist", "LICENSE")
    assert folder.parts[-2:] == ("datasets", "fashion_mnist")


def test_where_a_wheel_puts_it(monkeypatch, tmp_path):
    module = tmp_path / "lib" / "pointcluster" / "files.py"
    monkeypatch.setattr(files, "__file__", str(module))
    monkeypatch.setattr(files.sys, "prefix", str(tmp_path / "prefix"))
    monkeypatch.setattr(files.site, "getuserbase", lambda: str(tmp_path / "user"))
    with pytest.raises(FileNotFoundError, match="data did not come with this installation; looked"):
        bundled_folder("shapes", "data")
    for base in ("lib", "user", "prefix"):  # the later ones go before
        folder = tmp_path / base / "share" / "pointcluster" / "shapes"
        folder.mkdir(parents=True)
        (folder / "data").touch()
        assert bundled_folder("shapes", "data") == folder


def test_a_bundled_file_of_another_content(tmp_path):
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    check_bundled(tmp_path / "a", b"abc", digest)
    with pytest.raises(ValueError, match="/a is not the file .* SHA-256 is .*, expected ba7816bf"):
        check_bundled(tmp_path / "a", b"abd", digest)
