"""A scene as files, written and read (docs/reference/output.md)."""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn, cast, get_args

import numpy as np
from jaxtyping import Float, UInt8
from numpy.typing import NDArray

from dpmesh.body.array_files import load_npz
from dpmesh.body.files import load_body
from dpmesh.body.layer import BodyModel
from dpmesh.errors import InputError
from dpmesh.geometry.camera import checked_camera
from dpmesh.geometry.floor import Floor
from dpmesh.inference.corrections import corrections_of
from dpmesh.inference.images import read_image
from dpmesh.inference.options import MOST_ROLL, file_sha256
from dpmesh.inference.output_formats import FORMATS, Colouring, wanted_scene
from dpmesh.inference.record import SCENE_SCHEMA, read_record
from dpmesh.inference.result_folder import png, write_result
from dpmesh.inference.scene_data import (
    HYPOTHESES_SHAPES,
    PEOPLE_SHAPES,
    FocalSource,
    Hypotheses,
    Person,
    SceneData,
    image_of,
)
from dpmesh.io import read_json

_LARGEST_NPZ = 2 * 2**30
_HYPOTHESES = "hypotheses_"
"""Beginning of the names of their arrays."""


def save_scene(
    scene: SceneData,
    out: Path,
    name: str,
    formats: Sequence[str] = FORMATS,
    overwrite: bool = False,
    colour: Colouring = "person",
    glb_image: bool = False,
) -> Path:
    """Write `out/name/` as write_result does; returns it. Arguments and errors as Scene.save."""
    if "overlay" in formats:
        image_of(scene)
    wanted = wanted_scene(scene.source_sha256, scene.source, scene.options, formats, colour, glb_image)
    return write_result(
        out, name, wanted, lambda chosen: scene_files(scene, chosen, colour, glb_image), overwrite
    )


def scene_files(
    scene: SceneData, formats: Sequence[str], colour: Colouring = "person", glb_image: bool = False
) -> dict[str, bytes]:
    """Name -> content of the files of these formats. Arguments and errors as Scene.save."""
    # Drawing and meshes are imported where they are used: numba and scipy take longer to import than JSON to write.
    files: dict[str, bytes] = {}
    if "overlay" in formats:
        from dpmesh.inference.scene_drawing import overlay_image, side_image

        files["overlay.png"] = png(overlay_image(scene, colour))
        files["side.png"] = png(side_image(scene, colour))
    if "glb" in formats:
        from dpmesh.inference.mesh_files import glb_of

        files["scene.glb"] = glb_of(scene, glb_image)
    if "obj" in formats:
        from dpmesh.inference.mesh_files import obj_files

        files |= obj_files(scene)
    if "npz" in formats:
        files["scene.npz"] = _npz(scene)
    if "json" in formats:
        files["scene.json"] = (json.dumps(as_json(scene), indent=1, allow_nan=False) + "\n").encode()
    return files


def as_json(scene: SceneData) -> dict[str, object]:
    """Everything but the mesh, as plain lists and numbers."""

    def plain(array: Float[np.ndarray, "..."]) -> object:
        return np.round(np.asarray(array, np.float64), 8).tolist()

    def person(p: Person) -> dict[str, object]:
        sigma = plain(p.joint_sigma) if np.isfinite(p.joint_sigma).all() else None
        return {
            "score": round(float(p.score), 6),
            **{n: plain(getattr(p, n)) for n in names},
            "joint_sigma": sigma,
            **({"corrected": list(p.corrected)} if p.corrected else {}),
            **({"hypotheses": others(p.hypotheses)} if p.hypotheses else {}),
        }

    def others(h: Hypotheses) -> list[dict[str, object]]:
        return [
            {name: plain(np.asarray(getattr(h, name)[i])) for name in HYPOTHESES_SHAPES}
            for i in range(len(h))
        ]

    names = ("box", "keypoints2d", "global_orient", "body_pose", "betas", "transl", "joints3d", "joints2d")
    return {
        "schema": SCENE_SCHEMA,
        "source": scene.source,
        "source_sha256": scene.source_sha256,
        "options": dict(scene.options),
        "image_size": list(scene.image_size),
        "K": plain(scene.K),
        "focal_source": scene.focal_source,
        **({"roll": float(scene.roll)} if scene.roll else {}),
        "weights": dict(scene.weights),
        "fallbacks": dict(scene.fallbacks),
        "notes": list(scene.notes),
        "joint_names": list(scene.joint_names),
        "people": [person(p) for p in scene.people],
        **({"corrections": [dict(step) for step in scene.corrections]} if scene.corrections else {}),
        **({"floor": {"up": plain(scene.floor.up), "height": scene.floor.height}} if scene.floor else {}),
    }


