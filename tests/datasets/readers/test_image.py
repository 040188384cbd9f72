from __future__ import annotations

import io
import struct
import sys
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from pointcluster.datasets import read_image

RAMP = np.arange(48, dtype=np.uint8).reshape(4, 4, 3) * 5  # four rows, four columns, all different


def save(path, image, **options):
    image.save(path, **options)
    return path


def pixels(path):
    image = read_image(path)
    assert image.mode == "RGB"
    return np.asarray(image)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "webp", "gif", "jpeg", "ppm"])
def test_rgb_of_every_format(tmp_path, suffix):
    options = {"webp": {"lossless": True}, "jpeg": {"quality": 100, "subsampling": 0}}
    path = save(tmp_path / f"a.{suffix}", Image.fromarray(RAMP), **options.get(suffix, {}))
    near = 6 if suffix in ("jpeg", "gif") else 0
    assert np.abs(pixels(path).astype(int) - RAMP).max() <= near


def test_the_content_counts_and_not_the_suffix(tmp_path):
    path = save(tmp_path / "photo.JPEG", Image.fromarray(RAMP), format="PNG")
    assert np.array_equal(pixels(path), RAMP)


@pytest.mark.parametrize("suffix", ["png", "jpeg", "tif", "bmp"])
def test_greyscale(tmp_path, suffix):
    grey = np.full((3, 5), 77, np.uint8)
    found = pixels(save(tmp_path / f"a.{suffix}", Image.fromarray(grey)))
    assert found.shape == (3, 5, 3) and (found == 77).all()


def test_black_and_white(tmp_path):
    bits = Image.fromarray(np.array([[0, 255], [255, 0]], np.uint8)).convert("1")
    found = pixels(save(tmp_path / "a.png", bits))
    assert found[..., 0].tolist() == [[0, 255], [255, 0]]


def test_palette(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    found = pixels(save(tmp_path / "a.png", image))
    assert found.tolist() == [[[10, 20, 30], [200, 100, 50]]]


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_cmyk(tmp_path, suffix):
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))  # red
    found = pixels(save(tmp_path / f"a.{suffix}", image))
    assert np.abs(found.astype(int) - [255, 0, 0]).max() <= 3


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_of_grey(tmp_path, suffix):
    values = np.array([[0, 257, 65535], [128, 129, 32768]], np.uint16)
    found = pixels(save(tmp_path / f"a.{suffix}", Image.fromarray(values)))
    assert found[..., 1].tolist() == [[0, 1, 255], [0, 1, 128]]
    assert (found == found[..., :1]).all()


def test_sixteen_bits_with_the_big_end_first(tmp_path):
    image = Image.frombytes("I;16B", (2, 1), struct.pack(">2H", 257, 65535))
    assert pixels(save(tmp_path / "a.tif", image))[..., 0].tolist() == [[1, 255]]


