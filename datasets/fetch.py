"""Get a data set into its folder here, or tell how to get it by hand.

    python datasets/fetch.py                          what there is, and what is here
    python datasets/fetch.py modelnet40               fetch, check and unpack it (435 MB)
    python datasets/fetch.py modelnet40 --root ~/data
    python datasets/fetch.py scanobjectnn             the steps: its authors' terms come first
    python datasets/fetch.py scanobjectnn --accept-terms --url https://...
                                                      from an address that you have and trust

What is fetched comes over https with certificates checked; a download that was interrupted goes on
where it stopped; its SHA-256 is recorded beside it, and a later download must agree with the
record. Only modelnet40 has addresses of its own: no other is fetched unless you give one.

Exit status: 0, it is there; 1, it is to be fetched by hand and the steps were printed; 2, an error.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, NoReturn

# Of PyTorch Geometric, which does so when it is imported.
warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated")
from pointcluster.datasets import modelnet40, scanobjectnn  # noqa: E402
from pointcluster.datasets.fetch import download  # noqa: E402

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


SETS = {
    "modelnet40": DataSet(
        "12,308 clouds of CAD models in 40 classes, HDF5 form, 435 MB",
        lambda root: modelnet40.find_modelnet40(root) is not None,
        modelnet40.MANUAL_STEPS,
    ),
    "scanobjectnn": DataSet(
        "2,902 scanned objects in 15 classes, six variants; terms to accept",
        scanobjectnn.find_scanobjectnn,
        scanobjectnn.MANUAL_STEPS,
    ),
    "imagenet": DataSet(
        "1.3 million photographs in 1,000 classes, 144 GB; terms to accept",
        lambda root: (root / "train").is_dir() and (root / "val").is_dir(),
        IMAGENET_STEPS,
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
                        help="where it is to be (datasets/NAME)")  # fmt: skip
    parser.add_argument("--url", help="an https address of its archive, instead of those known")
    parser.add_argument("--accept-terms", action="store_true",
                        help="you have read and accept the terms of the authors")  # fmt: skip
    args = parser.parse_args(arguments)
    if args.name is None:
        if args.root or args.url or args.accept_terms:
            parser.error("which data set? give one of " + ", ".join(SETS))
        for name, data in SETS.items():
            print(f"{name:13} {'here   ' if data.here(ROOM / name) else 'not yet'} {data.title}")
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
    root = (args.root or ROOM / args.name).expanduser()
    try:
        return get(args.name, root, args.url)
    except KeyboardInterrupt:
        print("fetch.py: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    except (OSError, ValueError, ImportError) as error:
        first, _, rest = str(error).partition("\n")
        print(f"fetch.py: {first.rstrip(':')}", file=sys.stderr)
        if rest:  # what each address answered, and the steps
            print(rest)
        return 2


def get(name: str, root: Path, url: str | None) -> int:
    """Fetch what is not there yet, check what is, or print the steps."""
    data = SETS[name]
    if not data.here(root):
        if name == "modelnet40":
            modelnet40.fetch_modelnet40(root, (url,) if url else modelnet40.MIRRORS)
        elif url:
            digest = download([url], root / scanobjectnn.ARCHIVE)
            print(f"{root / scanobjectnn.ARCHIVE}: SHA-256 {digest}")
        else:
            print(data.steps)
            return 1
    check(name, root)
    return 0


def check(name: str, root: Path) -> None:
    """Read what is there, and say what it is.

    Raises:
        ValueError: It is damaged or something else.
    """
    if name == "modelnet40":
        for split in ("train", "test"):
            found = modelnet40.ModelNet40(root, split)
            print(f"{found.describe()}: {len(found):,} clouds for {split} in {root}")
    elif name == "scanobjectnn":
        for variant in scanobjectnn.VARIANTS:
            for split in ("train", "test"):
                try:
                    scans = scanobjectnn.ScanObjectNN(root, split, variant=variant)
                except FileNotFoundError:  # an archive of some variants is usual
                    print(f"ScanObjectNN {variant}: no file for {split}")
                else:
                    print(f"{scans.describe()}: {len(scans):,} clouds for {split}")
    else:
        print(f"{root} has train/ and val/; python datasets/imagenet/prepare.py check {root} "
              "counts what is in them")  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
