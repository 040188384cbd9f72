"""Write a LAS or LAZ file again, with another class at every point and nothing else changed."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pointcluster.datasets.readers.las import open_las
from pointcluster.datasets.readers.whole import whole
from pointcluster.datasets.scan_file import las_pieces
from pointcluster.files import replacing

RECORD = 54
"""Bytes before what a record of variable length holds."""
EXTRA_BYTES = ("LASF_Spec", 4)
LASZIP = ("laszip encoded", 22204)
COPC = ("copc", 1)
"""Records that say what extra bytes of a point mean, how points are packed, and where which are."""


def write_las(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    classes: Callable[[int, int], np.ndarray],
    *,
    field: str | None = None,
    say: Callable[[int], Any] | None = None,
) -> None:
    """Copy a file, and replace the class of every point.

    Header, records of variable length and all other fields of the points stay as they are, byte
    for byte. What must change does: with a field, the length of a point and the record that
    describes it; where a packed file becomes longer or shorter, the place of what stands behind the
    points. A COPC file becomes plain LAZ, as the index of its points holds for that file alone.

    Args:
        source: The file, ``.las`` or ``.laz``.
        target: Where to, packed if its suffix is ``.laz``; it appears whole or not at all.
        classes: Called with where some points begin and end, gives their classes, uint8.
        field: Write them to an extra dimension of this name, and leave the classification as it is.
        say: Is called with numbers of points that were written.

    Raises:
        ImportError: laspy or lazrs is not installed.
        OSError: A file cannot be read or written, or the disk is full.
        ValueError: The source is damaged; a class is above 31 and the format has no room for it; or
            the field has a name that the format cannot hold, or another type in the file.
    """
    source, target = Path(source), Path(target)
    copy = _Copy(source, field, packed=target.suffix.lower() == ".laz")
    with replacing(target) as temporary, open(temporary, "wb") as file:
        copy.write(file, classes, say)


class _Copy:
    """One file, taken apart into header, records, points and what stands behind them."""

    def __init__(self, source: Path, field: str | None, *, packed: bool) -> None:
        self.source, self.field, self.packed = source, field, packed
        with whole(source), open(source, "rb") as file:
            head = file.read(375)
            self.size_of_header, self.start, count = struct.unpack_from("<HII", head, 94)
            file.seek(0)
            self.header = bytearray(file.read(self.size_of_header))
            self.version = (head[24], head[25])
            self.records = [_record(file) for _ in range(count)]
            self.gap = file.read(self.start - file.tell())
        (self.form, self.length) = struct.unpack_from("<BH", self.header, 104)
        self.records = [each for each in self.records if _key(each) != COPC]
        self.is_new = False
        if field is not None:
            self._describe(field)

    def _describe(self, field: str) -> None:
        """Add the field to what describes a point's extra bytes, unless it is there."""
        name = field.encode()
        if not 0 < len(name) <= 32:
            raise ValueError(f"--field {field}: a name has 1 to 32 bytes, found {len(name)}")
        with open_las(self.source) as reader:
            known = {each.name: each for each in reader.header.point_format.dimensions}
        if field in known:
            if not (known[field].num_elements == 1 and known[field].dtype == np.dtype(np.uint8)):
                raise ValueError(
                    f"--field {field}: the file has it already, as {known[field].dtype}, and "
                    "classes need uint8"
                )
            return
        self.is_new = True
        described = struct.pack(
            "<2xBB32s4x24x24x24x24x24x32s", 1, 0, name, b"class by pointcluster"
        )
        for number, record in enumerate(self.records):
            if _key(record) == EXTRA_BYTES:
                self.records[number] = _with_content(record, record[RECORD:] + described)
                return
        head = struct.pack("<H16sHH32s", 0, b"LASF_Spec", 4, len(described), b"Extra Bytes Record")
        self.records.append(head + described)

    def write(
        self,
        file: BinaryIO,
        classes: Callable[[int, int], np.ndarray],
        say: Callable[[int], Any] | None,
    ) -> None:
        length = self.length + self.is_new
        places = [n for n, record in enumerate(self.records) if _key(record) == LASZIP]
        old = self.records[places[0]] if places else None
        records = [record for record in self.records if _key(record) != LASZIP]
        laz: Any = None
        if self.packed:
            import lazrs

            laz = self._packing(old, length)
            content = bytes(laz.record_data())
            new = struct.pack(
                "<H16sHH32s", 0, b"laszip encoded", 22204, len(content), b"http://laszip.org"
            )
            place = places[0] if places else len(records)
            records.insert(place, _with_content(new if old is None else old, content))
        start = self.size_of_header + sum(map(len, records)) + len(self.gap)
        header = bytearray(self.header)
        form = (self.form & 0x3F) | (0x80 if self.packed else 0)
        struct.pack_into("<IIBH", header, 96, start, len(records), form, length)
        file.write(b"".join([header, *records, self.gap]))
        if self.packed:
            stream = _Stream(file)
            packer = lazrs.LasZipCompressor(stream, laz)
            for piece in self._points(classes, say):
                stream.kept(packer.compress_many, piece)
            stream.kept(packer.done)
            file.seek(0, os.SEEK_END)
        else:
            for piece in self._points(classes, say):
                file.write(piece)
        self._behind(file, header)

    def _packing(self, old: bytes | None, length: int) -> Any:
        """How points are packed: as they were, unless pieces differ in size or points grew."""
        import lazrs

        if old is not None and not self.is_new:
            laz = lazrs.LazVlr(old[RECORD:])
            if not laz.uses_variable_size_chunks():
                return laz
        with open_las(self.source) as reader:
            standard = reader.header.point_format.num_standard_bytes
        return lazrs.LazVlr.new_for_compression(self.form & 0x3F, length - standard)

    def _points(
        self, classes: Callable[[int, int], np.ndarray], say: Callable[[int], Any] | None
    ) -> Iterator[bytes]:
        """The points as they are packed in a file, with their new classes."""
        begin = 0
        for piece in las_pieces(self.source):
            found = classes(begin, begin + len(piece))
            begin += len(piece)
            if self.field is None:
                room = 31 if self.form & 0x3F < 6 else 255
                if found.max(initial=0) > room:
                    raise ValueError(
                        f"{self.source}: class {found.max()} does not fit, this format of points "
                        "has room for 0 to 31; --field NAME writes to an extra dimension"
                    )
                piece.classification = found
            elif not self.is_new:
                piece[self.field] = found
            rows = np.ascontiguousarray(piece.array).view(np.uint8).reshape(len(found), -1)
            if self.is_new:
                rows = np.concatenate([rows, found[:, None].astype(np.uint8)], axis=1)
            yield rows.tobytes()
            if say is not None:
                say(len(found))

    def _behind(self, file: BinaryIO, header: bytearray) -> None:
        """Copy what stands behind the points, and say in the header where it is now."""
        if self.version < (1, 3):
            return
        places = [227] if self.version == (1, 3) else [227, 235]
        old = [struct.unpack_from("<Q", self.header, at)[0] for at in places]
        (number,) = struct.unpack_from("<I", self.header, 243) if len(places) > 1 else (0,)
        if len(places) > 1 and not number:
            old[1] = 0
        begins = [place for place in old if place >= self.start]
        if not begins:
            return
        here, first = file.tell(), min(begins)
        with open(self.source, "rb") as source:
            source.seek(first)
            if number and self.version >= (1, 4):
                self._extended(source, file, header, old, here, number)
            else:
                while block := source.read(1 << 20):
                    file.write(block)
                struct.pack_into("<Q", header, 227, here + old[0] - first)
        file.seek(0)
        file.write(header)
        file.seek(0, os.SEEK_END)

    def _extended(
        self,
        source: BinaryIO,
        file: BinaryIO,
        header: bytearray,
        old: list[int],
        here: int,
        number: int,
    ) -> None:
        """The extended records, but for COPC's, whose index is of another file."""
        source.seek(old[1])
        kept = []
        for _ in range(number):
            begin = source.tell()
            head = source.read(60)
            (size,) = struct.unpack_from("<Q", head, 20)
            user = head[2:18].rstrip(b"\0").decode(errors="replace")
            if user != "copc":
                kept.append((begin, 60 + size))
            source.seek(size, os.SEEK_CUR)
        for begin, size in kept:
            if old[0] == begin:
                struct.pack_into("<Q", header, 227, file.tell())
            source.seek(begin)
            while size:
                block = source.read(min(size, 1 << 20))
                if not block:
                    raise ValueError("an extended record ends early")
                file.write(block)
                size -= len(block)
        struct.pack_into("<QI", header, 235, here if kept else 0, len(kept))


