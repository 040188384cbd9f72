"""Get a data set into its folder here, or tell how to get it by hand.

    python datasets/fetch.py                          what there is, and what is here
    python datasets/fetch.py modelnet40               fetch, check and unpack it (435 MB)
    python datasets/fetch.py modelnet40 --root ~/data
    python datasets/fetch.py modelnet40_resampled     the steps for another of its forms; also
                                                      modelnet40_meshes
    python datasets/fetch.py modelnet40_meshes --root ~/Downloads/ModelNet40.zip
                                                      unpack what you fetched, and check it
    python datasets/fetch.py scanobjectnn             the steps: its authors' terms come first
    python datasets/fetch.py scanobjectnn --accept-terms --url https://...
                                                      from an address that you have and trust

What is fetched comes over https with certificates checked; a download that was interrupted goes on
where it stopped; its SHA-256 is recorded beside it, and a later download must agree with the
record. Only modelnet40 has addresses of its own: no other is fetched unless you give one, or ask
with --pyg for PyTorch Geometric's download of modelnet40_meshes, which is over plain http.

An archive is unpacked into a folder of its own and then renamed: what was interrupted is unpacked
again.

Exit status: 0, it is there; 1, it is to be fetched by hand and the steps were printed; 2, an error.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, NoReturn

# Of PyTorch Geometric, which does so when it is imported.
warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated")
from pointcluster.datasets import ModelNet40, modelnet40, scanobjectnn  # noqa: E402
from pointcluster.datasets.fetch import (  # noqa: E402
    DamagedArchive,
    check_digest,
    check_zip,
    download,
)

ROOM = Path(__file__).resolve().parent

IMAGENET_STEPS = """To get ImageNet:
  1. make an account at https://image-net.org and agree to its terms of access
  2. fetch ILSVRC2012_devkit_t12.tar.gz, ILSVRC2012_img_train.tar (138 GB) and
     ILSVRC2012_img_val.tar (6.3 GB) with a browser into one folder
  3. python datasets/imagenet/prepare.py unpack THAT_FOLDER datasets/imagenet
