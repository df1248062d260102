"""SynthOcc as an evaluation source, and its protocols. Person 6 k + l is case k at level l, so that the first n people
cover all levels."""

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Integer, UInt8

from dpmesh.data.synthocc.bodies import People
from dpmesh.data.synthocc.drawing import draw_case
from dpmesh.data.synthocc.labels import Label, label
from dpmesh.data.synthocc.scenes import CASES, RANGES, SynthOccScene, case
from dpmesh.errors import InputError
from dpmesh.evaluate.interfaces import Census, Persons
from dpmesh.evaluate.protocol import KeypointRule, Protocol, Rendered, Selection, Truth
from dpmesh.evaluate.results import read_arrays
from dpmesh.inference.detector import Detector
from dpmesh.io import atomic_write
from dpmesh.skeletons import H36M17, JOINTS30

VERSION = 1
LEVELS = len(RANGES)
PERSONS = CASES * LEVELS
NO_KEYPOINTS = "keypoints: none given"
_MOST_ATTEMPTS = 10_000
_CACHED = 3  # cases in memory


class SynthOcc:
    """An EvaluationSource of synthetic people. cache: a folder for rendered images, which later runs read. Delete it
    after a change of VERSION: its files are not verified."""

    def __init__(self, protocol: Protocol, cache: Path | None = None) -> None:
        self.protocol, self.people = protocol, People()
        self.faces: Integer[np.ndarray, "f 3"] | None = self.people.faces
        self.census = Census(
            persons=PERSONS,
            published=PERSONS,
            layout=f"SynthOcc version {VERSION}, generated",
            files={"labels": protocol.selection.dataset.rpartition(" ")[2]},
        )
        self._cache = cache / f"synthocc-{VERSION}" if cache is not None else None
        # As when the set was frozen: one pass for each person, without the second one for people who lean.
        self.detector = Detector(rotated_detection=False) if protocol.keypoints.source == "detector" else None
        self._made: dict[int, tuple[list[SynthOccScene], UInt8[np.ndarray, "6 256 256 3"]]] = {}

    def __len__(self) -> int:
        return PERSONS

    def label(self, index: int) -> Label:
        scenes, _ = self._case(index // LEVELS)
        return label(self.people, scenes[index % LEVELS])

    def crop(self, index: int) -> UInt8[np.ndarray, "256 256 3"]:
        return self._case(index // LEVELS)[1][index % LEVELS]

    def persons(self, indices: Sequence[int]) -> Persons:
        scenes = [self._case(i // LEVELS)[0][i % LEVELS] for i in indices]
        labels = [label(self.people, scene) for scene in scenes]
        crops = np.stack([self.crop(i) for i in indices])
        inputs = [self._keypoints(one, crop) for one, crop in zip(labels, crops, strict=True)]
        figures = [scene.person.figure for scene in scenes]
        focal = np.array([one.focal for one in labels], np.float32)
        h36m = np.array(H36M17.indices_in(JOINTS30))
        return Persons(
            ids=tuple(one.id for one in labels),
            sequences=tuple(f"{'clean' if s.level == 0 else s.subset} {s.level}" for s in scenes),
            crops=crops,
            joints=np.stack([points for points, _ in inputs]),
            visible=np.stack([(confidence > 0).astype(np.float32) for _, confidence in inputs]),
            focal_crop=focal,
            focal_image=focal,
            turn=np.tile(np.eye(3), (len(labels), 1, 1)),
            truth_joints=np.stack([f.h36m for f in figures]),
            measured=np.ones((len(labels), 17)),
            truth_vertices=np.stack([f.vertices for f in figures]).astype(np.float32),
            truth_pelvis=np.stack([f.joints[0] for f in figures]),
            joint_visible=np.stack([one.visible[h36m] for one in labels]).astype(np.float64),
            fallbacks=+Counter({NO_KEYPOINTS: sum(not confidence.any() for _, confidence in inputs)}),
            confidence=None if self.detector is None else np.stack([confidence for _, confidence in inputs]),
        )

    def _keypoints(self, one: Label, crop: UInt8[np.ndarray, "256 256 3"]) -> tuple[np.ndarray, np.ndarray]:
        """(30, 2) crop px, and confidences (30,): 0 where not visible; of the noise model all others are 1."""
        if self.detector is None:
            return one.points.astype(np.float32), one.detected.astype(np.float32)
        detected = self.detector.keypoints_in_boxes(crop, one.box[None].astype(np.float32))[0].keypoints30
        x1, y1, x2, y2 = one.frame
        inside = ((detected[:, :2] >= [x1, y1]) & (detected[:, :2] <= [x2 - 1, y2 - 1])).all(1)
        visible = (detected[:, 2] > self.protocol.keypoints.threshold) & inside
        return detected[:, :2] * visible[:, None], np.clip(detected[:, 2], 0, 1) * visible

    def _case(self, number: int) -> tuple[list[SynthOccScene], UInt8[np.ndarray, "6 256 256 3"]]:
        if number not in self._made:
            while len(self._made) >= _CACHED:
                del self._made[next(iter(self._made))]
            self._made[number] = self._make(number)
        return self._made[number]

    def _make(self, number: int) -> tuple[list[SynthOccScene], UInt8[np.ndarray, "6 256 256 3"]]:
        path = self._cache / f"case-{number:04d}.npz" if self._cache is not None else None
        if path is not None and path.is_file():
            stored = read_arrays(path)
            images, attempt = stored.get("pictures"), stored.get("attempt")
            if (
                images is None or images.shape != (LEVELS, 256, 256, 3) or images.dtype != np.uint8
                or attempt is None or attempt.shape or attempt.dtype.kind not in "iu"
                or not 0 <= attempt < _MOST_ATTEMPTS
            ):  # fmt: skip
                raise InputError("no images of SynthOcc", where=str(path), fix="Delete the file.")
            return case(self.people, number, int(attempt)), images
        scenes = case(self.people, number)
        images = draw_case(self.people, scenes)
        if path is not None:
            buffer = io.BytesIO()
            np.savez_compressed(buffer, pictures=images, attempt=np.array(scenes[0].attempt))
            atomic_write(path, buffer.getvalue())
        return scenes, images


LABELS = "a72e1bdd5b41c068896a3ab6889972f94289d71246549dd9142fc0328f8d9625"
"""SHA-256 of all labels of version 1 (data/synthocc/labels.py); tools/fixtures/synthocc.py computes it."""
PREFIX_LABELS = "481ae51a3c4898a724406f76679bde0724b4135c8ec7f378be38b9c1ba06c45f"
"""The same of the first eight cases."""


def synthocc_protocols() -> list[Protocol]:
    """The same people with keypoints of the noise model, and of the shipped detector."""
    noise = Protocol(
        name="synthocc",
        title="SynthOcc",
        persons=PERSONS,
        selection=Selection(dataset=f"synthocc version 1, labels {LABELS}"),
        keypoints=KeypointRule(source="noise"),
        crop=Rendered(),
        focal="given",
        truth=Truth(gender="neutral"),
        notes=(
            "synthetic people of ours; the true body is the free body; --data is a folder to keep pictures in",
        ),
    )
    shipped = replace(noise, edition="detector", keypoints=KeypointRule(source="detector", threshold=0.2))
    return [noise, shipped]
