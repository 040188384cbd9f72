"""One way from a file to an RGB picture, whatever kind of image the file holds."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pointcluster._optional import needed_for

if TYPE_CHECKING:
    from PIL import Image

# What is opened: pixels alone. For others PIL may start a program on the file (PostScript).
_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
ROWS = 64
"""Rows of numbers at a time."""
# Kinds that PIL converts to RGB by itself, each in the one sensible way.
_PLAIN = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV")


def read_image(path: str | os.PathLike[str]) -> Image.Image:
    """Read an image file as an 8-bit RGB picture, the way a viewer would show it.

    - Grey becomes three equal channels; palettes, CMYK and YCbCr are converted by PIL, without
      colour profiles.
    - 16-bit grey is divided by 257 and rounded, so that 65,535 is 255. Of 16-bit colour PIL keeps
      the upper byte. Floating grey must be in 0 to 1.
    - Transparent parts are laid over white.
    - The orientation that a camera noted (EXIF) is applied; a note that cannot be read is ignored.
    - Of an animation or a file of several pages, the first is taken.

    Args:
        path: The file, JPEG, PNG, GIF, BMP, TIFF, WebP or PPM; its content counts, not its suffix.

    Raises:
        ImportError: Pillow is not installed.
        OSError: The file cannot be opened or read, as the system says.
        ValueError: It is no such image, is damaged or ends early, has more than PIL's
            ``Image.MAX_IMAGE_PIXELS`` pixels (89 million), or values without an agreed range. The
            message names the file.
    """
    with needed_for("reading images", "Pillow", "pillow"):
        from PIL import Image, ImageOps, UnidentifiedImageError

    # Read first: what fails after this is the file's content, not the disk.
    data = Path(path).read_bytes()
    limit = Image.MAX_IMAGE_PIXELS
    bombs = (Image.DecompressionBombError, Image.DecompressionBombWarning)
    try:
        image = Image.open(BytesIO(data), formats=_FORMATS)
        if limit is not None and image.width * image.height > limit:
            raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels")
        image.load()
        try:
            ImageOps.exif_transpose(image, in_place=True)
        except Exception:  # a broken note says nothing about the pixels
            pass
        return _to_rgb(image)
    except MemoryError:
        raise
    except UnidentifiedImageError:
        what = "is empty" if not data else f"is no image that PIL knows as {', '.join(_FORMATS)}"
        raise ValueError(f"{os.fspath(path)} {what}") from None
    except bombs as error:
        raise ValueError(
            f"{os.fspath(path)} would take too much memory: {error}. If it is to be trusted, "
            "make it smaller or raise PIL.Image.MAX_IMAGE_PIXELS"
        ) from None
    except Exception as error:  # whatever the decoders make of a damaged file
        raise ValueError(
            f"{os.fspath(path)} is damaged, ends early or cannot be shown as RGB: {error}"
        ) from error


def _to_rgb(image: Image.Image) -> Image.Image:
    from PIL import Image

    mode = image.mode
    if mode == "RGB" and "transparency" not in image.info:
        return image
    if mode.startswith("I") or mode == "F":
        return _from_numbers(image).convert("RGB")
    if mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        if mode == "La":
            image = image.convert("LA")
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    if mode not in _PLAIN:
        raise ValueError(f"its values are of PIL's kind {mode!r}")
    return image.convert("RGB")


def _from_numbers(image: Image.Image) -> Image.Image:
    """8-bit grey from one channel of 16 bits, or of fractions."""
    from PIL import Image

    values = np.asarray(image)
    most = 1 if image.mode == "F" else 65535
    if not (values.min() >= 0 and values.max() <= most):  # NaN is not, either
        raise ValueError(
            f"its values go from {values.min():g} to {values.max():g}, expected 0 to {most:,}"
        )
    out = np.empty(values.shape, np.uint8)
    for start in range(0, len(values), ROWS):  # some rows at a time: exactly, and in little memory
        rows = values[start : start + ROWS].astype(np.float64)
        out[start : start + ROWS] = np.rint(rows * (255 / most))
    return Image.fromarray(out)
