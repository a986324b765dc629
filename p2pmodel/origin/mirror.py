"""One mirror at run time: its addresses, its token's reach, its connections and how it fares."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from urllib.parse import quote

from yarl import URL

from p2pmodel.domain.manifest import Manifest
from p2pmodel.domain.ranking import Health
from p2pmodel.settings import MirrorSettings


class Mirror:
    """`received` counts payload bytes; `slots` bounds the requests in flight, over all jobs."""

    def __init__(self, settings: MirrorSettings, name: str, rank: int) -> None:
        self.settings = settings
        self.name = name
        self.health = Health(name, rank)
        self.received = 0
        self.slots = asyncio.Semaphore(settings.max_connections)
        self._endpoint = URL(settings.endpoint)

    def __repr__(self) -> str:
        return f"Mirror({self.name!r}, received={self.received})"

    def url(self, manifest: Manifest, path: str) -> URL:
        """Where the mirror keeps a file of the snapshot: {endpoint}/{repo}/resolve/{commit}/{path}."""
        endpoint = self.settings.endpoint
        return URL(f"{endpoint}/{manifest.repo}/resolve/{manifest.commit}/{quote(path)}", encoded=True)

    @property
    def has_token(self) -> bool:
        """Whether requests to it carry a token."""
        return self.settings.token is not None

    def authorization(self, url: URL) -> dict[str, str]:
        """The header that carries the token: only to the mirror's own scheme, host and port."""
        token = self.settings.token
        if token is None or url.user or url.origin() != self._endpoint.origin():
            return {}
        return {"Authorization": f"Bearer {token.get_secret_value()}"}


def mirrors_of(settings: Sequence[MirrorSettings]) -> tuple[Mirror, ...]:
    """The mirrors in the order they are asked, with distinct names."""
    ordered = sorted(settings, key=lambda m: m.priority)
    seen: Counter[str] = Counter()
    mirrors = []
    for rank, each in enumerate(ordered):
        seen[each.name] += 1
        count = seen[each.name]
        mirrors.append(Mirror(each, each.name if count == 1 else f"{each.name} ({count})", rank))
    return tuple(mirrors)
