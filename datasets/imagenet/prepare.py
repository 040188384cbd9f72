"""Turn ImageNet's archives into one folder a class, or check that nothing is missing there.

    python datasets/imagenet/prepare.py unpack ARCHIVES ROOT
    python datasets/imagenet/prepare.py check ROOT

``ARCHIVES`` is a folder with ILSVRC2012_devkit_t12.tar.gz, ILSVRC2012_img_train.tar and
ILSVRC2012_img_val.tar; README.md tells how to get them, as nothing is downloaded here. ``ROOT``
gets train/<wnid>/*.JPEG, val/<wnid>/*.JPEG, meta.bin (names of the classes, as torchvision keeps
them) and counts.json (images of each class). Run it again after an interruption: what is there is
kept. Needs pointcluster and torchvision.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import shutil
import sys
import tarfile
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import IO

from pointcluster.datasets.imagenet import SIZES, count_images, missing_images
from pointcluster.files import write_whole

Counts = dict[str, dict[str, int]]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    unpack = commands.add_parser("unpack", help="archives to folders")
    unpack.add_argument("archives", type=Path, help="the folder with the three archives")
    unpack.add_argument("root", type=Path, help="where train/ and val/ come")
    unpack.add_argument("--only", choices=tuple(SIZES), help="one split alone")
    unpack.add_argument("--skip-md5", action="store_true",
                        help="do not compare the images' archives with the official MD5, which "
                        "reads all 144 GB once more")  # fmt: skip
    check = commands.add_parser("check", help="count the images of every folder")
    check.add_argument("root", type=Path, help="the folder with train/ and val/")
    args = parser.parse_args(arguments)
    splits = [args.only] if args.command == "unpack" and args.only else list(SIZES)
    try:
        if args.command == "unpack":
            unpack_all(args.archives, args.root, splits, md5=not args.skip_md5)
        elif not args.root.is_dir():
            raise ValueError(f"{args.root} is no folder")
        return report(args.root, splits)
    except (ImportError, OSError, ValueError) as error:
        print(f"prepare.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("prepare.py: stopped; the same command goes on from here", file=sys.stderr)
        return 130


def report(root: Path, splits: list[str]) -> int:
    """Print what is there and what is short; 0 where nothing is."""
    file = root / "counts.json"
    expected = read_counts(file) if file.exists() else None
    counts = count_images(root)
    lines = missing_images({split: counts[split] for split in splits}, expected)
    if lines:
        print("\n".join([f"{root} is not the whole of ImageNet:", *lines]), file=sys.stderr)
        if expected is None:
            print(f"(no {file.name}: without it a class that lacks few images is not recognised)",
                  file=sys.stderr)  # fmt: skip
        return 1
    for split in splits:
        print(f"{split}: {sum(counts[split].values()):,} images in {len(counts[split]):,} classes")
    return 0


def unpack_all(archives: Path, root: Path, splits: list[str], *, md5: bool) -> None:
    """Unpack the archives into a folder; what an earlier run has finished is kept.

    Raises:
        ValueError: An archive is missing, damaged, or holds what it should not.
    """
    official = archive_names()
    paths = {name: archives / official[name][0] for name in ("devkit", *splits)}
    for path in paths.values():
        if not path.is_file():
            raise ValueError(
                f"{path} is missing; README.md beside this program tells how to get it"
            )
    root.mkdir(parents=True, exist_ok=True)
    expected, val_wnids = read_devkit(paths["devkit"], root)
    for split in splits:
        if md5:
            check_md5(paths[split], official[split][1])
        try:
            if split == "train":
                unpack_train(paths[split], root / "train", expected["train"])
            else:
                unpack_val(paths[split], root / "val", val_wnids)
        except (tarfile.TarError, EOFError) as error:
            raise ValueError(f"{paths[split]} is damaged or ends early: {error}") from error


def archive_names() -> Mapping[str, tuple[str, str]]:
    """File name and MD5 of each archive, as torchvision knows them."""
    try:
        from torchvision.datasets.imagenet import ARCHIVE_META
    except ImportError as error:
        raise ImportError("unpacking needs torchvision: pip install torchvision") from error
    return ARCHIVE_META


def check_md5(path: Path, digest: str) -> None:
    from torchvision.datasets.utils import check_md5

    print(f"comparing the MD5 of {path.name}, {path.stat().st_size / 1e9:,.1f} GB", flush=True)
    if not check_md5(path, digest):
        raise ValueError(
            f"{path} is not the official archive: its MD5 is not {digest}. Fetch it again, or take "
            "it as it is with --skip-md5"
        )


def read_devkit(path: Path, root: Path) -> tuple[Counts, list[str]]:
    """Images of each class, and the class of each validation image, by torchvision's parser."""
    from torchvision.datasets.imagenet import load_meta_file, parse_devkit_archive

    try:
        with tarfile.open(path) as tar:
            for member in tar:
                name = PurePosixPath(member.name)
                inside = not name.is_absolute() and ".." not in name.parts
                if not (inside and (member.isreg() or member.isdir())):
                    raise ValueError(
                        f"{path} holds {member.name!r}, which is a link or would be written "
                        "outside its folder: nothing was unpacked"
                    )
        # Beside its place first: a file of half an interrupted run must not look whole.
        with tempfile.TemporaryDirectory(dir=root, prefix=".devkit.") as folder:
            with warnings.catch_warnings():  # tarfile's, that it was given no filter
                warnings.simplefilter("ignore", DeprecationWarning)
                parse_devkit_archive(folder, str(path.resolve()))
            names, val_wnids = load_meta_file(folder)
            os.replace(Path(folder, "meta.bin"), root / "meta.bin")
        train = train_counts(path)
    except (tarfile.TarError, EOFError, KeyError, RuntimeError) as error:
        raise ValueError(f"{path} is damaged or not the official devkit: {error}") from error
    wrong = [name for name in names if not re.fullmatch(r"n\d{8}", name)]
    if wrong or set(train) != set(names) or not set(val_wnids) <= set(names):
        raise ValueError(f"{path} does not hold ImageNet's classes: {(wrong or [*names])[:3]} ...")
    counts = {"train": train, "val": dict(sorted(Counter(val_wnids).items()))}
    write_whole(root / "counts.json", json.dumps(counts, indent=1))
    return counts, val_wnids


