"""Reading images: every colour mode, format and orientation, from files, PIL images and arrays."""

import hashlib
import io
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from dpmesh.decode import FORMATS
from dpmesh.errors import InputError
from dpmesh.inference.image_sources import source_path
from dpmesh.inference.images import read_image

SMOOTH = (np.add.outer(np.arange(40), np.arange(60))[..., None] * np.array([1.0, 2.0, 0.5])).astype(np.uint8)


def stored(tmp_path: Path, image: Image.Image, name: str, **options: object) -> Path:
    image.save(tmp_path / name, **options)  # pyright: ignore[reportArgumentType]
    return tmp_path / name


def test_path_pil_and_array_agree(tmp_path: Path) -> None:
    path = stored(tmp_path, Image.fromarray(SMOOTH), "a.png")
    for source in (path, str(path), Image.open(path), SMOOTH):
        np.testing.assert_array_equal(read_image(source).rgb, SMOOTH)


def test_one_pixel(tmp_path: Path) -> None:
    assert read_image(stored(tmp_path, Image.new("RGB", (1, 1), (9, 8, 7)), "a.png")).rgb.tolist() == [
        [[9, 8, 7]]
    ]


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


def test_exif_orientation_and_focal_length(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn by a quarter clockwise
    exif.get_ifd(0x8769)[0xA405] = 28
    decoded = read_image(stored(tmp_path, Image.fromarray(SMOOTH), "a.png", exif=exif))
    np.testing.assert_array_equal(decoded.rgb, np.rot90(SMOOTH, -1))
    assert decoded.exif_focal == pytest.approx(28 / np.hypot(36, 24) * np.hypot(40, 60), rel=1e-4)


@pytest.mark.parametrize("value", [0, 65535])
def test_nonsense_focal_length_is_ignored(tmp_path: Path, value: int) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA405] = value
    assert read_image(stored(tmp_path, Image.fromarray(SMOOTH), "a.jpg", exif=exif)).exif_focal is None


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png"])
def test_of_an_animation_the_first_frame_is_read_and_noted(tmp_path: Path, name: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    path = stored(tmp_path, frames[0], name, save_all=True, append_images=frames[1:])
    decoded = read_image(path)
    assert decoded.rgb[8, 8].tolist() == pytest.approx([255, 0, 0], abs=3)
    assert "first frame" in " ".join(decoded.notes)


@pytest.mark.parametrize(
    "array", [np.zeros((4, 4, 3)), np.zeros((4, 4, 2), np.uint8), np.zeros((0, 4, 3), np.uint8)]
)
def test_arrays_of_another_kind_are_refused(array: np.ndarray) -> None:
    with pytest.raises(InputError, match="uint8"):
        read_image(array)


def test_every_suffix_opens_as_its_format(tmp_path: Path) -> None:
    """The table of formats is true: what Pillow writes under a suffix is read, and its name is Pillow's own. The
    manual names the same formats."""
    known = Image.registered_extensions()
    manual = (Path(__file__).parents[2] / "docs" / "guide" / "images.md").read_text()
    message = next(line for line in manual.splitlines() if line.startswith("JPEG, PNG"))
    listed = message.partition(" are read")[0].replace(" and ", ", ").replace(" ", "").upper()
    assert listed.split(",") == list(FORMATS)
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
    assert read_image(stereo).rgb.shape == (40, 60, 3)
    assert read_image(stereo).notes == ("several photos in one file (MPO): the first was taken",)


def test_orientations_are_pillows(tmp_path: Path) -> None:
    for turn in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = turn
        for name in ("a.png", "a.tif"):
            path = stored(tmp_path, Image.fromarray(SMOOTH), name, exif=exif)
            with Image.open(path) as image:
                wanted = np.asarray(ImageOps.exif_transpose(image))
            np.testing.assert_array_equal(read_image(path).rgb, wanted)


def test_damaged_exif_is_ignored_and_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(*_: object) -> None:
        raise struct.error("unpack requires a buffer of 2 bytes")

    path = stored(tmp_path, Image.fromarray(SMOOTH), "a.jpg")
    monkeypatch.setattr(Image.Exif, "get_ifd", damaged)
    decoded = read_image(path)
    assert decoded.rgb.shape == (40, 60, 3) and decoded.exif_focal is None
    assert decoded.notes == ("EXIF cannot be read and was ignored",)


def test_bytes_open_files_and_tensors(tmp_path: Path) -> None:
    path = stored(tmp_path, Image.fromarray(SMOOTH), "a.png")
    data = path.read_bytes()
    chw = torch.from_numpy(SMOOTH).permute(2, 0, 1)
    with path.open("rb") as file:
        sources = (data, bytearray(data), io.BytesIO(data), file)
        decoded = [read_image(source) for source in sources]
        assert source_path(file) == str(path) and source_path(io.BytesIO(data)) == ""
    assert {image.sha256 for image in decoded} == {hashlib.sha256(data).hexdigest()}
    decoded += [read_image(tensor) for tensor in (chw, chw / 255, (chw.double() / 255).requires_grad_())]
    for image in decoded:
        np.testing.assert_array_equal(image.rgb, SMOOTH)
    grey = np.repeat(SMOOTH[..., :1], 3, axis=2)
    for source in (SMOOTH[..., 0], SMOOTH[..., :1], chw[0], chw[:1]):
        np.testing.assert_array_equal(read_image(source).rgb, grey)
    rgba = np.dstack([SMOOTH, np.zeros_like(SMOOTH[..., 0])])
    assert (read_image(rgba).rgb == 255).all() and (read_image(chw.new_zeros(4, 2, 2)).rgb == 255).all()


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (None, "NoneType is not an image. Accepted are a path, the bytes of an image file"),
        (7, "int is not an image"),
        ([], "For many images pass a list"),
        (b"", "is empty"),
        (b"no image", "bytes: is not an image that can be read"),
        (io.BytesIO(), r"Rewind it: file.seek\(0\)"),
        (io.StringIO("text"), 'Open it with open\\(path, "rb"\\)'),
        (np.zeros((2, 4, 4, 3), np.uint8), r"2×4×4×3 uint8. Pass a list of images: list\(array\)"),
        (np.zeros((3, 8, 9), np.uint8), r"array.transpose\(1, 2, 0\)"),
        (np.zeros((8, 9, 3), np.float32), r"\(255 \* array\).round\(\).astype"),
        (np.zeros((8, 9, 3), np.int64), r"array.astype\(np.uint8\)"),
        (torch.zeros(2, 3, 8, 9), "2×3×8×9 float32. Pass a list of images"),
        (torch.zeros(8, 9, 3), r"tensor.permute\(2, 0, 1\)"),
        (torch.full((3, 8, 9), 1.5), r"values in \[0, 1\]. Undo its normalisation"),
        (torch.full((3, 8, 9), torch.nan), r"values in \[0, 1\]"),
        (torch.zeros((3, 8, 9), dtype=torch.int64), "this is int64"),
        (torch.zeros((3, 0, 9)), "an array must be"),
    ],
)
def test_everything_else_is_refused_with_what_is_accepted(source: object, says: str) -> None:
    with pytest.raises(InputError, match=says):
        read_image(source)


def test_a_closed_file_is_refused(tmp_path: Path) -> None:
    file = stored(tmp_path, Image.fromarray(SMOOTH), "a.png").open("rb")
    file.close()
    with pytest.raises(InputError, match=r"a\.png: cannot be read \(read of closed file\)"):
        read_image(file)
