"""`python -m dpmesh.serve.video_job JSON`: predict one video for the service (jobs.py has the protocol).

A process of its own: what a damaged video does to its decoder ends this process and not the service.
"""

import json
import os
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

from dpmesh.errors import DPMeshError, InputError
from dpmesh.inference.options import ModelOptions
from dpmesh.serve.limits import one_sentence, sentence_of

FORMATS = ("overlay", "glb", "bvh", "trc", "csv")


def command(
    source: Path, out: Path, options: dict[str, Any], model: ModelOptions, seconds: float
) -> list[str]:
    """The words that run this module. model: of the service. seconds: longest video."""
    plain = {name: str(v) if isinstance(v, Path) else v for name, v in vars(model).items()}
    order = {"source": str(source), "out": str(out), "options": options, "model": plain, "seconds": seconds}
    return [sys.executable, "-m", "dpmesh.serve.video_job", json.dumps(order)]


def main(words: list[str]) -> int:
    """The exit status: 0 done, 1 failed with a sentence."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if hasattr(os, "nice"):
        os.nice(10)  # images, whose clients wait, come first
    order = json.loads(words[0])
    try:
        _predict(order)
    except DPMeshError as error:
        _say({"error": sentence_of(error)})
        return 1
    except MemoryError:
        _say({"error": one_sentence("there is not enough memory for this video")})
        return 1
    _say({"done": True})
    return 0


def _predict(order: dict[str, Any]) -> None:
    source, options = Path(order["source"]), dict(order["options"])
    name = options.pop("name")
    from dpmesh.inference.predictor import Predictor
    from dpmesh.video.files import write_result
    from dpmesh.video.recording import Recording
    from dpmesh.video.video import Video

    # Opened first: a video that is refused should not wait for a model.
    video = Video(source, **options)
    frames, most = video.source.length, float(order["seconds"])
    if frames is None or frames / video.fps > most:
        length = "is of unknown length" if frames is None else f"has {frames / video.fps:.1f} seconds"
        raise InputError(f"it {length}; at most {most:g} seconds are taken", where="video")
    predictor = Predictor.from_pretrained(**order["model"])
    video = Video(source, predictor, end=min(options.pop("end", most), most), **options)
    total = video.frames
    with closing(Recording(source.parent)) as recording:
        notes = video.record(recording, lambda done, people: _say({"frames": done, "total": total}))
        tracks = video.solve(recording, notes)
        made = {
            "source": name,
            "weights": predictor.weights,
            "focal_source": recording.focal_source,
            "options": {**predictor.options, **options},
        }
    write_result(tracks, Path(order["out"]), predictor.model.body, video.source, video.span, made, FORMATS)


def _say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def _end_with_parent() -> None:
    """The service holds the other end of standard input."""
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
