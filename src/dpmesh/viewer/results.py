"""What the viewer shows of a result: the bodies of an image or of a video, frame by frame.

Everything is in the camera frame (metres; x right, y down, z forward). A video's images are decoded one at a time, when
they are shown, so that its length costs no memory.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from numpy.typing import NDArray

from dpmesh.body.files import free_body, load_body
from dpmesh.body.layer import BodyModel
from dpmesh.errors import DPMeshError, InputError
from dpmesh.geometry.floor import Floor
from dpmesh.geometry.rotations import rotation_matrix
from dpmesh.inference.mesh_files import others_of
from dpmesh.inference.scene import Scene
from dpmesh.render.overlay import palette
from dpmesh.video.decode import Frame, Span, open_frames
from dpmesh.video.tables import given_fps, read_text
from dpmesh.video.tracks import Tracks
from dpmesh.video.unfinished import input_record

SCENE, TRACKS = "scene.json", "tracks.json"


@dataclass(frozen=True, eq=False)
class ShownPerson:
    """A person and the rows of the arrays below in which they are, in order of frame."""

    name: str
    label: str
    colour: tuple[float, float, float]
    frames: NDArray[np.int64]
    """Positions in ShownResult.times, ascending."""
    rows: NDArray[np.int64]
    of: str = ""
    """Of another hypothesis: the person whose it is."""


@dataclass(frozen=True, eq=False, kw_only=True)
class ShownResult:
    """One result. n rows of people, each in one frame."""

    title: str
    K: Float[np.ndarray, "3 3"]
    image_size: tuple[int, int]
    """(height, width)."""
    times: Float[np.ndarray, " t"]
    """Seconds, of the frames."""
    people: tuple[ShownPerson, ...]
    global_orient: Float32[np.ndarray, "n 3"]
    body_pose: Float32[np.ndarray, "n 69"]
    betas: Float32[np.ndarray, "n 10"]
    transl: Float32[np.ndarray, "n 3"]
    joints3d: Float32[np.ndarray, "n 30 3"]
    joint_sigma: Float32[np.ndarray, "n 30"]
    keypoints2d: Float32[np.ndarray, "n 17 3"]
    body: BodyModel
    images: "Images"
    floor: Floor | None = None
    """None where it is not known."""
    notes: tuple[str, ...] = ()
    """On what corrections have done."""

    @property
    def own_joints(self) -> Float32[np.ndarray, "k 30 3"]:
        """joints3d without those of other hypotheses."""
        own = [person.rows for person in self.people if not person.of]
        return self.joints3d[np.concatenate(own)] if own else self.joints3d[:0]

    def row(self, person: ShownPerson, frame: int) -> int | None:
        """The person's row in a frame; None where they are not in it."""
        at = int(np.searchsorted(person.frames, frame))
        return int(person.rows[at]) if at < len(person.frames) and person.frames[at] == frame else None

    @torch.no_grad()
    def bind_pose(self, row: int) -> tuple[Float32[np.ndarray, "v 3"], Float32[np.ndarray, "24 3"]]:
        """Vertices and joints before skinning: shape and this row's pose correctives are applied."""
        vertices, joints = self.body.bind_pose(*self._parameters(row))
        return vertices[0].numpy(), joints[0].numpy()

    @torch.no_grad()
    def bones(self, row: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Rotations (24, 3, 3) and places (24, 3) of the joints of SMPL's tree, camera frame."""
        turns, places = self.body.chain(*self._parameters(row))
        return turns[0, :, :, :3].numpy().astype(np.float64), places[0].numpy() + self.transl[row].astype(
            np.float64
        )

    @torch.no_grad()
    def posed(self, row: int) -> Float[NDArray[np.float64], "v 3"]:
        """Vertices, camera frame."""
        vertices, rest = self.bind_pose(row)
        turns, places = self.bones(row)
        offsets = places - np.einsum("jab,jb->ja", turns, rest)
        moved = np.einsum("jab,vb->vja", turns, vertices) + offsets
        return np.einsum("vj,vja->va", self.body.skinning_weights.cpu().numpy(), moved)

    def _parameters(self, row: int) -> tuple[torch.Tensor, torch.Tensor]:
        vectors = np.concatenate([self.global_orient[row], self.body_pose[row]]).reshape(1, 24, 3)
        rotations = rotation_matrix(torch.from_numpy(vectors.astype(np.float32)))
        return torch.from_numpy(self.betas[row][None].astype(np.float32)), rotations


@dataclass(eq=False)
class Images:
    """The images behind the bodies: one, those of a video, or none. of(frame) decodes one; the next ones are decoded
    from there on, an earlier one from the start."""

    still: UInt8[np.ndarray, "h w 3"] | None = None
    source: str | None = None
    """Of a video."""
    frames: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """The video's frame numbers, of the result's frames."""
    fps: float = 0.0
    given_fps: float | None = None
    """In place of the video's own times."""
    _reader: Iterator[Frame] = field(default_factory=lambda: iter(()), repr=False)
    _last: Frame | None = field(default=None, repr=False)

    def of(self, frame: int) -> UInt8[np.ndarray, "h w 3"] | None:
        if self.still is not None or self.source is None:
            return self.still
        wanted = int(self.frames[frame])
        with suppress(DPMeshError):
            if self._last is None or self._last.index > wanted:
                # Well before it, since frames may not be equally far apart in time.
                start = max(0.0, 0.8 * wanted / self.fps - 1)
                self._reader = iter(open_frames(self.source, self.given_fps).frames(Span(start=start)))
                self._last = next(self._reader, None)
            while self._last is not None and self._last.index < wanted:
                self._last = next(self._reader, None)
        return None if self._last is None else self._last.image


def result_folder(path: Path) -> Path:
    """The result that a folder or one of its files is of. Raises InputError."""
    folder = path if path.is_dir() else path.parent
    if not path.exists():
        raise InputError("there is no such file or folder", where=str(path))
    if not any((folder / name).is_file() for name in (SCENE, TRACKS)):
        inside = sorted(p.parent for name in (SCENE, TRACKS) for p in folder.glob(f"*/{name}"))
        fix = (
            f"Give one of its results: {inside[0]}."
            if inside
            else "Give a folder that predict or video wrote."
        )
        raise InputError("holds no result", where=str(folder), fix=fix)
    return folder


def layer_of(body: Path | None) -> BodyModel:
    """The shipped body, or one of a file. Raises InputError."""
    return BodyModel(free_body() if body is None else load_body(body))


def open_result(path: Path, body: Path | None = None, image: Path | None = None) -> ShownResult:
    """Read what `dpmesh predict` or `dpmesh video` wrote.

    body: the body's file, where it is not the shipped one. image: the image or video, where it has moved. Raises
    InputError.
    """
    folder = result_folder(path)
    layer = layer_of(body)
    if (folder / SCENE).is_file():
        return shown_scene(Scene.load(folder, image), layer, folder.name)
    tracks = Tracks.load(folder)
    source = str(image) if image else recorded_video(folder)
    return shown_tracks(tracks, layer, folder.name, video_images(tracks, read_text(folder), source))


def recorded_video(folder: Path) -> str:
    """The video that a result's tracks.json names, if that file or folder is there and unchanged; else empty.

    A camera or an address is never opened because a file names it.
    """
    content = read_text(folder)
    source, options = content.get("source"), content.get("options")
    if not isinstance(source, str) or not isinstance(options, dict) or not Path(source).exists():
        return ""
    return source if input_record(source) == options.get("input") else ""


def video_images(tracks: Tracks, record: Mapping[str, Any], source: str) -> Images:
    """Of a video; none where `source` is empty. record: the tracks.json."""
    frames = np.unique(tracks.frame)
    return Images(source=source or None, frames=frames, fps=tracks.fps, given_fps=given_fps(record))


def shown_scene(
    scene: Scene, body: BodyModel, title: str, numbers: Sequence[int] | None = None
) -> ShownResult:
    """One image's people. numbers: of the people, where they are not 0, 1, ..."""
    numbers = range(len(scene.people)) if numbers is None else numbers
    colours = palette(max(numbers, default=-1) + 1)
    one, rows = np.zeros(1, np.int64), list(scene.people)
    people = [
        ShownPerson(f"person_{k:02d}", f"person {k}", colours[k], one, np.array([row]))
        for row, k in enumerate(numbers)
    ]
    for own, person in zip(list(people), scene.people, strict=True):
        for k, other in enumerate(others_of(person), 1):
            at = np.array([len(rows)])
            people.append(ShownPerson(f"{own.name}_h{k}", f"{own.label}, {k}", own.colour, one, at, own.name))
            rows.append(other)
    names = ("global_orient", "body_pose", "betas", "transl", "joints3d", "joint_sigma", "keypoints2d")
    arrays: dict[str, Any] = {name: replace(scene, people=tuple(rows)).stacked(name) for name in names}
    return ShownResult(
        title=title,
        K=scene.K,
        image_size=scene.image_size,
        times=np.zeros(1),
        people=tuple(people),
        body=body,
        images=Images(scene.image),
        floor=scene.floor,
        **arrays,
    )


def shown_tracks(
    tracks: Tracks, body: BodyModel, title: str, images: Images | None = None, whole: Tracks | None = None
) -> ShownResult:
    """A video's people. images: `video_images`. whole: gives the frames of the timeline, where people were deleted."""
    whole = tracks if whole is None else whole
    frames, first = np.unique(whole.frame, return_index=True)
    colours = palette(len(tracks))
    people: list[ShownPerson] = []
    for number, colour in zip(tracks.numbers.tolist(), colours, strict=True):
        own = tracks.of(number)
        at = np.searchsorted(frames, tracks.frame[own])
        people.append(ShownPerson(f"person_{number:02d}", f"person {number}", colour, at, own))
    ground = tracks.ground
    names = ("global_orient", "body_pose", "transl", "joints3d", "joint_sigma", "keypoints2d")
    return ShownResult(
        title=title,
        K=tracks.K,
        image_size=tracks.image_size,
        times=np.asarray(whole.time[first], np.float64) if len(first) else np.zeros(1),
        people=tuple(people),
        betas=tracks.betas_of(np.arange(len(tracks.track))),
        body=body,
        images=Images() if images is None else images,
        floor=None if ground is None else ground.floor,
        **{name: getattr(tracks, name) for name in names},
    )
