"""The seeders that leased pieces are pulled from over HTTP: mirrors inside the cluster."""

import asyncio
import hashlib
import math
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import astuple, dataclass
from itertools import chain
from typing import Any, Self
from urllib.parse import urlsplit

from p2pmodel.config.checks import check_url
from p2pmodel.config.sections.mirrors import MirrorSettings, OriginSettings
from p2pmodel.coordinator.client.urls import public_name
from p2pmodel.core.content.leaf_proof import PieceTree, Runs
from p2pmodel.core.content.manifest import Manifest, ManifestFile
from p2pmodel.core.network.connections import PeerConnection
from p2pmodel.core.network.egress import PUBLIC, Egress
from p2pmodel.core.pace import Pace, Rate
from p2pmodel.errors import NotFound, P2PModelError, Unavailable
from p2pmodel.http_pool import HttpPool
from p2pmodel.node.fetch.lone.file import FileSource
from p2pmodel.node.fetch.pieces.late_seeders import LateSeeders
from p2pmodel.origin.mirrors.mirror import DiscoveredMirror
from p2pmodel.origin.origin import Origin
from p2pmodel.swarm.engine import WebSeeds
from p2pmodel.swarm.urls import webseed_url
from p2pmodel.tls import NO_FILES, MutualTls, TlsFiles, context_with

AGAIN_AFTER = 5.0
"""Seconds for which seeders are not used after a failure."""
WHILE_LOST = 30.0
"""The same while the coordinator has lost them, and lists none: it lists them when they are back, and each attempt
before that keeps the mirrors idle."""
PATIENCE = 0.7
"""Seconds for which a failed request is repeated, after 0.25 and 0.75 s: seeders are close, and mirrors can replace
them."""
SILENCE = 3.0
"""Seconds without a byte, or a connection, after which a request to a seeder has failed."""
MAX_CONNECTIONS = 64
_PLAIN_TOKEN = re.compile(r"[A-Za-z0-9._~-]*")

