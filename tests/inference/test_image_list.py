"""The images that INPUT arguments name: folders, recursion, list files, stdin; and where their results go."""

import io
import os
from pathlib import Path

import pytest

from dpmesh.errors import InputError
from dpmesh.inference.image_list import list_images, result_names


def tree(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def short(listing: object, root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in listing.images]  # pyright: ignore[reportAttributeAccessIssue]


def test_a_folder_without_hidden_files_and_with_counts(tmp_path: Path):
    tree(tmp_path, "b.JPG", "a.png", "._a.png", ".hidden.jpg", ".DS_Store", "c.mov", "d.mp4", "e.txt", "f", "g.xml",
         "sub/h.jpg", "i.heic")  # fmt: skip
    listing = list_images([str(tmp_path)])
    assert short(listing, tmp_path) == ["a.png", "b.JPG", "i.heic"]
    assert listing.skipped_text == (
        "skipped in folders: 2 hidden images, 2 videos (.mov, .mp4), 3 other files (.txt, .xml)"
    )
    assert list_images([str(tmp_path / "sub")]).skipped_text == ""


def test_recursion_keeps_the_folders(tmp_path: Path):
    tree(tmp_path, "a.jpg", "x/a.jpg", "x/y/a.png", "x/y/a.jpg", ".git/a.jpg", "out/a/overlay.png", "z/b.txt")
    os.symlink(tmp_path, tmp_path / "x" / "loop")
    listing = list_images([str(tmp_path)], recursive=True, skip=tmp_path / "out")
    assert short(listing, tmp_path) == ["a.jpg", "x/a.jpg", "x/y/a.jpg", "x/y/a.png"]
    assert list(result_names(listing.images).values()) == ["a", "x/a", "x/y/a.jpg", "x/y/a.png"]
    assert short(list_images([str(tmp_path)]), tmp_path) == ["a.jpg"]
    with pytest.raises(InputError, match=r"no image: 1 other file \(\.txt\)"):
        list_images([str(tmp_path / "z")])


def test_a_result_is_never_inside_another_result(tmp_path: Path):
    """x.jpg next to the folder x: the results of x/a.jpg must not lie in those of x.jpg."""
    tree(tmp_path, "x.jpg", "x/a.jpg", "X/b.jpg", "x/y.jpg", "x/y/c.jpg")
    names = result_names(list_images([str(tmp_path)], recursive=True).images)
    folders = [Path(name.casefold()) for name in names.values()]
    assert len(set(folders)) == len(names)
    assert not any(one in other.parents for one in folders for other in folders)
    assert names[tmp_path / "x.jpg"] == "x.jpg" and names[tmp_path / "x" / "y.jpg"] == "x/y.jpg"


def test_two_folders_with_the_same_names(tmp_path: Path):
    tree(tmp_path, "one/s/a.jpg", "two/s/a.jpg")
    listing = list_images([str(tmp_path / "one"), str(tmp_path / "two")], recursive=True)
    assert list(result_names(listing.images).values()) == ["s/a.jpg", "s/a.jpg_2"]


@pytest.mark.parametrize("way", ["list", "stdin", "byte order mark", "windows", "utf-16-le", "utf-16-be"])
def test_a_list_of_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str):
    tree(tmp_path, "photos/a.jpg", "photos/b b.png", "photos/é.jpg", "more/c.jpg")
    text = f"# mine\n\na.jpg\n  b b.png  \né.jpg\n{tmp_path / 'more'}\na.jpg\n".encode()
    if way == "byte order mark":
        text = b"\xef\xbb\xbf" + text.removeprefix(b"# mine\n")
    if way == "windows":
        text = text.replace(b"\n", b"\r\n")
    if way.startswith("utf-16"):  # PowerShell's >
        text = ("\ufeff" + text.decode()).encode(way)
    (tmp_path / "photos" / "list.txt").write_bytes(text)
    if way == "stdin":
        monkeypatch.chdir(tmp_path / "photos")
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text)))
        listing = list_images(["-"])
    else:
        listing = list_images([str(tmp_path / "photos" / "list.txt")])
    assert [path.name for path in listing.images] == ["a.jpg", "b b.png", "é.jpg", "c.jpg"]
    assert not listing.unusable and all(path.exists() for path in listing.images)


def test_a_bad_line_does_not_stop_the_others(tmp_path: Path):
    tree(tmp_path, "a.jpg")
    (tmp_path / "list.txt").write_text("a.jpg\nhttps://example.org/b.jpg\nmissing.jpg\n")
    listing = list_images([str(tmp_path / "list.txt")])
    assert [path.name for path in listing.images] == ["a.jpg"]
    assert list(listing.unusable) == ["https://example.org/b.jpg", "missing.jpg"]
    assert "list.txt: no such file: missing.jpg (taken as a list of paths)" in listing.unusable["missing.jpg"]
    (tmp_path / "list.txt").write_text("# nothing\n\n")
    with pytest.raises(InputError, match=r"list\.txt: the list has no path"):
        list_images([str(tmp_path / "list.txt")])
    (tmp_path / "list.txt").write_bytes(b"a.jpg\nb\0.jpg\n")
    with pytest.raises(InputError, match=r"list\.txt: is no list of paths: it has a NUL"):
        list_images([str(tmp_path / "list.txt")])


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("https://example.org/a.jpg", "is a URL.*curl -LO"),
        ("HTTP://example.org/a.jpg", "is a URL"),
        ("s3://bucket/a.jpg", "is a URL"),
        ("", "an empty name"),
        ("clip.MP4", "is a video.*ffmpeg -i"),
        ("empty", r"the folder has no image\. Add --recursive"),
    ],
)
def test_an_input_that_is_no_image_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, says: str
):
    tree(tmp_path, "clip.MP4", "a.jpg", "empty/sub/a.jpg")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=says) as caught:
        list_images([name])
    assert "\n" not in str(caught.value)
    listing = list_images([name, "a.jpg"])
    assert [str(path) for path in listing.images] == ["a.jpg"] and list(listing.unusable) == [name]


def test_what_the_user_names_is_taken(tmp_path: Path):
    """A hidden file, a missing one, one without suffix: reading it reports what is wrong."""
    names = [str(tmp_path / name) for name in (".a.jpg", "missing", "b")]
    tree(tmp_path, ".a.jpg", "b")
    assert [str(path) for path in list_images([*names, names[0]]).images] == names


def test_standard_input_beyond_the_limit_is_no_shorter_list(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("dpmesh.inference.image_list.LARGEST_LIST", 5)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a.png\nb.png\n")))
    with pytest.raises(InputError, match="standard input: is longer than 5 bytes"):
        list_images(["-"])
