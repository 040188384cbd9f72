"""Build HomeObjects: labelled point clouds, sampled from the CAD models of a Debian package.

    apt-get download sweethome3d-furniture
    python datasets/home_objects/prepare.py --source sweethome3d-furniture_1.8-1_all.deb

``--source`` is that package, or a folder that holds its five .sh3f archives. The result is
``home_objects.npz`` and ``attribution.csv``, beside this file or in ``--out``. ``--sheets FOLDER``
draws every model class by class, every group of near-identical models, and the closest pairs that
were not grouped, so that labels and groups can be checked by eye.

Needs pointcluster, scipy and trimesh; ``--sheets`` needs matplotlib too.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import itertools
import os
import re
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pointcluster.files import write_whole

# The archives of sweethome3d-furniture 1.8-1: name, SHA-256, licence, whom to credit.
ARCHIVES = (
    (
        "BlendSwap-CC-0.sh3f",
        "7ef093fe70cedbb160bdb532d86a84580459635e34130c16777f549eba1993dc",
        "CC0 1.0",
        "{creator}, Blend Swap (http://www.blendswap.com)",
    ),
    (
        "BlendSwap-CC-BY.sh3f",
        "29ae78937b4d5dbe93db74067817a984fa411f017b007fd666bc40368bdb0c83",
        "CC BY 3.0",
        "{creator}, Blend Swap (http://www.blendswap.com)",
    ),
    (
        "KatorLegaz.sh3f",
        "f512443b5d3a6903497573095f971f44334b3165ab32182133051fa9487764a6",
        "CC BY 3.0 US",
        "Copyright 2003-2008 Andrew Kator & Jennifer Legaz",
    ),
    (
        "Reallusion.sh3f",
        "dd553207876ccec6372dde7aaea6b2dcf2d631997fcdb8a9856a639e0db9aa9b",
        "CC BY 3.0 US",
        "Copyright 2008-2016 Reallusion (http://www.reallusion.com)",
    ),
    (
        "Scopia.sh3f",
        "b4505451b1e8ab339c101c0afddfef4e1a07b95aa8c821c61ec41487afd43850",
        "CC BY 3.0",
        "Copyright 2006-2020 Emmanuel Puybaret / eTeks <info@eteks.com> and "
        "Scopia Visual Interfaces Systems, s.l. (http://www.scopia.es)",
    ),
)
LICENCE_URLS = {
    "CC0 1.0": "https://creativecommons.org/publicdomain/zero/1.0/",
    "CC BY 3.0": "https://creativecommons.org/licenses/by/3.0/",
    "CC BY 3.0 US": "https://creativecommons.org/licenses/by/3.0/us/",
}

CLASSES = (
    "bed", "cabinet", "chair", "door_or_window", "lamp", "person", "plant", "sanitary", "sofa",
    "table", "vehicle", "vessel",
)  # fmt: skip

# Ordered rules: class, category, name. The first whose two patterns match the whole category and
# the whole name (case ignored) decides. None drops the model: it is ambiguous, or of no class here.
RULES: tuple[tuple[str | None, str, str], ...] = (
    ("person", "Characters", r"((holding|sitting|lying down|mannequin) )?(female|male|boy|girl)"),
    (None, "Characters", ".*"),  # animals
    (None, "Vehicles", "skateboard|stroller"),
    ("vehicle", "Vehicles", ".*"),
    ("vehicle", "Bedroom", "car model|toy train"),
    (None, "Doors and windows", "elevator"),  # the whole cabin
    ("door_or_window", "Doors and windows", r".*\b(door|window)\b.*"),
    (None, "Lights", "candle|flashlight"),
    ("lamp", "Lights", ".*"),
    (
        "plant",
        "Exterior|Living room",
        r".*\b(tree|plant|acacia|bamboo|bush|hedge|cactus|flowers?)\b.*",
    ),
    (
        "plant",
        "Exterior|Living room",
        r".*\b(pine|copper beech|cypress|ficus|maple|poplar|yucca)\b.*",
    ),
    ("plant", "Exterior|Living room", "peach blossom|orchids|spathiphyllum|tulips|white lily"),
    (None, ".*", "vanity|double vanity|sink cabinet"),  # as much a cabinet as a washbasin
    ("sanitary", "Bathroom|Exterior", "(small )?(basin|washbasin|lavatory|bidet|urinal|jacuzzi)"),
    ("sanitary", "Bathroom", "((island )?bath)|corner bathtub|toilets unit"),
    ("bed", "Bedroom", "opened convertible sofa bz"),
    ("sofa", ".*", r".*\b(sofa|couch)\b.*"),
    ("bed", "Bedroom", r"(.*\b)?(bed|crib|futon|air mattress)"),
    (None, ".*", "wheelchair|armchair ottoman"),
    ("chair", ".*", r"(.*\b)?(chair|armchair|stool|class seat|pool lounge)( with cushion)?"),
    (
        "cabinet",
        ".*",
        r".*\b(cabinet|cupboard|wardrobe|bookcase|shelves|dresser|locked locker)\b.*",
    ),
    ("cabinet", ".*", "chest|bedside table|changing table|tv stand|island"),
    (None, ".*", "table tennis bat|table fan|football table"),
    ("table", ".*", r".*\b(table|desk)\b.*"),
    (
        "vessel",
        "Kitchen|Bathroom|Exterior",
        r".*\b(bottle|glass|cup|mug|jar|pottery|teapot|creamer)",
    ),
    ("vessel", "Kitchen|Bathroom", "flacon|cosmetics pot|bowl( with .*)?|boiler|sugar|oil servers"),
    ("vessel", "Kitchen", "coffee press|espresso kettle|large pan"),
    ("vessel", "Miscellaneous", "vase|barrel"),
)

# What the rules get wrong, found on the sheets of thumbnails: model -> class, or None to drop it.
EXCEPTIONS: dict[str, str | None] = {
    "blendswap-cc-0/JapaneseLantern": None,  # a plain cylinder without its colours
    "scopia/contemp_living_room": "cabinet",  # a wall unit
    "scopia/ext_chair": None,  # named a chair, looks like a sofa
    "scopia/office_box": "cabinet",  # named a box, is a wall of lockers
    "scopia/rattanTable": None,  # a plain block
}

POINTS = 2048  # a cloud, as it is stored
DENSE = 8192  # a cloud, as it is compared with others; its first POINTS are the ones stored
QUERY = 1024
STEP = 1 / 2047  # positions are stored as multiples of this
GRID = 12
# Near-identical: at most NEARER apart, in edges of the unit box, or at most NEAR and at most
# NEAR_RATIO times as far as two samples of one model.
NEARER, NEAR, NEAR_RATIO = 0.02, 0.025, 1.7
TEST_SHARE = 0.25


# --- reading -------------------------------------------------------------------------------------


def find_archives(source: Path, scratch: Path) -> dict[str, Path]:
    """Find the five archives in a folder, or unpack them from a Debian package into ``scratch``.

    Raises:
        FileNotFoundError: There is no such file, or archives are missing.
        ValueError: The file is no Debian package that Python can unpack.
    """
    names = [archive[0] for archive in ARCHIVES]
    if source.is_file():
        _unpack_deb(source, scratch, set(names))
        found = {name: scratch / name for name in names}
    elif source.is_dir():
        found = {path.name: path for path in sorted(source.rglob("*.sh3f"))}
    else:
        raise FileNotFoundError(f"{source}: no such file or folder")
    missing = [name for name in names if name not in found or not found[name].is_file()]
    if missing:
        raise FileNotFoundError(f"{source} has no {', '.join(missing)}: expected {names}")
    return {name: found[name] for name in names}


def _unpack_deb(package: Path, folder: Path, names: set[str]) -> None:
    with package.open("rb") as file:  # an `ar` archive: 8 bytes, then members with 60-byte headers
        if file.read(8) != b"!<arch>\n":
            raise ValueError(f"{package} is no Debian package (and no folder)")
        while len(header := file.read(60)) == 60:
            member, size = header[:16].decode("ascii").strip(" /"), int(header[48:58])
            if member.startswith("data.tar"):
                break
            file.seek(size + size % 2, os.SEEK_CUR)
        else:
            raise ValueError(f"{package} is truncated: it has no data.tar")
        try:
            with tarfile.open(fileobj=io.BytesIO(file.read(size))) as tar:
                for entry in tar:
                    name = Path(entry.name).name
                    if name in names and entry.isfile() and (data := tar.extractfile(entry)):
                        (folder / name).write_bytes(data.read())
        except (tarfile.TarError, EOFError, OSError) as error:
            raise ValueError(
                f"{package}: {member} cannot be read ({error}); unpack the package with "
                "`dpkg-deb -x PACKAGE FOLDER` and give the folder as --source"
            ) from error


def check_archives(paths: dict[str, Path]) -> list[str]:
    """Compare the archives with the recorded SHA-256; return one line for each that differs."""
    lines = []
    for name, expected, *_ in ARCHIVES:
        found = hashlib.sha256(paths[name].read_bytes()).hexdigest()
        if found != expected:
            lines.append(f"{paths[name]}: SHA-256 is {found}, expected {expected}")
    return lines


def parse_properties(text: str) -> dict[str, str]:
    """Read a Java properties file, as far as the catalogues use that format."""
    text = re.sub(r"\\\r?\n[ \t]*", "", text)
    properties = {}
    for line in text.splitlines():
        key, separator, value = line.partition("=")
        if separator and not key.lstrip().startswith(("#", "!")):
            value = re.sub(r"\\u([0-9a-fA-F]{4})", lambda m: chr(int(m[1], 16)), value.strip())
            properties[key.strip()] = value
    return properties


def read_catalogue(archive: zipfile.ZipFile, licence: str, credit: str) -> Iterator[dict[str, Any]]:
    """Yield one dictionary for each entry of an archive's catalogue, in the catalogue's order."""
    properties = parse_properties(
        archive.read("PluginFurnitureCatalog.properties").decode("latin-1")
    )
    texts: dict[str, str] = {}  # a licence file a model, where its author's own is included
    for path in archive.namelist():
        if re.search("licen[sc]e", Path(path).name, re.I) and "/" in path:
            texts[path.rpartition("/")[0]] = archive.read(path).decode("latin-1")
    for number in itertools.count(1):
        if f"name#{number}" not in properties:
            return
        name, category, path, creator, rotation = (
            properties.get(f"{key}#{number}", "")
            for key in ("name", "category", "model", "creator", "modelRotation")
        )
        model = path.strip("/").rpartition("/")[0]
        text = texts.get(model, "")
        source = re.search(r"https?://www\.blendswap\.com/blends/view/\d+", text)
        # Two models of the CC0 library come with their author's CC BY licence: that one counts.
        own = "CC BY 3.0" if re.search("licenses/by/3|Attribution 3", text) else licence
        yield {
            "model": model,
            "name": name,
            "category": category,
            "path": path.strip("/"),
            "rotation": np.array(rotation.split() or np.eye(3).ravel(), float).reshape(3, 3),
            "creator": creator,
            "credit": credit.format(creator=creator),
            "licence": own,
            "source": source[0] if source else "http://www.sweethome3d.com",
        }


def label(entry: dict[str, Any]) -> str | None:
    """Return the class of a catalogue entry, or ``None`` where it has none."""
    if entry["model"] in EXCEPTIONS:
        return EXCEPTIONS[entry["model"]]
    for name, category, pattern in RULES:
        if re.fullmatch(category, entry["category"], re.I) and re.fullmatch(
            pattern, entry["name"], re.I
        ):
            return name
    return None


# --- sampling ------------------------------------------------------------------------------------


def sample(obj: bytes, rotation: np.ndarray, seed: Sequence[int]) -> dict[str, Any]:
    """Sample a mesh evenly by area, inner and back faces included, after the catalogue's rotation.

    Returns:
        ``pos`` and ``normal``, both ``[DENSE, 3]`` and in random order; ``box`` ``[2, 3]`` of the
        mesh; ``counts``, its numbers of vertices and triangles.

    Raises:
        ValueError: The mesh has no face with an area.
    """
    import trimesh

    mesh = trimesh.load(
        io.BytesIO(obj), file_type="obj", force="mesh", process=False, skip_materials=True
    )
    if not isinstance(mesh, trimesh.Trimesh) or len(mesh.faces) == 0 or not mesh.area > 0:
        raise ValueError("the mesh has no face with an area")
    pos, face = trimesh.sample.sample_surface(mesh, DENSE, seed=np.random.default_rng(seed))[:2]
    corners = mesh.triangles[face]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    used = mesh.vertices[np.unique(mesh.faces)] @ rotation.T
    return {
        "pos": pos @ rotation.T,
        "normal": normal @ rotation.T,
        "box": np.stack([used.min(0), used.max(0)]),
        "counts": (len(used), len(mesh.faces)),
    }


def to_unit_sphere(pos: np.ndarray) -> np.ndarray:
    """Move the points' mean to the origin and the farthest point to distance 1, as ModelNet40's."""
    pos = pos - pos.mean(0)
    return pos / np.linalg.norm(pos, axis=1).max()


def quantise(pos: np.ndarray, normal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Round positions to multiples of STEP (int16) and normals to multiples of 1/127 (int8)."""
    return np.round(pos / STEP).astype(np.int16), np.round(normal * 127).astype(np.int8)