def _npz(scene: SceneData) -> bytes:
    """The arrays of docs/reference/output.md: no objects, so that no pickle is needed to read them."""
    one = ("keypoints2d", "global_orient", "body_pose", "betas", "transl", "vertices", "joints3d", "joints2d")
    arrays: dict[str, Any] = {name: scene.stacked(name) for name in (*one, "score", "joint_sigma")}
    several = [person.hypotheses for person in scene.people if person.hypotheses is not None]
    if several and len(several) == len(scene.people):
        for name in HYPOTHESES_SHAPES:
            arrays[f"{_HYPOTHESES}{name}"] = np.stack([getattr(h, name) for h in several]).astype(np.float32)
    file = io.BytesIO()
    np.savez_compressed(
        file,
        image_size=np.array(scene.image_size, np.int64),
        K=np.asarray(scene.K, np.float64),
        boxes=scene.stacked("box"),
        faces=np.asarray(scene.faces, np.int32),
        joint_names=np.array(scene.joint_names, dtype=np.str_),
        **arrays,
    )
    return file.getvalue()


def load_scene(
    folder: Path, image: str | Path | None = None, body: str | Path | None = None
) -> dict[str, Any]:
    """Fields of the SceneData in a result folder: arrays of scene.npz, provenance of scene.json. As Scene.load."""
    if not folder.is_dir():
        raise InputError("no such folder", where=str(folder), fix="Give a folder that dpmesh predict wrote.")
    record = read_record(folder)
    if record is not None and record.pending:
        fix = "Run dpmesh predict on this image again."
        raise InputError("an interrupted run left this result unfinished", where=str(folder), fix=fix)
    for name in ("scene.npz", "scene.json"):
        if not (folder / name).is_file():
            raise InputError(
                f"holds no {name}", where=str(folder), fix="Write it with: dpmesh predict --save npz,json."
            )
    arrays = load_npz(folder / "scene.npz", _LARGEST_NPZ)
    fields = _arrays_of(arrays, folder / "scene.npz")
    people = cast("tuple[Person, ...]", fields["people"])
    provenance = _provenance_of(read_json(folder / "scene.json"), len(people), folder / "scene.json")
    marks = provenance.pop("marks")
    fields |= provenance
    several = _hypotheses_of(arrays, len(people), folder / "scene.npz")
    fields["people"] = tuple(
        replace(person, corrected=own, hypotheses=one)
        for person, own, one in zip(people, marks, several, strict=True)
    )
    fields["image"] = _find_image(fields, image)
    fields["body"] = None if body is None else BodyModel(load_body(body))
    return fields


def _arrays_of(arrays: Mapping[str, NDArray[np.generic]], path: Path) -> dict[str, Any]:
    """Raises InputError where an array is missing or is not as docs/reference/output.md has it."""
    shapes = {"boxes" if name == "box" else name: shape for name, shape in PEOPLE_SHAPES.items()}
    missing = [n for n in (*shapes, "vertices", "faces", "K", "image_size", "joint_names") if n not in arrays]
    if missing:
        _refuse(f"has no array {missing[0]!r}", path)
    count = len(arrays["vertices"]) if arrays["vertices"].ndim else 0
    vertices = arrays["vertices"].shape[1] if arrays["vertices"].ndim == 3 else -1
    shapes |= {"vertices": (vertices, 3)}
    for name, shape in shapes.items():
        array = arrays[name]
        if array.shape != (count, *shape) or array.dtype.kind != "f":
            _refuse(f"{name} is {array.dtype} of shape {array.shape}", path)
        if name != "joint_sigma" and not np.isfinite(cast("NDArray[np.float32]", array)).all():
            _refuse(f"{name} holds NaN or infinity", path)
    faces, size, names, K = (arrays[n] for n in ("faces", "image_size", "joint_names", "K"))
    if faces.ndim != 2 or faces.shape[1] != 3 or faces.dtype.kind not in "iu":
        _refuse(f"faces are {faces.dtype} of shape {faces.shape}", path)
    triangles = faces.astype(np.int64)
    if triangles.size and (triangles.min() < 0 or (count and triangles.max() >= vertices)):
        _refuse("faces name vertices that do not exist", path)
    if size.shape != (2,) or size.dtype.kind not in "iu" or int(size.astype(np.int64).min()) < 1:
        _refuse("image_size is not two sizes", path)
    if names.shape != (30,) or names.dtype.kind != "U":
        _refuse("joint_names are not 30 names", path)
    if K.shape != (3, 3) or K.dtype.kind != "f":
        _refuse(f"K is {K.dtype} of shape {K.shape}", path)
    fields = {"box" if name == "boxes" else name: name for name in shapes if name != "score"}
    rows: list[dict[str, Any]] = [
        {field: np.asarray(arrays[name][i], np.float32) for field, name in fields.items()}
        for i in range(count)
    ]
    people = tuple(
        Person(**row, score=float(np.asarray(arrays["score"][i], np.float64))) for i, row in enumerate(rows)
    )
    return {
        "K": checked_camera(np.asarray(K, np.float64)),
        "image_size": tuple(size.astype(np.int64).tolist()),
        "joint_names": tuple(names.tolist()),
        "faces": triangles.astype(np.int32),
        "people": people,
    }


