"""Trackers of a .torrent or magnet that the user named. They are announced to, and are never coordinators.

A torrent's author chooses its trackers, so by default none of them may lie inside the cluster or on this machine.
"""

import asyncio
import socket
from collections.abc import Sequence
from urllib.parse import urlsplit

from p2pmodel.config.settings import Settings
from p2pmodel.coordinator.client.coordinators import configured, foreign_trackers
from p2pmodel.coordinator.client.urls import public_name
from p2pmodel.core import notes
from p2pmodel.core.network.egress import Egress
from p2pmodel.node.reporter import Reporter

RESOLVE_WITHIN = 3.0
"""Seconds to look up the addresses of a tracker's host."""


async def usable_trackers(trackers: Sequence[str], settings: Settings, reporter: Reporter) -> tuple[str, ...]:
    """The `trackers` that `swarm.foreign_trackers` admits, without those of the coordinators, which are used anyway."""
    foreign = foreign_trackers(tuple(dict.fromkeys(trackers)), configured(settings))
    if settings.swarm.foreign_trackers != "public":
        return foreign if settings.swarm.foreign_trackers == "any" else ()
    admitted = await asyncio.gather(*(_is_admitted(url, settings.origin.egress) for url in foreign))
    for url, usable in zip(foreign, admitted, strict=True):
        if not usable:
            line = f"the torrent's tracker {public_name(url)} is not used: it has no public address"
            hint = "name it with --coordinator, or set swarm.foreign_trackers"
            reporter.note(notes.warning("tracker_not_used", f"{line}; {hint}", tracker=public_name(url)))
    return tuple(url for url, usable in zip(foreign, admitted, strict=True) if usable)


async def _is_admitted(url: str, egress: Egress) -> bool:
    """Whether all addresses of a URL's host are public ones, or admitted by `egress`."""
    try:
        parts = urlsplit(url)
        if egress.names(parts.hostname or ""):
            return True
        async with asyncio.timeout(RESOLVE_WITHIN):
            found = await asyncio.get_running_loop().getaddrinfo(
                parts.hostname or "", parts.port or 80, type=socket.SOCK_STREAM
            )
    except (OSError, ValueError, TimeoutError):
        return False
    return bool(found) and not any(egress.refusal(str(place[4][0])) for place in found)
