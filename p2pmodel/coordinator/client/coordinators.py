"""The coordinators that a node uses, each with the tokens that go to it alone."""

import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from p2pmodel.config.settings import Settings
from p2pmodel.coordinator.client.urls import public_name
from p2pmodel.coordinator.tokens import announce_url, local_token_file, read_tokens
from p2pmodel.errors import InvalidInput
from p2pmodel.tls import NO_FILES, TlsFiles


@dataclass(frozen=True, slots=True)
class Coordinator:
    """A coordinator at the base URL `url`.

    `member_token` reads, announces, asks for leases and assembles; `publish_token` does that and publishes. Without the
    latter, a coordinator of this user on this machine keeps one in `local_file`, and replaces it whenever it starts.
    """

    url: str
    member_token: str = field(default="", repr=False)
    publish_token: str = field(default="", repr=False)
    local_file: Path | None = None
    files: TlsFiles = NO_FILES
    """Authorities trusted besides the system's, and the certificate of this node."""

    def __str__(self) -> str:
        return public_name(self.url)

    @property
    def tls(self) -> ssl.SSLContext | bool:
        """The TLS context of requests over https. Raises InvalidInput for a file that cannot be used."""
        return self.files.context

    @property
    def publisher(self) -> str:
        """The token of a publisher, as it is now; "" without one."""
        return self.publish_token or (_token_in(self.local_file) if self.local_file else "")

    @property
    def headers(self) -> dict[str, str]:
        """HTTP headers of a member."""
        return _bearer(self.member_token or self.publisher)

    @property
    def publishing_headers(self) -> dict[str, str]:
        """HTTP headers of a publisher."""
        return _bearer(self.publisher or self.member_token)

    @property
    def announce_url(self) -> str:
        """The tracker URL. It contains no token, and stays the same when the coordinator starts again."""
        return announce_url(self.url, self.member_token or self.publish_token)

    def torrent_url(self, info_hash: str) -> str:
        """Where the coordinator serves the .torrent with this info-hash."""
        return f"{self.url}/catalog/torrents/{info_hash}.torrent"

    def serves(self, url: str) -> bool:
        """Whether `url` is one of the coordinator's."""
        return url.startswith(f"{self.url}/")


def configured(settings: Settings) -> tuple[Coordinator, ...]:
    """The coordinators of the settings with their tokens, read anew: a token may be replaced while a node runs.

    Raises InvalidInput for a token file that cannot be used.
    """
    if not settings.coordinators:
        return ()
    member = read_tokens(settings.coordinator_token_file) if settings.coordinator_token_file else {}
    publish = read_tokens(settings.publish_token_file) if settings.publish_token_file else {}
    return tuple(_configured(url, member, publish, settings) for url in dict.fromkeys(settings.coordinators))


def files_of(settings: Settings) -> TlsFiles:
    """The files of this node as a client of coordinators and their seeders."""
    return TlsFiles(settings.coordinator_ca_file, settings.coordinator_certificate, settings.coordinator_key)


def trackers_with(trackers: Sequence[str], coordinators: Sequence[Coordinator]) -> tuple[str, ...]:
    """The trackers of `coordinators` with this node's own announce keys, and other `trackers` of a torrent."""
    own = (coordinator.announce_url for coordinator in coordinators)
    return tuple(dict.fromkeys((*own, *foreign_trackers(trackers, coordinators))))


def foreign_trackers(trackers: Sequence[str], coordinators: Sequence[Coordinator]) -> tuple[str, ...]:
    """The `trackers` that belong to none of `coordinators`, whatever their announce keys are."""
    return tuple(t for t in trackers if not any(t.startswith(f"{each.url}/announce") for each in coordinators))


def _configured(url: str, member: dict[str, str], publish: dict[str, str], settings: Settings) -> Coordinator:
    state_dir = settings.state_dir
    own = member.get(url, member.get("", ""))
    given = publish.get(url, publish.get("", ""))
    parts = urlsplit(url)
    host = "127.0.0.1" if parts.hostname == "localhost" else parts.hostname or ""
    local = local_token_file(state_dir, host, parts.port or 80) if state_dir and not given else None
    found = Coordinator(url, own, given, local, files_of(settings))
    _ = found.tls  # an unusable file is an error before any request
    return found


def _token_in(path: Path) -> str:
    try:
        return read_tokens(path).get("", "") if path.exists() else ""
    except (InvalidInput, OSError):
        return ""


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}
