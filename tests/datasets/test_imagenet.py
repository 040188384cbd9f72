from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import shutil
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pointcluster.datasets import ImageNet, imagenet

FOLDER = Path(__file__).resolve().parents[2] / "datasets" / "imagenet"
# Training images of each class. The devkit numbers classes in another order than that of the wnids.
TRAIN = {"n02000001": 3, "n01000001": 2, "n03000001": 1}
VAL = ["n03000001", "n01000001", "n02000001", "n01000001", "n03000001", "n02000001"]


def jpeg(shade):
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (shade, shade, shade)).save(buffer, "JPEG")
    return buffer.getvalue()


def tar(files, mode="w"):
    """An archive of names and contents; what is no content is a TarInfo of another kind."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in files:
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            if info is not content:
                info.size = len(content)
            archive.addfile(info, io.BytesIO(b"" if info is content else content))
    return buffer.getvalue()


def meta_mat():
    """`meta.mat` of the devkit: a struct array of classes and, after them, what is above them."""
    from scipy.io import savemat

    kinds = [
        "ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children", "wordnet_height",
        "num_train_images",
    ]  # fmt: skip
    rows = [
        (i + 1, wnid, f"thing {i}, object {i}", "a thing", 0, np.array([]), 0, count)
        for i, (wnid, count) in enumerate(TRAIN.items())
    ]
    rows.append((4, "n00001740", "entity", "all", 3, np.array([1, 2, 3]), 1, 0))
    synsets = np.zeros(len(rows), dtype=[(kind, object) for kind in kinds])
    for i, row in enumerate(rows):
        synsets[i] = row
    buffer = io.BytesIO()
    savemat(buffer, {"synsets": synsets.reshape(-1, 1)})
    return buffer.getvalue()


def devkit(extra=()):
    numbers = [list(TRAIN).index(wnid) + 1 for wnid in VAL]
    truth = "".join(f"{number}\n" for number in numbers).encode()
    home = "ILSVRC2012_devkit_t12"
    files = [
        (f"{home}/data/meta.mat", meta_mat()),
        (f"{home}/data/ILSVRC2012_validation_ground_truth.txt", truth),
        (f"{home}/readme.txt", b"the development kit"),
    ]
    return tar([*files, *extra], "w:gz")


def train_files():
    return [
        (f"{wnid}.tar", [(f"{wnid}_{i}.JPEG", jpeg(10 * i)) for i in range(count)])
        for wnid, count in sorted(TRAIN.items())
    ]


def train_archive(classes):
    return tar([(name, tar(files)) for name, files in classes])


def val_files():
    # Not in order, as the order in the archive must not matter.
    names = [f"ILSVRC2012_val_{i + 1:08d}.JPEG" for i in range(len(VAL))]
    return [(name, jpeg(30 * i)) for i, name in enumerate(names)][::-1]


@pytest.fixture
def prepare(monkeypatch):
    pytest.importorskip("torchvision")
    spec = importlib.util.spec_from_file_location("prepare_imagenet", FOLDER / "prepare.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(imagenet, "SIZES", {"train": 6, "val": 6})
    monkeypatch.setattr(imagenet, "NUM_CLASSES", 3)
    return module


@pytest.fixture
def put(tmp_path, monkeypatch):
    """Write archives, and let torchvision take them for the official ones."""
    from torchvision.datasets.imagenet import ARCHIVE_META

    def put(**contents):
        folder = tmp_path / "archives"
        folder.mkdir(exist_ok=True)
        for key, content in contents.items():
            name = ARCHIVE_META[key][0]
            (folder / name).write_bytes(content)
            monkeypatch.setitem(ARCHIVE_META, key, (name, hashlib.md5(content).hexdigest()))
        return folder

    put(devkit=devkit(), train=train_archive(train_files()), val=tar(val_files()))
    return put


@pytest.fixture
def unpack(prepare, put, tmp_path):
    root = tmp_path / "root"

    def unpack(*options):
        return prepare.main(["unpack", str(tmp_path / "archives"), str(root), *options])

    unpack.root = root
    return unpack


def tree(root):
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.suffix == ".JPEG"
    }


EXPECTED = {
    **{
        f"train/{name.removesuffix('.tar')}/{file}": content
        for name, files in train_files()
        for file, content in files
    },
    **{f"val/{VAL[int(name[15:23]) - 1]}/{name}": content for name, content in val_files()},
}


# --- unpack --------------------------------------------------------------------------------------


def test_unpack(unpack, capsys):
    assert unpack() == 0
    out = capsys.readouterr().out
    assert "train: 6 images in 3 classes" in out and "val: 6 images in 3 classes" in out
    root = unpack.root
    assert tree(root) == EXPECTED
    assert sorted(path.name for path in root.iterdir()) == [
        "counts.json", "meta.bin", "train", "val",
    ]  # fmt: skip
    counts = json.loads((root / "counts.json").read_text())
    assert counts == {"train": TRAIN, "val": dict.fromkeys(TRAIN, 2)}
    assert unpack() == 0 and tree(root) == EXPECTED


def test_the_result_is_torchvisions(unpack):
    from torchvision.datasets import ImageNet as Truth

    assert unpack() == 0
    for split in ("train", "val"):
        truth = Truth(str(unpack.root), split)
        data = ImageNet(unpack.root, split, sizes=None)
        assert data.samples == truth.samples and data.classes == truth.wnids
    assert truth.classes[0] == ("thing 1", "object 1")


def test_torchvisions_own_parser_gives_the_same(unpack, put, tmp_path):
    from torchvision.datasets.imagenet import (
        parse_devkit_archive,
        parse_train_archive,
        parse_val_archive,
    )

    assert unpack() == 0
    folder = str(tmp_path / "archives")
    if sys.version_info < (3, 12):  # later ones warn about the way it unpacks
        parse_devkit_archive(folder)
        parse_train_archive(folder)
        parse_val_archive(folder)
        assert tree(Path(folder)) == tree(unpack.root)


def test_one_split(unpack, capsys):
    (unpack.root.parent / "archives" / "ILSVRC2012_img_train.tar").unlink()
    assert unpack("--only", "val") == 0
    assert {name.split("/")[0] for name in tree(unpack.root)} == {"val"}
    assert unpack() == 1
    assert "ILSVRC2012_img_train.tar is missing; README.md" in capsys.readouterr().err


def test_goes_on_after_an_interruption(unpack, prepare, monkeypatch, capsys):
    write = prepare.write
    for stop in range(len(EXPECTED)):
        shutil.rmtree(unpack.root, ignore_errors=True)
        done = []

        def interrupted(content, path, size, stop=stop, done=done):
            if len(done) == stop:
                path.write_bytes(b"half")
                raise KeyboardInterrupt
            done.append(path)
            write(content, path, size)

        monkeypatch.setattr(prepare, "write", interrupted)
        assert unpack() == 130
        assert "the same command goes on from here" in capsys.readouterr().err
        finished = {name: (unpack.root / name).stat().st_mtime_ns for name in tree(unpack.root)}
        names = [name for name in finished if ".part" not in name]
        monkeypatch.setattr(prepare, "write", write)
        # What is there so far does not pass for the whole.
        assert prepare.main(["check", str(unpack.root)]) == 1
        assert unpack() == 0 and tree(unpack.root) == EXPECTED
        assert all((unpack.root / name).stat().st_mtime_ns == finished[name] for name in names)


def test_a_full_disk_says_so(unpack, prepare, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(prepare, "write", full)
    assert unpack() == 1
    assert "No space left on device" in capsys.readouterr().err


def test_other_archives(unpack, put, capsys):
    path = put() / "ILSVRC2012_img_train.tar"
    path.write_bytes(path.read_bytes() + bytes(512))
    assert unpack() == 1
    assert "is not the official archive: its MD5 is not" in capsys.readouterr().err
    assert not (unpack.root / "train").exists()
    assert unpack("--skip-md5") == 0
    (put() / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(devkit() + b"\0")
    assert unpack("--skip-md5") == 1
    assert "is damaged or not the official devkit" in capsys.readouterr().err


def link(name, target, kind=tarfile.SYMTYPE):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return name, info


def folder(name):
    info = tarfile.TarInfo(name)
    info.type = tarfile.DIRTYPE
    return name, info


WNID = "n01000001"
EVIL = [
    ("../evil.JPEG", b"x"),
    ("/evil.JPEG", b"x"),
    (f"../{WNID}_9.JPEG", b"x"),
    (f"sub/{WNID}_9.JPEG", b"x"),
    (f"{WNID}_9.JPEG/../../evil", b"x"),
    (f"{WNID}_9.JPEG\n", b"x"),
    ("n02000001_9.JPEG", b"x"),
    (f"{WNID}_9.jpg", b"x"),
    link(f"{WNID}_9.JPEG", "/etc/passwd"),
    link(f"{WNID}_9.JPEG", "../../evil", tarfile.LNKTYPE),
    link(f"{WNID}_9.JPEG", "", tarfile.FIFOTYPE),
    folder(f"{WNID}_9.JPEG"),
]


@pytest.mark.parametrize("evil", EVIL, ids=[repr(name) for name, _ in EVIL])
def test_climbing_out_of_a_class(unpack, put, evil, tmp_path, capsys):
    classes = [(name, [*files, evil] if WNID in name else files) for name, files in train_files()]
    put(train=train_archive(classes))
    assert unpack() == 1
    assert "ILSVRC2012_img_train.tar" in capsys.readouterr().err
    assert not [
        name for name in tree(tmp_path / "root") if name not in EXPECTED and ".part" not in name
    ]
    assert not list(tmp_path.rglob("*evil*")) and not (unpack.root / "train" / WNID).exists()


@pytest.mark.parametrize(
    "evil",
    [("../n01000001.tar", b"x"), ("sub/n01000001.tar", b"x"), ("n09999999.tar", b"x"),
     ("n01000001", b"x"), link("n01000001.tar", "/etc/passwd"), folder("n01000001.tar")],
)  # fmt: skip
def test_climbing_out_of_train(unpack, put, evil, capsys):
    files = [(name, tar(content)) for name, content in train_files()]
    put(train=tar([evil, *files]))
    assert unpack() == 1
    message = capsys.readouterr().err
    assert "which is no class of ImageNet" in message or "which is no plain file" in message
    assert not tree(unpack.root)


@pytest.mark.parametrize(
    "evil",
    [("../evil.JPEG", b"x"), ("ILSVRC2012_val_00000000.JPEG", b"x"), folder("val"),
     ("ILSVRC2012_val_00000007.JPEG", b"x"), link("ILSVRC2012_val_00000001.JPEG", "/etc/passwd")],
)  # fmt: skip
def test_climbing_out_of_val(unpack, put, evil, tmp_path, capsys):
    put(val=tar([*val_files(), evil]))
    assert unpack("--only", "val") == 1
    message = capsys.readouterr().err
    assert "which is no validation image" in message or "which is no plain file" in message
    assert not (unpack.root / "val").exists() and not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize(
    "evil",
    [("../evil", b"x"), ("/tmp_evil", b"x"), link("evil", "/etc"),
     link("evil", "x", tarfile.LNKTYPE)],
)  # fmt: skip
def test_climbing_out_of_the_devkit(unpack, put, evil, capsys):
    put(devkit=devkit([evil]))
    assert unpack() == 1
    assert "outside its folder: nothing was unpacked" in capsys.readouterr().err
    assert not list(unpack.root.iterdir())


@pytest.mark.parametrize("length", [100, 3000, 12_000, 20_000])
def test_truncated_train(unpack, put, length, capsys):
    whole = train_archive(train_files())
    assert length < len(whole)
    put(train=whole[:length])
    assert unpack() == 1
    message = capsys.readouterr().err
    assert "ILSVRC2012_img_train.tar" in message and "Traceback" not in message
    put(train=whole)
    assert unpack() == 0 and tree(unpack.root) == EXPECTED


def test_archives_that_lack_images(unpack, put, capsys):
    classes = train_files()
    put(train=train_archive([(classes[0][0], classes[0][1][:-1]), *classes[1:]]))
    assert unpack() == 1
    assert "n01000001.tar has 1 images, expected 2" in capsys.readouterr().err
    put(train=train_archive(classes[1:]))
    assert unpack() == 1
    assert "lacks 1 classes, such as n01000001" in capsys.readouterr().err
    put(train=train_archive(classes), val=tar(val_files()[1:]))
    assert unpack() == 1
    assert "ILSVRC2012_img_val.tar has 5 images, expected 6" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"no archive", devkit()[:200]])
def test_damaged_devkit(unpack, put, content, capsys):
    put(devkit=content)
    assert unpack() == 1
    assert "ILSVRC2012_devkit_t12.tar.gz is damaged or not" in capsys.readouterr().err


def test_devkit_of_another_form(unpack, put, capsys):
    put(devkit=tar([("ILSVRC2012_devkit_t12/readme.txt", b"")], "w:gz"))
    assert unpack() == 1
    assert "ILSVRC2012_devkit_t12" in capsys.readouterr().err


# --- check ---------------------------------------------------------------------------------------


def test_check(unpack, prepare, capsys):
    root = unpack.root
    assert unpack() == 0
    assert prepare.main(["check", str(root)]) == 0
    (root / "train" / "n02000001" / "n02000001_1.JPEG").unlink()
    (root / "val" / "n01000001").rename(root / "val" / "n01000009")
    assert prepare.main(["check", str(root)]) == 1
    assert capsys.readouterr().err.splitlines() == [
        f"{root} is not the whole of ImageNet:",
        "train: 5 of 6 images in 3 of 3 classes",
        "  train/n02000001: 2 images, expected 3",
        "val: 6 of 6 images in 3 of 3 classes",
        "  val/n01000001: missing",
        "  val/n01000009: no class of ImageNet",
    ]
    shutil.rmtree(root / "val")
    assert prepare.main(["check", str(root)]) == 1
    assert "val: 0 of 6 images in 0 of 3 classes" in capsys.readouterr().err


def test_check_without_counts(prepare, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(imagenet, "_RANGE", {"train": (1, 3), "val": (2, 2)})
    for name, content in EXPECTED.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    assert prepare.main(["check", str(tmp_path)]) == 0
    (tmp_path / "val/n03000001/ILSVRC2012_val_00000001.JPEG").unlink()
    shutil.rmtree(tmp_path / "train" / "n03000001")
    capsys.readouterr()
    assert prepare.main(["check", str(tmp_path)]) == 1
    assert capsys.readouterr().err.splitlines()[1:] == [
        "train: 5 of 6 images in 2 of 3 classes",
        "  train/n03000001: missing",
        "val: 5 of 6 images in 3 of 3 classes",
        "  val/n03000001: 1 images, expected 2",
        "(no counts.json: without it a class that lacks few images is not recognised)",
    ]


def test_check_of_nothing(prepare, tmp_path, capsys):
    assert prepare.main(["check", str(tmp_path / "nowhere")]) == 1
    assert "nowhere is no folder" in capsys.readouterr().err
    assert prepare.main(["check", str(tmp_path)]) == 1
    assert "train: 0 of 6 images in 0 of 3 classes" in capsys.readouterr().err
    (tmp_path / "counts.json").write_text('{"train": []}')
    assert prepare.main(["check", str(tmp_path)]) == 1
    assert "counts.json is damaged: delete it" in capsys.readouterr().err


def test_the_whole_has_the_published_numbers():
    assert imagenet.SIZES == {"train": 1_281_167, "val": 50_000} and imagenet.NUM_CLASSES == 1000
    train = {f"n{i:08d}": 1300 for i in range(1000)}
    lines = imagenet.missing_images({"train": train, "val": dict.fromkeys(train, 50)})
    assert lines == ["train: 1,300,000 of 1,281,167 images in 1,000 of 1,000 classes"]


# --- the data set --------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path):
    for name, content in EXPECTED.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    return tmp_path


def test_items(root, monkeypatch):
    train = ImageNet(root, sizes=None)
    assert (len(train), train.split, train.classes) == (6, "train", sorted(TRAIN))
    val = ImageNet(root, "val", lambda image: image.size, sizes=None)
    assert val[0] == ((4, 4), 0) and val.targets.tolist() == [0, 0, 1, 1, 2, 2]
    monkeypatch.setattr(imagenet, "NUM_CLASSES", 3)
    assert len(ImageNet(root, "val", sizes={"train": 6, "val": 6})) == 6
    assert repr(train) == f"ImageNet({str(root / 'train')!r}, 6 images)"


def test_a_part_of_val_keeps_the_indices_of_train(root):
    shutil.rmtree(root / "val" / "n01000001")
    val = ImageNet(root, "val", sizes=None)
    assert val.num_classes == 3 and val.targets.tolist() == [1, 1, 2, 2]


def test_short(root):
    with pytest.raises(ValueError, match="6 images in 3 classes, expected 1,281,167 in 1,000: `py"):
        ImageNet(root)
    with pytest.raises(ValueError, match="expected 50,000 in 1,000"):
        ImageNet(root, "val")


def test_bad_arguments(root):
    with pytest.raises(ValueError, match="split is 'test', expected 'train' or 'val'"):
        ImageNet(root, "test")
    with pytest.raises(FileNotFoundError, match=r"no folder .*train/train: root must hold train/"):
        ImageNet(root / "train")
