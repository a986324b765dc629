"""A Hugging Face hub double: the endpoint contract over an in-memory snapshot, with faults on demand.

In process:  `async with FakeHub(snapshot_of({...}), faults=["503:10@*.bin"]) as hub: hub.url`
As a process: `python -m tests.support.fake_hub --dir DIR --repo org/name --fault flip --port 0 --log FILE` prints
`{"url": ..., "repo": ..., "commit": ...}` on stdout and serves until SIGTERM. Faults: see hub_faults.
"""

import argparse
import asyncio
import contextlib
import gzip
import json
import signal
import ssl
import time
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any, Self

from aiohttp import web

from p2pmodel.http.runner import ListeningRunner
from tests.support.hub_faults import Fault, parse_fault
from tests.support.hub_snapshot import HubSnapshot, snapshot_from

_PAGE = b"<!doctype html><html><body>Sign in to continue</body></html>"


_ENTRY: ContextVar["Request"] = ContextVar("entry")


@dataclass
class Request:
    """One request as received by the hub; `sent` counts body bytes of files."""

    method: str
    path: str
    range: str
    token: str
    status: int = 0
    sent: int = 0


class FakeHub:
    """Serves one snapshot at its commit, at `refs` and at the repository's default revision.

    `kind`: models, datasets or spaces. `token`: the only bearer token it accepts (for a private repository), or
    several with commas. `xet`: announces a chunk store that no client may contact.
    `also`: other spellings and older names, which redirect. `page`: entries on a page of the tree.
    `sizes=False`: siblings come without sizes. `requests`: the requests received, in order; `faults` may be changed
    while it runs. `api_faults`: whether faults of status and time also strike the metadata routes. `rate`: bytes a
    second over all connections together; 0 is as fast as it can.
    """

    def __init__(
        self,
        snapshot: HubSnapshot,
        *,
        faults: Iterable[str] = (),
        token: str | None = None,
        gated: bool = False,
        prefix: str = "",
        refs: Sequence[str] = ("main",),
        page: int = 1000,
        sizes: bool = True,
        host: str = "127.0.0.1",
        port: int = 0,
        redirect_to: str = "",
        api_faults: bool = False,
        rate: int = 0,
        tls: ssl.SSLContext | None = None,
        now: Callable[[], float] = time.monotonic,
        kind: str = "models",
        xet: bool = False,
        also: Sequence[str] = (),
    ) -> None:
        self.snapshot = snapshot
        self.faults: list[Fault] = [parse_fault(text) for text in faults]
        self.requests: list[Request] = []
        self.sent = 0
        self.refs = list(refs)
        self.on_request: Callable[[Request], None] = lambda _: None
        self._token = token
        self._gated = gated
        self._prefix = prefix
        self._page = page
        self._sizes = sizes
        self._host, self._port = host, port
        self._redirect_to = redirect_to
        self._api_faults = api_faults
        self._rate = rate
        self._free_at = 0.0
        self._tls = tls
        self._now = now
        self._kind = kind
        self._xet = xet
        self._also = also

    async def __aenter__(self) -> Self:
        app = web.Application(middlewares=[self._record])
        api = f"{self._prefix}/api/{self._kind}/{self.snapshot.repo}"
        files = f"{self._prefix}/{'' if self._kind == 'models' else self._kind + '/'}{self.snapshot.repo}"
        app.router.add_get(api, self._info)
        app.router.add_get(api + "/revision/{rev:.+}", self._info)
        app.router.add_get(api + "/tree/{rev}", self._tree)
        app.router.add_get(api + "/tree/{rev}/{folder:.*}", self._tree)
        app.router.add_get(api + "/refs", self._list_refs)
        app.router.add_post(api + "/paths-info/{rev}", self._paths_info)
        app.router.add_get(files + "/resolve/{rev}/{path:.+}", self._resolve)
        app.router.add_get(f"{self._prefix}/api/whoami-v2", self._whoami)
        app.router.add_get(f"{self._prefix}/api/{self._kind}", self._search)
        app.router.add_get("/presigned/{until}/{path:.+}", self._presigned)
        app.router.add_route("*", "/{rest:.*}", self._unknown)
        self._stop = asyncio.Event()
        self._runner = ListeningRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        await self._runner.listen(host=self._host, port=self._port, ssl=self._tls)
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._stop.set()
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        """The endpoint, prefix included."""
        return f"{'https' if self._tls else 'http'}://{self._host}:{self._port}{self._prefix}"

    def asked(self, path: str) -> list[Request]:
        """The requests for the bytes of one file."""
        return [r for r in self.requests if r.method == "GET" and r.path.endswith("/" + path)]

    @web.middleware
    async def _record(self, request: web.Request, handler: Any) -> web.StreamResponse:
        headers = request.headers
        token = headers.get("Authorization", "").removeprefix("Bearer ")
        entry = Request(request.method, request.path_qs, headers.get("Range", ""), token)
        _ENTRY.set(entry)
        self.requests.append(entry)
        try:
            response: web.StreamResponse = await handler(request)
        except web.HTTPException as error:
            entry.status = error.status
            raise
        else:
            entry.status = response.status
            return response
        finally:
            self.on_request(entry)

    # metadata

    async def _info(self, request: web.Request) -> web.Response:
        self._admit(request, files=False)
        self._api_fault()
        rev = request.match_info.get("rev")
        self._check_revision(rev)
        siblings = self.snapshot.siblings()
        if not self._sizes or "blobs" not in request.query:
            siblings = [{"rfilename": s["rfilename"]} for s in siblings]
        return web.json_response(
            {
                "_id": "0",
                "id": self.snapshot.repo,
                "modelId": self.snapshot.repo,
                "sha": self.snapshot.commit,
                "private": self._token is not None and not self._gated,
                "gated": "manual" if self._gated else False,
                "disabled": False,
                "tags": [],
                "downloads": 0,
                "likes": 0,
                "siblings": siblings,
            }
        )

    async def _tree(self, request: web.Request) -> web.Response:
        self._admit(request, files=False)
        self._api_fault()
        self._check_revision(request.match_info["rev"])
        folder = request.match_info.get("folder")
        recursive = request.query.get("recursive", "").lower() == "true"
        entries = [
            self._with_chunks(e) for e in self.snapshot.tree() if _below(str(e["path"]), folder, recursive=recursive)
        ]
        start = int(request.query.get("cursor", "0"))
        headers = {}
        if start + self._page < len(entries):
            following = request.url.update_query(cursor=str(start + self._page))
            headers["Link"] = f'<{following}>; rel="next"'
        return web.json_response(entries[start : start + self._page], headers=headers)

    async def _list_refs(self, request: web.Request) -> web.Response:
        self._admit(request, files=False)
        branches = [{"name": r, "ref": f"refs/heads/{r}", "targetCommit": self.snapshot.commit} for r in self.refs]
        return web.json_response({"branches": branches, "tags": [], "converts": []})

    async def _paths_info(self, request: web.Request) -> web.Response:
        self._admit(request, files=False)
        self._check_revision(request.match_info["rev"])
        form = await request.post()
        wanted = {str(p) for p in form.getall("paths", [])}
        return web.json_response([self._with_chunks(e) for e in self.snapshot.tree() if e["path"] in wanted])

    def _with_chunks(self, entry: dict[str, Any]) -> dict[str, Any]:
        return entry | {"xetHash": "e" * 64} if self._xet and "lfs" in entry else entry

    async def _whoami(self, request: web.Request) -> web.Response:
        if not self._authorized(request):
            raise _error(401, "")
        return web.json_response({"type": "user", "name": "somebody", "auth": {"accessToken": {"role": "read"}}})

    async def _search(self, request: web.Request) -> web.Response:
        listed = (
            [{"id": self.snapshot.repo, "private": False}] if self._token is None or self._authorized(request) else []
        )
        return web.json_response(listed)

    async def _unknown(self, request: web.Request) -> web.Response:
        for name in self._also:
            if f"/{name}/" in f"{request.path}/":
                raise web.HTTPTemporaryRedirect(request.path_qs.replace(f"/{name}", f"/{self.snapshot.repo}", 1))
        # As the hub answers: 401 to strangers, whether the repository is private or missing.
        raise _error(401 if self._token and not self._authorized(request) else 404, "RepoNotFound")

    def _api_fault(self) -> None:
        if self._api_faults:
            for fault in self.faults:
                if (fault.kind.isdigit() or fault.kind.startswith("retry")) and self._strikes(fault, "api"):
                    raise self._status_fault(fault)

    # bytes

    async def _resolve(self, request: web.Request) -> web.StreamResponse:
        self._admit(request, files=True)
        self._check_revision(request.match_info["rev"])
        path = request.match_info["path"]
        if path not in self.snapshot.contents:
            raise _error(404, "EntryNotFound", {"X-Repo-Commit": self.snapshot.commit})
        for fault in self.faults:
            if fault.kind == "loop" and self._strikes(fault, path):
                return web.Response(status=302, headers={"Location": request.path_qs})
            if fault.kind in ("redirect", "expire") and self._strikes(fault, path):
                until = self._now() + fault.arg if fault.kind == "expire" else 1e12
                base = self._redirect_to or f"http://{self._host}:{self._port}"
                location = f"{base}/presigned/{until!r}/{path}?signature=a%2Fb%2Bc"
                return web.Response(status=302, headers=self._headers(path) | {"Location": location})
        return await self._send(request, path)

    async def _presigned(self, request: web.Request) -> web.StreamResponse:
        if "Authorization" in request.headers or request.rel_url.raw_query_string != "signature=a%2Fb%2Bc":
            return web.Response(status=400, text="a token where none belongs, or a broken signature")
        if self._now() >= float(request.match_info["until"]):
            return web.Response(status=403, text="Request has expired")
        return await self._send(request, request.match_info["path"])

    async def _send(self, request: web.Request, path: str) -> web.StreamResponse:
        fault = self._fault(path)
        if fault is not None:
            page = self._early(fault)
            if page is not None:
                return page
            if fault.kind == "stall" and not fault.arg:
                await self._stop.wait()
        kind = fault.kind if fault else ""
        size = self.snapshot.files[path].size - (kind == "truncate")
        wanted = _range(request, size)
        if wanted is None:
            return web.Response(status=416, headers={"Content-Range": f"bytes */{size}"})
        response, body = self._answer(kind, path, wanted, size, partial="Range" in request.headers)
        await response.prepare(request)
        if request.method != "HEAD":
            await self._stream(request, response, body, fault)
        return response

    def _answer(
        self, kind: str, path: str, wanted: tuple[int, int], size: int, *, partial: bool
    ) -> tuple[web.StreamResponse, memoryview]:
        headers = self._headers(path)
        start, end = (0, size) if kind == "norange" else wanted
        if kind == "badrange":
            start, end = start + 1, end - 1
        if kind == "other-commit":
            headers["X-Repo-Commit"] = "0" * 40
        partial = partial and kind != "norange"
        if partial:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        body = memoryview(self.snapshot.contents[path])[start:end]
        if kind == "gzip":
            body, headers["Content-Encoding"] = memoryview(gzip.compress(body)), "gzip"
        response = web.StreamResponse(status=206 if partial else 200, headers=headers)
        response.content_length = len(body)
        return response, body

    async def _stream(
        self, request: web.Request, response: web.StreamResponse, body: memoryview, fault: Fault | None
    ) -> None:
        entry = _ENTRY.get()
        entry.status = response.status
        kind, arg = (fault.kind, fault.arg) if fault else ("", 0.0)
        limit = int(arg) if kind in ("drop", "stall") else len(body)
        step = max(1, int(arg / 20)) if kind == "slow" else self._rate // 40 or 1 << 20
        for start in range(0, min(limit, len(body)), step):
            piece = bytes(body[start : min(start + step, limit)])
            if kind == "flip" and start == 0:
                piece = bytes([piece[0] ^ 0xFF]) + piece[1:]
            await response.write(piece)
            entry.sent += len(piece)
            self.sent += len(piece)
            if kind == "slow":
                await asyncio.sleep(0.05)
            elif self._rate:
                self._free_at = max(time.monotonic(), self._free_at) + len(piece) / self._rate
                await asyncio.sleep(self._free_at - time.monotonic())
        if limit < len(body) and kind == "stall":
            await self._stop.wait()
        if limit < len(body) and request.transport is not None:
            request.transport.abort() if kind == "stall" else request.transport.close()

    def _fault(self, path: str) -> Fault | None:
        skipped = ("redirect", "expire", "loop")
        return next((f for f in self.faults if f.kind not in skipped and self._strikes(f, path)), None)

    def _strikes(self, fault: Fault, path: str) -> bool:
        return fault.strikes(path, self.sent, self._now())

    def _early(self, fault: Fault) -> web.Response | None:
        if fault.kind == "html":
            return web.Response(body=_PAGE, content_type="text/html")
        if fault.kind == "gated":
            raise _error(403, "GatedRepo")
        if fault.kind.isdigit() or fault.kind in ("retry", "retry-date", "rate-limit", "status"):
            raise self._status_fault(fault)
        return None

    def _status_fault(self, fault: Fault) -> web.HTTPException:
        left = max(0.0, fault.arg - (self._now() - (fault.since or 0.0)))
        if fault.kind == "retry":
            return _error(429, "", {"Retry-After": str(int(left) + 1)})
        if fault.kind == "rate-limit":
            return _error(429, "", {"RateLimit": f'"resolvers";r=0;t={int(left) + 1}'})
        if fault.kind == "retry-date":
            date = datetime.now(UTC) + timedelta(seconds=left + 1)
            return _error(429, "", {"Retry-After": format_datetime(date, usegmt=True)})
        return _error(int(fault.arg) if fault.kind == "status" else int(fault.kind), "")

    def _headers(self, path: str) -> dict[str, str]:
        file = self.snapshot.files[path]
        chunks = f'<http://{self._host}:{self._port}/api/{self._kind}/xet-read-token/main>; rel="xet-auth"'
        return {
            **({"X-Xet-Hash": "e" * 64, "Link": chunks} if self._xet and file.is_lfs else {}),
            "ETag": f'"{file.etag}"',
            "X-Linked-Etag": f'"{file.etag}"',
            "X-Linked-Size": str(file.size),
            "X-Repo-Commit": self.snapshot.commit,
            "Accept-Ranges": "bytes",
            "Content-Type": "application/octet-stream",
        }

    # admission

    def _admit(self, request: web.Request, *, files: bool) -> None:
        if self._token is None or self._authorized(request):
            return
        if self._gated:
            if files:
                raise _error(401, "GatedRepo")
            return
        raise _error(401, "" if "Authorization" in request.headers else "RepoNotFound")

    def _authorized(self, request: web.Request) -> bool:
        return request.headers.get("Authorization") in [f"Bearer {each}" for each in (self._token or "").split(",")]

    def _check_revision(self, rev: str | None) -> None:
        if rev not in (None, self.snapshot.commit, *self.refs):
            raise _error(404, "RevisionNotFound")


