"""SynthOcc's clips as an evaluation set: people over time. Row 2 k + l is person l of clip k."""

import os
import shutil
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Integer, UInt8

from dpmesh.data.synthocc.bodies import People
from dpmesh.data.synthocc.clip_drawing import draw_clip
from dpmesh.data.synthocc.clips import CLIPS, KEY, KINDS, PEOPLE, Clip, clip
from dpmesh.errors import ConfigError, InputError
from dpmesh.evaluate.baselines import Method
from dpmesh.evaluate.clip_methods import TrueKeypoints, as_video, frame_wise, gaussian
from dpmesh.evaluate.clip_scores import clip_scores
from dpmesh.evaluate.interfaces import Census, Persons
from dpmesh.evaluate.protocol import OWN_JOINTS, KeypointRule, Measure, Protocol, Rendered, Selection, Truth
from dpmesh.evaluate.results import Rows
from dpmesh.inference.predictor import Predictor

VERSION = 1
LABELS = "2e1b0d1f47d323421843b034079b7abdf75537bf52ee0223412843553cab443e"
"""SHA-256 of the truth of all clips of version 1 (data/synthocc/clips.py); tools/fixtures/synthocc.py computes it."""
PREFIX_LABELS = "8594256ac1da5f5a384299170a4fd41b5b645f2e0765fefb5630168630de3a3d"
"""The same of the first three clips."""


class ClipSource:
    """cache: a folder for the rendered frames, which later runs read, unverified. key: of the clips (clips.KEY)."""

    def __init__(self, protocol: Protocol, cache: Path | None = None, key: int = KEY) -> None:
        self.protocol, self.people, self.key = protocol, People(), key
        self.faces: Integer[np.ndarray, "f 3"] | None = None
        self.census = Census(
            persons=CLIPS * PEOPLE,
            published=CLIPS * PEOPLE,
            layout=f"SynthOcc, clips version {VERSION}, generated",
            files={"labels": protocol.selection.dataset.rpartition(" ")[2]},
        )
        self._cache = cache / f"synthocc-video-{VERSION}-{key}" if cache is not None else None

    def __len__(self) -> int:
        return CLIPS * PEOPLE

    def persons(self, indices: Sequence[int]) -> Persons:
        """Raises ConfigError: there are clips only."""
        raise ConfigError("its people are those of clips", where=self.protocol.full_name)

    def rows(self, indices: Sequence[int], method: Method, predictor: Predictor) -> Rows:
        """The errors of these people by a method of baselines.OF_CLIPS."""
        columns: list[dict[str, Any]] = []
        made: dict[int, dict[str, np.ndarray]] = {}
        ids: list[tuple[str, str]] = []
        for index in indices:
            number, person = divmod(index, PEOPLE)
            if number not in made:
                made[number] = self._scores(clip(self.people, number, self.key), method, predictor)
            ids.append((f"synthocc-video/{number:02d}/{person}", KINDS[number % len(KINDS)]))
            columns.append({name: values[person] for name, values in made[number].items()})
        table: dict[str, Any] = {
            name: np.stack([row[name] for row in columns]).astype(np.float64) for name in columns[0]
        }
        nothing = np.full(len(columns), np.nan)
        return Rows(
            index=np.asarray(indices, np.int64),
            ids=np.asarray([name for name, _ in ids]),
            sequences=np.asarray([kind for _, kind in ids]),
            mpve=nothing,
            joint_visible=np.full(table["joint"].shape, np.nan),
            failed=np.isnan(table["mpjpe"]),
            **table,
        )

    def _scores(self, one: Clip, method: Method, predictor: Predictor) -> dict[str, np.ndarray]:
        with self.folder(one) as folder:
            images = [_read(path) for path in sorted(folder.glob("*.png"))]
            own = predictor.detector
            if self.protocol.keypoints.source == "annotated":
                predictor.detector = TrueKeypoints(one, images)
            try:
                if method == "network":
                    rows = as_video(predictor, one, folder)
                else:
                    rows = (frame_wise if method == "frame-wise" else gaussian)(predictor, one, images)
            finally:
                predictor.detector = own
        return clip_scores(self.protocol.measure, one, rows)

    @contextmanager
    def folder(self, one: Clip) -> Generator[Path]:
        """The clip's frames as numbered images; rendered where there are none yet."""
        if self._cache is not None:
            yield self._kept(one, self._cache)
            return
        with tempfile.TemporaryDirectory() as name:
            _write(Path(name), self.people, one)
            yield Path(name)

    def _kept(self, one: Clip, cache: Path) -> Path:
        folder = cache / f"clip-{one.number:02d}"
        if not folder.is_dir():
            part = cache / f".{folder.name}.{os.getpid()}"
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            _write(part, self.people, one)
            if folder.is_dir():  # another process has made it
                shutil.rmtree(part)
            else:
                part.rename(folder)
        if len(list(folder.glob("*.png"))) != one.joints.shape[1]:
            raise InputError(
                "not all frames of the clip are here", where=str(folder), fix="Delete the folder."
            )
        return folder


def _write(folder: Path, people: People, one: Clip) -> None:
    for t, image in enumerate(draw_clip(people, one)):
        done, data = cv2.imencode(".png", image[..., ::-1])
        assert done
        (folder / f"{t:03d}.png").write_bytes(data.tobytes())


def _read(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    image = cv2.imread(str(path))
    if image is None:
        raise InputError("not a readable image", where=str(path), fix="Delete the folder.")
    return np.ascontiguousarray(image[..., ::-1])


def video_protocols() -> list[Protocol]:
    """The same clips with the shipped detector, and with true keypoints and noise."""
    measure = Measure(metrics=("MPJPE", "PA-MPJPE", "acceleration", "foot slide"), regressor=OWN_JOINTS)

    def protocol(edition: Any, source: Any, words: str) -> Protocol:
        return Protocol(
            name="synthocc-video",
            edition=edition,
            title=f"SynthOcc, clips{words}",
            persons=CLIPS * PEOPLE,
            selection=Selection(dataset=f"synthocc-video version {VERSION}, labels {LABELS}"),
            keypoints=KeypointRule(source=source, threshold=0.2),
            crop=Rendered(),
            focal="given",
            truth=Truth(gender="neutral"),
            measure=measure,
            matching="nearest keypoints",
            notes=(
                "60 clips of 60 frames at 25 a second, two people each; acceleration: error of root-relative joints,"
                " m/s², times 1.6 is mm a frame²; foot slide: 90th percentile while in contact, mm a frame; a person's"
                " figures are over the frames in which the boxes of the joints overlap by half",
            ),
        )

    return [
        protocol("paper", "detector, whole image", ""),
        protocol("annotated", "annotated", ", true keypoints with noise"),
    ]
