"""Cut the part of Fashion-MNIST that ships with this project out of the whole.

    apt-get install dataset-fashion-mnist
    python datasets/fashion_mnist/prepare.py

Of each class the first training and test images are taken and kept in their order. The result is
four files of the same form and names as the whole has, beside this file or in ``--out``. Needs
pointcluster.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import sys
from pathlib import Path

import numpy as np

from pointcluster.files import write_whole

SOURCE = Path("/usr/share/datasets/fashion-mnist")  # where Debian's package puts it

# split: file of the images, file of the labels, images taken of each class
FILES = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz", 500),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz", 200),
}
# Of the contents, unpacked: the same data is packed in more than one way.
SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}


def read(path: Path, digest: str | None) -> np.ndarray:
    """The array of a file, whose content must be that of the published one."""
    try:
        data = gzip.decompress(path.read_bytes())
    except (OSError, EOFError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    found = hashlib.sha256(data).hexdigest()
    if digest is not None and found != digest:
        raise ValueError(
            f"{path} is not the published file: the SHA-256 of its content is {found}, expected "
            f"{digest}; --force takes it all the same"
        )
    shape = np.frombuffer(data, ">u4", count=data[3], offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape)


def first_of_each(labels: np.ndarray, count: int) -> np.ndarray:
    """Numbers of the first images of each class, in their order."""
    rows = [np.flatnonzero(labels == label)[:count] for label in np.unique(labels)]
    return np.sort(np.concatenate(rows))


def pack(array: np.ndarray) -> bytes:
    """The array in MNIST's form, packed without a name or a time: the same bytes each time."""
    head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=buffer, mtime=0) as file:
        file.write(head + array.tobytes())
    return buffer.getvalue()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path, default=SOURCE, help="the whole (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent)
    parser.add_argument("--force", action="store_true", help="take files of another content, too")
    args = parser.parse_args(arguments)
    try:
        packed: dict[str, bytes] = {}
        for split, (*names, count) in FILES.items():
            images, labels = (
                read(args.source / name, None if args.force else SHA256[name[:-3]])
                for name in names
            )
            rows = first_of_each(labels, count)
            print(f"{split}: {len(rows):,} of {len(labels):,} images, the last is {rows[-1]:,}")
            packed |= zip(names, (pack(images[rows]), pack(labels[rows])), strict=True)
        for name, data in packed.items():
            write_whole(args.out / name, data)
            print(f"{name}: {len(data):,} bytes, SHA-256 {hashlib.sha256(data).hexdigest()}")
    except (OSError, ValueError) as error:
        print(f"prepare.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
