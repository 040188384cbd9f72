"""Make the pictures in examples/gallery: clusters of photographs and of 3D objects.

Everything in them comes with the packages: weights, photographs (scikit-image's) and objects.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

if __package__ in (None, ""):  # run as a program: the one beside it
    sys.path.insert(0, str(Path(__file__).resolve().parent))
import visualize_clusters

FOLDER = Path(__file__).resolve().parent / "gallery"
MOST = 3_000_000
"""Bytes that all files may take together."""
PICTURES = {
    "coffee.png": ["coffee"],
    "astronaut.png": ["astronaut", "--stage", "1", "--block", "0"],
    "cat.png": ["cat", "--highlight", "11958"],
    "chair.png": ["chair"],
    "table.png": ["table", "--stage", "1"],
    "bed.png": ["bed", "--highlight", "100"],
    "chair.gif": ["chair", "--stage", "2", "--head", "0"],
}
"""The files, and the command line of each."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=FOLDER, metavar="FOLDER",
                        help="where they are written (examples/gallery)")  # fmt: skip
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out) as folder:
        made = []
        for name, arguments in PICTURES.items():
            path = Path(folder) / name
            if visualize_clusters.main([*arguments, "--out", str(path)]):
                return 2
            made.append(path)
        size = sum(path.stat().st_size for path in made)
        if size > MOST:
            print(f"error: the pictures take {size:,} bytes, more than {MOST:,}", file=sys.stderr)
            return 2
        for path in made:
            path.replace(out / path.name)
    print(f"{len(made)} files, {size:,} bytes, in {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
