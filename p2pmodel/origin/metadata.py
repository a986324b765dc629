"""A snapshot's manifest from one mirror, with bounds on everything that the mirror may say.

The bounds, all of which end in an error of this mirror, so that the next one is asked: bytes and values of a response
(`json_body`), the pages and entries of a listing, a repeated page, the seconds of one response and of all together.
Cancellation ends the work at once: it is one task on the event loop.

Two requests make a manifest: the model's information names the commit, and the tree lists the files page by page. The
information also lists files, but hubs cut that list.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar
from urllib.parse import quote

from yarl import URL

from p2pmodel.config.sections.mirrors import OriginSettings
from p2pmodel.core.content.manifest import MAX_FILES, Manifest, ManifestFile
from p2pmodel.core.content.names import Reference, RepoId, is_commit, printable
from p2pmodel.errors import AccessDenied, GatedRepo, IntegrityError, RepoNotFound, RevisionNotFound, Unavailable
from p2pmodel.http_pool import PeerResponse
from p2pmodel.origin.clock import Clock
from p2pmodel.origin.failures import Failed, Refused, naming, status_failure
from p2pmodel.origin.json_body import parsed
from p2pmodel.origin.listing import ModelInfo, canonical, following, model_info, tree_page
from p2pmodel.origin.mirrors.mirror import Mirror
from p2pmodel.origin.requests import RangeRequests

T = TypeVar("T")

MAX_PAGES = 4096
MAX_ENTRIES = 2 * MAX_FILES
"""Files and folders of a listing."""
MAX_LISTING = 128 << 20
"""Bytes of all pages."""
ROUNDS = 5
"""Times the limit of one response that all of a manifest may take."""

_NO_TREE = {400, 404, 405, 410, 501}
_HEADERS = {"Accept-Encoding": "gzip"}


class HubMetadata:
    """Manifests from mirrors, by `requests`."""

    def __init__(self, requests: RangeRequests, settings: OriginSettings) -> None:
        self._requests = requests
        self._limit = settings.connect_timeout + 2 * settings.read_timeout
        """Seconds of one response: the session's timeouts bound each read, but not a body that drips."""

    async def manifest(self, mirror: Mirror, ref: Reference) -> Manifest:
        """The manifest of `ref` at `mirror`. Raises Failed if a retry may help, else Refused."""
        async with _within(ROUNDS * self._limit):
            return await _Question(self._requests, mirror, ref, self._limit).manifest()


