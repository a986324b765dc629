"""One mirror at run time: addresses, token scope, connections, health, speed estimates and counters.

Only the methods of `Mirror` change its health, estimates and counters; other modules read them.
"""

import asyncio
import ssl
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from aiohttp import BasicAuth
from pydantic import ConfigDict
from yarl import URL

from p2pmodel.config.sections.mirrors import S3, MirrorSettings
from p2pmodel.core.content.manifest import Manifest, ManifestFile
from p2pmodel.core.network.egress import Egress
from p2pmodel.core.pace import Pace
from p2pmodel.origin.failures import Failed
from p2pmodel.origin.mirrors.estimates import Meter, Quality
from p2pmodel.origin.mirrors.health import Health, State
from p2pmodel.origin.s3.addresses import SignedAddresses
from p2pmodel.origin.s3.client import BucketPlace
from p2pmodel.tls import MutualTls, TlsFiles

_SILENCE = 1.0


@dataclass(frozen=True, slots=True)
class MirrorStatus:
    """A mirror's state and estimates, in seconds and bytes a second; None where there is no estimate."""

    name: str
    endpoint: str
    state: State
    connect: float | None
    first_byte: float | None
    rate: float | None
    reason: str
    """Why it last failed or was excluded; kept until the next reason replaces it."""
    repos: tuple[str, ...] = ()
    """Patterns of the repositories that are looked for there; empty: all."""


@dataclass(frozen=True, slots=True)
class MirrorCounters:
    """Totals of one mirror: payload bytes, useless payload bytes, failovers to other mirrors, quarantines."""

    received: int = 0
    wasted: int = 0
    failovers: int = 0
    quarantines: int = 0

    def __add__(self, other: "MirrorCounters") -> "MirrorCounters":
        return MirrorCounters(
            self.received + other.received,
            self.wasted + other.wasted,
            self.failovers + other.failovers,
            self.quarantines + other.quarantines,
        )


class DiscoveredMirror(MirrorSettings):
    """A mirror that the settings do not name: a coordinator's source, or a web seed of a torrent."""

    egress: Egress
    """The rule for its address."""
    direct: bool = False
    """Whether no proxy is used for it: a source inside the cluster."""
    member: MutualTls | None = None
    """For a source of a private swarm: the contexts of a member of it."""

    model_config = ConfigDict(arbitrary_types_allowed=True)


