"""Packing and reading back, torn shards, the mixture, and the output of `dpmesh data`."""

import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpmesh.cli.main import main
from dpmesh.data import open_source
from dpmesh.data.augment import AugmentConfig
from dpmesh.data.check import check_people
from dpmesh.data.fits import FitBodies
from dpmesh.data.pack import PackConfig, pack
from dpmesh.data.shards import ShardSource
from dpmesh.data.sources import FolderSource, Mixture, SampleSource, SyntheticSource, read_folder
from dpmesh.errors import ConfigError, InputError, OutputError

Sets = tuple[Path, dict[str, Any]]
SMALL = PackConfig(per_shard=2, quality=95)


@pytest.fixture(scope="module")
def folder(sets: Sets, bodies: FitBodies) -> FolderSource:
    return read_folder("coco", sets[0], bodies=bodies)


@pytest.fixture
def packed(folder: FolderSource, tmp_path: Path) -> Path:
    pack(folder.people, tmp_path / "shards", "coco-train", SMALL)
    return tmp_path / "shards"


def test_shards_give_what_the_folder_gives(folder: FolderSource, packed: Path) -> None:
    source = open_source("coco", packed)
    assert isinstance(source, ShardSource) and len(source) == len(folder) == 3 and not source.skipped
    for config in (None, AugmentConfig(colour=0.0, p_rectangle=0.0)):
        for k in range(3):
            a, b = (s.sample(k, np.random.default_rng(k), config) for s in (folder, source))
            assert a.record_id == b.record_id and abs(a.focal / b.focal - 1) < 1e-5
            for name in ("joints2d", "joints", "fit_joints2d"):
                assert np.abs(getattr(a, name) - getattr(b, name)).max() < 2e-2, name
            for name in (
                "fit_joints3d",
                "pose",
                "transl",
                "betas",
                "visible",
                "joints2d_valid",
                "pose_valid",
            ):
                assert np.abs(getattr(a, name) - getattr(b, name)).max() < 1e-4, name
            inner = (a.crop > 0).any(-1) & (b.crop > 0).any(-1)
            assert inner.mean() > 0.5 and np.abs(a.crop.astype(int) - b.crop)[inner].mean() < 3


def test_shards_keep_the_annotated_box_and_where_the_whole_image_lies(
    folder: FolderSource, packed: Path
) -> None:
    source = open_source("coco", packed)
    assert isinstance(source, ShardSource)
    for k in range(3):
        before, after = folder.people[k], source.person(k)
        (x, y, zoom) = after.full_place
        assert after.full_size == before.size and zoom <= 1 and after.diagonal == before.diagonal
        moved = before.annotated * zoom + np.tile([x, y], 2)
        assert np.abs(after.annotated - moved).max() < 1e-3
        for camera in ("K", "diagonal_camera"):  # a direction is the same through both images
            ray = np.linalg.solve(getattr(before, camera), [*before.box[:2], 1.0])
            again = np.linalg.solve(getattr(after, camera), [*after.box[:2], 1.0])
            assert np.abs(ray - again).max() < 1e-5, camera


