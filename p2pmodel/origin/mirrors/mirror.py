"""One mirror at run time: its addresses, its token's reach, its connections and how it fares."""

import asyncio
import ssl
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from urllib.parse import quote

from yarl import URL

from p2pmodel.config.settings import MirrorSettings
from p2pmodel.core.manifest import Manifest
from p2pmodel.origin.mirrors.estimates import Meter, Quality
from p2pmodel.origin.mirrors.health import Health
from p2pmodel.origin.mirrors.pace import PullPace
from p2pmodel.tls import context_with

_SILENCE = 1.0


class Mirror:
    """`received` counts payload bytes, `wasted` those of them that were of no use; `slots` bounds the requests in
    flight, over all jobs; `reason` is why it last failed."""

    def __init__(self, settings: MirrorSettings, name: str, rank: int, pace: PullPace | None = None) -> None:
        self.settings = settings
        self.name = name
        self.health = Health(name, rank, fallback=settings.fallback)
        self.quality = Quality()
        self.reason = ""
        self.received = 0
        self.wasted = 0
        self.failovers = 0
        """Times it failed so that others went first."""
        self.quarantines = 0
        self.active = 0
        """Requests under way that a pull made."""
        self.slots = asyncio.Semaphore(settings.max_connections)
        self.pace = pace or PullPace(settings.max_bytes_per_second)
        self._meter = Meter()
        self._heard = time.monotonic()
        self._endpoint = URL(settings.endpoint)
        self._trust = context_with(settings.ca_file) if settings.ca_file else None

    def __repr__(self) -> str:
        return f"Mirror({self.name!r}, received={self.received})"

    def url(self, manifest: Manifest, path: str) -> URL:
        """Where the mirror keeps a file of the snapshot: {endpoint}/{repo}/resolve/{commit}/{path}."""
        endpoint = self.settings.endpoint
        return URL(f"{endpoint}/{manifest.repo}/resolve/{manifest.commit}/{quote(path)}", encoded=True)

    @property
    def token(self) -> str | None:
        """Its own token, which requests to it carry."""
        return self.settings.token.get_secret_value() if self.settings.token else None

    @property
    def has_token(self) -> bool:
        """Whether requests to it carry a token."""
        return self.settings.token is not None

    def authorization(self, url: URL) -> dict[str, str]:
        """The header that carries the token: only to the mirror's own scheme, host and port."""
        return self.bearer(url, self.token)

    def bearer(self, url: URL, token: str | None) -> dict[str, str]:
        """The same for any `token` that may be sent to this mirror."""
        if token is None or url.user or url.origin() != self._endpoint.origin():
            return {}
        return {"Authorization": f"Bearer {token}"}

    def tls(self, url: URL) -> ssl.SSLContext | bool:
        """What its certificate is held against: its own `ca_file` counts for its own host and port only."""
        return self._trust if self._trust and url.origin() == self._endpoint.origin() else True

    def began(self) -> None:
        """A pull asks it for something."""
        if not self.active:
            self._heard = time.monotonic()
            self._meter.idle()
        self.active += 1

    def heard(self, count: int, now: float) -> bool:
        """`count` bytes came; whether that gave a new estimate of its rate. `now`: the origin's clock."""
        self._heard = time.monotonic()
        self.received += count
        sample = self._meter.received(count, self._heard)
        if sample is not None:
            self.quality = self.quality.delivered(*sample, now)
        return sample is not None

    @property
    def heard_at(self) -> float:
        """When it was last asked by a pull or heard of (or made), by `time.monotonic`."""
        return self._heard

    def failed(self, now: float, *, dry: bool, wait: float | None, slow: bool) -> None:
        """A request to it failed: see `Health.failed`."""
        before, self.health = self.health, self.health.failed(now, dry=dry, wait=wait, slow=slow)
        self.failovers += self.health.demoted(now) and not before.demoted(now)

    def lied(self, now: float) -> None:
        """It was caught with wrong bytes."""
        before, self.health = self.health, self.health.lied(now)
        self.quarantines += self.health.lies > before.lies

    def rate(self, now: float) -> float | None:
        """Bytes a second to count on; 0 while it is asked and silent, None if nothing is known."""
        if self.active and time.monotonic() - self._heard >= _SILENCE:
            return 0.0
        return self.quality.rate.known(now)


def compare(mirrors: Iterable[Mirror], now: float) -> None:
    """Hold the mirrors' rates against the best one's: who is clearly slower loses its place in the order. A probe
    may show that a mirror is better, never that it is worse."""
    rates = {m: m.quality.rate.known(now) for m in mirrors}
    best = max((rate for rate in rates.values() if rate is not None), default=None)
    for mirror, rate in rates.items():
        if mirror.quality.measured:
            mirror.health = mirror.health.compared(rate, best)


def mirrors_of(settings: Sequence[MirrorSettings], pace: PullPace | None = None) -> tuple[Mirror, ...]:
    """The mirrors in the order they are asked, with distinct names; with `pace` they keep that one, all together."""
    ordered = sorted(settings, key=lambda m: m.priority)
    seen: Counter[str] = Counter()
    mirrors = []
    for rank, each in enumerate(ordered):
        seen[each.name] += 1
        count = seen[each.name]
        mirrors.append(Mirror(each, each.name if count == 1 else f"{each.name} ({count})", rank, pace))
    return tuple(mirrors)