datasets/imagenet/README.md tells more"""


class DataSet(NamedTuple):
    """What this program knows of a data set."""

    title: str
    here: Callable[[Path], bool]
    steps: str
    room: str  # the folder of datasets/ where it is looked for


# Forms of ModelNet40 by the names that they have here.
FORMS = {
    "modelnet40": "hdf5",
    "modelnet40_resampled": "resampled",
    "modelnet40_meshes": "meshes",
}
SETS = {
    "modelnet40": DataSet(
        "12,308 clouds of CAD models in 40 classes, HDF5 form, 435 MB",
        lambda root: modelnet40.find_modelnet40(root) is not None,
        modelnet40.MANUAL_STEPS["hdf5"],
        "modelnet40",
    ),
    "modelnet40_resampled": DataSet(
        "12,311 of them as text files of 10,000 points with normals, 1.6 GB",
        lambda root: modelnet40.find_modelnet40(root, "resampled") is not None,
        modelnet40.MANUAL_STEPS["resampled"],
        "modelnet40",
    ),
    "modelnet40_meshes": DataSet(
        "12,311 of them as meshes, 2 GB",
        lambda root: modelnet40.find_modelnet40(root, "meshes") is not None,
        modelnet40.MANUAL_STEPS["meshes"],
        "modelnet40",
    ),
    "scanobjectnn": DataSet(
        "2,902 scanned objects in 15 classes, six variants; terms to accept",
        scanobjectnn.find_scanobjectnn,
        scanobjectnn.MANUAL_STEPS,
        "scanobjectnn",
    ),
    "imagenet": DataSet(
        "1.3 million photographs in 1,000 classes, 144 GB; terms to accept",
        lambda root: (root / "train").is_dir() and (root / "val").is_dir(),
        IMAGENET_STEPS,
        "imagenet",
    ),
}


class Parser(argparse.ArgumentParser):
    """A parser that says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"fetch.py: {message}\n")


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", help=", ".join(SETS))
    parser.add_argument("--root", type=Path, metavar="FOLDER",
                        help="where it is to be, or its archive (a folder of datasets/)"
                        )  # fmt: skip
    parser.add_argument("--url", help="an https address of its archive, instead of those known")
    parser.add_argument("--accept-terms", action="store_true",
                        help="you have read and accept the terms of the authors")  # fmt: skip
    parser.add_argument("--pyg", action="store_true",
                        help="of modelnet40_meshes: let PyTorch Geometric fetch the archive "
                        "(2 GB), which it does over plain http")  # fmt: skip
    args = parser.parse_args(arguments)
    if args.name is None:
        if args.root or args.url or args.accept_terms or args.pyg:
            parser.error("which data set? give one of " + ", ".join(SETS))
        for name, data in SETS.items():
            here = "here   " if data.here(ROOM / data.room) else "not yet"
            print(f"{name:20} {here} {data.title}")
        return 0
    if args.name not in SETS:
        parser.error(f"there is no {args.name!r}: choose one of {', '.join(SETS)}")
    if args.url and args.name == "imagenet":
        parser.error("--url: imagenet is three archives; fetch them by hand")
    if args.url and not args.url.startswith("https://"):
        parser.error(f"--url is {args.url!r}, expected an address that begins with https://")
    if args.url and args.name == "scanobjectnn" and not args.accept_terms:
        parser.error(
            "scanobjectnn has terms of use: read them at https://hkust-vgd.github.io/scanobjectnn/ "
            "and add --accept-terms"
        )
    if args.pyg and (args.name != "modelnet40_meshes" or args.url):
        parser.error("--pyg is for modelnet40_meshes, and without --url")
    root = (args.root or ROOM / SETS[args.name].room).expanduser()
    try:
        return get(args.name, root, args.url, pyg=args.pyg)
    except KeyboardInterrupt:
        print("fetch.py: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    except (OSError, ValueError, ImportError) as error:
        first, _, rest = str(error).partition("\n")
        print(f"fetch.py: {first.rstrip(':')}", file=sys.stderr)
        if rest:  # what each address answered, and the steps
            print(rest)
        return 2


def get(name: str, root: Path, url: str | None, *, pyg: bool = False) -> int:
    """Fetch what is not there yet, check what is, or print the steps."""
    data = SETS[name]
    if name in FORMS:
        folder = get_modelnet40(FORMS[name], root, url, pyg)
        if folder is None:
            print(data.steps)
            return 1
        root = folder
    elif not data.here(root) or (url and _is_damaged(root / scanobjectnn.ARCHIVE)):
        if not url:
            print(data.steps)
            return 1
        archive = root / scanobjectnn.ARCHIVE
        digest = download([url], archive, check=scanobjectnn.check_archive)
        print(f"{archive}: SHA-256 {digest}")
    check(name, root)
    return 0


def _is_damaged(archive: Path) -> bool:
    return archive.is_file() and not zipfile.is_zipfile(archive)


def get_modelnet40(form: str, root: Path, url: str | None, pyg: bool) -> Path | None:
    """The folder of a form, unpacked, and fetched where that may be; ``None`` where it may not."""
    if form == "hdf5":
        urls = (url,) if url else modelnet40.MIRRORS
        return modelnet40.fetch_modelnet40(root, urls)
    try:
        folder = modelnet40.unpack_modelnet40(root, form)
    except DamagedArchive:
        if not (url or pyg) or root.is_file():
            raise
        folder = None
    if folder is None and (url or pyg):
        archive = root / f"{modelnet40.FORMS[form][1]}.zip"
        if url:
            digest = download([url], archive, check=check_zip)
        else:
            digest = download_with_pyg(archive)
        print(f"{archive}: SHA-256 {digest}")
        folder = modelnet40.unpack_modelnet40(root, form)
    return folder


def download_with_pyg(archive: Path) -> str:
    """Let PyTorch Geometric download the meshes from its own address, and return the SHA-256."""
    from torch_geometric.data import download_url
    from torch_geometric.datasets import ModelNet

    part = archive.with_name(f"{archive.name}.pyg")
    part.mkdir(parents=True, exist_ok=True)
    try:
        path = Path(download_url(ModelNet.urls["40"], str(part)))
        digest = check_digest(path, archive.with_name(f"{archive.name}.sha256"))
        os.replace(path, archive)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return digest


def check(name: str, root: Path) -> None:
    """Read what is there, and say what it is.

    Raises:
        ValueError: It is damaged or something else.
    """
    if name in FORMS:
        for split in ("train", "test"):
            found = ModelNet40(root, split, form=FORMS[name])
            print(f"{found.describe()}: {len(found):,} clouds for {split} in {root}")
    elif name == "scanobjectnn":
        check_scanobjectnn(root)
    else:
        print(f"{root} has train/ and val/; python datasets/imagenet/prepare.py check {root} "
              "counts what is in them")  # fmt: skip


def check_scanobjectnn(root: Path) -> None:
    """Read all files of all parts that are there, and say which are not.

    Raises:
        ValueError: None is there, or one is damaged or something else.
    """
    there = 0
    for part in scanobjectnn.PARTS:
        for background in (True, False):
            missing = []
            own = "OBJ_BG" if background else "OBJ_ONLY"
            variants = [v for v in scanobjectnn.VARIANTS if v.startswith("PB") or v == own]
            for variant in variants:
                for split in ("train", "test"):
                    options = {"variant": variant, "background": background, "part": part}
                    try:
                        scans = scanobjectnn.ScanObjectNN(root, split, **options)
                    except FileNotFoundError:  # an archive of some of them is usual
                        missing.append(f"{variant} for {split}")
                    else:
                        there += 1
                        print(f"{scans.describe()}: {len(scans):,} clouds for {split}")
            folder = part if background else f"{part}_nobg"
            if len(missing) == 2 * len(variants):
                print(f"ScanObjectNN {folder}: no file")
            elif missing:
                print(f"ScanObjectNN {folder}: no file of {', '.join(missing)}")
    if not there:
        where = root / scanobjectnn.ARCHIVE if (root / scanobjectnn.ARCHIVE).is_file() else root
        rest = ", delete or rename it" if where.is_file() else ""
        raise ValueError(f"{where} holds none of ScanObjectNN's files, such as main_split/training_"
                         f"{scanobjectnn.VARIANTS['PB_T50_RS']}: it is something else{rest}"
                         )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