def sixteen_bit_png(pixels, color_type):
    """PIL writes no colour of 16 bits: a PNG by hand."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    height, width = pixels.shape[:2]
    head = struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    parts = [(b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def test_sixteen_bits_of_colour_and_alpha(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(sixteen_bit_png(np.array([[[0, 0x80FF, 65535]]]), 2))
    assert pixels(path).tolist() == [[[0, 128, 255]]]
    path.write_bytes(sixteen_bit_png(np.array([[[0, 0, 0, 0], [0, 0, 0, 65535]]]), 6))
    assert pixels(path).tolist() == [[[255] * 3, [0] * 3]]


def test_fractions_and_numbers_without_a_range(tmp_path):
    path = save(tmp_path / "a.tif", Image.fromarray(np.array([[0, 0.5, 1]], np.float32)))
    assert pixels(path)[..., 2].tolist() == [[0, 128, 255]]
    for values in ([[0, 2.5]], [[np.nan, 0]], [[-0.1, 0]]):
        save(path, Image.fromarray(np.array(values, np.float32)))
        with pytest.raises(ValueError, match=r"a\.tif .*values go from .* expected 0 to 1$"):
            read_image(path)
    save(path, Image.fromarray(np.array([[0, 70_000]], np.int32)))
    with pytest.raises(ValueError, match="from 0 to 70000, expected 0 to 65,535"):
        read_image(path)
    save(path, Image.fromarray(np.array([[0, 65535]], np.int32)))
    assert pixels(path)[..., 0].tolist() == [[0, 255]]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_laid_over_white(tmp_path, mode):
    image = Image.new("RGBA", (3, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (0, 0, 0, 255))
    image.putpixel((2, 0), (0, 0, 0, 51))
    found = pixels(save(tmp_path / "a.png", image.convert(mode)))
    assert found[0, :, 0].tolist() == [255, 0, 204]


@pytest.mark.parametrize("mode", ["P", "L", "RGB", "1"])
def test_a_transparent_colour_becomes_white(tmp_path, mode):
    image = Image.new("RGB", (2, 1), "black")
    image.putpixel((1, 0), (255, 255, 255))
    image = image.convert(mode)
    black = {"P": image.getpixel((0, 0)), "RGB": (0, 0, 0)}.get(mode, 0)
    path = save(tmp_path / "a.png", image, transparency=black)
    assert (pixels(path) == 255).all()


def test_animations_give_their_first_frame(tmp_path):
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    path = save(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    assert pixels(path)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, suffix, orientation):
    # A picture that is dark but for its top left corner, as a camera held in some way stores it.
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :8] = 255
    stored = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation](upright)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.ascontiguousarray(stored))
    path = save(tmp_path / f"a.{suffix}", image, exif=exif)
    found = pixels(path)
    assert found.shape == (16, 32, 3)
    assert np.abs(found.astype(int) - upright).max() < 30


def test_a_broken_note_of_orientation_is_ignored(tmp_path):
    path = save(tmp_path / "a.jpg", Image.new("RGB", (8, 4), "red"), exif=b"Exif\0\0MM\0*\0\0\xff")
    assert pixels(path).shape == (4, 8, 3)


@pytest.mark.parametrize("size", [(1, 1), (30, 5000), (5000, 30)])
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_extreme_sizes(tmp_path, size, suffix):
    image = Image.new("RGB", size, (9, 9, 9))
    assert pixels(save(tmp_path / f"a.{suffix}", image)).shape == (*size[::-1], 3)


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "bmp", "webp", "tif"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
def test_truncated(tmp_path, suffix, share):
    noise = np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    path = save(tmp_path / f"cut.{suffix}", Image.fromarray(noise))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ValueError, match=rf"{tmp_path}/cut\.{suffix} "):
        read_image(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"no image at all", "is no image that PIL knows"),
        (b"\xff\xd8\xff\xe0" + bytes(200), "is no image that PIL knows|is damaged"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "is no image that PIL knows|is damaged"),
        (b"GIF89a" + b"\xff" * 20, "is no image that PIL knows|is damaged"),
    ],
)
def test_no_image(tmp_path, content, message):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        read_image(path)
    assert str(path) in str(error.value)


def test_damaged_in_the_middle(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    path = save(tmp_path / "a.png", Image.fromarray(noise))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.png is damaged"):
        read_image(path)


def test_decompression_bombs(tmp_path, monkeypatch):
    buffer = io.BytesIO()
    Image.new("L", (300, 200)).save(buffer, "PNG")
    path = tmp_path / "bomb.png"
    path.write_bytes(buffer.getvalue())
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60_000)
    assert pixels(path).shape == (200, 300, 3)
    for limit in (59_999, 100):  # PIL itself warns above one limit, and stops above twice that
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        for action in ("error", "ignore"):
            with warnings.catch_warnings(), pytest.raises(ValueError, match="bomb.png would take"):
                warnings.simplefilter(action)
                read_image(path)


def test_what_the_system_refuses_is_no_damaged_image(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.png"):
        read_image(tmp_path / "nowhere.png")
    with pytest.raises(IsADirectoryError):
        read_image(tmp_path)


def test_a_kind_of_picture_without_rgb(tmp_path):
    path = save(tmp_path / "a.tif", Image.new("LAB", (2, 2)))
    with pytest.raises(ValueError, match=r"a\.tif .*'LAB'"):
        read_image(path)


def test_without_pillow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match="pip install pillow"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("kind", ["EPS", "PDF", "ICO", "SGI"])
def test_what_a_program_would_have_to_open_is_no_image(tmp_path, kind, monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("a program was started")

    monkeypatch.setattr("subprocess.Popen", refuse)
    path = save(tmp_path / "a.jpg", Image.fromarray(RAMP), format=kind)
    with pytest.raises(ValueError, match=r"a\.jpg is no image that PIL knows as JPEG, PNG, GIF"):
        read_image(path)


@pytest.mark.parametrize(("mode", "most"), [("I;16", 65535), ("F", 1.0)])
def test_numbers_of_pictures_take_little_memory(tmp_path, mode, most):
    import tracemalloc

    from PIL import Image

    values = np.linspace(0, most, 1000 * 900).reshape(900, 1000)
    values = values.astype(np.uint16 if mode == "I;16" else np.float32)
    path = tmp_path / "a.tiff"
    Image.fromarray(values).save(path)
    tracemalloc.start()
    image = read_image(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    expected = np.rint(values.astype(np.float64) * (255 / most))
    assert np.array_equal(np.asarray(image)[..., 0], expected)
    assert peak < 14 * values.size