def train_counts(path: Path) -> dict[str, int]:
    """Training images of each class, which torchvision's parser leaves out."""
    from scipy.io import loadmat

    with tarfile.open(path) as tar:
        file = tar.extractfile("ILSVRC2012_devkit_t12/data/meta.mat")
        assert file is not None
        synsets = loadmat(io.BytesIO(file.read()), squeeze_me=True)["synsets"]
    leaves = synsets[synsets["num_children"] == 0]
    pairs = zip(leaves["WNID"], leaves["num_train_images"], strict=True)
    return {str(name): int(count) for name, count in sorted(pairs)}


def read_counts(file: Path) -> Counts:
    """What :func:`read_devkit` wrote."""
    try:
        counts = json.loads(file.read_text(encoding="utf-8"))
        return {split: {str(k): int(v) for k, v in counts[split].items()} for split in SIZES}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{file} is damaged: delete it, and `unpack` writes it anew ({error!r})"
        ) from error


def unpack_train(path: Path, folder: Path, expected: Mapping[str, int]) -> None:
    """An archive of one archive a class.

    Each is read where it lies, inside the outer one, so that the disk needs room for the images
    alone, and is complete when its folder has its own name.
    """
    folder.mkdir(exist_ok=True)
    seen = set()
    with tarfile.open(path, "r:") as outer:
        for number, (member, inner) in enumerate(files_of(outer, path)):
            wnid = member.name.removesuffix(".tar")
            if wnid not in expected or member.name != f"{wnid}.tar":
                raise ValueError(f"{path} holds {member.name!r}, which is no class of ImageNet")
            seen.add(wnid)
            if (folder / wnid).is_dir():
                continue
            part = folder / f".{wnid}.part"
            part.mkdir(exist_ok=True)
            with tarfile.open(fileobj=inner, mode="r:") as tar:
                names = set()
                for image, content in files_of(tar, path):
                    if not re.fullmatch(rf"{wnid}_\d+\.JPEG", image.name):
                        raise ValueError(f"{path}: {member.name} holds {image.name!r}, no image")
                    names.add(image.name)
                    write(content, part / image.name, image.size)
            if len(names) != expected[wnid]:
                raise ValueError(
                    f"{path}: {member.name} has {len(names):,} images, expected {expected[wnid]:,}"
                )
            os.rename(part, folder / wnid)
            if (number + 1) % 50 == 0:
                print(f"train: {number + 1:,} of {len(expected):,} classes", flush=True)
    if lacking := sorted(set(expected) - seen):
        raise ValueError(f"{path} lacks {len(lacking):,} classes, such as {lacking[0]}")


def unpack_val(path: Path, folder: Path, wnids: list[str]) -> None:
    """An archive of all images, whose classes stand in the devkit in the order of their numbers."""
    if folder.is_dir() and any(folder.iterdir()):
        return
    part = folder.with_name(f".{folder.name}.part")
    for wnid in set(wnids):
        (part / wnid).mkdir(parents=True, exist_ok=True)
    seen = set()
    with tarfile.open(path, "r:") as tar:
        for image, content in files_of(tar, path):
            match = re.fullmatch(r"ILSVRC2012_val_(\d{8})\.JPEG", image.name)
            number = int(match[1]) if match else 0
            if not 1 <= number <= len(wnids):
                raise ValueError(f"{path} holds {image.name!r}, which is no validation image")
            seen.add(number)
            write(content, part / wnids[number - 1] / image.name, image.size)
            if len(seen) % 5000 == 0:
                print(f"val: {len(seen):,} of {len(wnids):,} images", flush=True)
    if len(seen) != len(wnids):
        raise ValueError(f"{path} has {len(seen):,} images, expected {len(wnids):,}")
    os.rename(part, folder)


def files_of(tar: tarfile.TarFile, path: Path) -> Iterator[tuple[tarfile.TarInfo, IO[bytes]]]:
    """The files of an archive; anything else, such as a folder or a link, is an error.

    The names are compared with a pattern without slashes by who writes them, so that nothing can
    leave its folder.
    """
    for member in tar:
        content = tar.extractfile(member) if member.isreg() else None
        if content is None:
            raise ValueError(f"{path} holds {member.name!r}, which is no plain file")
        yield member, content


def write(content: IO[bytes], path: Path, size: int) -> None:
    """Write a file, unless an earlier run did."""
    if not (path.exists() and path.stat().st_size == size):
        with open(path, "wb") as file:
            shutil.copyfileobj(content, file)


if __name__ == "__main__":
    sys.exit(main())
