"""The target of a fetch: what a user names, a repository or a torrent, and what that resolves to."""

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from p2pmodel.coordinator.client.coordinators import Coordinator
from p2pmodel.core.content.manifest import Manifest
from p2pmodel.core.content.names import Reference, hub_page
from p2pmodel.core.network.urls import names_user, shown
from p2pmodel.errors import IntegrityError, InvalidInput
from p2pmodel.store.bundles import SUFFIX as BUNDLE
from p2pmodel.store.bundles import open_bundle
from p2pmodel.swarm.magnet import parse_magnet
from p2pmodel.swarm.torrents import Metainfo, read_torrent
from p2pmodel.trust.signatures.record import read_beside
from p2pmodel.trust.signatures.statement import SUFFIX, SignedStatement, read
from p2pmodel.trust.signatures.wire import Malformed

MAGNET = "magnet:"


@dataclass(frozen=True, slots=True)
class TorrentTarget:
    """A snapshot named by its torrent: a path (of a bundle, too), an http(s) URL of a .torrent, or a magnet link."""

    source: str
    raw: bytes | None = field(default=None, repr=False)
    """The .torrent itself, for a client that has sent it; `source` is then a name for messages."""
    signatures: tuple[SignedStatement, ...] = field(default=(), repr=False)
    """The signed statements that came with `raw`, unverified."""

    @property
    def is_magnet(self) -> bool:
        """Whether it is a magnet link."""
        return self.source.lower().startswith(MAGNET)

    @property
    def is_url(self) -> bool:
        """Whether it is the URL of a .torrent."""
        return "://" in self.source and not self.is_magnet


Target = Reference | TorrentTarget


def parse_target(text: str, revision: str | None = None) -> Target:
    """`REPO[@REV]`, `REPO@^1.2` (a range of versions), `hf://...` or a page of a public hub, a .torrent file or a
    bundle (a file `*.tar` that exists), an http(s) URL or a magnet. Raises InvalidInput."""
    page = hub_page(text)
    if page is not None and not page.file.endswith(".torrent"):
        return Reference.parse(text, revision=revision, ranges=True)
    is_bundle = text.endswith(BUNDLE) and Path(text).is_file()
    if is_bundle or text.lower().startswith((MAGNET, "http://", "https://")) or text.endswith(".torrent"):
        if revision is not None:
            raise InvalidInput("--revision goes with a repository, not with a torrent")
        target = TorrentTarget(text)
        _check(target)
        return target
    return Reference.parse(text, revision=revision, ranges=True)


def _check(target: TorrentTarget) -> None:
    text = target.source
    if target.is_magnet:
        parse_magnet(text)
        return
    try:
        is_valid = "://" not in text or (urlsplit(text).hostname and urlsplit(text).port != 0)
    except ValueError:
        is_valid = False
    if not is_valid:
        raise InvalidInput(f"'{shown(text)}' is not a URL", hint="write http://HOST/NAME.torrent")
    if "://" in text and names_user(text):
        raise InvalidInput(
            f"'{shown(text)}' contains a user name or password", hint="download the .torrent, and give its path"
        )


@dataclass(frozen=True, slots=True)
class ResolvedTarget:
    """A snapshot, its torrent if one was found, the refs that will point at it, and its voucher (see `voucher`).

    `coordinators` answered and have no torrent: they may take part in an assembly. `trackers` of the torrent may be
    announced to besides those of the coordinators.
    """

    manifest: Manifest
    metainfo: Metainfo | None
    refs: tuple[str, ...] = ()
    coordinators: tuple[Coordinator, ...] = ()
    vouched_by: str = ""
    trackers: tuple[str, ...] = ()
    signatures: tuple[SignedStatement, ...] = field(default=(), repr=False)
    """Signed statements that came with it. They count only where `SignatureCheck` says so."""
    warned: bool = False
    """Whether a warning was given that it has no signature that counts."""

    def __post_init__(self) -> None:
        if self.metainfo is not None and not self.vouched_by:
            raise ValueError("a torrent without a voucher")


def read_torrent_file(path: Path) -> tuple[bytes, tuple[SignedStatement, ...]]:
    """The .torrent at `path`, or in the bundle there, and signed statements about it, unverified. Raises NotFound,
    InvalidInput, and IntegrityError for a damaged bundle. Blocks."""
    if path.suffix != BUNDLE:
        return read_torrent(path), read_beside(path.with_name(path.name + SUFFIX))
    with open_bundle(path) as bundle:
        return bundle.torrent, statements_in(bundle.signatures)


def statements_in(signatures: bytes) -> tuple[SignedStatement, ...]:
    """The signed statements in a bundle. Raises IntegrityError."""
    try:
        return read(signatures)
    except Malformed as error:
        raise IntegrityError(f"the signatures in the bundle cannot be used: {error}") from None
