"""Images of every kind that users bring."""

import ast
import io
import os
import re
import struct
import sys
import warnings
import zlib
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, ImageFile, ImageOps, TiffImagePlugin

from dpmesh.data.images import decode_rgb
from dpmesh.decode import FORMATS, HEIF_SUFFIXES, MOST_SCANS, SUFFIXES, heif_available, image_size
from dpmesh.errors import InputError
from dpmesh.inference.images import read_image

RNG = np.random.default_rng(0)
SMOOTH = (np.add.outer(np.arange(40), np.arange(60))[..., None] * np.array([1.0, 2.0, 0.5])).astype(np.uint8)


def stored(tmp_path: Path, image: Image.Image, name: str, **options: object) -> Path:
    image.save(tmp_path / name, **options)  # pyright: ignore[reportArgumentType]
    return tmp_path / name


def test_path_pil_and_array_agree(tmp_path: Path) -> None:
    path = stored(tmp_path, Image.fromarray(SMOOTH), "a.png")
    for source in (path, str(path), Image.open(path), SMOOTH):
        np.testing.assert_array_equal(read_image(source).rgb, SMOOTH)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"hello", "not an image"),
        (b"\x89PNG\r\n\x1a\n", "picture"),
        (b"\xff\xd8\xff\xe0", "picture"),
    ],
)
def test_not_a_picture(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(InputError, match=says) as caught:
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


def test_one_pixel(tmp_path: Path) -> None:
    assert read_image(stored(tmp_path, Image.new("RGB", (1, 1), (9, 8, 7)), "a.png")).rgb.tolist() == [
        [[9, 8, 7]]
    ]


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
    with pytest.raises(
        InputError, match="damaged"
    ):  # the limit is an option: now the missing pixels are found
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


def test_grey(tmp_path: Path) -> None:
    rgb = read_image(stored(tmp_path, Image.fromarray(SMOOTH[..., 0]), "a.png")).rgb
    np.testing.assert_array_equal(rgb, np.repeat(SMOOTH[..., :1], 3, axis=2))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_lies_over_white(tmp_path: Path, mode: str) -> None:
    image = Image.new("RGBA", (4, 2), (0, 0, 0, 0))
    image.putpixel((0, 0), (0, 0, 0, 255))
    if mode == "P":
        image = Image.new("P", (4, 2), 1)
        image.putpalette([0, 0, 0, 200, 0, 0])
        image.putpixel((0, 0), 0)
        path = stored(tmp_path, image, "a.png", transparency=1)
    else:
        path = stored(tmp_path, image.convert(mode), "a.png")
    rgb = read_image(path).rgb
    assert rgb[0, 0].tolist() == [0, 0, 0]
    assert rgb[1, 2].tolist() == [255, 255, 255]


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_sixteen_bits_keep_their_high_byte(tmp_path: Path, name: str) -> None:
    deep = (SMOOTH[..., 0].astype(np.uint16) * 257).astype(np.uint16)
    rgb = read_image(stored(tmp_path, Image.fromarray(deep), name)).rgb
    np.testing.assert_array_equal(rgb[..., 1], SMOOTH[..., 0])
    np.testing.assert_array_equal(read_image(np.repeat(deep[..., None], 3, 2)).rgb[..., 2], SMOOTH[..., 0])


def test_cmyk(tmp_path: Path) -> None:
    path = stored(tmp_path, Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "a.tif")
    rgb = read_image(path).rgb
    assert rgb[0, 0, 0] > 200 and rgb[0, 0, 1:].max() < 60  # red


def test_exif_turns_the_picture_upright_and_gives_the_focal_length(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn by a quarter clockwise
    exif.get_ifd(0x8769)[0xA405] = 28
    picture = read_image(stored(tmp_path, Image.fromarray(SMOOTH), "a.png", exif=exif))
    np.testing.assert_array_equal(picture.rgb, np.rot90(SMOOTH, -1))
    assert picture.exif_focal == pytest.approx(28 / np.hypot(36, 24) * np.hypot(40, 60), rel=1e-4)


@pytest.mark.parametrize("value", [0, 65535])
def test_nonsense_focal_length_is_ignored(tmp_path: Path, value: int) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA405] = value
    assert read_image(stored(tmp_path, Image.fromarray(SMOOTH), "a.jpg", exif=exif)).exif_focal is None


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png"])
def test_animation_gives_its_first_frame_and_says_so(tmp_path: Path, name: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    path = stored(tmp_path, frames[0], name, save_all=True, append_images=frames[1:])
    picture = read_image(path)
    assert picture.rgb[8, 8].tolist() == pytest.approx([255, 0, 0], abs=3)
    assert "first frame" in " ".join(picture.notes)


def test_damaged_bytes_never_raise_anything_else() -> None:
    """Half of 300 pictures with random bytes exchanged may still open; the others raise InputError."""
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
        except OSError:  # Pillow's own answer in Image.open, before our code
            refused += 1
    assert refused > 20


@pytest.mark.parametrize(
    "array", [np.zeros((4, 4, 3)), np.zeros((4, 4, 2), np.uint8), np.zeros((0, 4, 3), np.uint8)]
)
def test_arrays_of_another_kind_are_refused(array: np.ndarray) -> None:
    with pytest.raises(InputError, match="uint8"):
        read_image(array)


def test_every_suffix_opens_as_its_format(tmp_path: Path) -> None:
    """The table of formats is true: what Pillow writes under a suffix is read, and its name is Pillow's own. The
    manual names the same formats and suffixes."""
    known = Image.registered_extensions()
    manual = (Path(__file__).parents[2] / "docs" / "detection.md").read_text()
    said = next(line for line in manual.splitlines() if line.startswith("Read are JPEG"))
    assert re.findall(r"([A-Z0-9]+) \(", said) == list(FORMATS)
    assert set(re.findall(r"`(\.\w+)`", said)) - {*HEIF_SUFFIXES} == SUFFIXES - {*HEIF_SUFFIXES}
    for name, suffixes in FORMATS.items():
        for suffix in suffixes:
            assert known[suffix] == name
            assert read_image(stored(tmp_path, Image.fromarray(SMOOTH), f"a{suffix}")).rgb.shape == (
                40,
                60,
                3,
            )
    more = {"format": "MPO", "save_all": True, "append_images": [Image.new("RGB", (9, 9))]}
    stereo = stored(tmp_path, Image.fromarray(SMOOTH), "b.jpg", **more)
    picture = read_image(stereo)
    assert picture.rgb.shape == (40, 60, 3)
    assert picture.notes == ("several photos in one file (MPO): the first was taken",)


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


def test_orientations_are_pillows(tmp_path: Path) -> None:
    for turn in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = turn
        for name in ("a.png", "a.tif"):
            path = stored(tmp_path, Image.fromarray(SMOOTH), name, exif=exif)
            with Image.open(path) as image:
                wanted = np.asarray(ImageOps.exif_transpose(image))
            np.testing.assert_array_equal(read_image(path).rgb, wanted)


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


def test_damaged_exif_is_ignored_and_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(*_: object) -> None:
        raise struct.error("unpack requires a buffer of 2 bytes")

    path = stored(tmp_path, Image.fromarray(SMOOTH), "a.jpg")
    monkeypatch.setattr(Image.Exif, "get_ifd", damaged)
    picture = read_image(path)
    assert picture.rgb.shape == (40, 60, 3) and picture.exif_focal is None
    assert picture.notes == ("EXIF cannot be read and was ignored",)


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
    """A TIFF of so many pages of one pixel."""
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
    """Each scan of some bytes costs a walk over all blocks; what looks like one inside a segment is none."""
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
    """OpenCV makes room for a chunk's length before it looks whether the chunk is there."""
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
    good = file.getvalue()
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
            with suppress(InputError):
                reader(path)
    assert "Warning" not in capfd.readouterr().err


GREY = np.add.outer(np.arange(40.0), np.arange(60.0)) / 98
COLOUR = np.stack([GREY, 1 - GREY, GREY / 2 + 0.2], 2)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize(
    "values", [GREY, COLOUR, np.dstack([COLOUR, np.ones((40, 60))])], ids=["grey", "rgb", "rgba"]
)
@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_camera_data_in_16_bits_is_stretched(
    tmp_path: Path, suffix: str, values: np.ndarray, bits: int
) -> None:
    """Files that OpenCV wrote."""
    deep = np.round(values * (2**bits - 1)).astype(np.uint16)
    if values.ndim == 3 and values.shape[2] == 4:
        deep[..., 3] = 65535
    order = [2, 1, 0, 3][: values.shape[2]] if values.ndim == 3 else slice(None)
    assert cv2.imwrite(str(tmp_path / f"a{suffix}"), deep[..., order] if values.ndim == 3 else deep)
    wanted = np.round((values if values.ndim == 3 else np.repeat(values[..., None], 3, 2))[..., :3] * 255)
    for source in (tmp_path / f"a{suffix}", deep):
        picture = read_image(source)
        assert np.abs(picture.rgb - wanted).max() <= 1
        assert picture.notes == (() if bits == 16 else (f"{bits}-bit data in a 16-bit file: stretched",))


def test_dark_16_bit_images_are_not_stretched(tmp_path: Path) -> None:
    """True 16-bit data that is dim, and 8 bits scaled to 16: as before, with a note where it could be another depth."""
    rng = np.random.default_rng(0)
    for share in (0.24, 0.2, 0.15, 0.04, 0.02):
        deep = np.clip(COLOUR * share * 65535 + rng.normal(0, 40, COLOUR.shape), 0, None).astype(np.uint16)
        cv2.imwrite(str(tmp_path / "a.png"), deep[..., ::-1])
        for source in (tmp_path / "a.png", deep):
            picture = read_image(source)
            np.testing.assert_array_equal(picture.rgb, deep >> 8)
            assert len(picture.notes) == 1 and "if it has fewer bits" in picture.notes[0]
    for factor in (256, 257):
        deep = (COLOUR * 60).astype(np.uint16) * factor
        cv2.imwrite(str(tmp_path / "a.tif"), deep[..., ::-1])
        picture = read_image(tmp_path / "a.tif")
        assert not picture.notes and picture.rgb.max() == 60


def test_a_stated_depth_is_believed(tmp_path: Path) -> None:
    """Data that does not fill its range: TIFF's MaxSampleValue, PNG's sBIT."""
    deep = np.round(GREY * 4095 * 0.4).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "a.tif", tiffinfo={281: 4095})
    Image.fromarray(deep).save(tmp_path / "plain.png")
    data = (tmp_path / "plain.png").read_bytes()
    chunk = b"sBIT" + bytes([12])
    (tmp_path / "a.png").write_bytes(
        data[:33] + b"\0\0\0\x01" + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[33:]
    )
    for name in ("a.tif", "a.png"):
        picture = read_image(tmp_path / name)
        assert np.abs(picture.rgb[..., 0] - GREY * 102).max() <= 1, name
    assert "if it has fewer bits" in read_image(tmp_path / "plain.png").notes[0]
    # 16 bits that a camera of 12 filled by scaling, as PNG's specification asks for, stay as they are
    Image.fromarray((deep * 16).astype(np.uint16)).save(tmp_path / "b.png")
    assert not read_image(tmp_path / "b.png").notes


def test_other_kinds_of_files_are_named(tmp_path: Path) -> None:
    """First bytes as ffmpeg, cameras and browsers write them."""
    for content, says in (
        (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41", "is a video.*ffmpeg"),
        (b"\0\0\0\x14ftypqt  \0\0\2\0qt  ", "is a video"),
        (b"\x1aE\xdf\xa3\x9fB\x86\x81\1", "is a video"),
        (b"RIFF\x1a\x2c\0\0AVI LIST", "is a video"),
        (b"\xff\x0a\xfa\x17\x08", "is a JPEG XL image"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "is a JPEG XL image"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1", "is a raw photo"),
        (b"%PDF-1.7\n", "is a PDF"),
        (b'<?xml version="1.0"?>\n<svg xmlns="x">', "is an SVG drawing"),
        (b"\0\x05\x16\x07\0\2\0\0Mac OS X        ", "macOS keeps"),
        (b"8BPS\0\1", "is a Photoshop file"),
    ):
        (tmp_path / "a.jpg").write_bytes(content + bytes(300))
        for reader in (read_image, image_size):
            with pytest.raises(InputError, match=says):
                reader(tmp_path / "a.jpg")
    with pytest.raises(InputError, match="is a URL; only local files are read"):
        read_image("https://example.org/a.jpg")


HEIC = b"\0\0\0\x1cftypheic\0\0\0\0mif1heicmiaf" + bytes(300)


def test_heic_names_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    heif_available.cache_clear()
    (tmp_path / "a.heic").write_bytes(HEIC)
    with pytest.raises(
        InputError, match=r"a\.heic: is a HEIC image, which needs pillow-heif\. .*dpmesh\[heic\]"
    ):
        read_image(tmp_path / "a.heic")
    heif_available.cache_clear()


def test_heic_is_read_with_its_extra(tmp_path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    exif = Image.Exif()
    exif[0x0112], exif.get_ifd(0x8769)[0xA405] = 6, 28
    smooth = np.repeat(np.repeat(SMOOTH, 2, 0), 2, 1)
    file = pillow_heif.from_pillow(Image.fromarray(smooth))
    file.save(tmp_path / "a.heic", quality=-1, exif=exif.tobytes())
    picture = read_image(tmp_path / "a.heic")
    upright = np.rot90(smooth, -1)
    assert picture.rgb.shape == upright.shape and np.abs(picture.rgb.astype(int) - upright).mean() < 3
    assert picture.exif_focal == pytest.approx(28 / np.hypot(36, 24) * np.hypot(80, 120), rel=1e-4)
    (tmp_path / "b.heic").write_bytes(HEIC)
    with pytest.raises(InputError, match=r"b\.heic: the HEIC image is damaged"):
        read_image(tmp_path / "b.heic")
