"""Magnet links of v2 torrents (BEP 9, 52): `xt=urn:btmh:1220` and the info-hash."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote

from p2pmodel.core.network.urls import shown
from p2pmodel.errors import InvalidInput
from p2pmodel.swarm.metainfo import Metainfo
from p2pmodel.swarm.urls import MAX_URLS, TRACKER_SCHEMES, WEB_SCHEMES, check_url

_PREFIX = "magnet:?"
_MULTIHASH = re.compile(r"urn:btmh:1220([0-9a-f]{64})", re.IGNORECASE)
_MAX_LENGTH = 32 << 10
_HINT = "it must contain xt=urn:btmh:1220 and 64 hex digits"


@dataclass(frozen=True, slots=True)
class Magnet:
    """The fields of a magnet link. `name`: the commit according to the link, not verified."""

    info_hash: str
    name: str | None = None
    trackers: tuple[str, ...] = ()
    webseeds: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    """URLs of the .torrent itself."""

    def joining(self, trackers: Sequence[str]) -> str:
        """A link to the same torrent with only `trackers`."""
        fields = [("xt", f"urn:btmh:1220{self.info_hash}"), *(("tr", url) for url in trackers)]
        return _PREFIX + "&".join(f"{key}={quote(value, safe=':')}" for key, value in fields)


def magnet_of(metainfo: Metainfo, *, sources: Sequence[str] = ()) -> str:
    """The magnet link of a torrent; `sources`: URLs of the .torrent itself (`xs`)."""
    fields = [("xt", f"urn:btmh:1220{metainfo.info_hash}")]
    if metainfo.info_hash_v1:
        fields.append(("xt", f"urn:btih:{metainfo.info_hash_v1}"))
    fields.append(("dn", metainfo.manifest.commit))
    fields += [("tr", url) for url in metainfo.trackers]
    fields += [("ws", url) for url in metainfo.webseeds]
    fields += [("xs", check_url(url, WEB_SCHEMES, "source")) for url in sources]
    return _PREFIX + "&".join(f"{key}={quote(value, safe=':')}" for key, value in fields)


def parse_magnet(text: str) -> Magnet:
    """Parse a magnet link. Trackers, web seeds and sources with other schemes are ignored, as clients do.

    Raises InvalidInput for other text, a link that is too long, or one without a v2 info-hash.
    """
    if not text.lower().startswith(_PREFIX) or len(text) > _MAX_LENGTH:
        raise InvalidInput(f"'{shown(text)}' is not a magnet link", hint=_HINT)
    try:
        fields = parse_qsl(text[len(_PREFIX) :], max_num_fields=4 * MAX_URLS)
    except ValueError:
        raise InvalidInput("the magnet link has too many fields") from None
    hashes = {
        found[1].lower() for key, value in fields if _topic(key) == "xt" and (found := _MULTIHASH.fullmatch(value))
    }
    if len(hashes) != 1:
        v1 = any(value.lower().startswith("urn:btih:") for _, value in fields)
        kind = "v1 only" if v1 and not hashes else "without one v2 info-hash"
        raise InvalidInput(f"the magnet link is {kind}", hint=_HINT)
    return Magnet(
        info_hash=hashes.pop(),
        name=next((value for key, value in fields if key == "dn"), None),
        trackers=_urls(fields, "tr", TRACKER_SCHEMES),
        webseeds=_urls(fields, "ws", WEB_SCHEMES),
        sources=_urls(fields, "xs", WEB_SCHEMES),
    )


def _topic(key: str) -> str:
    """The key without the number of a repeated one: `xt.1`, `tr.2`."""
    return key.partition(".")[0]


def _urls(fields: Sequence[tuple[str, str]], topic: str, schemes: tuple[str, ...]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for key, value in fields:
        if _topic(key) != topic:
            continue
        try:
            found[check_url(value, schemes, "address")] = None
        except InvalidInput:
            continue
    return tuple(found)[:MAX_URLS]
