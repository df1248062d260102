"""Every kind of picture that somebody will hand in (issue 2, section 6)."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dpmesh.errors import InputError
from dpmesh.pipeline.images import read_image

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
        (b"hello", "not a picture"),
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
    with pytest.raises(InputError, match=r"damaged|not a picture"):
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
