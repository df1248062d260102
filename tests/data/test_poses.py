"""The pose bank: split, mirror, exchange along the tree, noise within limits."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from dpmesh.assets import shipped
from dpmesh.data.poses import PoseBank, descendants, exchange_sources, held_out, is_test, mirror
from dpmesh.errors import AssetError
from dpmesh.skeletons import SMPL24
from dpmesh.train.objectives.vqvae import body_rotations, forward_kinematics, rest_joints


@pytest.fixture(scope="module")
def bank() -> PoseBank:
    return PoseBank.load("train")


def test_splits_are_whole_clips_and_do_not_meet(bank: PoseBank) -> None:
    test = PoseBank.load("test")
    assert not set(bank.names) & set(test.names)
    assert any(n.startswith("amc:03_") for n in test.names)
    assert not any(n.startswith("amc:03_") or "soccer" in n for n in bank.names)
    assert sum(bank.lens) == len(bank) > 20_000 and sum(test.lens) == len(test) > 2_000
    # Two dancers of one take have clips of one length: both or neither is held out.
    assert is_test("daz:salsa_05") and is_test("daz:salsa_20")


def test_the_shipped_split_stays_as_it_is() -> None:
    """The shipped weights and all published figures were made with these clips."""
    train = PoseBank.load("train")
    held = held_out(train.names)
    names = [n for n, h in zip(train.names, held, strict=True) if h]
    assert (len(train.names), len(names), len(PoseBank.load("test").names)) == (170, 12, 17)
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
    assert digest.startswith("a17a18423fd4d66a")


AMASS = tuple(f"amass:ACCAD/s{i % 7}/walk_{i}_poses" for i in range(400))


def test_clips_of_other_captures_are_held_out_by_a_hash_of_their_names() -> None:
    held = held_out(AMASS)
    assert 8 <= sum(held) <= 32  # 5 % of 400
    fewer = held_out(AMASS[::2])
    assert fewer == held[::2]  # whatever else is in the file
    assert sum(held_out(AMASS, share=0.5)) > 150
    assert held_out(AMASS, ["amass:ACCAD/s3/"], 0.05) == tuple("/s3/" in n for n in AMASS)


@pytest.mark.parametrize("names", [AMASS[:2], AMASS[5:8], AMASS[40:60]])
@pytest.mark.parametrize("share", [1e-9, 0.05, 0.999999])
def test_one_clip_at_least_is_held_out_and_never_all(names: tuple[str, ...], share: float) -> None:
    assert 0 < sum(held_out(names, share=share)) < len(names)


def test_nothing_is_held_out_where_there_is_nothing_to_choose() -> None:
    assert held_out(AMASS, share=0.0) == (False,) * len(AMASS)
    assert held_out(AMASS[:1]) == (False,) and held_out(("a", "a")) == (False, False) and held_out(()) == ()


def test_hands_are_identity_and_angles_at_most_pi(bank: PoseBank) -> None:
    assert not bank.poses[:, 22:].any()
    assert np.linalg.norm(bank.poses, axis=-1).max() < np.pi + 2e-3


def test_mirror_twice_is_the_identity(bank: PoseBank) -> None:
    assert np.array_equal(mirror(mirror(bank.poses)), bank.poses)


def test_mirrored_pose_has_mirrored_joints(bank: PoseBank) -> None:
    rest = rest_joints()
    flip, x = list(SMPL24.flip), torch.tensor([-1.0, 1.0, 1.0])
    rest = (rest + rest[flip] * x) / 2  # exactly symmetric
    some = bank.poses[::2000]
    joints = forward_kinematics(body_rotations(some), rest)
    mirrored = forward_kinematics(body_rotations(mirror(some)), rest)
    assert torch.allclose(mirrored, joints[:, flip] * x, atol=1e-5)


def test_descendants_follow_the_tree() -> None:
    arm = {SMPL24.joints[i] for i in np.flatnonzero(descendants(SMPL24.index("L_Thorax")))}
    assert arm == {"L_Thorax", "L_Shoulder", "L_Elbow", "L_Wrist", "L_Hand"}
    assert descendants(0).all()


def test_an_exchanged_limb_comes_from_one_frame() -> None:
    sources = exchange_sources(np.random.default_rng(0), 500, 10**6)
    for limb in (("L_Hip", "L_Knee", "L_Ankle", "L_Toe"), ("R_Shoulder", "R_Elbow", "R_Wrist", "R_Hand")):
        columns = sources[:, [SMPL24.index(j) for j in limb]]
        assert (columns == columns[:, :1]).all()
    legs = sources[:, SMPL24.index("L_Hip")] != sources[:, 0]
    assert 0.1 < legs.mean() < 0.3  # some are exchanged, most are not


def test_sample_without_noise_is_made_of_recorded_joints() -> None:
    poses = np.arange(2 * 24 * 3, dtype=np.float32).reshape(2, 24, 3)
    bank = PoseBank(poses, ("a", "b"), (1, 1))
    drawn = bank.sample(np.random.default_rng(1), 50, noise=0.0)
    known = np.concatenate((poses, mirror(poses)))
    assert all((known[:, j] == drawn[:, None, j]).all(-1).any(-1).all() for j in range(24))


def test_sample_is_seeded(bank: PoseBank) -> None:
    a, b, c = (bank.sample(np.random.default_rng(s), 8) for s in (3, 3, 4))
    assert np.array_equal(a, b) and not np.array_equal(a, c)


def test_noise_stays_within_the_limits(bank: PoseBank) -> None:
    rng = np.random.default_rng(5)
    still = bank.sample(np.random.default_rng(5), 2000, noise=0.0)
    moved = bank.sample(rng, 2000, noise=0.5)
    low, high = bank.limits
    inside = (moved >= np.minimum(low, still)) & (moved <= np.maximum(high, still))
    assert inside[:, 1:].all() and np.abs(moved - still)[:, 1:22].mean() > 0.05
    assert not moved[:, 22:].any()


def test_another_file_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", poses=np.zeros((3, 23, 3)), names=np.array(["a"]), lens=np.array([3]))
    with pytest.raises(AssetError, match="do not fit"):
        PoseBank.read(tmp_path / "x.npz")
    whole = shipped("poses/poses.npz").read_bytes()
    good = {"poses": np.zeros((3, 24, 3)), "names": np.array(["a"]), "lens": np.array([3])}
    faults = {"poses": np.full((3, 24, 3), np.nan), "names": np.array("a"), "lens": np.array([3.0])}
    for i, (name, fault) in enumerate(faults.items()):
        np.savez(tmp_path / f"fault{i}.npz", **{**good, name: fault})
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "array.npy").rename(tmp_path / "array.npz")
    (tmp_path / "text.npz").write_text("nothing")
    (tmp_path / "cut.npz").write_bytes(whole[:-2000])
    (tmp_path / "damaged.npz").write_bytes(whole[:90_000] + bytes(200) + whole[90_200:])
    os.mkfifo(tmp_path / "fifo.npz")
    refused = sorted({*tmp_path.glob("*.npz"), tmp_path / "absent.npz"} - {tmp_path / "x.npz"})
    assert len(refused) == 9
    for path in refused:
        with pytest.raises(AssetError, match=path.name):
            PoseBank.read(path)