def test_shards_of_an_older_format_are_refused_in_one_line(
    folder: FolderSource, packed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = json.loads((packed / "pack.json").read_text())
    assert manifest["format"] == 2
    (packed / "pack.json").write_text(json.dumps(manifest | {"format": 1}))
    for use in (
        lambda: open_source("coco", packed),
        lambda: pack(folder.people, packed, "coco-train", SMALL),
    ):
        with pytest.raises(InputError, match="format 1") as caught:
            use()
        assert "dpmesh data pack" in caught.value.fix
    assert main(["data", "check", str(packed)]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_webdataset_reads_the_shards(packed: Path) -> None:
    import webdataset

    dataset = webdataset.WebDataset(str(packed / "coco-train-00000.tar"), shardshuffle=False)
    people = [json.loads(item["json"])["record_id"] for item in dataset]
    assert people == ["coco/9/500", "coco/9/501"]


def test_packing_goes_on_where_it_stopped(folder: FolderSource, packed: Path) -> None:
    first, second = sorted(packed.glob("*.tar"))
    before = {p.name: p.read_bytes() for p in packed.iterdir()}
    stamp = first.stat().st_mtime_ns
    second.unlink()
    (packed / ".coco-train-00001.tar.0a1b2c3d.part").write_bytes(b"half")  # of a run that was killed
    (packed / ".film.mp4.part").write_bytes(b"mine")
    done = pack(folder.people, packed, "coco-train", SMALL)
    assert (done.written, done.intact, done.people) == (1, 1, 3) and first.stat().st_mtime_ns == stamp
    assert (packed / ".film.mp4.part").read_bytes() == b"mine"
    assert {p.name: p.read_bytes() for p in packed.iterdir() if p.name != ".film.mp4.part"} == before
    with pytest.raises(OutputError, match="other settings"):
        pack(folder.people, packed, "coco-train", replace(SMALL, side=256))


def test_a_missing_image_is_skipped_and_named(folder: FolderSource, tmp_path: Path) -> None:
    people = [replace(folder.people[0], image=tmp_path / "none.jpg"), *folder.people[1:]]
    done = pack(people, tmp_path / "s", "coco-train", SMALL)
    assert (
        list(done.skipped) == ["coco/9/500"] and done.people == len(open_source("coco", tmp_path / "s")) == 2
    )


def test_a_torn_shard_is_named_skipped_and_counted(
    packed: Path, folder: FolderSource, capsys: pytest.CaptureFixture[str]
) -> None:
    shard = packed / "coco-train-00000.tar"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-512])
    source = open_source("coco", packed)
    assert isinstance(source, ShardSource) and list(source.skipped) == [shard.name] and len(source) == 1
    flipped = bytearray(whole)
    flipped[2000] ^= 255  # the same size: detected by the person's checksum, and by check
    shard.write_bytes(flipped)
    with pytest.raises(InputError, match="bytes of this person have changed"):
        open_source("coco", packed).sample(0, np.random.default_rng(0))
    assert main(["data", "check", str(packed)]) == 1
    assert "TORN coco-train-00000.tar: its checksum is another" in capsys.readouterr().out
    assert pack(folder.people, packed, "coco-train", SMALL).written == 1
    assert main(["data", "check", str(packed)]) == 0


class Counted(SampleSource):
    """Returns which one was requested."""

    def __init__(self, name: str, length: int, template: Any) -> None:
        self._name, self._length, self._template = name, length, template

    @property
    def name(self) -> str:
        return self._name

    def __len__(self) -> int:
        return self._length

    def sample(self, index: int, rng: np.random.Generator, augment: AugmentConfig | None = None) -> Any:
        return replace(self._template, record_id=f"{self._name}/{index}", focal=float(rng.random()))


@pytest.fixture(scope="module")
def groups(folder: FolderSource) -> list[list[SampleSource]]:
    template = folder.sample(0, np.random.default_rng(0))
    names = (("a", 7), ("b", 4)), (("c", 5),)
    return [[Counted(n, k, template) for n, k in group] for group in names]


def test_groups_are_mixed_one_to_one_and_gone_through(groups: list[list[SampleSource]]) -> None:
    mixture = Mixture(groups, 3)
    ids = [i for step in range(22) for i in mixture(step, share=6)["record_id"]]
    for step in range(22):
        kinds = [i[0] in "ab" for i in ids[6 * step : 6 * step + 6]]
        assert sum(kinds) == 3
    first = [i for i in ids if i[0] in "ab"]
    for start in range(0, 66, 11):  # each passage has every person once, in another order
        assert len(set(first[start : start + 11])) == 11
    assert first[:11] != first[11:22] and mixture.epoch == 22


def test_a_batch_depends_on_seed_and_step_alone(groups: list[list[SampleSource]]) -> None:
    one, again = Mixture(groups, 3), pickle.loads(pickle.dumps(Mixture([g[:1] for g in groups], 3)))  # noqa: S301
    joint = one(5, 0, 1, 8)
    shares = [Mixture(groups, 3)(5, rank, 2, 4) for rank in range(2)]  # alone, as after a resume
    assert [*shares[0]["record_id"], *shares[1]["record_id"]] == joint["record_id"]
    assert np.concatenate([s["focal"] for s in shares]).tolist() == joint["focal"].tolist()
    assert Mixture(groups, 4)(5, 0, 1, 8)["record_id"] != joint["record_id"]
    assert again(0, share=2)["record_id"][1][0] == "c"
    with pytest.raises(ConfigError):
        one(0, rank=1, world=1)
    with pytest.raises(ConfigError, match="no people"):
        Mixture([[], groups[0]], 0)


