from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from pointcluster.datasets import ImageFolder
from pointcluster.datasets.image_folder import SUFFIXES


def picture(shade, size=(6, 4)):
    return Image.new("RGB", size, (shade, shade, shade))


@pytest.fixture
def root(tmp_path):
    """Two classes of three images each, whose shade is their place in the list."""
    for number in range(6):
        folder = tmp_path / ("cat", "dog")[number // 3]
        folder.mkdir(exist_ok=True)
        picture(number * 10).save(folder / f"{number}.png")
    return tmp_path


def shade(image):
    return np.asarray(image)[0, 0, 0].item()


def shades(dataset):
    return [shade(image) // 10 for image, _ in dataset]


def to_tensor(image):
    return torch.from_numpy(np.asarray(image).copy())


def test_images_and_classes(root):
    data = ImageFolder(root)
    assert (len(data), data.num_classes, data.classes) == (6, 2, ["cat", "dog"])
    assert data.class_to_idx == {"cat": 0, "dog": 1}
    assert data.targets.tolist() == [label for _, label in data] == [0, 0, 0, 1, 1, 1]
    assert shades(data) == [0, 1, 2, 3, 4, 5]
    image, label = data[-1]
    assert (image.mode, image.size, shade(image), label) == ("RGB", (6, 4), 50, 1)
    assert type(label) is int and data[np.int64(4)][1] == 1
    assert data.path(5) == root / "dog" / "5.png"
    for index in (6, -7):
        with pytest.raises(IndexError):
            data[index]
    assert repr(data) == f"ImageFolder({str(root)!r}, 6 images)"
    assert shades(ImageFolder(str(root), lambda image: image.resize((2, 2)))) == [0, 1, 2, 3, 4, 5]


def test_the_list_is_torchvisions(root):
    folder = pytest.importorskip("torchvision.datasets")
    truth = folder.ImageFolder(root)
    assert ImageFolder(root).samples == truth.samples
    assert ImageFolder(root).class_to_idx == truth.class_to_idx


def test_suffixes_hidden_files_and_other_files(tmp_path):
    folder = tmp_path / "a"
    folder.mkdir()
    names = [f"x{suffix}" for suffix in SUFFIXES] + ["x.JPEG", "y.PNG", "Zoë 1.jpg"]
    for name in names:
        (folder / name).touch()
    for name in ("notes.txt", ".hidden.png", "._x.jpg", "x.jpg.part", "x"):
        (folder / name).touch()
    (folder / "deeper.png").mkdir()
    (tmp_path / ".cache").mkdir()
    (tmp_path / "list.txt").touch()
    (tmp_path / "loose.png").touch()
    with pytest.warns(UserWarning, match=r"1 of its images will not be read.*loose\.png"):
        data = ImageFolder(tmp_path)
    assert data.classes == ["a"]
    assert [path.split("/")[-1] for path, _ in data.samples] == sorted(names)


def test_classes_of_the_training_set(root):
    (root / "ant").mkdir()
    data = ImageFolder(root, classes=["ant", "dog", "bee", "cat"])
    assert data.num_classes == 4 and data.targets.tolist() == [1] * 3 + [3] * 3
    assert data.path(0) == root / "dog" / "3.png" and shade(data[0][0]) == 30
    with pytest.raises(ValueError, match="has cat, dog, which are not among the 1 classes"):
        ImageFolder(root, classes=["ant"])
    with pytest.raises(ValueError, match="names a class twice"):
        ImageFolder(root, classes=["ant", "cat", "dog", "dog"])


def test_in_a_loader(root):
    for workers in (0, 2):
        loader = DataLoader(ImageFolder(root, to_tensor), batch_size=4, num_workers=workers)
        images, labels = zip(*loader, strict=True)
        assert torch.cat(images).shape == (6, 4, 6, 3)
        assert torch.cat(labels).tolist() == [0, 0, 0, 1, 1, 1]
    data = pickle.loads(pickle.dumps(ImageFolder(root)))
    assert shades(data) == [0, 1, 2, 3, 4, 5]


def test_the_list_of_a_million_images_is_small():
    data = ImageFolder.__new__(ImageFolder)
    data.__dict__ = {"_names": np.array([b"n01440764_10026.JPEG"] * 100_000)}
    assert len(pickle.dumps(data)) < 25 * 100_000


def test_with_torchvisions_and_timms_transforms(root):
    timm_data = pytest.importorskip("timm.data")
    picture(50, (1, 1)).save(root / "cat" / "tiny.png")
    picture(60, (30, 5000)).save(root / "cat" / "tall.png")
    for training in (False, True):
        transform = timm_data.create_transform((3, 32, 32), is_training=training)
        images = [image for image, _ in ImageFolder(root, transform)]
        assert {tuple(image.shape) for image in images} == {(3, 32, 32)} and len(images) == 8


# --- unreadable files ----------------------------------------------------------------------------


def spoil(path):
    path.write_bytes(path.read_bytes()[:44])


@pytest.mark.parametrize("workers", [0, 1])
def test_raise_names_the_file(root, workers):
    spoil(root / "cat" / "1.png")
    data = ImageFolder(root, to_tensor)
    loader = DataLoader(data, batch_size=2, num_workers=workers)
    with pytest.raises(ValueError, match=rf"{root}/cat/1\.png is damaged"):
        next(iter(loader))
    assert shade(data[0][0]) == 0


def test_skip_takes_the_next_readable_image(root):
    for name in ("cat/1.png", "dog/4.png", "dog/5.png"):
        spoil(root / name)
    data = ImageFolder(root, on_error="skip")
    with pytest.warns(UserWarning) as caught:
        first = shades(data)
    assert first == [0, 2, 2, 3, 0, 0] and len(data) == 6
    assert [label for _, label in data] == [0, 0, 0, 1, 0, 0]
    messages = [str(warning.message) for warning in caught]
    assert [message.split(" ")[1] for message in messages] == [
        str(root / name) for name in ("cat/1.png", "dog/4.png", "dog/5.png")
    ]
    assert all(message.startswith("skipped: ") for message in messages)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # once warned, it is quiet
        assert shades(data) == first
    with pytest.warns(UserWarning):  # in any order, in another copy
        fresh = ImageFolder(root, on_error="skip")
        assert [shade(fresh[i][0]) // 10 for i in (5, 1, 4)] == [0, 2, 0]


def test_drop_gives_none(root):
    for name in ("cat/1.png", "dog/5.png"):
        spoil(root / name)
    data = ImageFolder(root, on_error="drop")
    with pytest.warns(UserWarning, match="skipped") as caught:
        items = [data[i] for i in range(6)]
    assert [None if item is None else shade(item[0]) // 10 for item in items] == [
        0, None, 2, 3, 4, None,
    ]  # fmt: skip
    assert len(caught) == 2 and len(data) == 6
    assert data[1] is None  # once warned, it is quiet


@pytest.mark.filterwarnings("ignore:skipped")
def test_skip_in_workers(root):
    spoil(root / "dog" / "3.png")
    data = ImageFolder(root, to_tensor, on_error="skip")
    for workers in (0, 2):
        loader = DataLoader(data, batch_size=2, num_workers=workers)
        found = torch.cat([images[:, 0, 0, 0] for images, _ in loader])
        assert found.tolist() == [0, 10, 20, 40, 40, 50]


def test_skip_with_nothing_left(root):
    for path in root.rglob("*.png"):
        spoil(path)
    data = ImageFolder(root, on_error="skip")
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="none of the 6 images of"):
        data[3]


def test_a_vanished_file_is_never_skipped(root):
    data = ImageFolder(root, on_error="skip")
    (root / "cat" / "1.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1\.png"):
        data[1]


def test_a_transforms_error_is_never_skipped(root):
    def fail(image):
        raise ValueError("my own mistake")

    with pytest.raises(ValueError, match="my own mistake"):
        ImageFolder(root, fail, on_error="skip")[0]


# --- folders of another form ---------------------------------------------------------------------


def test_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere is no folder"):
        ImageFolder(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(FileNotFoundError, match="file is no folder"):
        ImageFolder(tmp_path / "file")


def test_no_class_folders(tmp_path):
    with pytest.raises(ValueError, match=r"has no class folders: expected .*CLASS/\*\.jpeg"):
        ImageFolder(tmp_path)
    picture(0).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"no class folders, only files such as a\.png"):
        ImageFolder(tmp_path)


def test_no_images(tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "readme.txt").touch()
    with pytest.raises(ValueError, match=r"no images in the class folders of .* \(cat\): expected"):
        ImageFolder(tmp_path)
    for number in range(4):
        (tmp_path / f"dog{number}").mkdir()
    with pytest.raises(ValueError, match=r"\(cat, dog0, dog1 and 2 more\)"):
        ImageFolder(tmp_path)


def test_the_folder_above(root):
    above = root.parent / (root.name + "_above")
    above.mkdir()
    root.rename(above / "train")
    with pytest.raises(ValueError, match=r"Or is the folder that is meant .*/train\?"):
        ImageFolder(above)


def test_a_class_without_images(root):
    (root / "eel").mkdir()
    with pytest.raises(ValueError, match="no images in eel of .*: remove what is no class, or"):
        ImageFolder(root)


def test_arguments(root):
    with pytest.raises(ValueError, match="on_error is 'ignore', expected 'raise', 'skip' or"):
        ImageFolder(root, on_error="ignore")


def test_more_endings_and_what_is_not_read(tmp_path):
    from PIL import Image

    (tmp_path / "a" / "deep").mkdir(parents=True)
    for name in ("0.png", "1.ppm", "2.PGM", "3.jpe", "4.jfif", "deep/5.png", "../6.png"):
        kind = {"ppm": "PPM", "PGM": "PPM", "png": "PNG"}.get(name.split(".")[-1], "JPEG")
        mode = "L" if name.endswith("PGM") else "RGB"
        Image.new(mode, (4, 4), 99).save(tmp_path / "a" / name, kind)
    (tmp_path / "a" / "7.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "a" / "deep" / "back").symlink_to(tmp_path)
    message = "3 of its images will not be read, those in a, a/deep, the root itself, such as 6.png"
    with pytest.warns(UserWarning, match=message):
        data = ImageFolder(tmp_path)
    assert [data.path(i).name for i in range(len(data))] == [
        "0.png", "1.ppm", "2.PGM", "3.jpe", "4.jfif",
    ]  # fmt: skip
    assert all(image.size == (4, 4) for image, _ in data)