# --- near-identical models -----------------------------------------------------------------------


def turns() -> list[np.ndarray]:
    """The 16 maps that keep the up axis: flips of the three axes, each with a quarter turn."""
    swap = np.eye(3)[[2, 1, 0]]
    flips = [np.diag(signs).astype(float) for signs in itertools.product((1, -1), repeat=3)]
    return flips + [flip @ swap for flip in flips]


def compare(samples: Sequence[dict[str, Any]]) -> list[tuple[float, float, int, int]]:
    """Compare all models, each stretched to the unit box, under flips and quarter turns.

    Blurred occupancy grids select pairs and turns; for these the distance is the mean distance of
    QUERY points of one model to the closest of DENSE points of the other, the larger of the two
    directions. The ratio sets it against the same between two samples of one model.

    Returns:
        ``(distance, ratio, i, j)`` of the selected pairs, closest first.
    """
    from scipy.ndimage import gaussian_filter
    from scipy.spatial import cKDTree

    boxes = []
    for item in samples:
        low, high = item["box"]
        extent = np.maximum(high - low, 0.01 * (high - low).max())  # a flat model stays flat
        boxes.append((item["pos"] - (low + high) / 2) / extent)

    def occupancy(points: np.ndarray) -> np.ndarray:
        grid = np.histogramdd(points, bins=GRID, range=[(-0.5, 0.5)] * 3)[0]
        grid = np.sqrt(gaussian_filter(grid, 0.7)).ravel()
        return (grid / max(np.linalg.norm(grid), 1e-12)).astype(np.float32)

    still = np.stack([occupancy(points) for points in boxes])
    similar = np.stack(
        [still @ np.stack([occupancy(points @ turn.T) for points in boxes]).T for turn in turns()]
    )  # [16, models, models]
    trees = [cKDTree(points) for points in boxes]
    noise = [cKDTree(points[QUERY:]).query(points[:QUERY])[0].mean() for points in boxes]
    pairs = []
    for i, j in itertools.combinations(range(len(boxes)), 2):
        if similar[:, i, j].max() < 0.9:
            continue
        distance = np.inf
        for k in np.argsort(-similar[:, i, j], kind="stable")[:3]:
            there = trees[i].query(boxes[j][:QUERY] @ turns()[k].T)[0].mean()
            back = trees[j].query(boxes[i][:QUERY] @ turns()[k])[0].mean()
            distance = min(distance, max(there, back))
        pairs.append((float(distance), float(distance / max(noise[i], noise[j])), i, j))
    return sorted(pairs)


