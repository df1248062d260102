"""A service's temporary folder: removed when it ends, and by the next one where it was killed."""

import os
import shutil
import stat
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path

from dpmesh.errors import OutputError
from dpmesh.io import folder_lock

PREFIX = "dpmesh-serve-"


class TemporaryRoot:
    """A folder that is locked while its service lives; made at first use. Removes what killed services left."""

    def __init__(self) -> None:
        self._held = ExitStack()
        self._path: Path | None = None
        remove_abandoned()

    def folder(self) -> Path:
        """A new folder that only this user may read. Raises OutputError."""
        if self._path is None:
            self._path = _new(Path(tempfile.gettempdir()))
            self._held.enter_context(folder_lock(self._path, "service"))
        return _new(self._path)

    def close(self) -> None:
        if self._path is not None:
            shutil.rmtree(self._path, ignore_errors=True)
            self._held.close()
            self._path = None


def _new(parent: Path) -> Path:
    try:
        return Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    except OSError as error:
        raise OutputError(f"no folder can be made ({error.strerror})", where=str(parent)) from None


def remove_abandoned() -> None:
    """Remove this user's folders whose service no longer lives."""
    for path in Path(tempfile.gettempdir()).glob(PREFIX + "*"):
        with suppress(OutputError, OSError):  # one that is in use cannot be locked
            status = path.lstat()
            if stat.S_ISDIR(status.st_mode) and status.st_uid == getattr(os, "geteuid", lambda: 0)():
                with folder_lock(path, "service"):
                    shutil.rmtree(path)
