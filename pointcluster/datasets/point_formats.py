"""Points and meshes in formats of their own, each read by the library that knows it best."""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pointcluster.datasets.point_tables import by_name, label_of, no_labels, to_unit
from pointcluster.datasets.polygons import triangulate
from pointcluster.datasets.read_glb import read_glb
from pointcluster.datasets.read_obj import read_obj
from pointcluster.datasets.read_off import read_off
from pointcluster.datasets.read_ply import read_ply

READERS: dict[str, Any] = {"off": read_off, "obj": read_obj, "glb": read_glb}
FIELDS = ("pos", "normal", "color", "label")


def read_mesh(
    path: Path, points: int, seed: int | Sequence[int], label: str | None = None
) -> dict[str, np.ndarray]:
    """Read a mesh, sampled evenly by area, or the vertices of a file without faces.

    The meshes of a scene become one. The colours and labels are those of vertices or faces.

    Args:
        path: The file.
        points: To draw from the surface.
        seed: What they are drawn by.
        label: The property of a `.ply` file that holds labels; by default one that is called so.

    Raises:
        ImportError: trimesh is not installed.
        OSError: The file cannot be read.
        ValueError: It is damaged or empty, or its faces have no area.
    """
    try:
        import trimesh
    except ImportError as error:
        raise ImportError(
            f"reading {path.suffix} files needs trimesh: pip install trimesh"
        ) from error
    data, kind = path.read_bytes(), path.suffix.lower()[1:]
    with _whole(path):
        if kind == "ply":
            found = read_ply(data, label)
        elif kind in READERS:
            found = READERS[kind](data)
        else:
            data = _whole_stl(data)
            mesh: Any = trimesh.load_mesh(io.BytesIO(data), file_type=kind, process=False)
            found = {"pos": np.asarray(mesh.vertices), "polygons": np.asarray(mesh.faces)}
    if not len(found.get("pos", ())) and not len(found.get("polygons", ())):
        raise ValueError(f"{path} holds neither points nor faces, or is no .{kind} file")
    for key in ("color", "face_color"):
        if key in found:
            color = np.asarray(found[key])
            found[key] = to_unit(path, color.astype(np.float64), color.dtype)
    if not len(found.get("polygons", ())):
        return {key: found[key] for key in FIELDS if key in found}
    return _sampled(path, found, points, seed)


def _sampled(
    path: Path, found: dict[str, Any], points: int, seed: int | Sequence[int]
) -> dict[str, np.ndarray]:
    """Points of a surface, with the normals of their faces, and colours of corners or faces."""
    import trimesh

    with _whole(path):
        faces, owner = triangulate(found["pos"], found["polygons"])
    corners = found["pos"][np.unique(faces)]
    if not np.isfinite(corners).all():
        raise ValueError(f"{path}: a corner of a face is NaN or infinite")
    if np.abs(corners).max(initial=0) > np.finfo(np.float32).max:
        raise ValueError(f"{path}: its positions reach beyond float32")
    with _whole(path):
        mesh = trimesh.Trimesh(found["pos"], faces, process=False)
        area = mesh.area
    if not area > 0:
        raise ValueError(f"{path}: none of its {len(faces):,} faces has an area to sample")
    with _whole(path):
        rng = np.random.default_rng(seed)
        pos, face = trimesh.sample.sample_surface(mesh, points, seed=rng)[:2]
        corners = np.asarray(mesh.triangles)[face]  # [P, 3, 3]
        edges = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
        out = {"pos": np.asarray(pos), "normal": np.cross(*edges)}
        weights = trimesh.triangles.points_to_barycentric(corners, pos)
        if "color" in found:
            colors = found["color"][faces[face]]  # [P, 3, 3]
            out["color"] = np.clip(np.einsum("pc,pcd->pd", weights, colors), 0, 1)
        elif "face_color" in found:
            out["color"] = found["face_color"][owner[face]]
        if "face_label" in found:
            out["label"] = found["face_label"][owner[face]]
        elif "label" in found:  # of the nearest corner
            nearest = weights.argmax(axis=1)
            out["label"] = found["label"][faces[face, nearest]]
    return out


