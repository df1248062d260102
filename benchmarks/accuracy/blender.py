"""Whether Blender moves the bodies of `dpmesh video` as they were predicted: GLB, BVH, and FBX as the guide makes it.

    python3.11 -m venv /tmp/blender && /tmp/blender/bin/pip install bpy==5.0.1
    python -m benchmarks.accuracy.blender RESULT --blender /tmp/blender/bin/python [--every 10] [--json FILE]

RESULT: folder of one video, with BVH in centimetres. In Blender every bone's head, and in the GLB every vertex, is
compared with the body of tracks.npz in that frame, mm. A BVH has no camera: it is compared from the first frame's
pelvis on.
"""

import argparse
import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

INSIDE = "--inside-blender"


def expected(result: Path, every: int, out: Path) -> None:
    """Joints and vertices of every `every`-th row in Blender's frame: x right, y forward, z up, metres."""
    import torch

    from dpmesh.body.files import free_body
    from dpmesh.body.layer import BodyModel
    from dpmesh.geometry.rotations import rotation_matrix
    from dpmesh.skeletons import SMPL24
    from dpmesh.video.tracks import Tracks

    tracks, body = Tracks.load(result), BodyModel(free_body())
    rows = np.concatenate([np.flatnonzero(tracks.track == number)[::every] for number in tracks.numbers])
    pose = np.concatenate([tracks.global_orient[rows], tracks.body_pose[rows]], 1).reshape(-1, 24, 3)
    with torch.no_grad():
        posed = body(
            torch.from_numpy(tracks.betas_of(rows)),
            rotation_matrix(torch.from_numpy(pose)),
            torch.from_numpy(tracks.transl[rows]),
        )
    ground = tracks.ground

    def placed(points: np.ndarray) -> np.ndarray:
        if ground is not None:  # world: y up
            points = points @ ground.rotation.T + ground.translation
            return np.stack([points[..., 0], -points[..., 2], points[..., 1]], -1)
        return np.stack([points[..., 0], points[..., 2], -points[..., 1]], -1)

    first = {number: tracks.frame[tracks.track == number].min() for number in tracks.numbers}
    np.savez(
        out,
        joints=placed(posed.joints.numpy()),
        vertices=placed(posed.vertices.numpy()),
        track=tracks.track[rows],
        time=tracks.time[rows],
        bvh_frame=1 + tracks.frame[rows] - [first[number] for number in tracks.track[rows]],
        fps=tracks.fps,
        names=np.array(SMPL24.joints),
    )


def fbx_command() -> str:
    """The Python expression of the guide that makes an FBX."""
    guide = Path(__file__).parents[2] / "docs" / "guide" / "video.md"
    return guide.read_text().split('--python-expr "', 1)[1].split('"\n', 1)[0]


def inside(result: Path, file: Path, command: str) -> None:
    """Prints {"glb": ..., "bvh": ..., "fbx": ...}; runs in Blender's Python, which has no dpmesh."""
    import bpy  # pyright: ignore[reportMissingImports]

    truth = np.load(file)
    names, figures = [str(name) for name in truth["names"]], {}

    def empty() -> None:
        bpy.ops.wm.read_factory_settings(use_empty=True)
        bpy.context.scene.render.fps = round(float(truth["fps"]))

    def go_to(frame: float) -> None:
        bpy.context.scene.frame_set(int(frame), subframe=frame % 1)

    def heads(armature: object) -> np.ndarray:
        posed = armature.evaluated_get(bpy.context.evaluated_depsgraph_get())
        return np.array([(posed.matrix_world @ posed.pose.bones[name].head)[:] for name in names])

    def vertices(mesh: object) -> np.ndarray:
        posed = mesh.evaluated_get(bpy.context.evaluated_depsgraph_get())
        shape = posed.to_mesh()
        points = np.array([(posed.matrix_world @ v.co)[:] for v in shape.vertices])
        posed.to_mesh_clear()
        return points

    def summary(errors: list[np.ndarray]) -> dict[str, float]:
        millimetres = 1000 * np.concatenate(errors)
        return {"mean_mm": round(float(millimetres.mean()), 4), "max_mm": round(float(millimetres.max()), 4)}

    def animated(meshes: bool, offset: int) -> dict[str, object]:
        fps = bpy.context.scene.render.fps
        joints, skin = [], []
        for row, (track, time) in enumerate(zip(truth["track"], truth["time"], strict=True)):
            go_to(time * fps + offset + 1e-4)
            name = f"person_{track:02d}"
            joints.append(np.linalg.norm(heads(bpy.data.objects[name]) - truth["joints"][row], axis=1))
            if meshes:
                skin.append(
                    np.linalg.norm(
                        vertices(bpy.data.objects[name + "_mesh"]) - truth["vertices"][row], axis=1
                    )
                )
        return {"rows": len(joints), "joints": summary(joints)} | (
            {"vertices": summary(skin)} if meshes else {}
        )

    empty()
    glb = str((result / "scene.glb").resolve())
    bpy.ops.import_scene.gltf(filepath=glb)
    figures["glb"] = animated(True, 0)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        shutil.copy(glb, "scene.glb")
        exec(command.replace("fps = 30", f"fps = {round(float(truth['fps']))}"), {})  # noqa: S102  the guide's own
        empty()
        bpy.ops.import_scene.fbx(filepath="scene.fbx")
        figures["fbx"] = animated(False, 1)  # Blender imports FBX from frame 1 on
    errors = []
    for track in np.unique(truth["track"]):
        empty()
        bpy.ops.import_anim.bvh(filepath=str(result.resolve() / f"person_{track:02d}.bvh"), global_scale=0.01)
        own = np.flatnonzero(truth["track"] == track)
        start = None
        for row in own:
            go_to(float(truth["bvh_frame"][row]))
            found, true = heads(bpy.context.object), truth["joints"][row]
            start = found[0] - true[0] if start is None else start
            errors.append(np.linalg.norm(found - true - start, axis=1))
    figures["bvh"] = {"rows": len(errors), "joints": summary(errors)}
    print(json.dumps({"blender": bpy.app.version_string, **figures}))


def main() -> None:
    from benchmarks.machine import report_result

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("result", type=Path)
    parser.add_argument("--blender", required=True, help="a Python that has bpy")
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        truth = Path(folder) / "expected.npz"
        expected(options.result, options.every, truth)
        command = [options.blender, __file__, INSIDE, str(options.result), str(truth), fbx_command()]
        out = subprocess.run(command, capture_output=True, text=True)
    if out.returncode:
        raise SystemExit(out.stderr[-2000:])
    figures = json.loads(next(line for line in out.stdout.splitlines() if line.startswith('{"blender"')))
    report_result(figures, options.json)


if __name__ == "__main__":
    if INSIDE in sys.argv:
        inside(Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
    else:
        main()
