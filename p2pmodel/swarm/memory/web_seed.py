"""One web seed of the in-memory engine: a real HTTP server, read with ranged requests."""

import base64
import urllib.request
from http.client import HTTPException
from urllib.parse import quote, urlsplit

from p2pmodel.core.network.egress import Egress
from p2pmodel.swarm.torrents import Metainfo
from p2pmodel.swarm.urls import is_one_file

TIMEOUT = 10.0


class MemoryWebSeed:
    """The server at a BEP 19 URL, which has all pieces. A redirect is an error."""

    def __init__(self, metainfo: Metainfo, url: str, egress: Egress) -> None:
        parts = urlsplit(url)
        self._metainfo = metainfo
        self._admitted = egress.names(parts.hostname or "") or not egress.refusal(parts.hostname or "")
        self._url = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        user = parts.netloc.rpartition("@")[0]
        self._headers = {"Authorization": f"Basic {base64.b64encode(user.encode()).decode()}"} if user else {}
        self.address = f"{parts.scheme}://{parts.hostname}:{parts.port}"
        self.received = 0

    def read(self, piece: int) -> bytes | None:
        """The bytes of `piece`, right or wrong; None if the server does not send them. Blocking."""
        place = self._metainfo.layout.piece_range(piece)
        last = place.offset + place.length - 1
        headers = {**self._headers, "Range": f"bytes={place.offset}-{last}"}
        request = urllib.request.Request(self._file_url(place.span.path), headers=headers)  # noqa: S310 - http, see above
        try:
            if not self._admitted:
                return None
            with urllib.request.build_opener(_NoRedirects).open(request, timeout=TIMEOUT) as response:
                data: bytes = response.read()
        except (OSError, HTTPException):
            return None
        self.received += len(data)
        return data

    def _file_url(self, path: str) -> str:
        manifest = self._metainfo.manifest
        return f"{self._url}{'' if is_one_file(manifest) else manifest.commit + '/'}{quote(path)}"


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object, **__: object) -> None:
        """None: the redirect is an error."""
