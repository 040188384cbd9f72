"""Fetching an archive: https only, resumed, checked, unpacked inside its folder."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import requests
from tqdm import tqdm

from pointcluster.files import replacing


class DamagedArchive(ValueError):
    """A zip archive that ends early or cannot be read otherwise: it is to be fetched again."""


def https_session() -> requests.Session:
    """A session that speaks https alone, so that a redirect to plain http is an error too."""
    session = requests.Session()
    session.adapters.pop("http://")
    return session


def download(
    urls: Sequence[str],
    path: Path,
    *,
    check: Callable[[Path], object] | None = None,
    session: requests.Session | None = None,
    timeout: float = 60.0,
) -> str:
    """Download a file from the first of several mirrors that has it, and return its SHA-256.

    What has arrived is kept in ``<name>.part`` and an interrupted download goes on from there,
    where the server does; else it begins anew. The digest is written to ``<name>.sha256`` at the
    first download; later ones must agree with it.

    Args:
        urls: Mirrors, in the order in which they are tried.
        path: The file to write.
        check: Raises a ``ValueError`` where what came is not the file, but such as a page that says
            so; it is then thrown away, and the next mirror is tried.
        session: Who sends the requests; :func:`https_session` by default.
        timeout: Seconds without an answer after which the next mirror is tried.

    Raises:
        OSError: No mirror gave the file; the message says what each answered.
        ValueError: The file came, but is not the one that was recorded before.
    """
    session = session or https_session()
    path.parent.mkdir(parents=True, exist_ok=True)
    part, record = (path.with_name(path.name + end) for end in (".part", ".sha256"))
    if check is not None and path.is_file() and record.exists():
        try:
            check(path)
        except ValueError:
            record.unlink()  # of what is not the file, such as a page that was kept as it
    failures = []
    for url in urls:
        try:
            _download_one(session, url, part, timeout)
        except (requests.RequestException, OSError) as error:
            failures.append(f"  {url}\n    {type(error).__name__}: {error}")
            continue
        try:
            if check is not None:
                check(part)
            break
        except ValueError as error:
            part.unlink()
            failures.append(f"  {url}\n    what came is not the file: {error}")
    else:
        raise OSError("no mirror gave the file:\n" + "\n".join(failures))
    digest = check_digest(part, record)
    os.replace(part, path)
    return digest


def _download_one(session: requests.Session, url: str, part: Path, timeout: float) -> None:
    # The mirror that a part came from is noted: a part of one mirror's file must not be joined to
    # the rest of another's.
    source = part.with_name(part.name + ".url")
    if not (part.exists() and source.exists() and source.read_text() == url):
        part.unlink(missing_ok=True)
        source.write_text(url)
    have = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with session.get(url, headers=headers, stream=True, timeout=timeout) as response:
        first, expected = _content_range(response)
        resumed, over = response.status_code == 206, have > 0 and response.status_code == 416
        other = resumed and first != have
        if (have and other) or (over and (expected is None or expected > have)):
            part.unlink()  # the rest is not to be had, or something else came: begin anew
            return _download_one(session, url, part, timeout)
        if not over:  # else nothing is left to send: check the length below
            response.raise_for_status()
            if other:
                raise OSError("a part of the file came where all of it was asked for")
            length = response.headers.get("Content-Length", "")
            if not resumed or expected is None:
                expected = int(length) + (have if resumed else 0) if length.isdecimal() else None
            title, begun = part.stem, have if resumed else 0
            with (
                open(part, "ab" if resumed else "wb") as file,
                tqdm(desc=title, total=expected, initial=begun, unit="B", unit_scale=True,
                     disable=None) as bar,
            ):  # fmt: skip
                for chunk in response.iter_content(1 << 16):
                    file.write(chunk)
                    bar.update(len(chunk))
    size = part.stat().st_size
    if expected is not None and size != expected:
        if size > expected:
            part.unlink()
        raise OSError(f"{size:,} bytes came where the server announced {expected:,}")
    source.unlink()


def _content_range(response: requests.Response) -> tuple[int | None, int | None]:
    """The first byte that is sent and the size of the whole file, where the server says them."""
    value = response.headers.get("Content-Range", "")
    found = re.fullmatch(r"bytes (?:([0-9]+)-[0-9]+|[*])/([0-9]+|[*])", value.strip())
    first, whole = found.groups() if found else (None, None)
    return (int(first) if first else None), (int(whole) if whole not in (None, "*") else None)


def check_digest(path: Path, record: Path) -> str:
    """Compare a file's SHA-256 with the recorded one, or record it where there is none yet.

    Raises:
        ValueError: The digests differ, or the record holds none.
    """
    sha256 = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            sha256.update(chunk)
    digest = sha256.hexdigest()
    if record.exists():
        expected = (record.read_text().split() or [""])[0].lower()
        if not re.fullmatch("[0-9a-f]{64}", expected):
            raise ValueError(
                f"{record} does not begin with a SHA-256, expected 64 hexadecimal digits: delete "
                f"it, and the one of {path.name} is recorded"
            )
        if digest != expected:
            raise ValueError(
                f"{path} has SHA-256 {digest}, and {record} says {expected}: the file is damaged "
                f"or has changed at its source. Delete {path.name} and try again, or delete "
                f"{record.name} if you trust the new file."
            )
    else:
        record.write_text(f"{digest}  {record.stem}\n")
    return digest


# --- archives ------------------------------------------------------------------------------------


@contextmanager
def open_zip(archive: Path) -> Iterator[zipfile.ZipFile]:
    """A zip archive to read from.

    Raises:
        DamagedArchive: It is none, ends early, is encrypted, or a member is damaged.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            yield file
    # A member that is encrypted or packed in a way that zipfile does not know is a RuntimeError.
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError) as error:
        raise DamagedArchive(
            f"{archive} is not a whole zip archive: {error} (delete it, and fetch it again)"
        ) from error