class _Question:
    """One manifest asked of one mirror."""

    def __init__(self, requests: RangeRequests, mirror: Mirror, ref: Reference, limit: float) -> None:
        self._requests = requests
        self._mirror = mirror
        self._ref = ref
        self._limit = limit
        self._repo = ref.repo
        """The repository as the mirror names it."""
        self._model = f"/api/{ref.repo.api}"

    async def manifest(self) -> Manifest:
        """As `HubMetadata.manifest`."""
        ref = self._ref
        if ref.pinned:
            listing = asyncio.ensure_future(self._tree(ref.revision))
            try:
                info = await self._info()
                files = await listing
            finally:
                listing.cancel()
                await asyncio.gather(listing, return_exceptions=True)
        else:
            info = await self._info()
            files = await self._tree(info.commit)
        if files is None:
            files = await self._files_of_info()
        return await asyncio.to_thread(_manifest, self._repo, info, files)

    async def _info(self, query: str = "") -> ModelInfo:
        path = f"{self._model}/revision/{quote(self._ref.revision, safe='')}{query}"
        info, _, _, page = await self._ask(path, model_info)
        self._repo = canonical(self._ref.repo, info.name, page)
        if not is_commit(info.commit):
            raise Refused(f"'{printable(info.commit, 40)}' is not a commit id", IntegrityError)
        if self._ref.pinned and info.commit != self._ref.revision:
            raise Refused(f"it answers with commit {printable(info.commit, 40)} instead", IntegrityError)
        return info

    async def _files_of_info(self) -> tuple[ManifestFile, ...]:
        """The files of a mirror without trees."""
        info = await self._info("?blobs=true")
        if not info.complete:
            raise Refused(f"it lists no tree, and its list of {len(info.paths)} files may be cut", IntegrityError)
        return info.files

    async def _tree(self, commit: str) -> tuple[ManifestFile, ...] | None:
        """The files of `commit`, page by page; None if the mirror has no trees."""
        path: str | None = f"{self._model}/tree/{commit}?recursive=true"
        asked: set[str] = set()
        known: set[str] = set()
        files: list[ManifestFile] = []
        total = 0
        while path is not None:
            asked.add(path)
            try:
                page, size, path, _ = await self._ask(path, tree_page)
            except _NoTree:
                if len(asked) > 1:
                    raise Refused("its listing ends early", Unavailable) from None
                return None
            total += size
            repeats = path in asked or (path is not None and page.paths <= known)
            known |= page.paths
            files += page.files
            _check_bounds(len(asked), len(known), total, repeats=repeats)
        return tuple(files)

    async def _ask(self, path: str, parse: Callable[[object], T]) -> tuple[T, int, str | None, URL]:
        """What `parse` finds in the body, its size, the next page, and the URL after redirects."""
        async with _within(self._limit), self._requests.opened(self._mirror, path, _HEADERS) as response:
            with naming(response.proxy):
                if response.status != 200:
                    raise _from_status(response, has_token=self._mirror.has_token, tree=parse is tree_page)
                onward = following(response.headers, response.url)
                found, size = await parsed(response, parse)
            return found, size, onward, response.url


class _NoTree(Exception):
    """The mirror does not serve this listing."""


def _manifest(repo: RepoId, info: ModelInfo, files: tuple[ManifestFile, ...]) -> Manifest:
    missing = info.paths - {file.path for file in files}
    if missing:
        raise Refused(f"its listing lacks {printable(min(missing))}, which the model has", IntegrityError)
    try:
        return Manifest(repo, info.commit, files, private=info.private)
    except IntegrityError as error:
        raise Refused(str(error), IntegrityError) from None


def _check_bounds(pages: int, entries: int, size: int, *, repeats: bool) -> None:
    if repeats:
        raise Refused("its listing repeats a page", Unavailable)
    for count, bound, unit in (
        (pages, MAX_PAGES, "pages"),
        (entries, MAX_ENTRIES, "entries"),
        (size >> 20, MAX_LISTING >> 20, "MiB"),
    ):
        if count > bound:
            raise Refused(f"its listing has more than {bound} {unit}", Unavailable)


@asynccontextmanager
async def _within(seconds: float) -> AsyncIterator[None]:
    """Raise Failed if the block takes longer."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise Failed(f"no complete response within {seconds:.0f} s") from None


def _from_status(response: PeerResponse, *, has_token: bool, tree: bool) -> Exception:
    status, headers = response.status, response.headers
    code = headers.get("X-Error-Code", "")
    if code == "RevisionNotFound":
        return Refused("it has no such revision", RevisionNotFound)
    if code == "GatedRepo" or status in (401, 403):
        return _denied(code, status, has_token=has_token)
    if tree and status in _NO_TREE:
        return _NoTree()
    if status in (404, 410):
        return Refused("it has no such repository", RepoNotFound)
    failure = status_failure(status, headers, Clock().date())
    return failure if isinstance(failure, Failed) else Refused(failure.reason, Unavailable)


def _denied(code: str, status: int, *, has_token: bool) -> Refused:
    if code == "GatedRepo":
        return Refused(f"gated, and {'its token is not admitted' if has_token else 'no token was given'}", GatedRepo)
    if has_token:
        return Refused(f"wrong token (HTTP {status})", AccessDenied)
    if code == "RepoNotFound":
        # Without a token the hub does not distinguish a private repository from a missing one.
        return Refused("no such repository, or a private one and no token was given", RepoNotFound)
    return Refused(f"it requires a token (HTTP {status})", AccessDenied)
