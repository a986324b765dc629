"""Parse what a user names to be fetched: a repository, or a torrent."""

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from p2pmodel.core.content.hub_pages import hub_page
from p2pmodel.core.content.names import Reference
from p2pmodel.core.network.urls import names_user, shown
from p2pmodel.errors import InvalidInput
from p2pmodel.store.bundles.archive import SUFFIX as BUNDLE
from p2pmodel.swarm.magnet import parse_magnet
from p2pmodel.trust.signatures.statement import SignedStatement

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
