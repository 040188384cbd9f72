from __future__ import annotations

import hashlib
import importlib.util
import socket
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from pointcluster.datasets import ModelNet40, ScanObjectNN, fetch, modelnet40, scanobjectnn

PROGRAM = Path(__file__).resolve().parents[2] / "datasets" / "fetch.py"


@pytest.fixture
def program(tmp_path, monkeypatch):
    """The program as a module, in a data room of its own."""
    spec = importlib.util.spec_from_file_location("fetch_program", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROOM", tmp_path / "room")
    return module


def clouds(path, count):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["data"] = np.random.default_rng(0).normal(size=(count, 2048, 3)).astype("float32")
        file["label"] = np.arange(count, dtype="uint8")[:, None]


def pack(folder, archive, top=""):
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(folder.rglob("*.*")):
            file.write(path, top + path.relative_to(folder).as_posix())
    return archive


@pytest.fixture
def archive(tmp_path):
    """A miniature of ModelNet40's HDF5 form."""
    folder = tmp_path / "small"
    clouds(folder / "train.h5", 3)
    clouds(folder / "test.h5", 2)
    (folder / "shape_names.txt").write_text("\n".join(f"class{i}" for i in range(40)))
    for split in ("train", "test"):
        (folder / f"{split}_files.txt").write_text(f"x/{split}.h5")
    return pack(folder, tmp_path / "small.zip", "modelnet40_ply_hdf5_2048/")


def serve(monkeypatch, archive):
    """Downloads give an archive, and note the addresses."""
    asked = []

    def download(urls, path):
        asked.extend(urls)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(archive.read_bytes())
        return fetch.check_digest(path, path.with_name(path.name + ".sha256"))

    monkeypatch.setattr(fetch, "download", download)
    return asked, download


def test_lists_what_there_is(program, capsys):
    assert program.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["modelnet40", "scanobjectnn", "imagenet"]
    assert all("not yet" in line for line in lines)
    (program.ROOM / "imagenet" / "train").mkdir(parents=True)
    (program.ROOM / "imagenet" / "val").mkdir()
    assert program.main([]) == 0
    assert "imagenet      here" in capsys.readouterr().out


def test_fetches_modelnet40(program, archive, monkeypatch, capsys):
    asked, _ = serve(monkeypatch, archive)
    published = modelnet40.FORMS["hdf5"]
    monkeypatch.setitem(modelnet40.FORMS, "hdf5", (*published[:3], (3, 2)))
    assert program.main(["modelnet40"]) == 0
    assert tuple(asked) == modelnet40.MIRRORS
    printed = capsys.readouterr().out.splitlines()
    assert "ModelNet40 HDF5, 2,048 points: 3 clouds for train" in printed[0]
    assert "2 clouds for test" in printed[1]
    folder = program.ROOM / "modelnet40"
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    assert digest in (folder / "modelnet40_ply_hdf5_2048.zip.sha256").read_text()
    assert len(ModelNet40(folder)) == 3
    # what is there is checked, not fetched again
    assert program.main(["modelnet40"]) == 0 and tuple(asked) == modelnet40.MIRRORS
    (folder / "modelnet40_ply_hdf5_2048" / "train.h5").write_bytes(b"")
    assert program.main(["modelnet40"]) == 2
    assert "is truncated or is no HDF5" in capsys.readouterr().err


def test_another_address(program, archive, tmp_path, monkeypatch, capsys):
    asked, _ = serve(monkeypatch, archive)
    root = tmp_path / "elsewhere"
    command = ["modelnet40", "--root", str(root), "--url", "https://example.org/a.zip"]
    assert program.main(command) == 2  # three clouds are not ModelNet40
    error = capsys.readouterr().err
    assert "has 3 clouds, not 9,840" in error and error.count("\n") == 1
    assert asked == ["https://example.org/a.zip"]
    assert modelnet40.find_modelnet40(root)


def test_where_nothing_can_be_reached(program, monkeypatch, capsys):
    def unknown(*args, **options):
        raise socket.gaierror("no such host")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setenv("NO_PROXY", "*")
    assert program.main(["modelnet40"]) == 2
    printed, error = capsys.readouterr()
    assert error.startswith("fetch.py: ModelNet40 could not be fetched") and error.count("\n") == 1
    assert "To get ModelNet40 by hand" in printed
    assert all(url in printed for url in modelnet40.MIRRORS)


@pytest.mark.parametrize(
    ("name", "text"),
    [("scanobjectnn", "hkust-vgd.github.io/scanobjectnn"), ("imagenet", "prepare.py unpack")],
)
def test_what_is_fetched_by_hand(program, monkeypatch, capsys, name, text):
    monkeypatch.setattr(program, "download", lambda *a: pytest.fail("nothing is to be fetched"))
    assert program.main([name]) == 1
    printed, error = capsys.readouterr()
    assert text in printed and "terms" in printed and error == ""
    assert not program.ROOM.exists()


def test_scanobjectnn_from_an_address_of_ones_own(program, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "small"
    for split, count in (("training", 3), ("test", 2)):
        clouds(folder / "main_split" / f"{split}_{scanobjectnn.VARIANTS['PB_T50_RS']}", count)
    archive = pack(folder, tmp_path / "small.zip", "h5_files/")
    asked, download = serve(monkeypatch, archive)
    monkeypatch.setattr(program, "download", download)
    monkeypatch.setitem(scanobjectnn.PUBLISHED, "PB_T50_RS", (3, 2))
    command = ["scanobjectnn", "--url", "https://example.org/h5_files.zip"]
    with pytest.raises(SystemExit) as stopped:
        program.main(command)
    assert stopped.value.code == 2 and not asked
    error = capsys.readouterr().err
    assert "terms of use" in error and error.count("\n") == 1
    assert program.main([*command, "--accept-terms"]) == 0
    printed = capsys.readouterr().out
    assert hashlib.sha256(archive.read_bytes()).hexdigest() in printed
    assert "PB_T50_RS with background, main split, 2,048 points: 3 clouds for train" in printed
    assert "ScanObjectNN OBJ_ONLY: no file for test" in printed
    assert len(ScanObjectNN(program.ROOM / "scanobjectnn", "test")) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mnist"], "there is no 'mnist': choose one of modelnet40, scanobjectnn, imagenet"),
        (["--root", "x"], "which data set?"),
        (["modelnet40", "--url", "http://a.org/b.zip"], "expected an address that begins with"),
        (["imagenet", "--url", "https://a.org/b.zip"], "imagenet is three archives"),
        (["modelnet40", "--fast"], "unrecognized arguments: --fast"),
    ],
)
def test_what_is_wrong_is_one_line(program, capsys, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        program.main(arguments)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("fetch.py: ") and message in error and error.count("\n") == 1


def test_help(program, capsys):
    with pytest.raises(SystemExit) as stopped:
        program.main(["--help"])
    assert stopped.value.code == 0
    printed = capsys.readouterr().out
    assert "--accept-terms" in printed and "Exit status" in printed


def test_ctrl_c(program, monkeypatch, capsys):
    def stop(urls, path):
        raise KeyboardInterrupt

    monkeypatch.setattr(fetch, "download", stop)
    assert program.main(["modelnet40"]) == 130
    assert "goes on from here" in capsys.readouterr().err
