"""The protocols of SynthOcc: one set of persons, two sources of keypoints."""

from dataclasses import replace

from dpmesh.evaluate.protocols import Keypoints, Protocol, Rendered, Selection, Truth

LABELS = "a72e1bdd5b41c068896a3ab6889972f94289d71246549dd9142fc0328f8d9625"
"""SHA-256 of all labels of version 1 (synthocc/labels.py); tools/synthocc.py computes it again."""
PREFIX_LABELS = "481ae51a3c4898a724406f76679bde0724b4135c8ec7f378be38b9c1ba06c45f"
"""The same of the first eight cases."""
_PERSONS = 5_040


def synthocc_protocols() -> list[Protocol]:
    noise = Protocol(
        name="synthocc",
        title="SynthOcc",
        persons=_PERSONS,
        selection=Selection(dataset=f"synthocc version 1, labels {LABELS}"),
        keypoints=Keypoints(source="noise"),
        crop=Rendered(),
        focal="given",
        truth=Truth(gender="neutral"),
        notes=(
            "synthetic people of ours; the true body is the free body; --data is a folder to keep pictures in",
        ),
    )
    shipped = replace(noise, edition="detector", keypoints=Keypoints(source="detector", threshold=0.2))
    return [noise, shipped]