def same(pair: tuple[float, float, int, int]) -> bool:
    return pair[0] <= NEARER or (pair[0] <= NEAR and pair[1] <= NEAR_RATIO)


def group(
    samples: Sequence[dict[str, Any]], pairs: Sequence[tuple[float, float, int, int]]
) -> np.ndarray:
    """Join near-identical models, and meshes with equal counts, into groups; number them from 0."""
    parent = list(range(len(samples)))

    def root(i: int) -> int:
        while parent[i] != i:
            i = parent[i]
        return i

    joined = [(i, j) for pair in pairs if same(pair) for i, j in [pair[2:]]]
    seen: dict[tuple[int, int], int] = {}
    for i, item in enumerate(samples):  # a mesh that was bent, posed or stretched
        if item["counts"][1] > 50:
            joined.append((seen.setdefault(item["counts"], i), i))
    for i, j in joined:
        low, high = sorted((root(i), root(j)))
        parent[high] = low
    roots = [root(i) for i in range(len(samples))]
    return np.unique(roots, return_inverse=True)[1]


def split(y: np.ndarray, groups: np.ndarray, seed: int) -> np.ndarray:
    """Choose whole groups for the test set, at random, until each class has its share there.

    Returns:
        True where a model is in the test set; a quarter of each class, rounded, unless the sizes of
        its groups forbid that.
    """
    target = np.round(TEST_SHARE * np.bincount(y)).astype(int)
    room = target.copy()
    test = np.zeros(len(y), bool)
    for g in np.random.default_rng(seed).permutation(groups.max() + 1):
        need = np.bincount(y[groups == g], minlength=len(room))
        if (need <= room).all():
            test[groups == g] = True
            room -= need
    return test


