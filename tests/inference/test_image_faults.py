"""Image files that are damaged, hostile or too large: one InputError each."""

import ast
import io
import os
import struct
import warnings
import zlib
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, ImageFile, TiffImagePlugin

from dpmesh.data.images import decode_rgb
from dpmesh.decode import FORMATS, MOST_SCANS, image_size
from dpmesh.errors import InputError
from dpmesh.inference.images import read_image

RNG = np.random.default_rng(0)
SMOOTH = (np.add.outer(np.arange(40), np.arange(60))[..., None] * np.array([1.0, 2.0, 0.5])).astype(np.uint8)


def stored(tmp_path: Path, image: Image.Image, name: str, **options: object) -> Path:
    image.save(tmp_path / name, **options)  # pyright: ignore[reportArgumentType]
    return tmp_path / name


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"hello", "not an image"),
        (b"\x89PNG\r\n\x1a\n", "not an image that can be read"),
        (b"\xff\xd8\xff\xe0", "not an image that can be read"),
    ],
)
def test_not_an_image(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_image(tmp_path / "a.jpg")
    assert "a.jpg" in caught.value.where


def test_missing_and_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_image(tmp_path / "none.png")
    with pytest.raises(InputError, match="folder"):
        read_image(tmp_path)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.tif", "a.gif", "a.bmp"])
def test_truncated(tmp_path: Path, name: str) -> None:
    noise = Image.fromarray(RNG.integers(0, 256, (64, 64, 3), np.uint8))
    path = stored(tmp_path, noise, name)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=r"damaged|not an image"):
        read_image(path)


def bomb(path: Path, side: int) -> Path:
    """A PNG of side x side whose header is true and whose pixels are not there."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"x\x9c") + chunk(b"IEND", b"")
    )
    return path


def test_huge_header_is_refused_before_decoding(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="30,000×30,000") as caught:
        read_image(bomb(tmp_path / "a.png", 30_000))
    assert "--max-pixels" in caught.value.fix
    with pytest.raises(InputError, match="damaged"):  # the limit is an option: now the missing pixels raise
        read_image(bomb(tmp_path / "b.png", 300), max_pixels=300 * 300)
    with pytest.raises(InputError, match="300×300"):
        read_image(bomb(tmp_path / "b.png", 300), max_pixels=300 * 300 - 1)


def test_a_side_that_warps_cannot_count_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="32,001"):
        read_image(stored(tmp_path, Image.new("L", (32_001, 1)), "a.png"))


def test_the_limit_can_be_raised_above_pillows_own(tmp_path: Path) -> None:
    before = Image.MAX_IMAGE_PIXELS
    try:
        Image.MAX_IMAGE_PIXELS = 100  # Pillow refuses twice this
        path = stored(tmp_path, Image.fromarray(SMOOTH), "a.png")
        assert read_image(path).rgb.shape == (40, 60, 3)
        assert Image.MAX_IMAGE_PIXELS == 100
    finally:
        Image.MAX_IMAGE_PIXELS = before


def test_damaged_bytes_never_raise_anything_else() -> None:
    """Half of 300 images with random bytes exchanged may still open; the others raise InputError."""
    file = io.BytesIO()
    Image.fromarray(SMOOTH).save(file, "JPEG")
    good, path = np.frombuffer(file.getvalue(), np.uint8), Path("x.jpg")
    refused = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        bad = good.copy()
        bad[rng.integers(0, len(bad), 12)] = rng.integers(0, 256, 12)
        try:
            read_image(Image.open(io.BytesIO(bad.tobytes())), name=str(path))
        except InputError:
            refused += 1
        except OSError:  # Pillow's own error in Image.open, before our code
            refused += 1
    assert refused > 20


POSTSCRIPT = (
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(/tmp/pwned) (w) file closefile\n"
)


def test_no_other_decoder_is_ever_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ghostscript(*_: object, **__: object) -> None:
        raise AssertionError("a stranger's PostScript was run")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", ghostscript)
    path = tmp_path / "x.jpg"
    path.write_bytes(POSTSCRIPT)
    with pytest.raises(InputError, match="not an image"):
        read_image(path)
    with pytest.raises(InputError, match="not an image"):
        image_size(path)
    with Image.open(path) as lazy, pytest.raises(InputError, match="EPS is not one of the formats"):
        read_image(lazy)
    decoded = stored(tmp_path, Image.fromarray(SMOOTH), "a.tga")
    with Image.open(decoded) as image, pytest.raises(InputError, match=r"load\(\)"):
        read_image(image)
    with Image.open(decoded) as image:
        image.load()  # the user trusts it
        np.testing.assert_array_equal(read_image(image).rgb, SMOOTH)


def test_every_image_open_names_its_formats() -> None:
    """In src, tools and benchmarks: without the list, Pillow takes any format by content."""
    root = Path(__file__).parents[2]
    calls = 0
    for path in (p for folder in ("src", "tools", "benchmarks") for p in (root / folder).rglob("*.py")):
        text = path.read_text()
        for node in ast.walk(ast.parse(text)) if "Image.open" in text else ():
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Image.open"):
                calls += 1
                assert any(word.arg == "formats" for word in node.keywords), f"{path}:{node.lineno}"
    assert calls >= 3


@pytest.mark.parametrize("error", [TypeError, RuntimeError, NotImplementedError, struct.error, MemoryError])
@pytest.mark.parametrize("where", ["open", "load"])
def test_whatever_a_decoder_raises_is_this_images_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception], where: str
) -> None:
    path = stored(tmp_path, Image.fromarray(SMOOTH), "a.png")

    def fails(*_: object, **__: object) -> None:
        warnings.warn("noise", stacklevel=1)
        raise error("deep\ninside")

    monkeypatch.setattr(*((Image, "open") if where == "open" else (ImageFile.ImageFile, "load")), fails)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError) as caught:
            read_image(path)
    assert "a.png" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("special", ["fifo", "/dev/zero"])
def test_only_regular_files_are_read(tmp_path: Path, special: str) -> None:
    path = Path(special)
    if special == "fifo":
        path = tmp_path / "a.jpg"
        os.mkfifo(path)
    with pytest.raises(InputError, match="not a regular file"):
        read_image(path)
    with pytest.raises(InputError, match="longer than a path"):
        read_image("x" * 5000)
    with pytest.raises(InputError, match="no path may have"):
        read_image("a\0.jpg")


def test_a_file_larger_than_any_image_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(2**30 + 1)  # sparse: no byte of it is written
    for reader in (read_image, image_size):
        with pytest.raises(InputError, match="larger than"):
            reader(tmp_path / "a.png")


def pages(count: int) -> bytes:
    """A TIFF of `count` pages of one pixel."""
    out = b"II*\0\x08\0\0\0"
    tags = ((256, 1), (257, 1), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1), (279, 1))
    rows = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    for page in range(count):
        after = len(out) + len(rows) + 6
        out += struct.pack("<H", len(tags)) + rows + struct.pack("<I", after if page + 1 < count else 0)
    return out


def test_pages_are_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`n_frames` walks to the last page: minutes for 50,000 of them."""

    def counts(_: object) -> int:
        raise AssertionError("walked through all pages")

    monkeypatch.setattr(TiffImagePlugin.TiffImageFile, "n_frames", property(counts))
    (tmp_path / "a.tif").write_bytes(pages(3))
    assert read_image(tmp_path / "a.tif").notes == ("a TIFF of several pages: the first was taken",)
    (tmp_path / "a.tif").write_bytes(pages(1))
    assert not read_image(tmp_path / "a.tif").notes