BeginRead = Callable[[frozenset[str], Callable[[str], None]], Coroutine[Any, Any, bytes]]
"""Begins a read; takes the seeders to avoid, and what is called with the name of each that is asked."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """HTTP endpoint of a seeder, its token, and its rack or site. `egress` is the rule for its address."""

    url: str
    token: str = ""
    zone: str = ""
    egress: Egress = PUBLIC


class Seeders:
    """The seeders that coordinators list. `identity` differs between peers, so that they begin with different seeders.

    `pace` limits the bytes from all of them, together with its other users. `http` are connections to share.
    `files` are those of a client over https.
    """

    def __init__(
        self,
        settings: OriginSettings,
        identity: str,
        on_note: Callable[[str], None],
        *,
        pace: Pace | None = None,
        http: HttpPool | None = None,
        files: TlsFiles = NO_FILES,
    ) -> None:
        self._files = files
        self._tls: MutualTls | None = None
        self._pace = pace
        self._http = http
        self._settings = settings.model_copy(
            update={"state_dir": None, "patience": PATIENCE, "connect_timeout": SILENCE, "read_timeout": SILENCE}
        )
        self._identity = identity
        self._on_note = on_note
        self._stack = AsyncExitStack()
        self._known: frozenset[Endpoint] = frozenset()
        self._zones: dict[str, str] = {}
        """By the seeder's name."""
        self._origin: Origin | None = None
        self._before: list[Origin] = []
        self._failed_at = -math.inf
        self._lost = False
        """Whether the coordinator lists none, since it has lost them."""
        self._late = LateSeeders()
        self._seen: Counter[str] = Counter()
        self._of_files: Counter[str] = Counter()
        """By name: bytes of whole files."""
        self._rates: defaultdict[str, Rate] = defaultdict(Rate)
        """By name: bytes received until the last look, and the recent rate."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    @property
    def egress(self) -> Egress:
        """The rule of the settings for addresses that others give."""
        return self._settings.egress

    def ask_as(self, tls: MutualTls) -> None:
        """Ask seeders as a member of a private swarm, from the next `update` on: over https alone, and only those that
        have a certificate of it, too."""
        self._tls = tls

    @property
    def usable(self) -> bool:
        """Whether seeders should be asked now."""
        pause = WHILE_LOST if self._lost else AGAIN_AFTER
        return self._origin is not None and time.monotonic() >= self._failed_at + pause

    def web_seeds(self, manifest: Manifest, zone: str) -> WebSeeds:
        """Those that an engine can download `manifest` from as web seeds: in `zone`, if this node has one, at addresses
        that can be judged without DNS, and over plain HTTP: libtorrent checks no certificate of our authorities."""
        fit = [] if self._tls is not None else [each for each in self._admitted(zone) if each.url.startswith("http:")]
        egress = min((each.egress for each in fit), key=repr, default=PUBLIC)
        urls = sorted(webseed_url(_with_token(each), manifest) for each in fit if each.egress == egress)
        return WebSeeds(tuple(urls), egress)

    def file_sources(self, zone: str) -> tuple[FileSource, ...]:
        """Those that whole files can be downloaded from in threads: in `zone`, at addresses that can be judged without
        DNS. Each node begins with another one."""
        return tuple(map(self._file_source, sorted(self._admitted(zone), key=self._turn)))

    def _file_source(self, endpoint: Endpoint) -> FileSource:
        name = _name(endpoint)
        if not endpoint.url.startswith("https:"):
            return FileSource(name, endpoint.url, endpoint.token)
        if self._tls is not None:
            return FileSource(name, endpoint.url, endpoint.token, self._tls.client, self._tls.name)
        return FileSource(name, endpoint.url, endpoint.token, context_with(*astuple(self._files)))

    def _admitted(self, zone: str) -> list[Endpoint]:
        return [each for each in self._known if zone in ("", each.zone) and _is_admitted(each)] if self.usable else []

    def count_file_bytes(self, name: str, count: int) -> None:
        """`count` bytes came from the seeder `name`, past `read`."""
        self._of_files[name] += count
        self._rates[name].add(count)
        if self._pace is not None:
            self._pace.take(count)

    async def update(self, endpoints: Sequence[Endpoint], *, lost: bool = False) -> None:
        """Replace the seeders. `lost`: the coordinator has lost one that may come back.

        An empty list replaces none: a seeder may exist although no coordinator lists it. So endpoints are ignored that
        a request cannot be sent to.
        """
        askable = [each for each in endpoints if _askable(each) and (not self._tls or each.url.startswith("https:"))]
        by_url = {endpoint.url: endpoint for endpoint in askable}
        returned, self._lost = self._lost and bool(by_url), lost and not by_url
        if returned:
            self._failed_at = -math.inf
        if not by_url or frozenset(by_url.values()) == self._known:
            return
        self._known, self._failed_at = frozenset(by_url.values()), -math.inf
        self._zones |= {_name(endpoint): endpoint.zone for endpoint in by_url.values()}
        if self._origin is not None:
            self._before.append(self._origin)
        self._seen.clear()
        # Reads from the previous seeders go on: these are closed at the end.
        self._origin = await self._stack.enter_async_context(
            Origin(
                [self._mirror(e) for e in by_url.values()],
                self._settings,
                on_note=self._on_note,
                pace=self._pace,
                http=self._http,
            )
        )

    async def read(
        self,
        manifest: Manifest,
        file: ManifestFile,
        offset: int,
        length: int,
        *,
        accept: Callable[[bytes], bool] | None,
    ) -> bytes:
        """As `Origin.read`; after a failure the seeders are not `usable` for a while."""
        origin = self._origin
        if origin is None:
            raise Unavailable("no seeder is known")

        def begin(avoided: frozenset[str], on_mirror: Callable[[str], None]) -> Coroutine[Any, Any, bytes]:
            return origin.read(manifest, file, offset, length, accept=accept, avoided=avoided, on_mirror=on_mirror)

        try:
            return await self._read(begin, length)
        except P2PModelError:
            self._failed_at = time.monotonic()
            raise
        finally:
            self._look(origin)

    async def proof(
        self, manifest: Manifest, file: ManifestFile, tree: PieceTree, runs: Runs, *, accept: Callable[[bytes], bool]
    ) -> bytes:
        """As `Origin.proof`. Seeders without proofs stay usable."""
        origin = self._origin
        if origin is None:
            raise Unavailable("no seeder is known")
        try:
            return await origin.proof(manifest, file, tree, runs, accept=accept)
        except NotFound:
            raise
        except P2PModelError:
            self._failed_at = time.monotonic()
            raise
        finally:
            self._look(origin)

    async def _read(self, begin: BeginRead, length: int) -> bytes:
        """The bytes of the read that `begin` begins, or, once that is late, of one from another seeder."""
        avoided, asked = self._late.avoided(time.monotonic()), list[str]()
        began = {asyncio.ensure_future(begin(avoided, asked.append)): time.monotonic()}
        (first,) = reads = set(began)
        try:
            await asyncio.wait(reads, timeout=self._late.late_after(length))
            others = avoided | set(asked)
            if not first.done() and len(others) < len(self._known):
                second = asyncio.ensure_future(begin(others, lambda _: None))
                began[second] = time.monotonic()
                reads.add(second)
            while reads:
                ended, reads = await asyncio.wait(reads, return_when=asyncio.FIRST_COMPLETED)
                right = next((read for read in ended if read.exception() is None), None)
                if right is not None:
                    self._note_read(length, began[right], late=asked[-1] if right is not first else "")
                    if right is first and reads:
                        self._late.in_vain()
                    return right.result()
            return first.result()  # its error
        finally:
            await _stop(began)

    def _note_read(self, length: int, began: float, *, late: str) -> None:
        now = time.monotonic()
        self._late.read(length, now - began)
        if late:
            self._late.overtook(late, now)

    def judge(self, file: ManifestFile) -> None:
        """The whole `file` is right: as `Origin.judge`."""
        for origin in (*self._before, self._origin):
            if origin is not None:
                origin.judge(file, pieces_right=True)

    def connections(self) -> tuple[PeerConnection, ...]:
        """The seeders in use."""
        return tuple(self._connection(s.name, s.endpoint) for s in self._origin.statuses()) if self._origin else ()

    def _connection(self, name: str, url: str) -> PeerConnection:
        return PeerConnection(
            public_name(url),
            "seeder",
            zone=self._zones[name],
            download_rate=self._rates[name].value(),
            downloaded=self._seen[name] + self._of_files[name],
        )

    def _look(self, origin: Origin) -> None:
        if origin is not self._origin:
            return
        for name, received in origin.bytes_by_mirror.items():
            if received > self._seen[name]:
                self._rates[name].add(received - self._seen[name])
                self._seen[name] = received

    @property
    def received(self) -> int:
        """Bytes from all seeders so far."""
        read = sum(count for origin in self._origins for count in origin.bytes_by_mirror.values())
        return read + self._of_files.total()

    def bytes_from_outside(self, zone: str) -> int:
        """Bytes from seeders of other zones."""
        read = (entry for origin in self._origins for entry in origin.bytes_by_mirror.items())
        counts = chain(read, self._of_files.items())
        return sum(count for name, count in counts if self._zones[name] != zone)

    @property
    def _origins(self) -> list[Origin]:
        return [*self._before, self._origin] if self._origin else []

    def _turn(self, endpoint: Endpoint) -> int:
        """Its place in the order in which this node asks seeders."""
        return int.from_bytes(hashlib.sha256(f"{self._identity} {endpoint.url}".encode()).digest()[:4], "big")

    def _mirror(self, endpoint: Endpoint) -> MirrorSettings:
        return DiscoveredMirror.model_validate(
            {
                "egress": endpoint.egress,
                "direct": True,
                "name": _name(endpoint),
                "endpoint": endpoint.url,
                "token": endpoint.token or None,
                "priority": self._turn(endpoint),
                "max_connections": MAX_CONNECTIONS,
                "ca_file": self._files.ca_file,
                "certificate": self._files.certificate,
                "key": self._files.key,
                "member": self._tls,
            }
        )


def _askable(endpoint: Endpoint) -> bool:
    """Whether its URL and token are valid in a request."""
    with suppress(ValueError):
        check_url(endpoint.url)
        return f"{endpoint.url}{endpoint.token}".isprintable() and endpoint.token.isascii()
    return False


def _is_admitted(endpoint: Endpoint) -> bool:
    """Whether its rule admits its address without DNS, and its token can be a password in a URL."""
    host = urlsplit(endpoint.url).hostname or ""
    admitted = endpoint.egress.names(host) or not endpoint.egress.refusal(host)  # which refuses other names
    return admitted and _PLAIN_TOKEN.fullmatch(endpoint.token) is not None


def _with_token(endpoint: Endpoint) -> str:
    scheme, _, rest = endpoint.url.partition("://")
    return f"{scheme}://p2pmodel:{endpoint.token}@{rest}" if endpoint.token else endpoint.url


def _name(endpoint: Endpoint) -> str:
    return f"seeder {endpoint.url}"


async def _stop(reads: "Iterable[asyncio.Future[bytes]]") -> None:
    """Cancel what still runs, and wait for its end."""
    for read in reads:
        read.cancel()
    await asyncio.gather(*reads, return_exceptions=True)