# --- writing -------------------------------------------------------------------------------------


def draw(path: Path, items: Sequence[tuple[str, dict[str, Any]]], columns: int = 8) -> None:
    """Draw clouds on one sheet, seen from the front, a little from the side and from above."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    a, b = np.radians(35), np.radians(20)
    aside = np.array([[np.cos(a), 0, -np.sin(a)], [0, 1, 0], [np.sin(a), 0, np.cos(a)]])
    above = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    rows = -(-len(items) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(columns * 2, rows * 2.2 + 0.3), squeeze=False, layout="constrained"
    )
    for axis in axes.flat:
        axis.axis("off")
    for axis, (title, item) in zip(axes.flat, items, strict=False):
        pos = to_unit_sphere(item["pos"][:POINTS]) @ (above @ aside).T
        order = np.argsort(pos[:, 2])
        near = (pos[order, 2:] + 1) / 2
        colour = np.abs(item["normal"][:POINTS] @ (above @ aside).T)[order] * 0.75 + 0.1
        axis.scatter(*pos[order, :2].T, s=1.5, c=colour * (0.4 + 0.6 * near), linewidths=0)
        axis.set(xlim=(-1, 1), ylim=(-1, 1), aspect="equal")
        axis.set_title(title, fontsize=6)
    figure.savefig(path, dpi=80)
    plt.close(figure)


def draw_sheets(
    folder: Path,
    entries: Sequence[dict[str, Any]],
    samples: Sequence[dict[str, Any]],
    groups: np.ndarray,
    pairs: Sequence[tuple[float, float, int, int]],
) -> None:
    """Draw the classes, the groups, and the 40 closest pairs that were not grouped."""
    folder.mkdir(parents=True, exist_ok=True)

    def items(rows: Sequence[int], note: str = "") -> list[tuple[str, dict[str, Any]]]:
        return [
            (f"{note}{entries[i]['name']}\n{entries[i]['model'][-34:]}", samples[i]) for i in rows
        ]

    for name in CLASSES:
        rows = [i for i, entry in enumerate(entries) if entry["class"] == name]
        for page in range(0, len(rows), 40):
            draw(folder / f"class_{name}_{page // 40}.png", items(rows[page : page + 40]))
    grouped = []
    for g in np.flatnonzero(np.bincount(groups) > 1):
        grouped += items(np.flatnonzero(groups == g).tolist(), f"group {g}: ")
    apart = []
    for distance, ratio, i, j in [p for p in pairs if groups[p[2]] != groups[p[3]]][:40]:
        apart += items([i, j], f"{distance:.4f} x{ratio:.2f}: ")
    for title, sheet in (("groups", grouped), ("apart", apart)):
        for page in range(0, len(sheet), 48):
            draw(folder / f"{title}_{page // 48}.png", sheet[page : page + 48])


def collect(paths: dict[str, Path], seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Read, label and sample every model that has a class; sorted by class, then model."""
    entries, samples = [], []
    for name, _, licence, credit in ARCHIVES:
        with zipfile.ZipFile(paths[name]) as archive:
            for entry in read_catalogue(archive, licence, credit):
                entry["class"] = label(entry)
                entry["library"] = name.removesuffix(".sh3f")
                if entry["class"] is None:
                    continue
                # Each model's points depend on its own name alone, not on what else is labelled.
                own_seed = [seed, zlib.crc32(entry["model"].encode())]
                try:
                    item = sample(archive.read(entry["path"]), entry["rotation"], own_seed)
                except (KeyError, ValueError) as error:
                    print(f"left out {entry['model']}: {error}", file=sys.stderr)
                    continue
                entries.append(entry)
                samples.append(item)
    order = sorted(
        range(len(entries)), key=lambda i: (CLASSES.index(entries[i]["class"]), entries[i]["model"])
    )
    return [entries[i] for i in order], [samples[i] for i in order]