def check_zip(archive: Path) -> None:
    """Refuse what is no zip archive, such as a page that came in its place.

    Raises:
        DamagedArchive: It is none, or ends early.
    """
    with archive.open("rb") as file:
        begin = file.read(40)
    try:
        with open_zip(archive):
            pass
    except ValueError as error:
        raise DamagedArchive(f"{error}; it begins with {begin!r}") from error


def unpack(archive: Path, folder: Path, names: Sequence[str] | None = None) -> None:
    """Unpack a zip archive into a folder, and refuse members that would leave it.

    Args:
        archive: The zip archive.
        folder: Where its members come, under their own paths.
        names: Only these members, each written whole or not at all; all by default.

    Raises:
        DamagedArchive: The archive is damaged or encrypted.
        ValueError: It lacks one of the names, or has a member that is absolute, climbs with ``..``
            or is a link.
    """
    with open_zip(archive) as file:
        for member in file.infolist():
            name = PurePosixPath(member.filename.replace("\\", "/"))
            link = stat.S_ISLNK(member.external_attr >> 16)
            if name.is_absolute() or ".." in name.parts or ":" in str(name.parts[:1]) or link:
                raise ValueError(
                    f"{archive} holds {member.filename!r}, which would be written outside "
                    f"{folder}: the archive was not unpacked"
                )
        if names is None:
            if damaged := file.testzip():
                raise zipfile.BadZipFile(f"{damaged} is damaged")
            file.extractall(folder)
            return
        if lacking := sorted({*names} - {*file.namelist()}):
            raise ValueError(f"{archive} holds no {lacking[0]}")
        for wanted in names:
            with replacing(folder / wanted) as temporary, file.open(wanted) as source:
                with open(temporary, "wb") as target:
                    shutil.copyfileobj(source, target, 1 << 20)  # compares the checksum at the end


def unpack_folder(archive: Path, folder: Path, sign: str) -> None:
    """Unpack the folder of a zip archive that holds a certain file, where it is not whole already.

    All is unpacked into ``<name>.part`` beside ``folder`` and then renamed. Where ``folder`` is
    there, from an unpacking that was interrupted, so that a file is missing or shorter in it, its
    files are replaced one by one, the certain one last; others in it stay.

    Args:
        archive: The zip archive.
        folder: What the archive's folder becomes.
        sign: A pattern such as ``"train_files.txt"``, of the paths below the archive's folder.

    Raises:
        DamagedArchive: The archive is damaged or encrypted.
        ValueError: No folder in it holds such a file, or several do, or a member would leave it.
    """
    with open_zip(archive) as file:
        infos = [info for info in file.infolist() if not info.is_dir()]
    sizes = {PurePosixPath(info.filename): info.file_size for info in infos}
    sizes = {path: size for path, size in sizes.items() if "__MACOSX" not in path.parts}
    depth = len(PurePosixPath(sign).parts)
    tops = sorted({path.parents[depth - 1] for path in sizes if path.match(sign)})
    if len(tops) != 1:
        found = f"holds {sign} in {tops[0]} and in {tops[1]}" if tops else f"holds no {sign}"
        raise ValueError(f"{archive} {found}: it is another archive, delete or rename it")
    [top] = tops
    targets = {folder / p.relative_to(top): n for p, n in sizes.items() if p.is_relative_to(top)}
    if all(path.is_file() and path.stat().st_size >= size for path, size in targets.items()):
        return
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        unpack(archive, part)
        if not folder.exists():
            os.rename(part / top, folder)
            return
        for target in sorted(targets, key=lambda path: path.match(sign)):
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(part / top / target.relative_to(folder), target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
