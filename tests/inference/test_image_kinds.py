"""Depth of 16-bit data, HEIC, and files of other kinds in an image's place."""

import os
import struct
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from dpmesh.decode import heif_available, image_size
from dpmesh.errors import InputError
from dpmesh.inference.images import read_image

SMOOTH = (np.add.outer(np.arange(40), np.arange(60))[..., None] * np.array([1.0, 2.0, 0.5])).astype(np.uint8)
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
        image = read_image(source)
        assert np.abs(image.rgb - wanted).max() <= 1
        assert image.notes == (() if bits == 16 else (f"{bits}-bit data in a 16-bit file: stretched",))


def test_dark_16_bit_images_are_not_stretched(tmp_path: Path) -> None:
    """True 16-bit data that is dim, and 8 bits scaled to 16: as before, with a note where it could be another depth."""
    rng = np.random.default_rng(0)
    for share in (0.24, 0.2, 0.15, 0.04, 0.02):
        deep = np.clip(COLOUR * share * 65535 + rng.normal(0, 40, COLOUR.shape), 0, None).astype(np.uint16)
        cv2.imwrite(str(tmp_path / "a.png"), deep[..., ::-1])
        for source in (tmp_path / "a.png", deep):
            image = read_image(source)
            np.testing.assert_array_equal(image.rgb, deep >> 8)
            assert len(image.notes) == 1 and "if it has fewer bits" in image.notes[0]
    for factor in (256, 257):
        deep = (COLOUR * 60).astype(np.uint16) * factor
        cv2.imwrite(str(tmp_path / "a.tif"), deep[..., ::-1])
        image = read_image(tmp_path / "a.tif")
        assert not image.notes and image.rgb.max() == 60


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
        image = read_image(tmp_path / name)
        assert np.abs(image.rgb[..., 0] - GREY * 102).max() <= 1, name
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
        (b"\0\x05\x16\x07\0\2\0\0Mac OS X        ", "macOS stores"),
        (b"8BPS\0\1", "is a Photoshop file"),
    ):
        (tmp_path / "a.jpg").write_bytes(content + bytes(300))
        for reader in (read_image, image_size):
            with pytest.raises(InputError, match=says):
                reader(tmp_path / "a.jpg")
    with pytest.raises(InputError, match="is a URL; only local files are read"):
        read_image("https://example.org/a.jpg")


@pytest.mark.parametrize("name", ["a.cr2", "b.NEF", "c.dng", "d.orf", "canon.tif", "fuji.raf"])
def test_raw_photos_name_the_next_step(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    Image.fromarray(SMOOTH).save(path, format="TIFF")  # as their thumbnails are
    if name == "canon.tif":
        path.write_bytes(b"II*\0\x10\0\0\0CR\2\0" + bytes(300))
    elif name == "fuji.raf":
        path.write_bytes(b"something unknown" * 20)
    for reader in (read_image, image_size):
        with pytest.raises(InputError, match=rf"{name}: is a raw photo.* Convert it to JPEG or TIFF first"):
            reader(path)


def test_a_photo_is_read_under_the_suffix_of_a_raw_one(tmp_path: Path) -> None:
    Image.fromarray(SMOOTH).save(tmp_path / "a.dng", format="PNG")
    assert np.array_equal(read_image(tmp_path / "a.dng").rgb, SMOOTH)


def test_a_tiff_of_floating_point_colours_is_named(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.tif"), SMOOTH.astype(np.float32) / 255)
    with pytest.raises(InputError, match=r"a\.tif: is a TIFF .*floating-point.* 8 or 16 bits a channel"):
        read_image(tmp_path / "a.tif")


def test_a_pipe_names_the_next_step(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(InputError, match=r"is not a regular file\. Save it to a file first"):
        read_image(tmp_path / "a.jpg")


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
    image = read_image(tmp_path / "a.heic")
    upright = np.rot90(smooth, -1)
    assert image.rgb.shape == upright.shape and np.abs(image.rgb.astype(int) - upright).mean() < 3
    assert image.exif_focal == pytest.approx(28 / np.hypot(36, 24) * np.hypot(80, 120), rel=1e-4)
    (tmp_path / "b.heic").write_bytes(HEIC)
    with pytest.raises(InputError, match=r"b\.heic: the HEIC image is damaged"):
        read_image(tmp_path / "b.heic")
