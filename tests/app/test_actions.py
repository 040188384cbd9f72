"""Uploads of every broken kind end in one line that names the file, and leave nothing behind."""

from __future__ import annotations

import importlib.util
import io
import json
import pickle
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from pointcluster.app.actions import (
    FORMATS,
    network_for,
    open_checkpoint,
    open_upload,
    save_view,
)
from pointcluster.app.choices import Place
from pointcluster.app.look import Look
from pointcluster.app.shown import Shown
from pointcluster.predict import Predictor

from .conftest import blob, picture_source


class Trap:
    """An object that does something when it is unpickled."""

    ran = False

    def __reduce__(self):
        return setattr, (Trap, "ran", True)


def png(width=30, height=20):
    file = io.BytesIO()
    colours = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(colours).save(file, "PNG")
    return file.getvalue()


def bomb(side=30_000):
    """A small PNG that claims to be enormous."""

    def chunk(kind, data):
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 100_000)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def npy(array, **options):
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def ply(points, announced=None):
    head = ["ply", "format ascii 1.0", f"element vertex {announced or len(points)}"]
    head += [f"property float {axis}" for axis in "xyz"] + ["end_header"]
    return "\n".join([*head, *(" ".join(map(str, row)) for row in points), ""]).encode()


def huge_npy():
    """A header that announces far more numbers than there are."""
    head = npy(np.zeros((1, 3), np.float32))
    return head.replace(b"(1, 3)", b"(2000000000, 3)")[: len(head)]


NAN = np.vstack([blob(), [[np.nan, 0, 0]]])
BROKEN = {
    "empty.png": (b"", "is empty"),
    "truncated.png": (png()[:-300], "damaged, ends early"),
    "text.png": (b"hello there", "is no image"),
    "scan.png": (ply(blob()), "is no image"),
    "script.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n", "is no image"),
    "bomb.png": (bomb(), "too much memory"),
    "large.png": (b"0" * 1_000_001, "at most 1 MB"),
    "empty.ply": (b"", "is empty"),
    "truncated.ply": (ply(blob(), announced=400), "damaged, ends early"),
    "text.ply": (b"hello there", "damaged, ends early or is no .ply"),
    "picture.ply": (png(), "damaged, ends early or is no .ply"),
    "nan.ply": (ply(NAN), "NaN or infinite"),
    "three.ply": (ply(blob()[:3]), "3 points, expected at least"),
    "no-area.obj": (b"v 0 0 0\nv 1 0 0\nv 2 0 0\nf 1 2 3\n", "area"),
    "pickle.npy": (npy(np.array([Trap()], dtype=object)), "refused"),
    "bare-pickle.npy": (pickle.dumps(Trap()), "refused"),
    "truncated.npy": (npy(blob())[:-100], "truncated"),
    "huge.npy": (huge_npy(), "truncated|too much memory"),
    "nan.npy": (npy(NAN), "NaN or infinite"),
    "three.npy": (npy(blob()[:3]), "3 points, expected at least"),
    "none.npy": (npy(np.zeros((0, 3), np.float32)), "holds no points"),
    "wide.npy": (npy(np.zeros((50, 5), np.float32)), "5 columns"),
    "words.xyz": (b"a b c\n", "no table of points"),
    "program.exe": (b"MZ", "not taken here"),
    "packed.laz": (b"LASF", "Unpack it first"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_upload_is_refused_in_one_line(tmp_path, networks, name, monkeypatch):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    content, expected = BROKEN[name]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=expected) as caught:
        open_upload(path, "blobs", networks, max_bytes=1_000_000)
    assert str(caught.value).startswith(name), caught.value
    assert str(tmp_path) not in str(caught.value)
    assert not path.exists() and not list(temporary.iterdir())
    assert not Trap.ran


def test_no_upload_reaches_files_beside_it(tmp_path, networks):
    """A material library or a texture that a mesh names is not looked for."""
    (tmp_path / "secret.mtl").write_text("newmtl a\nKd 1 0 0\n")
    corners = "".join(f"v {x} {y} {z}\n" for x, y, z in blob()[:30].tolist())
    faces = "".join(f"f {i} {i + 1} {i + 2}\n" for i in range(1, 28))
    path = tmp_path / "mesh.obj"
    path.write_text(f"mtllib {tmp_path}/secret.mtl\n{corners}usemtl a\n{faces}")
    shown = open_upload(path, "blobs", networks, max_bytes=1_000_000)
    assert shown.count == 128


