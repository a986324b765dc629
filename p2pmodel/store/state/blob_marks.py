"""Marks on blobs of one repository: a fact about content, and when it was last true."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from p2pmodel.core.content.manifest import ManifestFile
from p2pmodel.os_errors import translated
from p2pmodel.store.private_folder import PrivateFolder


class BlobMarks:
    """One empty file per etag in the folder `name`; its modification time is when the mark was set. Methods block."""

    def __init__(self, private: PrivateFolder, name: str, *, clock: Callable[[], float] = time.time) -> None:
        self._private = private
        self._name = name
        self._clock = clock

    @translated()
    def set(self, file: ManifestFile) -> None:
        """Mark `file` as of now."""
        folder = self._private.made / self._name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / file.etag).touch()

    @translated()
    def renew(self, file: ManifestFile) -> None:
        """As `set` if `file` is marked; otherwise nothing."""
        with suppress(FileNotFoundError):
            os.utime(self._private.existing / self._name / file.etag)

    def time(self, etag: str) -> float | None:
        """When the mark was set, in seconds since the epoch; None if it is not set.

        A time in the future, from before the clock was set back, counts as now from the first look on.
        """
        times = (self._time(place / self._name / etag) for place in self._private.places)
        return max((at for at in times if at is not None), default=None)

    def _time(self, path: Path) -> float | None:
        now = self._clock()
        try:
            at = path.stat().st_mtime
        except OSError:
            return None
        if at > now:
            at = now
            with suppress(OSError):
                os.utime(path, (now, now))
        return at

    @translated()
    def remove(self, etag: str) -> None:
        """Remove the mark, if it is set."""
        (self._private.existing / self._name / etag).unlink(missing_ok=True)
