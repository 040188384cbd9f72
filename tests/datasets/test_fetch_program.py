from __future__ import annotations

import hashlib
import importlib.util
import socket
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from torch_geometric.datasets import ModelNet

from pointcluster.datasets import (
    ModelNet40,
    ScanObjectNN,
    fetch,
    modelnet40,
    scanobjectnn,
)

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
        file["faceId"] = np.zeros((count, 2048), dtype="int32")
        file["normal"] = np.ones((count, 2048, 3), dtype="float32")


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

    def download(urls, path, check=lambda path: None):
        asked.extend(urls)
        check(archive)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(archive.read_bytes())
        return fetch.check_digest(path, path.with_name(path.name + ".sha256"))

    monkeypatch.setattr(fetch, "download", download)
    return asked, download


def test_lists_what_there_is(program, capsys):
    assert program.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [
        "modelnet40", "modelnet40_resampled", "modelnet40_meshes", "scanobjectnn", "imagenet",
    ]  # fmt: skip
    assert all("not yet" in line for line in lines)
    (program.ROOM / "imagenet" / "train").mkdir(parents=True)
    (program.ROOM / "imagenet" / "val").mkdir()
    assert program.main([]) == 0
    assert "imagenet             here" in capsys.readouterr().out


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
    # what is not whole is unpacked again from the archive, where that is there
    damaged = folder / "modelnet40_ply_hdf5_2048" / "train.h5"
    damaged.write_bytes(b"")
    assert program.main(["modelnet40"]) == 0 and tuple(asked) == modelnet40.MIRRORS
    damaged.write_bytes(b"")
    (folder / "modelnet40_ply_hdf5_2048.zip").unlink()
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
    [
        ("scanobjectnn", "accept its authors' terms of use"),
        ("imagenet", "agree to its terms"),
        ("modelnet40_resampled", "modelnet40_resampled --root THE_ARCHIVE"),
        ("modelnet40_meshes", "modelnet40_meshes --pyg"),
    ],
)
def test_what_is_fetched_by_hand(program, monkeypatch, capsys, name, text):
    monkeypatch.setattr(program, "download_with_pyg", lambda *a: pytest.fail("not asked for"))
    monkeypatch.setattr(program, "download", lambda *a: pytest.fail("nothing is to be fetched"))
    assert program.main([name]) == 1
    printed, error = capsys.readouterr()
    assert text in printed and error == ""
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
    assert "ScanObjectNN main_split: no file of OBJ_BG for train, OBJ_BG for test" in printed
    for folder in ("main_split_nobg", "split1", "split4_nobg"):
        assert f"ScanObjectNN {folder}: no file\n" in printed
    assert len(ScanObjectNN(program.ROOM / "scanobjectnn", "test")) == 2


def test_scanobjectnn_is_checked_in_all_parts(program, tmp_path, monkeypatch, capsys):
    sizes = {"split3": (4, 3), "main_split": (4, 3)}
    monkeypatch.setattr(scanobjectnn, "PARTS", scanobjectnn.PARTS | sizes)
    monkeypatch.setattr(scanobjectnn, "PUBLISHED", {})
    name = scanobjectnn.VARIANTS["PB_T25"]
    clouds(tmp_path / "small" / "split3_nobg" / f"training_{name}", 15)
    clouds(tmp_path / "small" / "split3" / "test_objectdataset.h5", 3)
    archive = pack(tmp_path / "small", tmp_path / "h5_files.zip", "h5_files/")
    for root in (tmp_path / "small", archive):
        with monkeypatch.context() as patch:  # fifteen of the twenty that are possible are too few
            patch.setattr(scanobjectnn, "_bounds", lambda *a: (3, 15))
            assert program.main(["scanobjectnn", "--root", str(root)]) == 0
        printed = capsys.readouterr().out
        assert "PB_T25 without background, split 3, 2,048 points: 15 clouds for train" in printed
        assert "OBJ_BG with background, split 3, 2,048 points: 3 clouds for test" in printed
        assert "ScanObjectNN split3_nobg: no file of OBJ_ONLY for train, OBJ_ONLY for test, " in (
            printed
        )
        assert "ScanObjectNN main_split: no file\n" in printed
        assert program.main(["scanobjectnn", "--root", str(root)]) == 2
        assert "has 15 clouds, expected 19 to 20" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"<!DOCTYPE html><title>Sign in</title>", None])
