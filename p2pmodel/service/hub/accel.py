"""Delivery of blobs by nginx: an answer without a body that names the file (X-Accel-Redirect)."""

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from aiohttp import web

from p2pmodel.core.content.manifest import ManifestFile
from p2pmodel.errors import InvalidInput
from p2pmodel.http.ranges import not_modified
from p2pmodel.service.hub.published_snapshots import PublishedSnapshot

ACCEL_FROM = 1 << 20
"""Bytes from which nginx sends a file. Smaller ones are sent from here, so that nginx can compress text."""


class Accel:
    """nginx before this server has an internal location `prefix` (as `/_blobs/`), an alias of the cache at `root`."""

    def __init__(self, prefix: str, root: Path) -> None:
        if not (prefix.startswith("/") and prefix.endswith("/") and prefix == quote(prefix)):
            raise InvalidInput(
                "--accel must be a path that begins and ends with a slash", hint="for example --accel /_blobs/"
            )
        self._prefix = prefix
        self._root = root

    def answer(
        self, request: web.Request, snapshot: PublishedSnapshot, file: ManifestFile, headers: Mapping[str, str]
    ) -> web.Response | None:
        """The answer to a GET of `file`, which nginx completes, ranges included; None if nginx cannot send it.

        Touches the disk: call in a thread.
        """
        blob = _sendable(snapshot, file) if file.size >= ACCEL_FROM else None
        if blob is None:
            return None
        path, root = blob.resolve(), self._root.resolve()
        if not path.is_relative_to(root):
            return None
        named = {**headers, "ETag": f'"{file.etag}"', "Accept-Ranges": "bytes"}
        if not_modified(request.headers.get("If-None-Match"), file.etag):
            return web.Response(status=304, headers=named)
        named["X-Accel-Redirect"] = self._prefix + quote(path.relative_to(root).as_posix())
        return web.Response(headers=named, content_type="application/octet-stream")


def _sendable(snapshot: PublishedSnapshot, file: ManifestFile) -> Path | None:
    """The file that nginx may send. A plain file without a record is checked first: see `PublishedSnapshot.open`."""
    place = snapshot.cache.places.find(file)
    if place is None or (place.plain is not None and not snapshot.cache.is_verified(file)):
        return None
    return place.path