class _Stream:
    """What a packer writes to. It hides the system's errors in its own: here they are kept."""

    def __init__(self, file: BinaryIO) -> None:
        self.seek, self.tell = file.seek, file.tell
        self.file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        return self._tried(self.file.write, data)

    def flush(self) -> None:
        self._tried(self.file.flush)

    def _tried(self, action: Callable[..., Any], *data: bytes) -> Any:
        try:
            return action(*data)
        except OSError as error:
            self.error = error
            raise

    def kept(self, action: Callable[..., Any], *data: bytes) -> None:
        """Let the packer do something, and raise what the system said about it."""
        try:
            action(*data)
        except Exception as error:
            if self.error is not None:
                raise self.error from error
            raise


def _record(file: BinaryIO) -> bytes:
    """The next record of variable length, whole."""
    head = file.read(RECORD)
    (size,) = struct.unpack_from("<H", head, 20)
    return head + file.read(size)


def _key(record: bytes) -> tuple[str, int]:
    """Whose record it is, and its number."""
    (number,) = struct.unpack_from("<H", record, 18)
    return record[2:18].split(b"\0")[0].decode(errors="replace"), number


def _with_content(record: bytes, content: bytes) -> bytes:
    head = bytearray(record[:RECORD])
    struct.pack_into("<H", head, 20, len(content))
    return bytes(head) + content