def test_what_is_not_scanobjectnn_is_not_kept(
    program, archive, tmp_path, monkeypatch, capsys, content
):
    """A page, or an archive of something else, at the address that was given."""
    name = f"test_{scanobjectnn.VARIANTS['PB_T50_RS']}"
    clouds(tmp_path / "made" / "main_split" / name, 2)
    good = pack(tmp_path / "made", tmp_path / "good.zip", "h5_files/")
    monkeypatch.setitem(scanobjectnn.PUBLISHED, "PB_T50_RS", (3, 2))
    answers = [archive.read_bytes() if content is None else content, good.read_bytes()]

    def answer(session, url, part, timeout):
        part.write_bytes(answers.pop(0))

    monkeypatch.setattr(fetch, "_download_one", answer)
    root = tmp_path / "root"
    command = ["scanobjectnn", "--root", str(root), "--accept-terms", "--url", "https://a.org/b"]
    assert program.main(command) == 2
    printed, error = capsys.readouterr()
    assert "no mirror gave the file" in error and "what came is not the file: " in printed
    assert list(root.iterdir()) == []
    assert program.main(command) == 0 and not answers
    assert "2 clouds for test" in capsys.readouterr().out


def test_a_page_that_is_here_already_is_fetched_again(program, tmp_path, monkeypatch, capsys):
    clouds(tmp_path / "made" / "main_split" / f"test_{scanobjectnn.VARIANTS['PB_T50_RS']}", 2)
    good = pack(tmp_path / "made", tmp_path / "good.zip", "h5_files/")
    monkeypatch.setitem(scanobjectnn.PUBLISHED, "PB_T50_RS", (3, 2))
    asked, download = serve(monkeypatch, good)
    monkeypatch.setattr(program, "download", download)
    (tmp_path / "h5_files.zip").write_text("<!DOCTYPE html>")
    command = ["scanobjectnn", "--root", str(tmp_path)]
    assert program.main(command) == 2
    assert "is not a whole zip archive: File is not a zip file (delete it, and fetch it again)" in (
        capsys.readouterr().err
    )
    assert program.main([*command, "--accept-terms", "--url", "https://a.org/b"]) == 0
    assert asked == ["https://a.org/b"]


def test_a_mirror_of_modelnet40_that_sends_a_page_is_passed_over(
    program, archive, tmp_path, monkeypatch
):
    published = modelnet40.FORMS["hdf5"]
    monkeypatch.setitem(modelnet40.FORMS, "hdf5", (*published[:3], (3, 2)))
    answers = [b"<!DOCTYPE html>", archive.read_bytes()]

    def answer(session, url, part, timeout):
        part.write_bytes(answers.pop(0))

    monkeypatch.setattr(fetch, "_download_one", answer)
    assert program.main(["modelnet40", "--root", str(tmp_path / "root")]) == 0 and not answers


def test_another_archive_is_not_scanobjectnn(program, archive, tmp_path, capsys):
    other = archive.rename(tmp_path / "h5_files.zip")
    for root in (tmp_path, other):
        assert program.main(["scanobjectnn", "--root", str(root)]) == 2
        printed, error = capsys.readouterr()
        assert f"{other} holds none of ScanObjectNN's files" in error and error.count("\n") == 1
        assert error.endswith("it is something else, delete or rename it\n")
        assert printed.count("no file\n") == 10


def test_one_file_twice_in_an_archive(program, tmp_path, capsys):
    for folder in ("a", "b"):
        name = f"test_{scanobjectnn.VARIANTS['PB_T50_RS']}"
        clouds(tmp_path / "small" / folder / "main_split" / name, 2)
    archive = pack(tmp_path / "small", tmp_path / "h5_files.zip")
    assert program.main(["scanobjectnn", "--root", str(archive)]) == 2
    assert "holds a/main_split/test_" in capsys.readouterr().err


@pytest.fixture
def other(tmp_path, monkeypatch):
    """Makes a miniature of one of ModelNet40's other forms, in a folder of its name."""

    def make(form):
        label, name, sign, _ = modelnet40.FORMS[form]
        monkeypatch.setitem(modelnet40.FORMS, form, (label, name, sign, (40, 40)))
        folder, classes = tmp_path / "made" / name, [f"class{i}" for i in range(40)]
        mesh = "OFF\n4 2 0\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n3 0 1 2\n3 0 1 3\n"
        for split in ("train", "test"):
            for i in range(40):
                path = folder / f"class{i}" / split / f"class{i}_{split}.off"
                path = path if form == "meshes" else path.parents[1] / f"{path.stem}.txt"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(mesh if form == "meshes" else f"{i},1,2,0,0,1\n2,{i},1,0,1,0\n")
            if form == "resampled":
                shapes = "\n".join(f"{name}_{split}" for name in classes)
                (folder / f"modelnet40_{split}.txt").write_text(shapes)
        if form == "resampled":
            (folder / "modelnet40_shape_names.txt").write_text("\n".join(classes))
            monkeypatch.setattr(modelnet40, "POINTS", 2)
        return folder

    return make


