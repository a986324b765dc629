"""A Hugging Face hub endpoint over a local hub cache, for `HF_ENDPOINT`, web seed clients and peers.

Read-only. It never redirects, has no Xet, and lets no client complete a file that is not verified. Routes as on the hub
(`id` of one or two segments, `rev` a branch, tag, refs/pr/N or commit):

    GET       /api/{kind}/{id}[/revision/{rev}]        ?blobs=true; `kind`: models, datasets or spaces
    GET       /api/{kind}/{id}/tree/{rev}[/{directory}] ?recursive=true&limit=N&cursor=C
    GET       /api/{kind}/{id}/refs
    POST      /api/{kind}/{id}/paths-info/{rev}        form or JSON: paths
    GET HEAD  /[{kind}/]{id}/resolve/{rev}/{path}      one Range
    GET       /[{kind}/]{id}/leaves/{rev}/{path}       ?first=N&width=N&blocks=A-B,C-D of sources: proofs of blocks
    any       all else of datasets and spaces          501, unless there is a `relay`
    GET HEAD  /{id}/resolve/{rev}/.pad/{n}             n zeros: the pad files of hybrid torrents (BEP 47)
    GET       /healthz /metrics                        health, without a token; metrics of a mirror
    GET       /sync-log                                files synced from upstream, in hash-chained JSON lines
"""

import asyncio
import gzip
import json
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Protocol
from urllib.parse import quote

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from p2pmodel.config.sections.http import HttpSettings
from p2pmodel.core.content import hub_json
from p2pmodel.core.content.manifest import ManifestFile
from p2pmodel.core.content.names import DEFAULT_REVISION, printable
from p2pmodel.core.pace import Pace
from p2pmodel.errors import EntryNotFound, InvalidInput
from p2pmodel.http import limits
from p2pmodel.http.access_log import AccessLog
from p2pmodel.http.admission.access import ServerToken
from p2pmodel.http.admission.forwarded import PUBLIC_URL, public_url
from p2pmodel.http.admission.protection import OUTER_MIDDLEWARES
from p2pmodel.http.exposition import HEALTH, METRICS, Collecting, handle_health, metrics_handler
from p2pmodel.http.file_response import STALL, FileContent, answer, not_modified
from p2pmodel.http.server import MAX_BODY
from p2pmodel.os_errors import translated
from p2pmodel.service.hub.endpoint_access import FILE_REPO, KIND, REPO, EndpointAccess, bearer, errors, refusal, repo_of
from p2pmodel.service.hub.leaf_hashes import LeafHashes
from p2pmodel.service.hub.library import CacheLibrary, ContentSupply, Library, UpstreamLibrary
from p2pmodel.service.hub.published_snapshots import PublishedCache, PublishedSnapshot
from p2pmodel.store.cache import HubCache
from p2pmodel.store.files.folder import open_regular

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


_CHUNK = 256 << 10


def sync_log_route(path: Path) -> web.RouteDef:
    """The route that serves the log at `path` as it is now. `?from=BYTE` skips the bytes before."""

    async def sync_log(request: web.Request) -> web.StreamResponse:
        start = request.query.get("from", "0")
        if not (start.isascii() and start.isdigit() and len(start) < 19):
            raise web.HTTPBadRequest(reason="from must be a number of bytes")
        # Before the first sync the log is empty.
        with await asyncio.to_thread(_open, path) as log:
            size = await asyncio.to_thread(log.seek, 0, 2)
            offset = min(int(start), size)
            response = web.StreamResponse(headers={"Cache-Control": "no-cache"})
            response.content_type = "application/jsonl"
            response.content_length = size - offset
            await response.prepare(request)
            await asyncio.to_thread(log.seek, offset)
            while request.method == "GET" and offset < size:
                data = await asyncio.to_thread(log.read, min(_CHUNK, size - offset))
                await response.write(data)
                offset += len(data)
            return response

    return web.get("/sync-log", sync_log)


@translated()
def _open(path: Path) -> BinaryIO:
    try:
        return os.fdopen(open_regular(path), "rb")
    except FileNotFoundError:
        return BytesIO()


PAGE = 1000
"""Entries per page of a tree, unless the client requests fewer."""

MAX_PAD = 16 << 20
"""Longest pad file served, in bytes: a pad is shorter than a piece."""

_REV = r"{revision:refs/[^/]+/[^/]+|[^/]+}"
_PAD = re.compile(r"\.pad/([0-9]{1,8})")
_COMPRESS_FROM = 1024