class _Error(web.HTTPException):
    def __init__(self, status: int, headers: dict[str, str]) -> None:
        self.status_code = status
        super().__init__(headers=headers, text="{}", content_type="application/json")


def _error(status: int, code: str, headers: dict[str, str] | None = None) -> web.HTTPException:
    return _Error(status, (headers or {}) | ({"X-Error-Code": code} if code else {}))


def _below(path: str, folder: str | None, *, recursive: bool) -> bool:
    rest = path.removeprefix(f"{folder}/") if folder else path
    return (not folder or rest != path) and (recursive or "/" not in rest)


def _range(request: web.Request, size: int) -> tuple[int, int] | None:
    try:
        start, end, _ = request.http_range.indices(size)
    except ValueError:
        return None
    return (start, end) if start < end or "Range" not in request.headers else None


async def _serve(options: argparse.Namespace) -> None:
    snapshot = snapshot_from(options.dir, options.repo, options.commit)
    hub = FakeHub(
        snapshot,
        faults=options.fault,
        token=options.token,
        host=options.host,
        port=options.port,
        prefix=options.prefix,
        api_faults=options.api_faults,
        kind=options.kind,
        gated=options.gated,
        xet=options.xet,
        rate=options.rate,
        also=options.also,
        redirect_to=options.redirect_to,
    )
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with contextlib.ExitStack() as stack:
        if options.log:
            log = stack.enter_context(options.log.open("a", buffering=1))
            hub.on_request = lambda r: log.write(json.dumps(asdict(r)) + "\n")
        async with hub:
            print(json.dumps({"url": hub.url, "repo": snapshot.repo, "commit": snapshot.commit}), flush=True)  # noqa: T201
            await stop.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=Path, required=True, help="the snapshot's files")
    parser.add_argument("--repo", default="org/model")
    parser.add_argument("--commit", default="")
    parser.add_argument("--fault", action="append", default=[], help="see tests/support/hub_faults.py; repeatable")
    parser.add_argument("--api-faults", action="store_true", help="status faults strike the metadata too")
    parser.add_argument("--token", help="the repository is private and opens to this token")
    parser.add_argument("--gated", action="store_true", help="it is listed without a token, its files need the token")
    parser.add_argument("--kind", default="models", help="models, datasets or spaces")
    parser.add_argument("--xet", action="store_true", help="the headers name a chunk store")
    parser.add_argument("--also", action="append", default=[], help="another name that redirects; repeatable")
    parser.add_argument("--redirect-to", default="", help="URL of the host that redirects lead to")
    parser.add_argument("--prefix", default="")
    parser.add_argument("--rate", type=int, default=0, help="bytes a second over all connections together")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--log", type=Path, help="append one JSON line a request")
    asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
