"""Tiny twins of the data sets, in their real layouts: python tools/set_twins.py ROOT [--layout jotr|3dcrowdnet]

For the tests, and to try `dpmesh data` without a licence. Two or three people in each set, drawn with the free
body, whose left arm is raised and whose right one hangs, before cameras that are turned by 90 degrees; so swapped
sides, millimetres for metres or the world for the camera frame cannot go unseen. Fits are for the free body
(dpmesh data check ROOT --free-body), not for SMPL. Written from the description of the files, not from the adapters.
"""

import argparse
import json
import pickle
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from scipy.spatial.transform import Rotation

from dpmesh.body.files import BodyArrays, free_body
from dpmesh.body.layer import BodyModel
from dpmesh.render.overlay import Layer, draw_overlay, palette
from dpmesh.skeletons import COCO17, CROWDPOSE14, H36M17, JOINTS30, MUCO21, OPENPOSE18, SMPL24

UNANNOTATED, OCCLUDED = "L_Ear", "R_Knee"
"""Of the first person of the 2D sets."""


def bodies() -> dict[str, BodyArrays]:
    """The free body, and a larger and a smaller one for the genders."""
    free = free_body()
    return {
        "neutral": free,
        "male": replace(free, v_template=free.v_template * np.float32(1.04)),
        "female": replace(free, v_template=free.v_template * np.float32(0.96)),
    }


BODIES = {gender: (BodyModel(arrays), arrays) for gender, arrays in bodies().items()}


@dataclass(frozen=True, eq=False)
class Truth:
    """A person before the camera: metres, K in image px; `joints` and `named` (all sets' joints by name) in place."""

    pose: np.ndarray
    betas: np.ndarray
    transl: np.ndarray
    root: np.ndarray  # the pelvis joint in the rest pose
    joints: np.ndarray
    h36m: np.ndarray
    coco: np.ndarray
    vertices: np.ndarray
    K: np.ndarray
    gender: str

    def pixels(self, points: np.ndarray) -> np.ndarray:
        seen = points @ self.K.T
        return seen[:, :2] / seen[:, 2:]

    def named(self, joints: tuple[str, ...]) -> np.ndarray:
        """Joints by name: H36M's regressor where it has the name, else the 30-joint set's."""
        middle = (self.joints[JOINTS30.index("L_Shoulder")] + self.joints[JOINTS30.index("R_Shoulder")]) / 2
        rows = {**dict(zip(JOINTS30.joints, self.joints, strict=True)), "Thorax": middle}
        rows |= dict(zip(H36M17.joints, self.h36m, strict=True))
        return np.stack([rows[name] for name in joints])


def person(
    seed: int,
    at: tuple[float, float, float],
    K: np.ndarray,
    yaw: float = 0,
    gender: str = "neutral",
    shape: int = 0,
) -> Truth:
    """Upright, looking at the camera but for `yaw` degrees; the left arm up, the right one down, a knee bent.

    shape: seed of the betas, if not `seed`.
    """
    rng = np.random.default_rng(seed)
    pose = rng.normal(0, 0.05, (24, 3))
    pose[SMPL24.index("L_Shoulder")] = [0, 0, np.radians(75)]
    pose[SMPL24.index("R_Shoulder")] = [0, 0, np.radians(70)]
    pose[SMPL24.index("L_Hip")] = [np.radians(-35), 0, np.radians(10)]
    pose[SMPL24.index("L_Knee")] = [np.radians(60), 0, 0]
    facing = Rotation.from_euler("x", 180, degrees=True) * Rotation.from_euler("y", yaw, degrees=True)
    pose[0] = facing.as_rotvec()
    pose, betas = (
        pose.astype(np.float32),
        np.random.default_rng(shape or seed + 1000).normal(0, 0.8, 10).astype(np.float32),
    )
    model, arrays = BODIES[gender]
    rotations = torch.from_numpy(Rotation.from_rotvec(pose).as_matrix().astype(np.float32))[None]
    transl = np.array(at, np.float32)
    output = model(torch.from_numpy(betas)[None], rotations, torch.from_numpy(transl)[None])
    shaped = arrays.v_template + arrays.shapedirs @ betas
    return Truth(
        pose, betas, transl, (arrays.J_regressor @ shaped)[0], output.joints30[0].numpy(),
        model.regress(output.vertices, "h36m17")[0].numpy(), model.regress(output.vertices, "coco17")[0].numpy(),
        output.vertices[0].numpy(), K, gender,
    )  # fmt: skip


