"""What a client may ask for, and the refusals: each an HTTP status and one sentence."""

import math
import re
from dataclasses import dataclass, fields

from starlette.exceptions import HTTPException

from dpmesh.decode import VIDEO as VIDEO_KIND
from dpmesh.errors import ConfigError, DPMeshError, printable
from dpmesh.inference.options import MAX_PEOPLE
from dpmesh.io import reason

PREDICT, VIDEO = "/v1/predict", "/v1/video"
"""The addresses that take files."""
TOKEN = "DPMESH_TOKEN"
"""Environment variable: the bearer token that clients must send."""
UPLOADS = 4
"""Bodies that are received at once, in places of the queue: more wait for a place than there are."""
FORM_BYTES = 2**20
"""Of a request, besides its file."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Of one service. Raises ConfigError for numbers that are not positive."""

    max_bytes: int = 32 * 2**20
    """Bytes of an image file."""
    max_pixels: int = 50_000_000
    """Pixels of an image."""
    max_people: int = MAX_PEOPLE
    """People per image, and per frame of a video."""
    max_hypotheses: int = 64
    """Hypotheses of all people of an image: max_people × hypotheses of a request."""
    queue: int = 4
    """Images that are worked on or wait; more are refused with 429."""
    timeout: float = 30.0
    """Seconds from an accepted image to its answer."""
    upload_seconds: float = 30.0
    """Seconds for an image file to arrive."""
    max_video_bytes: int = 256 * 2**20
    """Bytes of a video file."""
    max_video_seconds: float = 60.0
    """Length of a video."""
    video_queue: int = 4
    """Videos that wait; one is worked on."""
    video_timeout: float = 3600.0
    """Seconds of work on a video."""
    keep_results: float = 600.0
    """Seconds that a video's results can be fetched."""
    grace: float = 30.0
    """Seconds for what was accepted, after SIGTERM."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = float(getattr(self, field.name))
            if not 0 < value < math.inf:
                raise ConfigError(f"{field.name}={value:g} must be positive", where="serve")


class Refused(HTTPException):
    """A refusal. retry: seconds until another try makes sense."""

    def __init__(self, status: int, sentence: str, retry: int | None = None, **headers: str) -> None:
        more = {} if retry is None else {"Retry-After": str(retry)}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        super().__init__(status, one_sentence(sentence), {**named, **more})


def too_large(limit: int) -> Refused:
    return Refused(413, f"The request is larger than {limit:,} bytes")


def no_room(error: OSError) -> str:
    """For an upload that the disk does not take."""
    return one_sentence(f"The server cannot store what was sent ({reason(error)})")


def one_sentence(text: str) -> str:
    """On one line, with a full stop, and a capital letter where it does not begin with a field's name."""
    line = printable(" ".join(text.split()))[:400]
    line = line if ":" in line.split(" ")[0] else line[:1].upper() + line[1:]
    return line if line.endswith((".", "?", "!")) else line + "."


def sentence_of(error: DPMeshError) -> str:
    """Without the advice where that is one for the command line or for Python."""
    where = {"bytes": "image", "array": "keypoints"}.get(error.where, error.where)
    text = f"{where}: {error.what}" if where else error.what
    if error.what == VIDEO_KIND.what:
        return one_sentence(f"{text}; videos go to {VIDEO}")
    foreign = re.search(r"--\w|dpmesh |\(|Pass |lists?\b", error.fix)
    return one_sentence(
        f"{text}; {error.fix[:1].lower()}{error.fix[1:]}" if error.fix and not foreign else text
    )