class Mirror:
    """One mirror. `slots` bounds the requests in flight over all jobs; `pace` bounds the bytes a second."""

    def __init__(self, settings: MirrorSettings, name: str, rank: int, pace: Pace | None = None) -> None:
        self.settings = settings
        self.name = name
        self.slots = asyncio.Semaphore(settings.max_connections)
        self.pace = Pace(settings.max_bytes_per_second, within=pace)
        self._health = Health(name, rank, fallback=settings.fallback)
        self._quality = Quality()
        self._reason = ""
        self._received = self._wasted = self._failovers = self._quarantines = 0
        self._requests = 0
        """Requests of pulls in flight."""
        self._meter = Meter()
        self._active_at = time.monotonic()
        self.bucket = SignedAddresses(BucketPlace.of(settings)) if settings.endpoint.startswith(S3) else None
        """The store, for an endpoint `s3://...`."""
        self._endpoint = URL(self.bucket.place.base if self.bucket else settings.endpoint)
        self._redirects = Egress.parse(settings.redirects)
        given = settings.egress if isinstance(settings, DiscoveredMirror) else None
        self.direct = isinstance(settings, DiscoveredMirror) and settings.direct
        """Whether its requests never go through a proxy."""
        self.egress = None if given is None or given.names(self._endpoint.host or "") else given
        """The rule for its own address; None if the settings name it."""
        files = TlsFiles(settings.ca_file, settings.certificate, settings.key)
        self._trust = None if files.context is True else files.context
        self._member = settings.member if isinstance(settings, DiscoveredMirror) else None

    def __repr__(self) -> str:
        return f"Mirror({self.name!r}, received={self._received})"

    @property
    def health(self) -> Health:
        """Its recent failures, rests and quarantine."""
        return self._health

    @property
    def quality(self) -> Quality:
        """Its latency and rate estimates."""
        return self._quality

    @property
    def reason(self) -> str:
        """Why it last failed or was excluded; may be empty."""
        return self._reason

    @property
    def counters(self) -> MirrorCounters:
        """Its totals since it was made."""
        return MirrorCounters(self._received, self._wasted, self._failovers, self._quarantines)

    @property
    def active_at(self) -> float:
        """Time of the last request of a pull or the last byte (or of its creation), by `time.monotonic`."""
        return self._active_at

    def status(self, now: float) -> MirrorStatus:
        """State and estimates at `now`, by the origin's clock."""
        quality, state = self._quality, self._health.state(now)
        first_byte, rate = quality.first_byte.known(now), quality.rate.known(now)
        if state is State.HEALTHY and not self._reason and first_byte is None and rate is None:
            state = State.UNUSED
        return MirrorStatus(
            self.name,
            self.settings.endpoint,
            state,
            quality.connect.known(now),
            first_byte,
            rate,
            self._reason,
            self.settings.repos,
        )

    def rate(self, now: float) -> float | None:
        """Expected bytes a second; 0 while requests are open and no byte comes, None without an estimate."""
        if self._requests and time.monotonic() - self._active_at >= _SILENCE:
            return 0.0
        return self._quality.rate.known(now)

    def url(self, manifest: Manifest, path: str) -> URL:
        """Address of a file of the snapshot: {endpoint}/{repo}/resolve/{commit}/{path}."""
        return URL(self.settings.endpoint + manifest.hub_path(path), encoded=True)

    @property
    def base(self) -> str:
        """The URL that its requests begin with."""
        return str(self._endpoint)

    async def request_url(self, url: URL, method: str) -> URL:
        """The URL to request for `url`: that of a store is signed. Raises Refused."""
        return await self.bucket.url(url, method) if self.bucket is not None and url.scheme == "s3" else url

    def vouches_for(self, file: ManifestFile) -> bool:
        """Whether other bytes than those of `file` are its fault: it said that it has this file."""
        return self.settings.kind == "hub" or file.is_lfs

    @property
    def relays(self) -> bool:
        """Whether requests of hub clients may be forwarded to it as they are."""
        return self.settings.speaks_hub

    @property
    def token(self) -> str | None:
        """The configured token, which requests to this mirror carry."""
        return self.settings.token.get_secret_value() if self.settings.token else None

    @property
    def has_token(self) -> bool:
        """Whether requests to it carry a token or, to a store, a signature."""
        return self.settings.token is not None or self.bucket is not None

    def authorization(self, url: URL) -> dict[str, str]:
        """The header with the mirror's token; empty unless `url` has the mirror's scheme, host and port."""
        return self.bearer(url, self.token)

    def bearer(self, url: URL, token: str | None) -> dict[str, str]:
        """The header with any `token` that this mirror may receive; empty as for `authorization`."""
        if token is None or url.user or url.origin() != self._endpoint.origin():
            return {}
        if self.settings.username is not None and token == self.token:
            return {"Authorization": BasicAuth(self.settings.username, token, "utf-8").encode()}
        return {"Authorization": f"Bearer {token}"}

    def egress_of(self, url: URL, sender: str, general: Egress) -> Egress | None:
        """The rule for `url`, which the server at address `sender` gave: none for this mirror's own host and port, nor
        for a host that the settings name. `general` holds for all mirrors."""
        if url.origin() == self._endpoint.origin():
            return self.egress
        named = self._redirects | general
        return None if named.names(url.host or "") else named.around(sender)

    def tls(self, url: URL) -> ssl.SSLContext | bool:
        """The TLS context for `url`: `ca_file` and certificates apply to the mirror's own host and port only."""
        trust = self._member.client if self._member else self._trust
        return trust if trust and url.origin() == self._endpoint.origin() else True

    def tls_name(self, url: URL) -> str | None:
        """The name in the certificate of the server at `url`; None: that of its host."""
        return self._member.name if self._member and url.origin() == self._endpoint.origin() else None

    @property
    def busy(self) -> int:
        """Requests of pulls in flight."""
        return self._requests

    def request_began(self) -> None:
        """A pull sends a request."""
        if not self._requests:
            self._active_at = time.monotonic()
            self._meter.idle()
        self._requests += 1

    def request_ended(self) -> None:
        """The request of a pull is over."""
        self._requests -= 1

    def responded(self, connect: float | None, first_byte: float, now: float) -> None:
        """Response headers came: `connect` seconds for a new connection (None: reused), then `first_byte` seconds."""
        if connect is not None:
            self._quality = self._quality.connected(connect, now)
        self._quality = self._quality.answered(first_byte, now)

    def received(self, count: int, now: float) -> bool:
        """`count` payload bytes came at `now`, by the origin's clock; whether the rate estimate changed."""
        self._active_at = time.monotonic()
        self._received += count
        sample = self._meter.received(count, self._active_at)
        if sample is not None:
            self._quality = self._quality.delivered(*sample, now)
        return sample is not None

    def relayed(self, count: int) -> None:
        """`count` payload bytes came for a client, which may slow them down: no sample of the rate."""
        self._received += count

    def wasted(self, count: int) -> None:
        """`count` payload bytes were of no use: duplicate, wrong, or a probe."""
        self._wasted += count

    def served(self) -> None:
        """A response came to its end: see `Health.succeeded`."""
        self._health = self._health.succeeded()

    def verified(self, now: float) -> None:
        """Its bytes passed the hash of their file or piece: see `Health.verified`."""
        self._health = self._health.verified(now)

    def failed(self, failure: Failed, now: float, *, no_bytes: bool) -> None:
        """A request failed, `no_bytes`: without a byte. See `Health.failed`."""
        before = self._health
        self._health = before.failed(now, no_bytes=no_bytes, wait=failure.wait, slow=failure.slow)
        self._failovers += self._health.demoted(now) and not before.demoted(now)
        self._reason = failure.reason

    def refused(self, reason: str) -> None:
        """A job excluded the mirror for `reason`; its health stays."""
        self._reason = reason

    def corrupted(self, now: float) -> None:
        """The mirror sent wrong bytes: see `Health.corrupted`."""
        before, self._health = self._health, self._health.corrupted(now)
        self._quarantines += self._health.corruptions > before.corruptions

    def probed(self, rate: float, now: float) -> None:
        """A small sample came at `rate` bytes a second: a lower bound."""
        self._quality = self._quality.probed(rate, now)

    def compared(self, best: float | None, now: float) -> None:
        """The best mirror has a rate of `best`; only a rate measured on transfers is compared with it."""
        if self._quality.measured:
            self._health = self._health.compared(self._quality.rate.known(now), best)

    def recalled(
        self, quality: Quality, *, slow: bool, corruptions: int, quarantined_until: float, reason: str
    ) -> None:
        """Take over what an earlier run recorded."""
        self._quality, self._reason = quality, reason
        self._health = replace(self._health, slow=slow, corruptions=corruptions, quarantined_until=quarantined_until)


def compare(mirrors: Iterable[Mirror], now: float) -> None:
    """Mark mirrors that are clearly slower than the best one. A probe can show that a mirror is better, never that it
    is worse."""
    known = tuple(mirrors)
    rates = [m.quality.rate.known(now) for m in known]
    best = max((rate for rate in rates if rate is not None), default=None)
    for mirror in known:
        mirror.compared(best, now)


def mirrors_of(settings: Sequence[MirrorSettings], pace: Pace | None = None) -> tuple[Mirror, ...]:
    """Mirrors in priority order, with distinct names; `pace` bounds all of them together."""
    ordered = sorted(settings, key=lambda m: m.priority)
    seen: Counter[str] = Counter()
    mirrors = []
    for rank, each in enumerate(ordered):
        seen[each.name] += 1
        count = seen[each.name]
        mirrors.append(Mirror(each, each.name if count == 1 else f"{each.name} ({count})", rank, pace))
    return tuple(mirrors)