def lens(focal: float, x: float, y: float) -> np.ndarray:
    return np.array([[focal, 0, x], [0, focal * 1.01, y], [0, 0, 1]])


def picture(path: Path, size: tuple[int, int], people: list[Truth]) -> None:
    """A photograph, so to say: the people's surfaces over a gradient. Small, because drawing takes its time."""
    w, h = size
    image = np.empty((h, w, 3), np.uint8)
    image[:] = np.linspace(90, 170, w)[None, :, None]
    for truth, colour in zip(people, palette(len(people)), strict=True):
        image = draw_overlay(image, [Layer(truth.vertices, colour)], BODIES["neutral"][1].faces, truth.K)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])


def xywh(pixels: np.ndarray) -> list[float]:
    low, high = pixels.min(0) - 8, pixels.max(0) + 8
    return [float(v) for v in (*low, *(high - low))]


def dump(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, default=lambda a: a.tolist()))


def world_of(truth: Truth, R: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pose and transl in the world, x_camera = R x_world + t (metres)."""
    pose = truth.pose.astype(np.float64)
    pose[0] = (Rotation.from_matrix(R.T) * Rotation.from_rotvec(pose[0])).as_rotvec()
    return pose, R.T @ (truth.root + truth.transl - t) - truth.root


VIEWS = {  # cameras on their side, above, and turned: R and t in metres
    cam: (Rotation.from_euler("xyz", angles, degrees=True).as_matrix(), np.array(t))
    for cam, angles, t in (("1", (90, 0, 0), (0.3, -0.2, 5.0)), ("2", (90, 30, 90), (-0.5, 0.4, 4.5)))
}


def write_h36m(root: Path) -> dict[str, Truth]:
    """Subjects 1 and 5: fits that fit, one that does not (subject 5), one missing frame, a frame 7 that is no fifth."""
    folder, truths = root / "Human36M", {}
    for subject in (1, 5):
        images, annotations, joints, fits = [], [], {}, {}
        for number, (cam, frame) in enumerate((("1", 5), ("2", 10), ("1", 7))):
            R, t = VIEWS[cam]
            truth = person(
                subject * 10 + number, (0.1 * number - 0.2, 0.1, 4.0), lens(572, 256.2, 257.7), 20 * number
            )
            name = f"s_{subject:02d}_act_02_subact_01_ca_0{cam}/s_{subject:02d}_act_02_subact_01_ca_0{cam}_{frame:06d}"
            images.append({
                "id": number, "file_name": f"{name}.jpg", "width": 500, "height": 501, "subject": subject,
                "action_idx": 2, "subaction_idx": 1, "cam_idx": int(cam), "frame_idx": frame,
            })  # fmt: skip
            annotations.append({"id": number, "image_id": number, "bbox": xywh(truth.pixels(truth.joints))})
            world = (truth.h36m - t) @ R * 1000
            joints.setdefault("2", {}).setdefault("1", {})[str(frame)] = world
            pose, transl = world_of(truth, R, t)
            if (subject, frame) == (5, 5):
                pose[SMPL24.index("L_Shoulder")] = [0, 0, np.radians(-70)]  # this fit has the arm down
            if (subject, frame) != (5, 10):
                leaf = {"pose": pose.reshape(-1), "shape": truth.betas, "trans": transl}
                fits.setdefault("2", {}).setdefault("1", {})[str(frame)] = leaf
            if frame % 5 == 0:
                picture(folder / "images" / f"{name}.jpg", (500, 501), [truth])
                truths[f"h36m/{name}"] = truth
        K = lens(572, 256.2, 257.7)
        cameras = {
            cam: {"R": R, "t": t * 1000, "f": [K[0, 0], K[1, 1]], "c": [K[0, 2], K[1, 2]]}
            for cam, (R, t) in VIEWS.items()
        }
        start = folder / "annotations" / f"Human36M_subject{subject}_"
        dump(Path(f"{start}data.json"), {"images": images, "annotations": annotations})
        dump(Path(f"{start}camera.json"), cameras)
        dump(Path(f"{start}joint_3d.json"), joints)
        dump(Path(f"{start}smpl_param.json"), fits)
    return truths


def write_muco(root: Path, layout: str) -> dict[str, Truth]:
    """Two pictures; in the first, two people overlap and the second of the file is the nearer."""
    folder, truths, images, annotations, fits = root / "MuCo", {}, [], [], {}
    folder = folder / "data" if layout == "3dcrowdnet" else folder
    K = lens(437, 162.0, 156.0)
    for number, name in enumerate(("augmented_set/1/a_000001.jpg", "unaugmented_set/2/b_000007.jpg")):
        people = [person(40 + number, (0.25, 0.1, 4.5), K), person(50 + number, (-0.1, 0.1, 3.6), K, 30)]
        images.append({"id": 10 + number, "file_name": name, "width": 320, "height": 320,
                       "f": [K[0, 0], K[1, 1]], "c": [K[0, 2], K[1, 2]]})  # fmt: skip
        for k, truth in enumerate(people[: 2 - number]):
            cam = truth.named(MUCO21.joints)
            key = 100 + 10 * number + k
            annotations.append({"id": key, "image_id": 10 + number, "bbox": xywh(truth.pixels(truth.joints)),
                                "keypoints_img": truth.pixels(cam), "keypoints_cam": cam * 1000})  # fmt: skip
            fits[str(key)] = {"pose": truth.pose.reshape(-1), "shape": truth.betas, "trans": truth.transl}
        picture(folder / name, (320, 320), people[: 2 - number])
        nearest = people[1 - number]
        truths[f"muco/{10 + number}/{100 + 10 * number + 1 - number}"] = nearest
    dump(folder / "MuCo-3DHP.json", {"images": images, "annotations": annotations})
    dump(folder / "smpl_param.json", fits)
    return truths


def own_lens(x: float, y: float) -> np.ndarray:
    """NeuralAnnot's camera: long, its axis through the person's box."""
    return lens(1500.0, x, y)


def keypoints(truth: Truth, rows: np.ndarray, names: tuple[str, ...], first: bool) -> list[float]:
    flags = [0 if first and n == UNANNOTATED else 1 if first and n == OCCLUDED else 2 for n in names]
    points = np.concatenate([truth.pixels(rows), np.array(flags)[:, None]], 1)
    points[points[:, 2] == 0] = 0
    return points.reshape(-1).tolist()


def write_coco(root: Path, layout: str) -> dict[str, Truth]:
    """Two people who overlap, a crowd and somebody without keypoints in a picture; one without a fit in another."""
    folder, truths, annotations, fits = root / "MSCOCO", {}, [], {}
    images = [{"id": i, "file_name": f"{i:012d}.jpg", "width": 640, "height": 480} for i in (9, 25)]
    pairs = [person(60, (0, 0.1, 6.0), own_lens(260, 240)), person(61, (0, 0.1, 7.0), own_lens(340, 240), 40)]
    for year in ("train2017", "val2017") if layout == "3dcrowdnet" else ("train2017",):
        annotations = []
        for k, (image, truth) in enumerate(((9, pairs[0]), (9, pairs[1]), (25, pairs[0]))):
            annotations.append({
                "id": 500 + k, "image_id": image, "iscrowd": 0, "num_keypoints": 17, "category_id": 1,
                "bbox": xywh(truth.pixels(truth.joints)), "area": 1.0,
                "keypoints": keypoints(truth, truth.coco, COCO17.joints, k == 0),
            })  # fmt: skip
            if k < 2:
                fits[str(500 + k)] = {
                    "smpl_param": {
                        "pose": truth.pose.reshape(-1),
                        "shape": truth.betas,
                        "trans": truth.transl,
                    },
                    "cam_param": {"focal": truth.K[[0, 1], [0, 1]], "princpt": truth.K[:2, 2]},
                }
            truths[f"coco/{image}/{500 + k}"] = truth
        empty = {"image_id": 9, "bbox": [5, 5, 50, 80], "keypoints": [0] * 51}
        annotations += [{**empty, "id": 600, "iscrowd": 1, "num_keypoints": 3},
                        {**empty, "id": 601, "iscrowd": 0, "num_keypoints": 0}]  # fmt: skip
        picture(folder / f"images/{year}/{9:012d}.jpg", (640, 480), pairs)
        picture(folder / f"images/{year}/{25:012d}.jpg", (640, 480), pairs[:1])
        dump(
            folder / f"annotations/person_keypoints_{year}.json",
            {"images": images, "annotations": annotations},
        )
    dump(folder / "annotations/MSCOCO_train_SMPL_NeuralAnnot.json", fits)
    return truths


def write_crowdpose(root: Path) -> dict[str, Truth]:
    """A wide picture whose width and height stand exchanged in the file, two people, fit_err 1 and 9."""
    folder, truths, annotations, fits = root / "CrowdPose", {}, [], {}
    people = [
        person(70, (0, 0.1, 6.0), own_lens(300, 150)),
        person(71, (0, 0.1, 6.5), own_lens(560, 160), -30),
    ]
    for k, truth in enumerate(people):
        rows = truth.named(CROWDPOSE14.joints)
        annotations.append({"id": 900 + k, "image_id": 101, "iscrowd": 0, "category_id": 1,
                            "bbox": xywh(truth.pixels(truth.joints)), "num_keypoints": 14,
                            "keypoints": keypoints(truth, rows, CROWDPOSE14.joints, k == 0)})  # fmt: skip
        fits[str(900 + k)] = {
            "smpl_param": {"pose": truth.pose.reshape(-1), "shape": truth.betas, "trans": truth.transl},
            "cam_param": {"focal": truth.K[[0, 1], [0, 1]], "princpt": truth.K[:2, 2]},
            "fit_err": (1.0, 9.0)[k],
        }
        truths[f"crowdpose/101/{900 + k}"] = truth
    annotations.append(
        {"id": 950, "image_id": 101, "iscrowd": 0, "bbox": [1, 1, 9, 9], "keypoints": [0] * 42}
    )
    picture(folder / "images/101.jpg", (800, 320), people)
    images = [{"id": 101, "file_name": "101.jpg", "width": 320, "height": 800}]
    dump(folder / "annotations/crowdpose_train.json", {"images": images, "annotations": annotations})
    dump(folder / "annotations/CrowdPose_train_SMPL_NeuralAnnot.json", fits)
    return truths


def write_3dpw(root: Path, layout: str, pickles: bool) -> dict[str, Truth]:
    """A man and a woman in two frames of a sequence; and a sequence that 3DPW-OC tests on."""
    folder, truths = root / ("PW3D/data" if layout == "3dcrowdnet" else "3DPW"), {}
    R, t = VIEWS["2"]
    size, K = (270, 480), np.array([[490.0, 0, 135], [0, 490.0, 240], [0, 0, 1]])
    images, annotations = [], []
    for sequence in ("courtyard_arguing_00", "courtyard_box_00"):
        frames = [[person(80 + f, (-0.15, 0.1, 4), K, 25, "male", 2),
                   person(85 + f, (0.5, 0.1, 4.5), K, 0, "female", 3)]
                  for f in range(2)]  # fmt: skip
        raw: dict[str, object] = {"sequence": sequence, "genders": ["m", "f"], "cam_intrinsics": K,
                                  "img_frame_ids": np.array([0, 2]), "betas": [p.betas for p in frames[0]]}  # fmt: skip
        raw["cam_poses"] = np.stack([np.block([[R, t[:, None]], [np.zeros((1, 3)), np.ones((1, 1))]])] * 2)
        per_person: dict[str, list[np.ndarray]] = {
            n: [] for n in ("poses", "trans", "jointPositions", "poses2d")
        }
        for p in range(2):
            worlds = [world_of(frames[f][p], R, t) for f in range(2)]
            per_person["poses"].append(np.stack([w[0].reshape(-1) for w in worlds]))
            per_person["trans"].append(np.stack([w[1] for w in worlds]))
            joints = [(frames[f][p].joints[:24] - t) @ R for f in range(2)]
            per_person["jointPositions"].append(np.stack([j.reshape(-1) for j in joints]))
            per_person["poses2d"].append(np.stack([detected(frames[f][p]).T for f in range(2)]))
        raw |= {**per_person, "campose_valid": [np.array([1, 1]), np.array([1, 0])]}
        if pickles:
            path = folder / f"sequenceFiles/train/{sequence}.pkl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(pickle.dumps(raw, protocol=2))
        for f, frame in enumerate((0, 2)):
            name = f"image_{frame:05d}.jpg"
            picture(folder / "imageFiles" / sequence / name, size, frames[f])
            images.append({"id": len(images), "file_name": name, "sequence": sequence, "frame_idx": frame,
                           "width": size[0], "height": size[1],
                           "cam_param": {"focal": [490, 490], "princpt": [135, 240], "R": R, "t": t}})  # fmt: skip
            for p, truth in enumerate(frames[f]):
                if p == 1 and f == 1:
                    continue  # its camera is not valid
                annotations.append({
                    "id": len(annotations), "image_id": len(images) - 1, "person_id": p,
                    "bbox": xywh(truth.pixels(truth.joints)), "joint_cam": truth.joints[:24],
                    "joint_img": truth.pixels(truth.joints[:24]), "fitted_joint_cam": truth.joints[:24],
                    "openpose_result": detected(truth),
                    "smpl_param": {"pose": truth.pose.reshape(-1), "shape": truth.betas, "trans": truth.transl,
                                   "gender": truth.gender},
                })  # fmt: skip
                if sequence == "courtyard_arguing_00":
                    truths[f"3dpw/{sequence}/image_{frame:05d}/{p}"] = truth
    if not pickles:
        dump(folder / "3DPW_latest_train.json", {"images": images, "annotations": annotations})
    return truths


def detected(truth: Truth) -> np.ndarray:
    """OpenPose's answer: four pixels to the right of the truth, unsure of the right wrist."""
    pixels = truth.pixels(truth.named(OPENPOSE18.joints)) + np.array([4, 0])
    sure = [0.03 if name == "R_Wrist" else 0.9 for name in OPENPOSE18.joints]
    return np.concatenate([pixels, np.array(sure)[:, None]], 1)


def write_all(root: Path, layout: str = "jotr", pickles: bool = False) -> dict[str, Truth]:
    """All sets below root; the truth by record id."""
    return {
        **write_h36m(root), **write_muco(root, layout), **write_coco(root, layout), **write_crowdpose(root),
        **write_3dpw(root, layout, pickles),
    }  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("--layout", choices=("jotr", "3dcrowdnet"), default="jotr")
    parser.add_argument("--pickles", action="store_true", help="3DPW as sequence files instead of JSON")
    options = parser.parse_args()
    print(f"{len(write_all(options.root, options.layout, options.pickles))} people in {options.root}")