def _whole_stl(data: bytes) -> bytes:
    """A binary STL file without what may follow its triangles.

    Raises:
        ValueError: There are fewer than it announces.
    """
    if len(data) < 84 or b"facet" in data[:2048].lower():  # text: "solid" begins binary ones, too
        return data
    (triangles,) = struct.unpack_from("<I", data, 80)
    if triangles > (len(data) - 84) // 50:
        raise ValueError(f"{triangles:,} triangles announced, {(len(data) - 84) // 50:,} there")
    return data[: 84 + 50 * triangles]


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    """Make whatever a parser raises of a damaged file the ValueError that names the file."""
    try:
        yield
    except (MemoryError, ImportError):
        raise
    except Exception as error:
        raise ValueError(
            f"{path} is damaged, ends early or is no {path.suffix.lower()} file: "
            f"{error or repr(error)}"
        ) from error


def read_pcd(path: Path, label: str | None = None) -> dict[str, np.ndarray]:
    """Read a file of the Point Cloud Library: text, binary or compressed.

    Args:
        path: The file.
        label: The field of labels; by default one that is called so.

    Raises:
        ImportError: pypcd4 is not installed.
        OSError: The file cannot be read.
        ValueError: It is damaged, has no x, y and z, or no such field.
    """
    try:
        from pypcd4 import PointCloud
    except ImportError as error:
        raise ImportError("reading .pcd files needs pypcd4: pip install pypcd4") from error
    data = path.read_bytes()
    with _whole(path):
        data = _usual_pcd(data)
        _check_pcd(data)
        cloud: Any = PointCloud.from_fileobj(io.BufferedReader(io.BytesIO(data)))
        columns = {name: cloud.pc_data[name] for name in cloud.pc_data.dtype.names}
        announced = cloud.points
        packed = next((name for name in ("rgb", "rgba") if name in columns), None)
        if packed is not None:
            # Four bytes, whatever their type is called: blue, green, red and the last one.
            column = np.array(columns.pop(packed), dtype=columns_type(cloud, packed))
            word = column.ravel().view("<u4").copy()
            if column.dtype.kind == "f":
                # Not a number: no colour. The bytes of an opaque colour are no number, too.
                text = cloud.metadata.data == "ascii"
                word[np.isnan(column.ravel()) if text else word == 0x7FC00000] = 0
            for shift, name in zip((16, 8, 0), "rgb" if word.any() else "", strict=False):
                columns[name] = (word >> shift & 255).astype(np.uint8)
    columns = {name: np.atleast_1d(column) for name, column in columns.items()}
    if any(len(column) != announced for column in columns.values()):
        found = len(next(iter(columns.values())))
        raise ValueError(f"{path} announces {announced:,} points and holds {found:,}")
    return by_name(path, columns, label)


def _usual_pcd(data: bytes) -> bytes:
    """A file with the header that newer writers give it, and in text one space between numbers.

    Before version .7, COUNT could be left out or, for one, be 0; WIDTH and POINTS say the same.
    """
    head: dict[bytes, list[bytes]] = {}
    file = io.BytesIO(data)
    for line in file:
        words = line.split()
        if words and not words[0].startswith(b"#"):
            head[words[0].upper()] = words[1:]
            if words[0].upper() == b"DATA":
                break
    head.setdefault(b"FIELDS", head.get(b"COLUMNS", []))
    head.setdefault(b"COUNT", [b"1"] * len(head[b"FIELDS"]))
    head[b"COUNT"] = [b"1" if count == b"0" else count for count in head[b"COUNT"]]
    head.setdefault(b"HEIGHT", [b"1"])
    if b"WIDTH" in head:
        size = math.prod(int(head[key][0]) for key in (b"WIDTH", b"HEIGHT"))
        head.setdefault(b"POINTS", [b"%d" % size])
    head.setdefault(b"WIDTH", head.get(b"POINTS", []))
    head[b"DATA"] = [word.lower() for word in head.get(b"DATA", [])]
    lines = [b"VERSION .7"]
    for key in (b"FIELDS", b"SIZE", b"TYPE", b"COUNT", b"WIDTH", b"HEIGHT", b"POINTS", b"DATA"):
        if not head.get(key):
            raise ValueError(f"its header has no {key.decode()}")
        lines.append(b" ".join([key, *head[key]]))
    body = data[file.tell() :]
    if head[b"DATA"] == [b"ascii"]:
        body = b"\n".join(b" ".join(row.split()) for row in body.splitlines() if row.strip())
    return b"\n".join(lines) + b"\n" + body