def _hypotheses_of(
    arrays: Mapping[str, NDArray[np.generic]], people: int, path: Path
) -> list[Hypotheses | None]:
    """Of each person; None where the file has none. Raises InputError where the arrays do not fit."""
    weights = arrays.get(f"{_HYPOTHESES}weight")
    if weights is None:
        return [None] * people
    count = weights.shape[1] if weights.ndim == 2 else -1
    for name, shape in HYPOTHESES_SHAPES.items():
        array = arrays.get(f"{_HYPOTHESES}{name}")
        if array is None or array.shape != (people, count, *shape) or array.dtype.kind != "f":
            _refuse(f"{_HYPOTHESES}{name} is missing or of another shape", path)
        if not np.isfinite(cast("NDArray[np.float32]", array)).all():
            _refuse(f"{_HYPOTHESES}{name} holds NaN or infinity", path)
    own = {name: np.asarray(arrays[f"{_HYPOTHESES}{name}"], np.float32) for name in HYPOTHESES_SHAPES}
    return [Hypotheses(**{name: rows[i] for name, rows in own.items()}) for i in range(people)]


def _provenance_of(data: object, people: int, path: Path) -> dict[str, Any]:
    """Raises InputError where scene.json is not one, or not of the same people."""
    plain = cast("dict[str, Any]", data) if isinstance(data, dict) else {}
    if plain.get("schema") != SCENE_SCHEMA:
        _refuse(f"is not of the schema {SCENE_SCHEMA}", path)
    kinds = {"source": str, "source_sha256": str, "focal_source": str, "notes": list, "people": list}
    kinds |= {"fallbacks": dict, "weights": dict, "options": dict}
    for name, kind in kinds.items():
        if not isinstance(plain.get(name), kind):
            _refuse(f"{name} is missing or no {kind.__name__}", path)
    if plain["focal_source"] not in get_args(FocalSource):
        _refuse(f"focal_source is {plain['focal_source']!r}"[:80], path)
    if len(plain["people"]) != people:
        _refuse(f"has {len(plain['people'])} people, scene.npz has {people}", path)
    taken = ("source", "source_sha256", "focal_source", "fallbacks", "weights", "options")
    steps = corrections_of(plain.get("corrections", []), f"{path}: corrections")
    marks = [
        tuple(map(str, cast("list[object]", person["corrected"])))
        if isinstance(person, dict) and isinstance(person.get("corrected"), list)
        else ()
        for person in cast("list[dict[str, Any]]", plain["people"])
    ]
    roll = plain.get("roll", 0.0)
    if not isinstance(roll, float) or not abs(roll) <= MOST_ROLL:
        _refuse(f"roll is {roll!r}"[:80], path)
    return {name: plain[name] for name in taken} | {
        "roll": roll,
        "notes": tuple(map(str, plain["notes"])),
        "corrections": tuple(step.as_json() for step in steps),
        "floor": _floor_of(plain.get("floor"), path),
        "marks": marks,
    }


def _floor_of(plain: object, path: Path) -> Floor | None:
    if plain is None:
        return None
    try:
        floor = Floor(np.array(plain["up"], np.float64), float(plain["height"]))  # pyright: ignore[reportIndexIssue]
        if floor.up.shape == (3,) and abs(np.linalg.norm(floor.up) - 1) < 1e-4 and np.isfinite(floor.height):
            return floor
    except (KeyError, TypeError, ValueError):
        pass
    _refuse("floor is no up and height", path)


def _refuse(what: str, path: Path) -> NoReturn:
    raise InputError(what, where=str(path), fix="Make it again with dpmesh predict --overwrite.")


def _find_image(fields: Mapping[str, Any], image: str | Path | None) -> UInt8[np.ndarray, "h w 3"] | None:
    """The image that the caller names, or the scene's own where its file is there with the same content."""
    if image is None:
        own, digest = Path(fields["source"] or "."), fields["source_sha256"]
        if not digest or not own.is_file() or file_sha256(own) != digest:
            return None
        image = own
    rgb = read_image(image, max_pixels=2**40).rgb
    if rgb.shape[:2] != fields["image_size"]:
        height, width = fields["image_size"]
        _wrong = f"is {rgb.shape[1]}×{rgb.shape[0]} pixels, the scene's image {width}×{height}"
        raise InputError(_wrong, where=str(image), fix="Give the image that the scene was made of.")
    return rgb