class RequestRelay(Protocol):
    """Answers requests that are not about models, and optionally those that are."""

    async def models(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """The middleware of the model routes."""

    def routes(self) -> list[web.RouteDef]:
        """All other routes."""


async def _other(request: web.Request) -> web.Response:
    what = f"this endpoint serves files and listings only, not {request.path}"
    return refusal(HTTPStatus.NOT_IMPLEMENTED, f"{printable(what)}; unset HF_ENDPOINT for this request")


_REFUSED = [
    web.route("*", f"{prefix}/{kind}/{{rest:.*}}", _other) for prefix in ("", "/api") for kind in ("datasets", "spaces")
]


def hub_endpoint(
    cache: HubCache,
    *,
    token: str | ServerToken | None = None,
    access_log: AccessLog | None = None,
    pace: Pace | None = None,
    upstream: ContentSupply | None = None,
    library: Library | None = None,
    sync_log: Path | None = None,
    accel: str | None = None,
    relay: RequestRelay | None = None,
    http: HttpSettings = limits.UNPACED,
    collecting: Collecting | None = None,
    access: EndpointAccess | None = None,
    leaves: LeafHashes | None = None,
) -> web.Application:
    """The endpoint as an application, to be served alone or mounted with `add_subapp`.

    It serves `library`, by default all of `cache`. With `token` every request needs it; with `access` that decides.
    `pace` limits the bytes/s of files over all connections. `upstream`, which uses the same cache, downloads
    missing files. `sync_log` is served as /sync-log. `accel` is the path at which nginx, before this server, has
    the cache: nginx then sends the blobs. `relay` wraps the model routes and has all others. `http` limits the rate
    of requests and the time for their bodies. `collecting` has the metrics that it serves, if any. `leaves`
    makes the hashes of blocks that it serves, if any.
    """
    middlewares: list[Middleware] = []
    if access_log is not None:
        middlewares.append(access_log.middleware())
    middlewares += [errors, *limits.rate(http)]
    if token is not None:
        middlewares.append(bearer(token, public=(HEALTH,)))
    access = access or EndpointAccess()
    middlewares += access.middlewares
    middlewares.append(limits.body(http.body_timeout))
    if relay is not None:
        middlewares.append(relay.models)
    app = web.Application(middlewares=middlewares, client_max_size=MAX_BODY)
    app[OUTER_MIDDLEWARES] = 0 if access_log is None else 1
    app[STALL] = http.stall_timeout
    if http.public_url:
        app[PUBLIC_URL] = http.public_url
    if library is None:
        published = PublishedCache(cache)
        library = UpstreamLibrary(upstream, published) if upstream is not None else CacheLibrary(published)
    app.router.add_get(HEALTH, handle_health)
    if collecting is not None:
        app.router.add_get(METRICS, metrics_handler(collecting))
    if sync_log is not None:
        app.add_routes([sync_log_route(sync_log)])
    delivery = Accel(accel, cache.root) if accel else None
    handlers = _HubHandlers(library, pace, delivery, access)
    app.add_routes(handlers.routes())
    if leaves is not None:
        app.add_routes([handlers.leaves(leaves)])
    app.add_routes(relay.routes() if relay is not None else _REFUSED)
    return app


class _HubHandlers:
    def __init__(self, library: Library, pace: Pace | None, accel: Accel | None, access: EndpointAccess) -> None:
        self._access = access
        self._library = library
        self._accel = accel
        self._pace = pace

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get(f"/api/{KIND}/{REPO}/revision/{_REV}", self.model_info),
            web.get(f"/api/{KIND}/{REPO}/tree/{_REV}", self.tree),
            web.get(f"/api/{KIND}/{REPO}/tree/{_REV}/{{path:.*}}", self.tree),
            web.get(f"/api/{KIND}/{REPO}/refs", self.refs),
            web.post(f"/api/{KIND}/{REPO}/paths-info/{_REV}", self.paths_info),
            web.get(f"/api/{KIND}/{REPO}", self.model_info),
            web.get(f"/{FILE_REPO}/resolve/{_REV}/{{path:.+}}", self.resolve),
        ]

    def leaves(self, hashes: LeafHashes) -> web.RouteDef:
        """The route of the hashes of blocks."""

        async def answer_proof(request: web.Request) -> web.Response:
            snapshot = await self._snapshot(request)
            file = snapshot.files.get(path := request.match_info["path"])
            if file is None:
                message = f"{snapshot.manifest.repo} has no file '{printable(path)}' at {snapshot.manifest.commit}"
                return refusal(HTTPStatus.NOT_FOUND, message, code="EntryNotFound")
            await self._access.check_file(request, self._library, snapshot, file)
            return await hashes.answer(request, snapshot, file)

        return web.get(f"/{FILE_REPO}/leaves/{_REV}/{{path:.+}}", answer_proof, allow_head=False)

    async def _snapshot(self, request: web.Request, revision: str | None = None) -> PublishedSnapshot:
        chosen = revision or request.match_info.get("revision", DEFAULT_REVISION)
        snapshot = await self._library.snapshot(repo_of(request), chosen)
        await self._access.check(request, snapshot.manifest)
        return snapshot

    async def model_info(self, request: web.Request) -> web.Response:
        snapshot = await self._snapshot(request)
        blobs = _flag(request, "blobs")
        return await _json(request, lambda: hub_json.model_info(snapshot.manifest, blobs=blobs))

    async def refs(self, request: web.Request) -> web.Response:
        refs = await self._library.refs(repo_of(request))
        await self._access.check_refs(request, self._library, refs)
        return await _json(request, lambda: hub_json.refs(refs))

    async def paths_info(self, request: web.Request) -> web.Response:
        paths = await _posted_paths(request)
        snapshot = await self._snapshot(request)
        return await _json(request, lambda: hub_json.paths_info(snapshot.manifest, paths))

    async def tree(self, request: web.Request) -> web.Response:
        # A cursor contains the commit of the first page: a branch that moves meanwhile does not mix two listings.
        commit, start = _cursor(request)
        snapshot = await self._snapshot(request, commit)
        directory = request.match_info.get("path", "").rstrip("/")
        recursive = _flag(request, "recursive")
        entries = await asyncio.to_thread(hub_json.tree, snapshot.manifest, directory, recursive=recursive)
        if entries is None:
            raise EntryNotFound(f"{snapshot.manifest.repo} has no directory '{printable(directory)}'")
        end = start + _limit(request)
        response = await _json(request, lambda: entries[start:end])
        if end < len(entries):
            following = public_url(request).update_query(cursor=f"{snapshot.manifest.commit}.{end}")
            response.headers["Link"] = f'<{following}>; rel="next"'
        return response

    async def resolve(self, request: web.Request) -> web.StreamResponse:
        snapshot = await self._snapshot(request)
        path, commit = request.match_info["path"], snapshot.manifest.commit
        file = snapshot.files.get(path)
        if file is None:
            pad = _PAD.fullmatch(path)
            if pad and int(pad[1]) <= MAX_PAD:
                content = FileContent(int(pad[1]), f"pad-{int(pad[1])}", None, {"X-Repo-Commit": commit})
                return await answer(request, content, pace=self._pace)
            message = f"{snapshot.manifest.repo} has no file '{printable(path)}' at {commit}"
            # With the commit, clients record for ever that the file does not exist: sent only if the list is complete.
            known = commit if snapshot.complete_list else None
            return refusal(HTTPStatus.NOT_FOUND, message, code="EntryNotFound", commit=known)
        headers = {"X-Repo-Commit": commit, "X-Linked-Etag": f'"{file.etag}"', "X-Linked-Size": str(file.size)}
        await self._access.check_file(request, self._library, snapshot, file)
        async with self._library.opened(snapshot, file, body=request.method == "GET") as opened:
            content = FileContent(file.size, file.etag, opened.file, headers, opened.ready, opened.ranges)
            if self._accel and request.method == "GET" and opened.ready is None and opened.ranges:
                delegated = await asyncio.to_thread(self._accel.answer, request, snapshot, file, headers)
                if delegated is not None:
                    return delegated
            return await answer(request, content, pace=self._pace)


