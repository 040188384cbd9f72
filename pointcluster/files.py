"""Files that are written whole or not at all, and those that come with the package."""

from __future__ import annotations

import hashlib
import os
import secrets
import site
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PART = ".part-"
"""What stands before the name of a file that is being written."""


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A name beside `path`, of its suffix, to write to; what is there takes `path`'s place after.

    It is on the disk before it does, so that neither a crash nor a failure of power leaves half a
    file under the name; where anything fails, an earlier file stays as it was.

    Raises:
        OSError: The folder cannot be made or written, or the disk is full.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{PART}{path.stem}.{secrets.token_hex(4)}{path.suffix}")
    temporary.touch(exist_ok=False)  # with the rights of a new file
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    with suppress(OSError):  # not every system opens folders
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_whole(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Write a file by :func:`replacing`; text as UTF-8."""
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def bundled_folder(name: str, file: str) -> Path:
    """Find a data set that came with the package: in its checkout, or where a wheel put it.

    Args:
        name: The folder's name in ``datasets/``.
        file: A file that it must have.

    Raises:
        FileNotFoundError: It is in none of these places.
    """
    above = Path(__file__).resolve().parents[1]
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


def check_bundled(path: Path, data: bytes, sha256: str) -> None:
    """Compare what was read of a file that came with the package with what it must be.

    Raises:
        ValueError: It is something else.
    """
    digest = hashlib.sha256(data).hexdigest()
    if digest != sha256:
        raise ValueError(
            f"{path} is not the file that belongs to this version: SHA-256 is {digest}, expected "
            f"{sha256}. Restore it (git checkout, or install again), or give another folder of "
            "such files as root"
        )
