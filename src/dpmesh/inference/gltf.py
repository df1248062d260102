"""A binary glTF 2.0 document: its JSON lists and its one buffer, while they are built.

Specification: https://registry.khronos.org/glTF/specs/2.0/glTF-2.0.html
"""

import json
import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

VERTICES, INDICES = 34962, 34963
"""Buffer targets."""
_FLOAT, _UBYTE, _USHORT, _UINT = 5126, 5121, 5123, 5125
_COMPONENT = {"f4": _FLOAT, "u1": _UBYTE, "u2": _USHORT, "u4": _UINT}
_SHAPE = {(): "SCALAR", (2,): "VEC2", (3,): "VEC3", (4,): "VEC4", (16,): "MAT4"}


@dataclass
class Gltf:
    """roots: nodes of the scene."""

    document: dict[str, Any] = field(default_factory=dict)
    buffer: bytearray = field(default_factory=bytearray)
    roots: list[int] = field(default_factory=list)

    def add(self, kind: str, **entry: Any) -> int:
        """Append to the list `kind` of the document; returns the index."""
        entries = self.document.setdefault(kind, [])
        entries.append(entry)
        return len(entries) - 1

    def view(self, data: bytes | memoryview, target: int | None = None) -> int:
        self.buffer += bytes(-len(self.buffer) % 4)
        at = len(self.buffer)
        self.buffer += data
        use = {} if target is None else {"target": target}
        return self.add("bufferViews", buffer=0, byteOffset=at, byteLength=len(self.buffer) - at, **use)

    def accessor(self, values: NDArray[Any], target: int | None = None, bounds: bool = False) -> int:
        """values: (n, ...) of a type in _COMPONENT, little endian."""
        values = np.ascontiguousarray(values)
        limits = (
            {
                name: np.atleast_1d(value).tolist()
                for name, value in (("min", values.min(0)), ("max", values.max(0)))
            }
            if bounds
            else {}
        )
        return self.add(
            "accessors",
            bufferView=self.view(values.data.cast("B"), target),
            componentType=_COMPONENT[values.dtype.str[1:]],
            count=len(values),
            type=_SHAPE[values.shape[1:]],
            **limits,
        )

    def channels(self, times: int, interpolation: str, outputs: list[tuple[int, str, int]]) -> None:
        """Add to the document's one animation. times: accessor of the keys, seconds. outputs: node, path, and the
        accessor of the values."""
        animation = self.document.setdefault(
            "animations", [{"name": "motion", "channels": [], "samplers": []}]
        )[0]
        for node, path, values in outputs:
            animation["samplers"].append({"input": times, "output": values, "interpolation": interpolation})
            target = {"node": node, "path": path}
            animation["channels"].append({"sampler": len(animation["samplers"]) - 1, "target": target})

    def parts(self) -> list[bytes | bytearray]:
        """The file's bytes, in a few pieces that are not copied."""
        scene = self.add("scenes", nodes=self.roots)
        self.buffer += bytes(-len(self.buffer) % 4)
        buffers = [{"byteLength": len(self.buffer)}] if self.buffer else []
        asset = {"version": "2.0", "generator": "dpmesh"}
        document = {"asset": asset, "scene": scene, **self.document}
        text = json.dumps(document | ({"buffers": buffers} if buffers else {}), allow_nan=False).encode()
        text += b" " * (-len(text) % 4)
        parts: list[bytes | bytearray] = [struct.pack("<I4s", len(text), b"JSON"), text]
        if self.buffer:
            parts += [struct.pack("<I4s", len(self.buffer), b"BIN\0"), self.buffer]
        return [struct.pack("<4sII", b"glTF", 2, 12 + sum(map(len, parts))), *parts]