def build(
    entries: Sequence[dict[str, Any]],
    samples: Sequence[dict[str, Any]],
    groups: np.ndarray,
    seed: int,
) -> tuple[bytes, bytes]:
    """Return the contents of ``home_objects.npz`` and ``attribution.csv``."""
    y = np.array([CLASSES.index(entry["class"]) for entry in entries])
    test = split(y, groups, seed)
    stored = [
        quantise(to_unit_sphere(item["pos"][:POINTS]), item["normal"][:POINTS]) for item in samples
    ]
    file = io.BytesIO()
    np.savez_compressed(
        file,
        pos=np.stack([pos for pos, _ in stored]),
        normal=np.stack([normal for _, normal in stored]),
        step=np.float64(STEP),
        y=y.astype(np.uint8),
        test=test,
        group=groups.astype(np.int16),
        model=np.array([entry["model"] for entry in entries]),
        name=np.array([entry["name"] for entry in entries]),
        classes=np.array(CLASSES),
    )
    table = io.StringIO()
    columns = ("model", "name", "library", "creator", "licence")
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow([*columns, "licence_url", "credit", "source", "class", "split", "group"])
    for i, entry in enumerate(entries):
        writer.writerow(
            [entry[column] for column in columns]
            + [LICENCE_URLS[entry["licence"]], entry["credit"], entry["source"], entry["class"]]
            + ["test" if test[i] else "train", groups[i]]
        )
    for name, members in zip(CLASSES, np.eye(len(CLASSES), dtype=bool)[y].T, strict=True):
        print(f"{name:16} {(members & ~test).sum():4} train {(members & test).sum():4} test")
    print(f"{'all':16} {(~test).sum():4} train {test.sum():4} test")
    return file.getvalue(), table.getvalue().encode()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=Path, required=True, help="the .deb, or a folder of .sh3f")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="where to write")
    parser.add_argument("--seed", type=int, default=0, help="of the samples and the split (0)")
    parser.add_argument("--sheets", type=Path, help="draw all models into this folder too")
    parser.add_argument(
        "--force", action="store_true", help="go on with archives of other contents"
    )
    args = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            paths = find_archives(args.source, Path(scratch))
            if differing := check_archives(paths):
                print(*differing, sep="\n", file=sys.stderr)
                if not args.force:
                    print(
                        "The labels were checked for sweethome3d-furniture 1.8-1 alone. Get that "
                        "version, or give --force and look at --sheets.",
                        file=sys.stderr,
                    )
                    return 1
            entries, samples = collect(paths, args.seed)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        print(f"prepare.py: {error}", file=sys.stderr)
        return 1
    pairs = compare(samples)
    groups = group(samples, pairs)
    sizes = Counter(np.bincount(groups).tolist())
    print(
        f"{len(entries)} models in {groups.max() + 1} groups; sizes {dict(sorted(sizes.items()))}"
    )
    if args.sheets:
        draw_sheets(args.sheets, entries, samples, groups, pairs)
    npz, table = build(entries, samples, groups, args.seed)
    for name, data in (("home_objects.npz", npz), ("attribution.csv", table)):
        write_whole(args.out / name, data)
        print(f"{args.out / name}: {len(data):,} bytes, SHA-256 {hashlib.sha256(data).hexdigest()}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
