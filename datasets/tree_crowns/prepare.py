"""Cut the sample of tree crowns out of the pictures that come with the package deepforest.

pip download --no-deps deepforest==2.1.0
python datasets/tree_crowns/prepare.py deepforest-2.1.0-py3-none-any.whl
"""

from __future__ import annotations

import argparse
import io
import xml.etree.ElementTree as ElementTree
import zipfile
from pathlib import Path

from PIL import Image, ImageDraw

HERE = Path(__file__).resolve().parent
SIDE = 256
# Picture, its columns and rows of tiles, and which columns are for the test.
PICTURES = {
    "2019_YELL_2_541000_4977000_image_crop": (range(4), range(4), {3}),
    "2019_YELL_2_528000_4978000_image_crop2": (range(2, 4), range(3, 6), set()),
    "OSBS_029": (range(1), range(1), set()),
    "SOAP_061": (range(1), range(1), set()),
}
MORE_THAN = 0.5  # of a box must lie in a tile for it to count: it does in one tile at most


def main() -> None:
    """Write pictures, boxes and masks into this folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", type=Path, help="deepforest-2.1.0-py3-none-any.whl")
    Image.MAX_IMAGE_PIXELS = None
    with zipfile.ZipFile(parser.parse_args().wheel) as wheel:
        for name, (columns, rows, tests) in PICTURES.items():
            picture = Image.open(io.BytesIO(wheel.read(f"deepforest/data/{name}.png")))
            root = ElementTree.fromstring(wheel.read(f"deepforest/data/{name}.xml"))
            boxes = [
                [int(found.findtext(f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax")]
                for found in root.iter("object")
            ]
            for column in columns:
                for row in rows:
                    split = "test" if column in tests else "train"
                    where = (column * SIDE, row * SIDE)
                    tile = f"{name.removeprefix('2019_').split('_image')[0]}_{column}_{row}"
                    write(picture.convert("RGB"), boxes, where, HERE / split, tile)


def write(
    picture: Image.Image, boxes: list[list[int]], where: tuple[int, int], folder: Path, name: str
) -> None:
    """Write one tile, what lies in it, and the mask of the ellipses in the boxes."""
    left, top = where
    inside = []
    for x1, y1, x2, y2 in boxes:
        cut = [max(x1 - left, 0), max(y1 - top, 0), min(x2 - left, SIDE), min(y2 - top, SIDE)]
        width, height = cut[2] - cut[0], cut[3] - cut[1]
        if width > 0 and height > 0 and width * height > MORE_THAN * (x2 - x1) * (y2 - y1):
            inside.append(cut)
    mask = Image.new("P", (SIDE, SIDE))
    mask.putpalette([40, 40, 40, 60, 180, 75])
    draw = ImageDraw.Draw(mask)
    for x1, y1, x2, y2 in boxes:
        draw.ellipse((x1 - left, y1 - top, x2 - left, y2 - top), fill=1)
    for part in ("images", "boxes", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    tile = picture.crop((left, top, left + SIDE, top + SIDE))
    tile.save(folder / "images" / f"{name}.jpg", quality=82, optimize=True)
    mask.save(folder / "masks" / f"{name}.png", optimize=True)
    root = ElementTree.Element("annotation")
    ElementTree.SubElement(root, "filename").text = f"{name}.jpg"
    for box in inside:
        found = ElementTree.SubElement(root, "object")
        ElementTree.SubElement(found, "name").text = "tree"
        corners = ElementTree.SubElement(found, "bndbox")
        for side, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True):
            ElementTree.SubElement(corners, side).text = str(value)
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode") + "\n"
    (folder / "boxes" / f"{name}.xml").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
