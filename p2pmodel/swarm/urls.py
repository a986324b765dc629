"""URLs in torrents and magnets: their check, and the web seed URL of a snapshot."""

from urllib.parse import urlsplit

from p2pmodel.core.content.manifest import Manifest
from p2pmodel.core.network.urls import names_user, shown
from p2pmodel.errors import InvalidInput
from p2pmodel.swarm.metainfo import Format

TRACKER_SCHEMES = ("http", "https", "udp")
WEB_SCHEMES = ("http", "https")
MAX_URLS = 100
_MAX_LENGTH = 2048


def check_url(url: str, schemes: tuple[str, ...], what: str) -> str:
    """Return `url` if it is plain ASCII, has one of `schemes`, a host and no user; else InvalidInput naming `what`."""
    try:
        parts = urlsplit(url)
        sound = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound or len(url) > _MAX_LENGTH or any(not "!" <= c <= "~" for c in url):
        raise InvalidInput(f"the {what} '{shown(url)}' is not a URL of {', '.join(schemes)}")
    if names_user(url):
        raise InvalidInput(f"the {what} '{shown(url)}' contains a user name or password")
    return url


def webseed_url(endpoint: str, manifest: Manifest, form: Format = "v2") -> str:
    """The BEP 19 URL of the snapshot's files at `endpoint`, a hub or mirror.

    A client requests URL + name + path, and the name is the commit. A v2 torrent of one top-level file adds no name
    (its file tree is the file), so its URL contains the commit.
    """
    url = f"{endpoint.rstrip('/')}/{manifest.repo}/resolve/"
    return f"{url}{manifest.commit}/" if form == "v2" and is_one_file(manifest) else url


def is_one_file(manifest: Manifest) -> bool:
    """Whether the file tree of a v2 torrent is a single file, so that clients add no name to a web seed's URL."""
    return len(manifest.files) == 1 and "/" not in manifest.files[0].path
