"""Points and meshes in formats of their own, each read by the library that knows it best."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pointcluster.datasets.point_tables import by_name


def read_mesh(path: Path, points: int, seed: int | Sequence[int]) -> dict[str, np.ndarray]:
    """Read a mesh, sampled evenly by area, or the vertices of a file without faces.

    The meshes of a scene become one. The colours are those of vertices or faces.

    Raises:
        ImportError: trimesh is not installed, or too old.
        OSError: The file cannot be read.
        ValueError: It is damaged or empty, or its faces have no area.
    """
    try:
        import trimesh
    except ImportError as error:
        raise ImportError(
            f"reading {path.suffix} files needs trimesh: pip install trimesh"
        ) from error
    if not hasattr(trimesh, "load_scene"):
        raise ImportError(
            f"reading {path.suffix} files needs trimesh 4.6 or newer, here is "
            f"{trimesh.__version__}: pip install --upgrade trimesh"
        )
    data, kind = path.read_bytes(), path.suffix.lower()[1:]
    try:
        with _numbers_alone():
            if kind == "ply":
                mesh = _ply(data)
            else:
                if kind == "off":
                    _check_off(data)
                scene = trimesh.load_scene(
                    io.BytesIO(data), file_type=kind, process=False, skip_materials=True
                )
                mesh = _joined(scene)
    except MemoryError:
        raise
    except Exception as error:  # whatever the parsers make of a damaged file
        raise ValueError(
            f"{path} is damaged, ends early or is no .{kind} file: {error or repr(error)}"
        ) from error
    if isinstance(mesh, dict):
        return mesh
    if mesh is None:
        raise ValueError(f"{path} holds neither points nor faces, or is no .{kind} file")
    if len(mesh.faces) and not np.isfinite(mesh.vertices[np.unique(mesh.faces)]).all():
        raise ValueError(f"{path}: a corner of a face is NaN or infinite")
    if not mesh.area > 0:
        raise ValueError(f"{path}: none of its {len(mesh.faces):,} faces has an area to sample")
    pos, face = trimesh.sample.sample_surface(mesh, points, seed=np.random.default_rng(seed))[:2]
    corners = np.asarray(mesh.triangles)[face]  # [P, 3, 3]
    edges = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    out = {"pos": np.asarray(pos), "normal": np.cross(*edges)}
    visual = mesh.visual.kind
    if visual == "face":
        out["color"] = mesh.visual.face_colors[face, :3] / 255
    elif visual == "vertex":
        weights = trimesh.triangles.points_to_barycentric(corners, pos)
        colors = mesh.visual.vertex_colors[mesh.faces[face], :3] / 255  # [P, 3, 3]
        out["color"] = np.clip(np.einsum("pc,pcd->pd", weights, colors), 0, 1)
    return out


@contextmanager
def _numbers_alone() -> Iterator[None]:
    """Let text among numbers be an error, where it would end the list of numbers silently.

    NumPy before 2.4 only warns of it. A process has one list of filters for all of its threads, so
    this names that one warning: nothing else becomes an error in another thread meanwhile.
    """
    if np.lib.NumpyVersion(np.__version__) >= "2.4.0":
        yield
        return
    with warnings.catch_warnings():
        text = "string or file could not be read to its end"
        warnings.filterwarnings("error", text, DeprecationWarning)
        yield


def _ply(data: bytes) -> Any:
    """A mesh, or a dictionary of points, after a check that all rows announced are there."""
    import trimesh
    from trimesh.exchange.ply import load_ply

    found = load_ply(io.BytesIO(data), skip_materials=True, fix_texture=False)
    elements = found["metadata"]["_ply_raw"]
    for name, element in elements.items():
        rows = element.get("data")
        if name in ("vertex", "face") and element["length"]:
            first = next(iter(rows.values())) if isinstance(rows, dict) else rows
            count = 0 if first is None else len(first)
            if count != element["length"]:
                raise ValueError(f"{element['length']:,} of {name} announced, {count:,} there")
    if "vertices" not in found:
        return None
    colors = found.get("vertex_colors")
    if found.get("faces") is not None:
        colored = {"vertex_colors": colors} if colors is not None else {}
        if not colored and found.get("face_colors") is not None:
            colored = {"face_colors": found["face_colors"]}
        return trimesh.Trimesh(found["vertices"], found["faces"], process=False, **colored)
    out = {"pos": np.asarray(found["vertices"], np.float64)}
    if found.get("vertex_normals") is not None:
        out["normal"] = np.asarray(found["vertex_normals"], np.float64)
    if colors is not None:
        out["color"] = _to_unit(colors)
    return out


def _to_unit(colors: Any) -> np.ndarray:
    """Colours as trimesh gives them: bytes, or fractions."""
    colors = np.asarray(colors)[:, :3]
    return colors / 255 if colors.dtype.kind in "iu" else colors.astype(np.float64)


def _joined(scene: Any) -> Any:
    """All meshes of a scene as one, or all its points where it has no mesh; `None` if neither."""
    import trimesh

    parts = scene.dump()
    meshes = [part for part in parts if isinstance(part, trimesh.Trimesh) and len(part.faces)]
    if meshes:
        return trimesh.util.concatenate(meshes) if len(meshes) > 1 else meshes[0]
    kinds = (trimesh.Trimesh, trimesh.PointCloud)  # or a mesh without faces
    clouds: list[Any] = [part for part in parts if isinstance(part, kinds) and len(part.vertices)]
    if not clouds:
        return None
    out = {"pos": np.concatenate([np.asarray(cloud.vertices) for cloud in clouds])}
    colors = [_to_unit(part.colors) for part in clouds if len(getattr(part, "colors", ()))]
    if colors and len(joined := np.concatenate(colors)) == len(out["pos"]):
        out["color"] = joined
    return out


def _check_off(data: bytes) -> None:
    """Compare the number of lines with what the header announces: trimesh reads fewer faces."""
    lines = [line.split(b"#")[0].strip() for line in data.splitlines()]
    lines = [line for line in lines if line]
    # "OFF" may stand in the same line as the numbers.
    header = re.match(rb"C?OFF\s*(\d+)\s+(\d+)", b" ".join(lines[:2]))
    if header is None:
        raise ValueError("it does not begin with OFF and the numbers of vertices and faces")
    expected = int(header[1]) + int(header[2])
    found = len(lines) - (1 if re.match(rb"C?OFF\s*\d", lines[0]) else 2)
    if found < expected:
        raise ValueError(f"{expected:,} vertices and faces announced, {found:,} there")


def read_pcd(path: Path) -> dict[str, np.ndarray]:
    """Read a file of the Point Cloud Library: text, binary or compressed.

    Raises:
        ImportError: pypcd4 is not installed.
        OSError: The file cannot be read.
        ValueError: It is damaged, or has no x, y and z.
    """
    try:
        from pypcd4 import PointCloud
    except ImportError as error:
        raise ImportError("reading .pcd files needs pypcd4: pip install pypcd4") from error
    data = path.read_bytes()
    try:
        with _numbers_alone():
            cloud: Any = PointCloud.from_fileobj(io.BufferedReader(io.BytesIO(data)))
            columns = {name: cloud.pc_data[name] for name in cloud.pc_data.dtype.names}
            announced = cloud.points
            packed = next((name for name in ("rgb", "rgba") if name in columns), None)
            if packed is not None:
                # Four bytes, whatever their type is called: blue, green, red and the last one.
                word = np.ascontiguousarray(columns.pop(packed), dtype=columns_type(cloud, packed))
                word = word.view("<u4").ravel()
                for shift, name in zip((16, 8, 0), "rgb", strict=True):
                    columns[name] = (word >> shift & 255).astype(np.uint8)
    except MemoryError:
        raise
    except Exception as error:  # whatever the parser makes of a damaged file
        raise ValueError(
            f"{path} is damaged, ends early or is no .pcd file: {error or repr(error)}"
        ) from error
    columns = {name: np.atleast_1d(column) for name, column in columns.items()}
    if any(len(column) != announced for column in columns.values()):
        found = len(next(iter(columns.values())))
        raise ValueError(f"{path} announces {announced:,} points and holds {found:,}")
    return by_name(path, columns)


def columns_type(cloud: Any, name: str) -> np.dtype:
    """The type of a packed colour, which must have four bytes."""
    kind = cloud.pc_data.dtype[name]
    if kind.itemsize != 4:
        raise ValueError(f"{name} has {kind.itemsize} bytes, expected 4")
    return kind


def read_las(path: Path) -> dict[str, np.ndarray]:
    """Read an airborne or terrestrial scan; colours of zeros alone count as none.

    Raises:
        ImportError: laspy is not installed, or lazrs for a `.laz` file.
        OSError: The file cannot be read.
        ValueError: It is damaged.
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
            las = laspy.read(file)
        out = {"pos": np.asarray(las.xyz, np.float64)}
        announced = las.header.point_count
        names = set(las.point_format.dimension_names)
        if {"red", "green", "blue"} <= names:
            color = np.column_stack([las.red, las.green, las.blue]).astype(np.float64)
            if color.any():
                # 16 bits by the standard; not every writer keeps to it.
                out["color"] = color / (65535 if color.max() > 255 else 255)
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
