"""Send this node's standing to its coordinators, until they have it.

A coordinator that has no roll-out of a snapshot says so, and is told of the next change, and once in a while: a
roll-out may begin later. One that cannot be reached is tried again, so a restart of it loses nothing.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress

from p2pmodel.coordinator.client.coordinators import Coordinator
from p2pmodel.coordinator.client.rollouts import RolloutClient, SnapshotReport
from p2pmodel.coordinator.rollout.links import host_links
from p2pmodel.coordinator.rollout.messages import MAX_REPORTS
from p2pmodel.core.backoff import Backoff
from p2pmodel.core.content.names import RepoId
from p2pmodel.core.progress.diagnosis import HostBounds, explain_progress
from p2pmodel.core.progress.progress import Progress
from p2pmodel.core.tasks import companions
from p2pmodel.errors import AccessDenied, NotFound, P2PModelError
from p2pmodel.http_pool import HttpPool
from p2pmodel.node.host_stats import disk_pressure, link_speed
from p2pmodel.node.rollout.own_state import RolloutStanding

NUMBERS_EVERY = 10.0
"""Seconds between reports of numbers to an open roll-out; a connection for leases carries them every second."""
LOOK_EVERY = 15.0
"""Seconds between reports of a running transfer where no roll-out is open."""
SETTLED_EVERY = 60.0
"""Seconds between reports of what is complete or has failed."""
GATHER = 0.05
"""Seconds in which changes are collected."""
CALL_SECONDS = 5.0
"""Seconds in which a coordinator must answer; a report waits there until it is on disk."""
FIRST_RETRY, LAST_RETRY = 1.0, 10.0
UNKNOWN_RETRY = 300.0
"""Seconds until a coordinator without roll-outs is asked again: it is an older version."""
LAST_WORDS = 15.0
"""Seconds for which a node that ends tries to send its last standing to an open roll-out."""
LAST_CALL = 1.0
"""The same where no roll-out is known to be open."""

Snapshot = tuple[str, str]
"""Repository and commit."""


class RolloutReports:
    """The standings of one node; `run` sends them.

    `coordinators` is called again when a token is refused. `name` is the node's, `http` are connections to share.
    `bounds` returns the node's own limits, for `why`.
    """

    def __init__(
        self,
        coordinators: Callable[[], Sequence[Coordinator]],
        name: str,
        *,
        bounds: Callable[[], HostBounds] = HostBounds,
        http: HttpPool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._http = http
        self._coordinators = coordinators
        self._bounds = bounds
        self._clock = clock
        self._standings: dict[Snapshot, RolloutStanding] = {}
        self._recipients = [_Recipient(each.url, self._client(each)) for each in coordinators()]
        self._ending = asyncio.Event()
        """Set when nothing changes any more."""
        self._earlier: dict[Snapshot, tuple[float, Progress]] = {}
        """Progress at the last report of each snapshot."""

    @property
    def open(self) -> bool:
        """Whether a coordinator has an open roll-out of one of the snapshots."""
        return any(recipient.open for recipient in self._recipients)

    def update(self, repo: RepoId, commit: str, standing: RolloutStanding) -> RolloutStanding:
        """Report this standing from now on. Returns it with the gates passed so far."""
        snapshot = str(repo), commit
        before = self._standings.get(snapshot)
        self._standings[snapshot] = standing = standing.after(before, self._clock())
        if before is None or before.essence != standing.essence:
            self._wake()
        return standing

    def ask(self, repo: RepoId, commit: str) -> None:
        """The snapshot was asked for again: a roll-out may have begun."""
        for recipient in self._recipients:
            recipient.known.pop((str(repo), commit), None)
        self._wake()

    def keep_only(self, snapshots: set[Snapshot]) -> None:
        """Forget all other snapshots."""
        for snapshot in self._standings.keys() - snapshots:
            del self._standings[snapshot]
            self._earlier.pop(snapshot, None)

    async def run(self) -> None:
        """Send until cancelled; raises nothing."""
        async with companions() as start:
            for recipient in self._recipients:
                start(self._serve(recipient))
            await asyncio.Event().wait()

    async def last_words(self, *, may_be_open: bool, on_wait: Callable[[], None]) -> None:
        """Return once the coordinators have the last standings, or after `LAST_CALL` seconds.

        `may_be_open`: a roll-out was open lately; then after `LAST_WORDS` seconds. `on_wait` is called before a long
        wait.
        """
        self._ending.set()
        told = [asyncio.create_task(self._told(recipient)) for recipient in self._recipients]
        try:
            left = await _left(told, LAST_CALL)
            if left and may_be_open:
                on_wait()
                await _left(left, LAST_WORDS - LAST_CALL)
        finally:
            for task in told:
                task.cancel()
            await asyncio.gather(*told, return_exceptions=True)

    def _wake(self) -> None:
        for recipient in self._recipients:
            recipient.changed.set()

    async def _told(self, recipient: "_Recipient") -> None:
        while self._unknown_to(recipient):
            recipient.sent.clear()
            await recipient.sent.wait()

    def _unknown_to(self, recipient: "_Recipient") -> list[Snapshot]:
        return [each for each, now in self._standings.items() if recipient.known.get(each) != now.essence]

    async def _serve(self, recipient: "_Recipient") -> None:
        backoff = Backoff(FIRST_RETRY, LAST_RETRY)
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._pause(recipient)):
                    await recipient.changed.wait()
            recipient.changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(GATHER):
                    await self._ending.wait()
            # What is known already is sent again for its numbers, and because a roll-out may have begun.
            due = self._unknown_to(recipient) or list(self._standings)
            try:
                for first in range(0, len(due), MAX_REPORTS):
                    await self._send(recipient, due[first : first + MAX_REPORTS])
                backoff.succeeded()
            except AccessDenied:
                await self._renew(recipient)
                await asyncio.sleep(LAST_RETRY)
                recipient.changed.set()
            except NotFound:
                await asyncio.sleep(UNKNOWN_RETRY)
            except P2PModelError:
                await asyncio.sleep(backoff.failed())
                recipient.changed.set()

    async def _renew(self, recipient: "_Recipient") -> None:
        """Read the coordinator's token again: it may have been replaced."""
        with suppress(P2PModelError):
            for coordinator in await asyncio.to_thread(self._coordinators):
                if coordinator.url == recipient.url:
                    recipient.client = self._client(coordinator)

    def _client(self, coordinator: Coordinator) -> RolloutClient:
        return RolloutClient(coordinator, CALL_SECONDS, self._http)

    def _pause(self, recipient: "_Recipient") -> float:
        """Seconds until the next report, if nothing changes."""
        if all(standing.settled for standing in self._standings.values()):
            return SETTLED_EVERY
        return NUMBERS_EVERY if recipient.open else LOOK_EVERY

    async def _send(self, recipient: "_Recipient", snapshots: Sequence[Snapshot]) -> None:
        bounds = await asyncio.to_thread(self._bounds)
        now = self._clock()
        standings = {each: self._standings[each] for each in snapshots if each in self._standings}
        links = host_links(bounds.link, bounds.upload_limit, bounds.limit)
        reports = [
            SnapshotReport(repo, commit, standing.report(now, self._why((repo, commit), standing, now, bounds), links))
            for (repo, commit), standing in standings.items()
        ]
        opened = await recipient.client.report_own(self._name, reports)
        recipient.known |= {snapshot: standing.essence for snapshot, standing in standings.items()}
        recipient.open = frozenset(recipient.open - standings.keys()) | opened
        recipient.sent.set()

    def _why(self, snapshot: Snapshot, standing: RolloutStanding, now: float, bounds: HostBounds) -> str:
        """The bound on the rate of a transfer since its last report."""
        if standing.settled:
            return ""
        then, before = self._earlier.get(snapshot, (now, standing.progress))
        self._earlier[snapshot] = now, standing.progress
        found = explain_progress(before, standing.progress, max(now - then, 1e-3), bounds)
        return f"{found.bound}: {found.what}"


class _Recipient:
    """One coordinator. `known`: the essence of each standing that it has taken; `open`: snapshots with an open roll-out
    there."""

    def __init__(self, url: str, client: RolloutClient) -> None:
        self.url = url
        self.client = client
        self.known: dict[Snapshot, object] = {}
        self.open: frozenset[Snapshot] = frozenset()
        self.changed = asyncio.Event()
        self.sent = asyncio.Event()


async def _left(tasks: Collection[asyncio.Task[None]], seconds: float) -> set[asyncio.Task[None]]:
    """The `tasks` that have not ended after `seconds`."""
    return (await asyncio.wait(tasks, timeout=seconds))[1] if tasks else set()


def host_bounds(download_limit: int, upload_limit: int) -> HostBounds:
    """The bounds of this machine now; reads the operating system's files."""
    return HostBounds(limit=download_limit, link=link_speed(), disk_pressure=disk_pressure(), upload_limit=upload_limit)
