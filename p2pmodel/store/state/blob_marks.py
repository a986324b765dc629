"""Marks on blobs of one repository: a fact about content, and when it was last true."""

import os
from contextlib import suppress
from pathlib import Path

from p2pmodel.core.manifest import ManifestFile
from p2pmodel.os_errors import translated


class BlobMarks:
    """One empty file per etag in `folder`; its modification time is when the mark was set. Methods block."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @translated()
    def set(self, file: ManifestFile) -> None:
        """Mark `file` as of now."""
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / file.etag).touch()

    @translated()
    def renew(self, file: ManifestFile) -> None:
        """As `set` if `file` is marked; otherwise nothing."""
        with suppress(FileNotFoundError):
            os.utime(self._folder / file.etag)

    def time(self, etag: str) -> float | None:
        """When the mark was set, in seconds since the epoch; None if it is not set."""
        try:
            return (self._folder / etag).stat().st_mtime
        except OSError:
            return None

    @translated()
    def remove(self, etag: str) -> None:
        """Remove the mark, if it is set."""
        (self._folder / etag).unlink(missing_ok=True)
