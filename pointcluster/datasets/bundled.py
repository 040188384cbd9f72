"""Where the data that comes with the package lies."""

from __future__ import annotations

import site
import sys
from pathlib import Path


def bundled_folder(name: str, file: str) -> Path:
    """Find a data set that came with the package: in its checkout, or where a wheel put it.

    Args:
        name: The folder's name in ``datasets/``.
        file: A file that it must have.

    Raises:
        FileNotFoundError: It is in none of these places.
    """
    above = Path(__file__).resolve().parents[2]
    share = Path("share", "pointcluster", name)
    folders = [above / "datasets" / name]  # a checkout
    folders += [Path(base) / share for base in (sys.prefix, site.getuserbase(), above)]
    for folder in folders:
        if (folder / file).is_file():
            return folder
    raise FileNotFoundError(
        f"{file} did not come with this installation; looked in "
        + ", ".join(str(folder) for folder in folders)
        + f". Give the folder datasets/{name} of a checkout as root"
    )