def _flag(request: web.Request, name: str) -> bool:
    return request.query.get(name, "").lower() in ("1", "true")


def _limit(request: web.Request) -> int:
    text = request.query.get("limit", str(PAGE))
    if not re.fullmatch(r"[0-9]{1,6}", text) or not int(text):
        raise InvalidInput(f"limit must be a number from 1 to {PAGE}")
    return min(int(text), PAGE)


def _cursor(request: web.Request) -> tuple[str | None, int]:
    text = request.query.get("cursor")
    if text is None:
        return None, 0
    match = re.fullmatch(r"([0-9a-f]{40})\.([0-9]{1,9})", text)
    if match is None:
        raise InvalidInput("invalid cursor", hint="follow the Link header of the previous page")
    return match[1], int(match[2])


async def _posted_paths(request: web.Request) -> list[str]:
    """The `paths` of a form or of a JSON object."""
    paths: Any = None
    with suppress(ValueError, LookupError, RecursionError):  # a body that is not in its declared encoding or charset
        if request.content_type == "application/json":
            body = await request.json()
            paths = body.get("paths") if isinstance(body, dict) else None
        else:
            paths = (await request.post()).getall("paths", [])
    paths = [paths] if isinstance(paths, str) else paths
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise InvalidInput("paths-info needs 'paths', a list of strings")
    return paths


async def _json(request: web.Request, make: Callable[[], Any]) -> web.Response:
    """The JSON of what `make` returns, built and compressed in a thread: a listing can have 200,000 entries."""
    compress = "gzip" in re.split(r"[,\s]+", request.headers.get("Accept-Encoding", "").lower())
    body, compressed = await asyncio.to_thread(_encode, make, compress=compress)
    headers = {"Vary": "Accept-Encoding"}
    if compressed:
        headers["Content-Encoding"] = "gzip"
    return web.Response(body=body, content_type="application/json", charset="utf-8", headers=headers)


def _encode(make: Callable[[], Any], *, compress: bool) -> tuple[bytes, bool]:
    body = json.dumps(make(), separators=(",", ":")).encode()
    if compress and len(body) >= _COMPRESS_FROM:
        return gzip.compress(body, compresslevel=5, mtime=0), True
    return body, False