@pytest.mark.parametrize("given", ["archive", "folder of the archive", "folder"])
@pytest.mark.parametrize("form", ["resampled", "meshes"])
def test_other_forms_that_one_has(program, other, tmp_path, capsys, form, given):
    folder, place = other(form), tmp_path / "place"
    name = f"modelnet40_{form}"
    place.mkdir()
    if given == "folder":
        root, place = folder, folder.parent
    else:
        archive = "fetched.zip" if given == "archive" else f"{folder.name}.zip"
        archive = pack(folder, place / archive, f"{folder.name}/")
        root = archive if given == "archive" else place
    assert program.main([name, "--root", str(root)]) == 0
    printed = capsys.readouterr().out
    assert f"ModelNet40 {form}" in printed and f"40 clouds for test in {place / folder.name}" in (
        printed
    )
    # a file that is lost is unpacked again where the archive is there
    lost = "class7/test/class7_test.off" if form == "meshes" else "class7/class7_test.txt"
    (place / folder.name / lost).unlink()
    assert program.main([name, "--root", str(root)]) == (2 if given == "folder" else 0)


@pytest.mark.parametrize("damage", ["cut", "another"])
@pytest.mark.parametrize("form", ["resampled", "meshes"])
def test_archive_of_another_form_that_is_damaged(program, other, archive, capsys, form, damage):
    folder = other(form)
    root = pack(folder, archive.parent / "fetched.zip") if damage == "cut" else archive
    if damage == "cut":
        root.write_bytes(root.read_bytes()[:-500])
    assert program.main([f"modelnet40_{form}", "--root", str(root)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "delete" in error and str(root) in error
    assert not (root.parent / folder.name).exists()


def test_meshes_from_an_address_of_ones_own(program, other, tmp_path, monkeypatch, capsys):
    archive = pack(other("meshes"), tmp_path / "a.zip", "ModelNet40/")
    asked, download = serve(monkeypatch, archive)
    monkeypatch.setattr(program, "download", download)
    assert program.main(["modelnet40_meshes", "--url", "https://example.org/a.zip"]) == 0
    assert asked == ["https://example.org/a.zip"]
    assert hashlib.sha256(archive.read_bytes()).hexdigest() in capsys.readouterr().out
    assert (program.ROOM / "modelnet40" / "ModelNet40" / "class0").is_dir()


def test_meshes_by_pyg_where_asked_for(program, other, tmp_path, monkeypatch, capsys):
    archive = pack(other("meshes"), tmp_path / "a.zip", "ModelNet40/")
    asked = []

    def download_url(url, folder):
        asked.append(url)
        path = Path(folder) / "ModelNet40.zip"
        path.write_bytes(archive.read_bytes())
        return str(path)

    monkeypatch.setattr("torch_geometric.data.download_url", download_url)
    assert program.main(["modelnet40_meshes", "--pyg"]) == 0
    assert program.main(["modelnet40_meshes", "--pyg"]) == 0
    assert asked == [ModelNet.urls["40"]]
    assert hashlib.sha256(archive.read_bytes()).hexdigest() in capsys.readouterr().out
    assert sorted(path.name for path in (program.ROOM / "modelnet40").iterdir()) == [
        "ModelNet40", "ModelNet40.zip", "ModelNet40.zip.sha256",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mnist"], "there is no 'mnist': choose one of modelnet40, modelnet40_resampled, "),
        (["modelnet40", "--pyg"], "--pyg is for modelnet40_meshes"),
        (["modelnet40_meshes", "--pyg", "--url", "https://a.org/b.zip"], "without --url"),
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
    def stop(urls, path, check):
        raise KeyboardInterrupt

    monkeypatch.setattr(fetch, "download", stop)
    assert program.main(["modelnet40"]) == 130
    assert "goes on from here" in capsys.readouterr().err