def _check_pcd(data: bytes) -> None:
    """Compare what a header announces with the file's size, before memory is taken for it."""
    from pypcd4 import Encoding, MetaData

    file, lines = io.BytesIO(data), []
    for raw in file:  # as PointCloud.from_fileobj() finds the header's end
        line = raw.decode().strip()
        if line and not line.startswith("#"):
            lines.append(line)
            if line.startswith("DATA") or len(lines) >= 10:
                break
    header = MetaData.parse_header(lines)
    if sum(header.count) > len(data):
        raise ValueError(f"{sum(header.count):,} numbers a point announced in {len(data):,} bytes")
    sizes = zip(header.fields, header.size, header.count, strict=False)
    width, room = sum(size * count for _, size, count in sizes), len(data) - file.tell()
    if header.data == Encoding.ASCII or not header.points:
        return
    if header.data != Encoding.BINARY:
        packed, block = struct.unpack_from("<II", data, file.tell())
        packed = min(packed, room - 8)
        if block > 88 * packed:  # LZF makes of three bytes at most 264
            raise ValueError(f"{block:,} bytes announced in {packed:,} compressed ones")
        room = block
    if header.points * width > room:
        raise ValueError(f"it announces {header.points:,} points and holds {room // width:,}")


def columns_type(cloud: Any, name: str) -> np.dtype:
    """The type of a packed colour, which must have four bytes."""
    kind = cloud.pc_data.dtype[name]
    if kind.itemsize != 4:
        raise ValueError(f"{name} has {kind.itemsize} bytes, expected 4")
    return kind


def read_las(path: Path, label: str | None = None) -> dict[str, np.ndarray]:
    """Read an airborne or terrestrial scan.

    Colours of zeros alone count as none, as do classes where no dimension is named as theirs.

    Args:
        path: The file.
        label: The dimension of labels: ``"classification"``, which is the default, or another one,
            such as one of the extra bytes.

    Raises:
        ImportError: laspy is not installed, or lazrs for a `.laz` file.
        OSError: The file cannot be read.
        ValueError: It is damaged, or has no such dimension of whole numbers.
    """
    try:
        import laspy

        if path.suffix.lower() == ".laz":
            import lazrs  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"reading {path.suffix} files needs laspy and lazrs: pip install 'laspy[lazrs]'"
        ) from error
    try:
        with path.open("rb") as file:
            _check_las(file, path.stat().st_size)
            file.seek(0)
            header = laspy.LasHeader.read_from(file)
            file.seek(0)
            backend = None
            if header.are_points_compressed:
                record = header.vlrs.get("LasZipVlr")[0].record_data
                _check_layers(file, path.stat().st_size, header, record)
                file.seek(0)
                (size,) = struct.unpack_from("<I", record, 12)
                # Several threads take memory for whole pieces of the size that the file announces.
                if 10_000_000 < size < 2**32 - 1:  # the last means that sizes differ
                    backend = laspy.LazBackend.Lazrs
            with laspy.open(file, closefd=False, laz_backend=backend) as reader:
                announced = reader.header.point_count
                names = {name.lower(): name for name in reader.header.point_format.dimension_names}
                if label is not None and label.lower() not in names:
                    raise ValueError(no_labels("", label, names.values()))
                dimension = names[(label or "classification").lower()]
                # In pieces, so that a number of points which is wrong takes no memory.
                pos, colors = [np.zeros((0, 3))], [np.zeros((0, 3), np.uint16)]
                labels = [np.zeros(0, np.int64)]
                for piece in reader.chunk_iterator(1_000_000):
                    pos.append(np.column_stack([piece.x, piece.y, piece.z]))
                    column = {dimension: np.asarray(piece[dimension])}
                    if (some := label_of("", column, label=dimension)) is not None:
                        labels.append(some)
                    if {"red", "green", "blue"} <= names.keys():
                        colors.append(np.column_stack([piece.red, piece.green, piece.blue]))
        out: dict[str, Any] = {"pos": np.concatenate(pos)}
        classes = np.concatenate(labels)
        if label is not None or classes.any():
            out["label"] = classes
        color = np.concatenate(colors)
        if color.any():
            out["color"] = to_unit(path, color.astype(np.float64), color.dtype)
    except (MemoryError, FileNotFoundError, PermissionError, IsADirectoryError):
        raise
    except BaseException as error:  # lazrs panics, too, which is no Exception
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        raise ValueError(
            f"{path} is damaged, ends early or is no {path.suffix} file: {error or repr(error)}"
        ) from error
    if len(out["pos"]) != announced:
        raise ValueError(f"{path} announces {announced:,} points and holds {len(out['pos']):,}")
    return out


