"""The coordinator role: its server, its credentials, and the publish token for other commands of its user."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from aiohttp import web

from p2pmodel.config.settings import Settings
from p2pmodel.coordinator.server.app import PublicAddress
from p2pmodel.coordinator.server.credentials import LOCAL, Credentials
from p2pmodel.coordinator.tokens import kept_token, local_token_file, new_token
from p2pmodel.core.network.addresses import ListenAddress
from p2pmodel.errors import InvalidInput
from p2pmodel.http import limits
from p2pmodel.http.admission.access import RequestGuard
from p2pmodel.http.admission.forwarded import PUBLIC_URL
from p2pmodel.http.server import serving
from p2pmodel.service.roles.own_address import reachable_urls


@dataclass(frozen=True, slots=True)
class ServedCoordinator:
    """The base URLs for peers, the preferred one first, and the file with the publish token that was made.

    None where publishers are given, or the file could not be written.
    """

    urls: tuple[str, ...]
    token_file: Path | None
    failure: str = ""
    """Why the file could not be written."""

    @property
    def url(self) -> str:
        """The preferred base URL."""
        return self.urls[0]


@dataclass(frozen=True, slots=True)
class CoordinatorRole:
    """A coordinator to be served: its address, the URL that other machines use, its credentials, and its TLS."""

    listen: ListenAddress
    public_url: str | None = None
    credentials: Credentials = field(default_factory=Credentials)
    tls: ssl.SSLContext | None = None
    """None: plain HTTP."""

    @classmethod
    def of(
        cls,
        listen: ListenAddress,
        public_url: str | None,
        credentials: Credentials,
        tls: ssl.SSLContext | None = None,
    ) -> "CoordinatorRole":
        """The role with a new token for publishers of this user, unless publishers are given.

        Raises InvalidInput where clients need certificates and there is no member token: trackers' clients present no
        certificate, and announce with the key of a token.
        """
        if tls is not None and tls.verify_mode is not ssl.CERT_NONE and credentials.member is None:
            raise InvalidInput(
                "--tls-client-ca needs a token of members, too: announces carry its key, and no certificate",
                hint="give --token-file",
            )
        publishers = credentials.publishers or {LOCAL: new_token()}
        return cls(listen, public_url, replace(credentials, publishers=publishers), tls)

    @property
    def requires_certificates(self) -> bool:
        """Whether clients need a certificate, except for announces."""
        return self.tls is not None and self.tls.verify_mode is not ssl.CERT_NONE


@asynccontextmanager
async def serving_coordinator(
    app: web.Application,
    role: CoordinatorRole,
    address: PublicAddress,
    settings: Settings,
    *,
    note: Callable[[str], None],
) -> AsyncIterator[ServedCoordinator]:
    """Serve `app` as `role` says while the context lasts, and set `address`.

    A token that was made for publishers of this user is kept in a file of the state folder meanwhile.
    """
    http, secured = settings.http, role.credentials.member is not None
    if role.public_url:
        app[PUBLIC_URL] = role.public_url
    guard = RequestGuard.of(http, secured=secured, forms=True, url=role.public_url)
    server = serving(
        *(app, role.listen.host, role.listen.port),
        guard=guard,
        limits=limits.connections(http),
        tls=role.tls,
        note=note,
    )
    async with server as bound:
        urls = (role.public_url,) if role.public_url else await asyncio.to_thread(reachable_urls, bound, settings)
        address.url = urls[0]
        token = role.credentials.publishers.get(LOCAL, "")
        paths = _token_files(bound, urls, settings.state_dir) if token and settings.state_dir else []
        with kept_token(paths, token) as failure:
            yield ServedCoordinator(urls, paths[0] if paths and not failure else None, failure)


def _token_files(bound: str, urls: Sequence[str], state_dir: Path) -> list[Path]:
    """Where commands of this machine look, by the address in the URL that they are given."""
    parts = urlsplit(bound)
    port = parts.port or 80
    listener = ListenAddress(parts.hostname or "", port)
    hosts = [listener.host]
    if listener.unspecified:
        hosts = ["127.0.0.1", "::1", *(urlsplit(url).hostname or "" for url in urls)]
    return [local_token_file(state_dir, host, port) for host in hosts if host]