def test_real_and_synthetic_people_stack(folder: FolderSource) -> None:
    source = open_source("synthetic", seed=5, length=10)
    assert isinstance(source, SyntheticSource) and len(source) == 10
    batch = Mixture([[source], [folder]], 0, AugmentConfig())(0, share=4)
    assert [i.split("/")[0] for i in batch["record_id"]] == ["synthetic", "coco"] * 2
    assert batch["surface_valid"].tolist() == [1, 0] * 2 and batch["crop"].shape == (4, 256, 256, 3)


def test_suspicious_units_sides_and_frames_are_reported(sets: Sets, bodies: FitBodies) -> None:
    people = read_folder("muco", sets[0], bodies=bodies).people
    assert not check_people(people).findings
    person = people[1]
    order = [*range(30)]
    for a, b in ((1, 2), (4, 5), (7, 8), (16, 17), (18, 19), (20, 21), (22, 23)):
        order[a], order[b] = b, a
    wrong = {
        "millimetres": replace(person, joints3d=person.joints3d * 1000),
        "behind": replace(person, joints3d=person.joints3d - np.float32([0, 0, 8])),
        "exchanged": replace(person, fit_joints3d=person.fit_joints3d[order]),
        "another frame": replace(person, joints3d=person.joints3d[:, [1, 0, 2]] + np.float32([1, 0, 3])),
        "outside the box": replace(person, box=person.box + 300),
        "another size": replace(person, size=(100, 90)),
        "missing": replace(person, image=Path("/none.jpg")),
    }
    for word, changed in wrong.items():
        findings = check_people([changed]).findings
        assert any(word in what for what in findings), (word, list(findings))
        assert all(f.examples == [person.record_id] for f in findings.values())


def test_the_command_checks_and_packs(sets: Sets, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "root"
    shutil.copytree(sets[0] / "CrowdPose", root / "CrowdPose")
    assert main(["data", "check", str(root), "--free-body", "--out", str(tmp_path / "sheets")]) == 0
    assert "CrowdPose train: 2 people in 1 images, 0 with 3D joints, 2 with a fit" in capsys.readouterr().out
    assert (tmp_path / "sheets/crowdpose-train.jpg").stat().st_size > 5000
    (root / "CrowdPose/images/101.jpg").unlink()
    assert main(["data", "check", str(root), "--no-fits", "--out", str(tmp_path / "sheets")]) == 1
    assert "LOOK: image missing or damaged: 2, such as crowdpose/101/900" in capsys.readouterr().out
    assert main(["data", "pack", str(sets[0]), str(tmp_path / "out"), "--no-fits", "--sets", "muco"]) == 0
    assert "muco-train: 2 people; 1 shards written" in capsys.readouterr().out
    assert main(["data", "check", str(tmp_path)]) == 1
    assert "no data set with a train split" in capsys.readouterr().err


def test_every_split_that_is_there_is_packed(
    sets: Sets, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A training validates on 3DPW's validation split, which is packed by default."""
    root, out = tmp_path / "sets", str(tmp_path / "out")
    shutil.copytree(sets[0], root)
    folder = root / ("PW3D/data" if (root / "PW3D").is_dir() else "3DPW")
    shutil.copy(folder / "3DPW_latest_train.json", folder / "3DPW_latest_validation.json")
    assert main(["data", "pack", str(root), out, "--no-fits", "--sets", "3dpw", "coco"]) == 0
    printed = capsys.readouterr().out
    assert "3dpw-validation: 3 people" in printed and "coco-train: 3 people" in printed
    assert "coco-validation: not packed: " in printed and "no such file" in printed
    assert len(open_source("3dpw", out, "validation")) == 3
    shutil.rmtree(folder)
    folder.mkdir()
    assert main(["data", "pack", str(root), out, "--no-fits", "--sets", "3dpw"]) == 1


@pytest.mark.parametrize("name", [".movie.mkv.part", ".manifest.json.part", "notes.txt"])
def test_nothing_is_packed_into_a_folder_of_something_else(tmp_path: Path, name: str):
    (tmp_path / name).write_text("mine")
    with pytest.raises(OutputError, match=r"holds other files than packed people.*new or empty folder"):
        pack([], tmp_path, "x-train", PackConfig())
    assert [p.name for p in tmp_path.iterdir()] == [name] and (tmp_path / name).read_text() == "mine"