def test_a_scan_gets_the_probabilities_that_predict_prints(tmp_path, networks, cloud_weights):
    path = tmp_path / "scan.npy"
    np.save(path, blob(3, 1000))
    expected = Predictor(cloud_weights)(path)
    found = open_upload(path, "blobs", networks, max_bytes=1_000_000)
    assert list(found.probabilities.items()) == expected
    np.save(path, blob(3, 1000))
    turned = open_upload(path, "blobs", networks, max_bytes=1_000_000, up="-x")
    np.save(path, blob(3, 1000))
    assert list(turned.probabilities.items()) == Predictor(cloud_weights, up="-x")(path)
    assert turned.up == "-x" and found.up == "z"


def test_an_upload_goes_to_a_network_of_its_kind(tmp_path, networks):
    path = tmp_path / "picture.png"
    path.write_bytes(png())
    shown = open_upload(path, "blobs", networks, max_bytes=1_000_000)
    assert shown.network.title == "hats" and shown.data.shape == (1, 1, 28, 28)
    assert not path.exists()
    assert list(shown.probabilities) and sum(shown.probabilities.values()) == pytest.approx(1)
    assert set(shown.probabilities) == {"hat", "left shoe", "right shoe"}
    only = {"blobs": networks["blobs"]}
    with pytest.raises(ValueError, match="none of the networks here takes a picture"):
        network_for("picture", "blobs", only)


def saved_files(weights, folder):
    """Copies of the two files of a network, each in a folder of its own as browsers send them."""
    paths = []
    for number, each in enumerate([weights.with_suffix(".json"), weights]):
        path = folder / str(number) / each.name
        path.parent.mkdir()
        path.write_bytes(each.read_bytes())
        paths.append(path)
    return paths


def test_a_network_is_opened_from_two_files_in_any_order(tmp_path, picture_weights):
    paths = saved_files(picture_weights, tmp_path)
    network = open_checkpoint(paths)
    assert network.kind == "picture" and network.classes[0] == "hat"
    assert network.title == "yours: hats.safetensors"
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("kind", ["alone", "note alone", "damaged", "other note", "pickle", "text"])
def test_a_broken_network_is_refused_in_one_line(tmp_path, picture_weights, cloud_weights, kind):
    note, weights = saved_files(picture_weights, tmp_path)
    paths = [note, weights]
    if kind == "alone":
        paths, expected = [weights], "choose both files together"
        note.unlink()
    elif kind == "note alone":
        paths, expected = [note], "choose one network"
        weights.unlink()
    elif kind == "damaged":
        weights.write_bytes(weights.read_bytes()[:-10])
        expected = "damaged or of another run"
    elif kind == "other note":
        note.write_bytes(cloud_weights.with_suffix(".json").read_bytes())
        expected = "damaged or of another run"
    else:
        note.unlink()
        weights.unlink()
        path = tmp_path / "net.pth.tar"
        path.write_bytes(pickle.dumps(Trap()) if kind == "pickle" else b"hello there")
        paths, expected = [path], "could run any code|would have to be called|cannot be read"
    with pytest.raises(ValueError, match=expected) as caught:
        open_checkpoint(paths)
    assert str(tmp_path) not in str(caught.value)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not Trap.ran


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("kind", ["scan", "picture"])
def test_what_is_shown_can_be_downloaded(networks, kind, suffix):
    network = networks["blobs" if kind == "scan" else "hats"]
    if kind == "scan":
        from torch_geometric.data import Data

        from pointcluster.app.source import Source

        pos = torch.from_numpy(blob())
        source = Source("a/../b c.ply", "scan", Data(pos=pos, origin=(0.0, 0.0, 0.0)))
    else:
        source = picture_source()
    shown = Shown(network, source)
    places = [Place(0, 0, 0), Place(1, 0, 1)]
    if suffix == ".ply" and importlib.util.find_spec("open3d") is None:
        with pytest.raises(ImportError, match="pip install"):
            save_view(shown, places, Look(), suffix)
        return
    path = save_view(shown, places, Look(), suffix)
    assert path.parent == shown.folder and path.suffix == suffix
    assert path.stat().st_size > 500
    begin = {".png": b"\x89PNG", ".pdf": b"%PDF", ".ply": b"ply", ".svg": b"<?xml", ".html": b"<"}
    assert path.read_bytes().lstrip().startswith(begin[suffix])
    folder = shown.folder
    del shown
    assert not folder.exists()


def test_there_is_no_other_format(networks):
    shown = Shown(networks["hats"], picture_source())
    with pytest.raises(ValueError, match=r"expected one of \.png"):
        save_view(shown, [Place()], Look(), ".exe")


def test_the_note_of_a_network_cannot_name_other_files(tmp_path, picture_weights):
    note, weights = saved_files(picture_weights, tmp_path)
    content = json.loads(note.read_text())
    content["config"]["name"] = "../../etc/passwd"
    note.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="no network"):
        open_checkpoint([note, weights])