def test_a_jpeg_of_thousands_of_scans_is_refused(tmp_path: Path) -> None:
    """Each scan of some bytes costs a walk over all blocks; the same bytes inside a segment are not a scan."""
    path = stored(tmp_path, Image.fromarray(SMOOTH), "a.jpg", progressive=True)
    data = path.read_bytes()
    last = data.rfind(b"\xff\xda")
    path.write_bytes(data[:-2] + data[last:-2] * MOST_SCANS + b"\xff\xd9")
    with pytest.raises(InputError, match="scans"):
        read_image(path)
    with pytest.raises(InputError, match="scans"):
        decode_rgb(path.read_bytes(), "a.jpg")
    many = b"\xff\xda\0\x08" * 100
    path.write_bytes(data[:2] + b"\xff\xfe" + struct.pack(">H", len(many) + 2) + many + data[2:] + many)
    assert read_image(path).rgb.shape == (40, 60, 3)


def test_a_tile_larger_than_any_image_is_refused(tmp_path: Path) -> None:
    """A TIFF of 10 × 10 pixels of which a tile has billions: the decoder would make room for it."""
    tags = ((256, 10), (257, 10), (258, 8), (259, 8), (262, 1), (277, 1), (322, 40000), (323, 40000))
    data = zlib.compress(bytes(100))
    rows = [*tags, (324, 8 + 2 + 12 * 10 + 4), (325, len(data))]
    out = b"II*\0\x08\0\0\0" + struct.pack("<H", len(rows))
    out += b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in rows) + bytes(4) + data
    (tmp_path / "a.tif").write_bytes(out)
    for refused in (lambda: read_image(tmp_path / "a.tif"), lambda: decode_rgb(out, "a.tif")):
        with pytest.raises(InputError, match="tiles of 40,000"):
            refused()


def test_a_png_that_claims_gigabytes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenCV allocates a chunk's length before it checks whether the chunk exists."""
    data = bytearray(stored(tmp_path, Image.fromarray(SMOOTH), "a.png").read_bytes())
    assert decode_rgb(bytes(data), "a.png").shape == (40, 60, 3)
    at = data.index(b"IDAT") - 4
    data[at : at + 4] = b"\x7f\xff\xff\xff"
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(InputError, match="damaged"):
        decode_rgb(bytes(data), "a.png")


MODES = {"TIFF": "CMYK", "GIF": "P"}


@pytest.mark.parametrize("kind", FORMATS)
def test_mutated_files_of_every_format(tmp_path: Path, kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Bit flips, truncations and splices: an image or an InputError, by each of the readers."""
    file, path = io.BytesIO(), tmp_path / "a.jpg"
    exif = Image.Exif()
    exif[0x0112], exif.get_ifd(0x8769)[0xA405] = 6, 28
    with suppress(ValueError, OSError):
        Image.fromarray(SMOOTH).convert(MODES.get(kind, "RGB")).save(file, kind, exif=exif)
    good, refused = file.getvalue(), 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        bad = bytearray(good)
        at = int(rng.integers(len(bad)))
        if seed % 3 == 0:
            del bad[at:]
        elif seed % 3 == 1:
            bad[at : at + 4] = good[int(rng.integers(len(good))) :][:9]
        else:
            for place in rng.integers(min(200, len(bad)), size=4):
                bad[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(bad)
        for reader in (read_image, image_size, lambda p: decode_rgb(p.read_bytes(), str(p))):
            try:
                reader(path)
            except InputError as error:
                assert "a.jpg" in str(error) and "\n" not in str(error)
                refused += 1
    assert 10 < refused < 180, refused
    assert "Warning" not in capfd.readouterr().err
