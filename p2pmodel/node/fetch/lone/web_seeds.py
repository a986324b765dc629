"""The seeders as web seeds of the engine (BEP 19), for a node with no others to share with.

Over HTTP a seeder sends with `sendfile`: it takes less than half of the CPU time of a connection in the swarm, and the
node nine tenths. A web seed knows no leases, and libtorrent gives up a file after one HTTP error. So this is for a node
that is alone, ends once others come, and ends for good where nothing arrives.
"""

from collections.abc import Callable

from p2pmodel.swarm.engine import SwarmTorrent, WebSeeds

SILENCE = 3.0
"""Seconds without a byte after which web seeds are given up."""


class LoneWebSeeds:
    """Web seeds of one torrent. `find` returns those that can be used now; `limited`: whether downloads have a rate
    limit, below which libtorrent (2.1) reads from web seeds in bursts of 8 MiB, and seems to have stalled between."""

    def __init__(self, find: Callable[[], WebSeeds], *, limited: Callable[[], bool]) -> None:
        self._find = find
        self._limited = limited
        self._used = WebSeeds()
        self._downloaded = -1
        self._progressed = 0.0
        self._given_up = False

    @property
    def used(self) -> bool:
        """Whether web seeds are used."""
        return bool(self._used.urls)

    def at_first(self, *, wanted: bool) -> WebSeeds:
        """Those to join the swarm with: libtorrent (2.1) connects to others only at its next whole second."""
        self._used = self._find() if wanted and not self._limited() else WebSeeds()
        return self._used

    def look(self, torrent: SwarmTorrent, now: float, *, wanted: bool, admissible: bool) -> bool:
        """Begin, go on or end; whether web seeds are used. `wanted`: this node is alone.
        `admissible`: pieces are missing, and no others have come; where the coordinator is lost, what was begun goes
        on."""
        if self.used:
            self._note_progress(torrent, now)
        use = admissible and not self._given_up and not self._limited() and (wanted or self.used)
        found = self._find() if use and torrent.fits_web_seeds else WebSeeds()
        if found != self._used:
            self._downloaded, self._progressed = -1, now
            torrent.set_web_seeds(found)
            self._used = found
        return self.used

    def _note_progress(self, torrent: SwarmTorrent, now: float) -> None:
        downloaded = torrent.status().downloaded
        if downloaded != self._downloaded:
            self._downloaded, self._progressed = downloaded, now
        self._given_up = self._given_up or now - self._progressed > SILENCE