def _check_las(file: BinaryIO, size: int) -> None:
    """Compare what a header announces with the file's size, before anything is read by it."""
    head = file.read(375)
    if head[:4] != b"LASF":
        raise ValueError("it does not begin with LASF")
    header, start, records, form, length, points = struct.unpack_from("<HIIBHI", head, 94)
    if not header <= start <= size:
        raise ValueError(f"its points begin at byte {start:,}, expected {header:,} to {size:,}")
    room = start - header
    if 54 * records > room:  # what the header of each takes
        raise ValueError(f"{records:,} records of variable length announced in {room:,} bytes")
    if (head[24], head[25]) >= (1, 4):
        extended, more, points = struct.unpack_from("<QIQ", head, 235)
        if more and 60 * more > size - extended:
            raise ValueError(
                f"{more:,} extended records announced at byte {extended:,} of {size:,}"
            )
        for _ in range(more):
            file.seek(extended + 20)
            (record,) = struct.unpack("<Q", file.read(8))
            extended += 60 + record
            if extended > size:
                raise ValueError(f"an extended record of {record:,} bytes announced in {size:,}")
    if not form & 0xC0:
        if points * length > size - start:
            raise ValueError(f"{points:,} points of {length} bytes announced in {size - start:,}")
    elif size >= start + 8:  # compressed, in pieces; their table lies behind them
        file.seek(start)
        (table,) = struct.unpack("<q", file.read(8))
        if start < table <= size - 8:
            file.seek(table + 4)
            (pieces,) = struct.unpack("<I", file.read(4))
            if pieces > size:
                raise ValueError(f"{pieces:,} pieces announced in {size:,} bytes")


# What of a point LAZ compresses apart, by the number of the kind of item; and of each extra byte.
LAYERS = {10: 9, 11: 1, 12: 2, 13: 1}
EXTRA_BYTES = 14


def _check_layers(file: BinaryIO, size: int, header: Any, record: bytes) -> None:
    """Compare the sizes of the layers in each piece with the piece's.

    The reader would take memory for whatever they announce, up to four gigabytes each.
    """
    import lazrs

    if not header.point_count:
        return
    (count,) = struct.unpack_from("<H", record, 32)
    items = [struct.unpack_from("<HHH", record, 34 + 6 * i) for i in range(count)]
    layers = [width if kind == EXTRA_BYTES else LAYERS.get(kind, 0) for kind, width, _ in items]
    if not all(layers):
        return  # of the first ten formats, whose pieces have no layers
    file.seek(header.offset_to_point_data)
    pieces = lazrs.read_chunk_table(file, lazrs.LazVlr(record))
    length, start = header.point_format.size, header.offset_to_point_data + 8
    sizes = struct.Struct(f"<{sum(layers)}I")
    fixed = length + 4 + sizes.size  # the first point, as it is, and the number of points
    for _, piece in pieces:
        if not fixed <= piece <= size - start:
            raise ValueError(f"a piece of {piece:,} bytes announced at byte {start:,} of {size:,}")
        file.seek(start + length + 4)
        announced = sum(sizes.unpack(file.read(sizes.size)))
        if announced > piece - fixed:
            raise ValueError(f"layers of {announced:,} bytes announced in a piece of {piece:,}")
        start += piece
