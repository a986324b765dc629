"""This node's membership of one private swarm: its certificate, and the addresses that it admits.

It lasts as long as the torrent is in the engine, also while the snapshot is only served: certificates expire after
minutes, and other nodes come and are put out. What it admits holds for peers in the swarm, and for clients of this
node's HTTP source.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from p2pmodel.coordinator.client.coordinators import Coordinator
from p2pmodel.coordinator.client.membership import MembershipConnection
from p2pmodel.coordinator.private.messages import MembershipGrant, MembershipRequest
from p2pmodel.core import notes
from p2pmodel.core.network.addresses import Address, ListenAddress, parsed_address
from p2pmodel.errors import AccessDenied, P2PModelError, Unavailable
from p2pmodel.http_pool import HttpPool
from p2pmodel.node.local_address import local_address
from p2pmodel.node.private.admitted import AdmittedAddresses
from p2pmodel.node.reporter import Reporter
from p2pmodel.swarm.engine import AddTorrent, Admissions, Engine, SwarmCertificate, SwarmTorrent
from p2pmodel.swarm.torrents import Metainfo
from p2pmodel.tls import MutualTls

if TYPE_CHECKING:
    from p2pmodel.trust.certificates import NodeKey

LOOK_EVERY = 5.0
"""Seconds between looks at addresses that stay admitted for a while."""
REFUSED_EVERY = 0.5


class PublicSwarm:
    """The membership of a swarm that is not private: nothing to do."""

    private = False
    tls = None
    http_only = False

    async def add(self, engine: Engine, request: AddTorrent) -> SwarmTorrent:
        """Add the torrent to the engine."""
        return await engine.add(request)

    async def watch(self) -> None:
        """Wait for ever: nothing ends it."""
        await asyncio.Event().wait()

    async def close(self) -> None:
        """Do nothing."""


class SwarmMembership:
    """One membership. `join` it, then `add` the torrent, and `close` it at the end."""

    private = True

    def __init__(self, coordinators: Sequence[Coordinator], reporter: Reporter) -> None:
        self._coordinators = tuple(coordinators)
        self._reporter = reporter
        self._addresses = AdmittedAddresses()
        self._failures: dict[Coordinator, P2PModelError] = {}
        """By coordinator without a connection: the reason."""
        self._key: NodeKey | None = None
        self._certificate = ""
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._tls: MutualTls | None = None
        self._port = 0
        self.info_hash = ""
        """The info-hash of the torrent, once joined."""
        self._open_to: frozenset[Address | None] = frozenset()
        self._noted_http_only = False
        self._watchers: list[Callable[[], None]] = []

    async def join(
        self, metainfo: Metainfo, hosts: Sequence[str], *, timeout: float, http: HttpPool | None = None
    ) -> None:
        """Return once a coordinator has admitted this node. Raises AccessDenied, or Unavailable after the timeouts.

        `hosts`: the addresses at which this node listens for peers; of a wildcard address that of the route.
        """
        if not self._coordinators:
            raise AccessDenied(
                f"the swarm of {metainfo.manifest.repo} is private: a coordinator admits its nodes",
                hint="name the coordinator with --coordinator",
            )
        self._key = await asyncio.to_thread(_new_key)
        self.info_hash = metainfo.info_hash
        self._tls = MutualTls(metainfo.authority or "", metainfo.manifest.commit)
        for coordinator in self._coordinators:
            addresses = await asyncio.to_thread(_addresses, coordinator, hosts)
            connection = MembershipConnection(
                coordinator,
                metainfo.info_hash,
                MembershipRequest(self._key.request, addresses),
                timeout=timeout,
                on_membership=partial(self._take, coordinator),
                on_failure=partial(self._fail, coordinator),
                http=http,
            )
            self._tasks.append(asyncio.create_task(connection.run()))
        async with contextlib.AsyncExitStack() as undo:
            undo.push_async_callback(self.close)
            await self._admitted(3 * timeout)
            undo.pop_all()

    @property
    def certificate(self) -> SwarmCertificate:
        """The certificate of this node, as it is now."""
        assert self._key is not None, "join comes first"
        return SwarmCertificate(self._certificate, self._key.key)

    @property
    def tls(self) -> MutualTls:
        """The contexts of connections to other members, with the certificate as it is now."""
        assert self._tls is not None, "join comes first"
        return self._tls

    @property
    def admissions(self) -> Admissions:
        """The addresses that may exchange with the torrent now."""
        return self._addresses.admissions(time.monotonic())

    @property
    def http_only(self) -> bool:
        """Whether peers do not connect to an address of this node, because a node there was put out."""
        return self._addresses.http_only_for() > 0

    def refusal(self, address: str, serial: str) -> str:
        """Why a client at an IP address, with the certificate of this number, is no member now; "" if it is one."""
        if self._addresses.is_withdrawn(serial):
            return "its certificate is withdrawn"
        found = parsed_address(address)
        return "" if found is not None and found in self._open_to else "its address is not admitted"

    @property
    def port(self) -> int:
        """Where this node listens for its peers in the swarm; 0 before the torrent is added."""
        return self._port

    @contextlib.contextmanager
    def watched(self, changed: Callable[[], None]) -> Iterator[None]:
        """Call `changed` whenever other clients may be admitted than before, while the context lasts."""
        self._watchers.append(changed)
        try:
            yield
        finally:
            self._watchers.remove(changed)

    async def add(self, engine: Engine, request: AddTorrent) -> SwarmTorrent:
        """Add the torrent to the engine, and pass certificates and addresses on to it from now on."""
        certificate, admissions = self._certificate, self.admissions
        torrent = await engine.add(replace(request, certificate=self.certificate, admissions=admissions))
        self._port = engine.private_address[1]
        self._tasks.append(asyncio.create_task(self._follow(torrent, certificate, admissions)))
        return torrent

    async def watch(self) -> None:
        """Wait until every coordinator refuses this node, and raise AccessDenied."""
        while True:
            failures = list(self._failures.values())
            if len(failures) == len(self._coordinators) and all(isinstance(e, AccessDenied) for e in failures):
                raise failures[0]
            await asyncio.sleep(REFUSED_EVERY)

    async def close(self) -> None:
        """Leave the swarm's coordinators."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _take(self, coordinator: Coordinator, message: MembershipGrant) -> None:
        assert self._key is not None
        if message.certificate != self._certificate:
            self.tls.present(message.certificate, self._key.key)
        self._failures.pop(coordinator, None)
        self._certificate = message.certificate
        self._addresses.take(coordinator, message, time.monotonic())
        self._changed.set()
        self._judge_clients()
        self._note_http_only()

    def _note_http_only(self) -> None:
        """Tell the user once, and again after it has ended."""
        seconds = self._addresses.http_only_for()
        if seconds and not self._noted_http_only:
            what = (
                "private swarm: a node at an address of this node was put out. "
                f"Peers do not connect to that address for {seconds:.0f} s, until its certificate expires; "
                "this node exchanges over HTTP meanwhile"
            )
            self._reporter.note(notes.warning("http_only", what, seconds=round(seconds)))
        self._noted_http_only = seconds > 0

    def _judge_clients(self) -> None:
        now = self._addresses.clients(time.monotonic())
        barred = frozenset(map(parsed_address, now.barred))
        self._open_to = frozenset(map(parsed_address, now.admitted)) - barred
        for changed in self._watchers:
            changed()

    def _fail(self, coordinator: Coordinator, error: P2PModelError) -> None:
        known = self._failures.get(coordinator)
        if known is None or type(known) is not type(error):
            self._reporter.note(
                notes.warning("private_swarm", f"private swarm: {error.what}", coordinator=str(coordinator))
            )
        self._failures[coordinator] = error
        self._changed.set()

    async def _admitted(self, seconds: float) -> None:
        """Return with the first certificate. Raises the most telling failure once all have failed."""
        try:
            async with asyncio.timeout(seconds):
                while not self._certificate:
                    if len(self._failures) == len(self._coordinators):
                        raise _most_telling(list(self._failures.values()))
                    await self._changed.wait()
                    self._changed.clear()
        except TimeoutError:
            raise Unavailable(f"no coordinator admitted this node to the private swarm in {seconds:g} s") from None

    async def _follow(self, torrent: SwarmTorrent, certificate: str, admissions: Admissions) -> None:
        """Apply each change at once."""
        while True:
            with contextlib.suppress(Unavailable):  # it has left
                if self._certificate != certificate:
                    torrent.renew(self.certificate)
                    certificate = self._certificate
                if (now := self.admissions) != admissions:
                    torrent.admit(now)
                    admissions = now
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY):
                    await self._changed.wait()
            self._judge_clients()


def _most_telling(failures: Sequence[P2PModelError]) -> P2PModelError:
    return next((error for error in failures if isinstance(error, AccessDenied)), failures[0])


def _addresses(coordinator: Coordinator, hosts: Sequence[str]) -> tuple[str, ...]:
    """The addresses of this node for peers that reach `coordinator`. Blocks."""
    found = []
    for host in hosts:
        place = ListenAddress(host, 0)
        found.append((local_address(coordinator.url) or "") if place.unspecified else host)
    return tuple(dict.fromkeys(filter(None, found)))


def _new_key() -> "NodeKey":
    from p2pmodel.trust.certificates import NodeKey  # noqa: PLC0415 - only private swarms need X.509

    return NodeKey.new()
