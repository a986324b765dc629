"""Private swarms over HTTP: GET /private/<info-hash> is a WebSocket with `coordinator/private/messages`.

A node that may have the snapshot gets a certificate of the cluster's authority, valid for minutes and for this commit
alone, and the addresses of the other nodes in the swarm. Its connection is its presence. The access of each is judged
again every `LOOK_EVERY` seconds: a node that may no longer have the snapshot is put out, and all others are told at
once.
"""

import asyncio
import datetime as dt
import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from aiohttp import WSCloseCode, WSMsgType, web

from p2pmodel.config.sections.coordinator import PrivateSettings
from p2pmodel.coordinator.leases.messages import NGINX_UPGRADE, NO_UPGRADE
from p2pmodel.coordinator.private.access import NodeIdentity, RevokedNodes, SnapshotAccess
from p2pmodel.coordinator.private.issued import IssuedCertificates
from p2pmodel.coordinator.private.members import SwarmAddresses, SwarmMembers
from p2pmodel.coordinator.private.messages import (
    MAX_REQUEST,
    MembershipGrant,
    MembershipRequest,
    parse_request,
    text_of,
)
from p2pmodel.coordinator.server.access import CoordinatorAccess
from p2pmodel.coordinator.server.catalog.catalog import Catalog
from p2pmodel.coordinator.server.catalog.publication import Publication
from p2pmodel.coordinator.server.credentials import CALLER, NO_TOKENS, Rights
from p2pmodel.coordinator.server.issued_record import IssuedRecord
from p2pmodel.core.content.names import RepoId
from p2pmodel.core.network.addresses import parsed_address
from p2pmodel.errors import AccessDenied, Forbidden, InvalidInput, NotFound, Unavailable, UpgradeRequired
from p2pmodel.http.admission.peer_identity import certificate_name
from p2pmodel.trust.access.policy import Verb
from p2pmodel.trust.certificates import Authority, root_of, serial_of

LOOK_EVERY = 0.4
"""Seconds between two judgements of the same node."""
GATHER = 0.05
"""Seconds in which nodes that come are collected before all are told."""
GATHER_A_NODE = 1e-3
"""Seconds more for each node in the swarm: each is told all addresses."""
HEAD_START = 0.1
"""Seconds that the others have to admit a new node before it is told of them."""
REQUEST_SECONDS = 10.0
SEND_SECONDS = 5.0
MAX_NODES = 10_000
"""Most nodes of one swarm."""

_numbers = itertools.count()


def utc_now() -> dt.datetime:
    """The time of certificates."""
    return dt.datetime.now(dt.UTC)


@dataclass(eq=False, slots=True)
class _Member:
    """One connection. Its task sends the state when `changed` is set, and a new certificate in time."""

    name: str
    node: NodeIdentity
    asked: MembershipRequest
    socket: web.WebSocketResponse
    request: web.Request
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    told: bool = False
    refusal: str = ""
    """Why it was put out; "" while it is in."""
    certificate: str = field(default="", repr=False)
    renewed: float = 0.0


@dataclass(eq=False, slots=True)
class _PrivateSwarm:
    publication: Publication
    members: SwarmMembers
    connected: dict[str, _Member] = field(default_factory=dict)
    addresses: SwarmAddresses = field(default_factory=SwarmAddresses)
    listed: frozenset[str] = frozenset()
    """The admitted addresses, as its members were told."""
    timer: asyncio.TimerHandle | None = None


class PrivateSwarms:
    """The private swarms of a coordinator. `authority`: None where the coordinator has none; `access` decides.
    `record`: what outlives a restart; without one a restart forgets which certificates are withdrawn."""

    def __init__(
        self,
        catalog: Catalog,
        settings: PrivateSettings,
        *,
        authority: Authority | None = None,
        access: SnapshotAccess | None = None,
        record: IssuedRecord | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], dt.datetime] = utc_now,
    ) -> None:
        self._catalog = catalog
        self._settings = settings
        self._authority = authority
        self._access = access or RevokedNodes(settings.revoked)
        self._record = record or IssuedRecord()
        self._clock = clock
        self._now = now
        self._swarms: dict[str, _PrivateSwarm] = {}
        self._clients = CoordinatorAccess(NO_TOKENS)

    @classmethod
    def of(
        cls,
        catalog: Catalog,
        settings: PrivateSettings,
        *,
        folder: Path | None = None,
        note: Callable[[str], None] = lambda _line: None,
    ) -> "PrivateSwarms":
        """The private swarms of a coordinator with `settings`; `folder` keeps their state. Reads the authority:
        blocks for a moment, and raises InvalidInput."""
        if settings.ca_key is None:
            return cls(catalog, settings)
        if settings.ca_file is None:
            raise InvalidInput("private.ca_key needs the certificate of the authority", hint="set private.ca_file")
        authority = Authority.read(settings.ca_file, settings.ca_key)
        return cls(catalog, settings, authority=authority, record=IssuedRecord(folder, note))

    def admit_by(self, access: CoordinatorAccess) -> None:
        """Follow the rules on clients of `access`, too."""
        self._clients = access

    def revoke(self, settings: PrivateSettings) -> None:
        """Apply `private.revoked` of settings that were read again."""
        if isinstance(self._access, RevokedNodes):
            self._access.change(settings.revoked)

    def covers(self, repo: RepoId) -> bool:
        """Whether the swarms of this repository must be private."""
        return self._settings.covers(str(repo))

    def check_publication(self, publication: Publication) -> None:
        """Raise InvalidInput for a public torrent of a private repository, and for one of another authority."""
        if publication.authority is None:
            if self.covers(publication.repo):
                raise InvalidInput(
                    f"{publication.repo} is private at this coordinator, and its torrent is a public one",
                    hint="seed it with --private",
                )
            return
        root = root_of(publication.authority.encode(), "this .torrent")
        if self._authority is None or root != self._authority.certificate:
            raise InvalidInput(
                "this coordinator has not the authority of this private torrent",
                hint="set the same private.ca_file for the seeder and the coordinator",
            )

    def check(self, request: web.Request, publication: Publication) -> None:
        """Raise Forbidden if the client of `request` may not have a private snapshot."""
        if publication.authority is not None:
            self._check(_identity(request), publication)

    def tracks(self, repo: RepoId | None) -> bool:
        """Whether the tracker has swarms of torrents of `repo`. None: of a torrent that is not known here; with an
        authority it may be a private one, of which the catalog was lost or which was withdrawn."""
        return repo is not None or self._authority is None

    def lists(self, info_hash: bytes, address: str) -> bool:
        """Whether the tracker answers a client at `address` that announces by these 20 bytes: in a private swarm at
        addresses of members alone, whatever key it announces with. A coordinator without an authority knows none."""
        publication = self._catalog.announced_by(info_hash)
        if publication is None or publication.authority is None or self._authority is None:
            return True
        swarm = self._swarms.get(publication.info_hash)
        return swarm is not None and address in swarm.listed

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve one node of a private swarm until it leaves, or is put out. Raises Forbidden."""
        publication = self._catalog.by_info_hash(request.match_info["info_hash"].lower())
        if publication.authority is None:
            raise InvalidInput("this swarm is public: it needs no certificate")
        if self._authority is None:
            raise Unavailable(
                "this coordinator admits no node to private swarms", hint="set private.ca_file and private.ca_key there"
            )
        node = _identity(request)
        try:
            request[CALLER].check(Verb.READ, publication.repo)
            self._check(node, publication)
        except AccessDenied:
            swarm = self._swarm(publication)
            swarm.members.bar(node.address, self._clock())
            self._tell(swarm)
            raise
        if len(self._swarm(publication).connected) >= MAX_NODES:
            raise InvalidInput(f"this swarm has {MAX_NODES} nodes already")
        socket = web.WebSocketResponse(heartbeat=10.0, max_msg_size=MAX_REQUEST, timeout=SEND_SECONDS)
        if not socket.can_prepare(request):
            raise UpgradeRequired(NO_UPGRADE, hint=f"a proxy must pass it on; for nginx: {NGINX_UPGRADE}")
        await socket.prepare(request)
        try:
            asked = await _request(socket)
            node = replace(node, claimed=asked.addresses)
            if refusal := self._refusal(node, publication):
                await socket.close(code=WSCloseCode.POLICY_VIOLATION, message=refusal.encode()[:100])
                return socket
            member = _Member(str(next(_numbers)), node, asked, socket, request)
            self._renew(publication, member)
            await self._serve(self._swarm(publication), member)
        except InvalidInput as error:
            await socket.close(code=WSCloseCode.UNSUPPORTED_DATA, message=str(error).encode()[:100])
        return socket

    def refused(self, request: web.Request) -> None:
        """Bar the address of a client that was refused, before or in `handle`, at the next look.

        It may have been a member until this coordinator was restarted with other tokens: nodes that knew it then admit
        its address for a while.
        """
        with suppress(NotFound):
            publication = self._catalog.by_info_hash(request.match_info["info_hash"].lower())
            if publication.authority is not None and request.remote:
                self._swarm(publication).members.refuse(_plain(request.remote), self._clock())

    async def run(self, _app: web.Application) -> AsyncIterator[None]:
        """Judge all nodes again and again, and record certificates, while the application runs. For `cleanup_ctx`."""
        await self._record.load(self._clock())
        tasks = [asyncio.create_task(each) for each in (self._look(), self._record.run(self._issued))]
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._record.save(self._issued())

    async def close(self, _app: web.Application | None = None) -> None:
        """Close all connections. For `on_shutdown`."""
        sockets = [member.socket for swarm in self._swarms.values() for member in swarm.connected.values()]
        closing = (socket.close(code=WSCloseCode.GOING_AWAY) for socket in sockets)
        await asyncio.gather(*closing, return_exceptions=True)

    def look(self) -> None:
        """Put out every node that may no longer have its snapshot, and tell the others."""
        for swarm in list(self._swarms.values()):
            for member in swarm.connected.values():
                if not member.refusal and (refusal := self._refusal(member.node, swarm.publication)):
                    self._put_out(swarm, member, refusal, revoked=True)
            swarm.members.judge(partial(self._is_refused, swarm.publication))
            if swarm.members.addresses(self._clock()) != swarm.addresses:
                self._tell(swarm)
            if not swarm.connected and swarm.members.idle:
                self._swarms.pop(swarm.publication.info_hash, None)

    def _issued(self) -> dict[str, IssuedCertificates]:
        return {info_hash: swarm.members.issued for info_hash, swarm in self._swarms.items()}

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY)
            self.look()

    async def _serve(self, swarm: _PrivateSwarm, member: _Member) -> None:
        """Send the state whenever it changes, until the connection ends or the node is put out."""
        swarm.connected[member.name] = member
        swarm.members.enter(member.name, member.node, self._clock(), request=member.asked.request)
        self._tell_soon(swarm)
        works = [asyncio.create_task(self._send_all(swarm, member))]
        if self._clients.may_change:
            works.append(asyncio.create_task(self._watch(swarm, member)))
        try:
            async for message in member.socket:
                if message.type is not WSMsgType.TEXT:
                    break
        finally:
            for work in works:
                work.cancel()
            await asyncio.gather(*works, return_exceptions=True)
            del swarm.connected[member.name]
            swarm.members.leave(member.name, self._clock())

    async def _send_all(self, swarm: _PrivateSwarm, member: _Member) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings.lifetime / 2):
                    await member.changed.wait()
            member.changed.clear()
            if member.refusal:
                await member.socket.close(code=WSCloseCode.POLICY_VIOLATION, message=member.refusal.encode()[:100])
                return
            if self._clock() - member.renewed >= self._settings.lifetime / 2:
                self._renew(swarm.publication, member)
            known, seconds = swarm.addresses, swarm.members.http_only_for(member.name, self._clock())
            lists = (known.admitted, known.barred, known.withdrawn, known.http_only)
            state = MembershipGrant(member.certificate, *lists, seconds)
            try:
                async with asyncio.timeout(SEND_SECONDS):
                    await member.socket.send_str(text_of(state))
            except (ConnectionError, TimeoutError, RuntimeError):
                if member.request.transport:
                    member.request.transport.abort()
                return

    async def _watch(self, swarm: _PrivateSwarm, member: _Member) -> None:
        """Put the node out when the rules on clients, or the end of its token, take its right away."""
        error = await self._clients.refused_later(member.request, Verb.READ, swarm.publication.repo)
        self._put_out(swarm, member, error.what)
        self._tell(swarm)

    def _put_out(self, swarm: _PrivateSwarm, member: _Member, refusal: str, *, revoked: bool = False) -> None:
        """The caller tells the others."""
        member.refusal = refusal
        swarm.members.put_out(member.name, self._clock(), revoked=revoked)
        member.changed.set()

    def _renew(self, publication: Publication, member: _Member) -> None:
        """A new certificate for the node. Raises InvalidInput for a request that is none."""
        assert self._authority is not None
        # libtorrent compares the names of a certificate with that of the torrent, which is the commit.
        pem = self._authority.sign(
            member.asked.request.encode(),
            member.node.certificate or member.node.address,
            [publication.commit],
            now=self._now(),
            seconds=self._settings.lifetime,
        )
        member.certificate, member.renewed = pem.decode(), self._clock()
        until = member.renewed + self._settings.lifetime
        issued = self._swarm(publication).members.issued
        issued.add(serial_of(pem), member.name, member.node, until, request=member.asked.request)

    def _swarm(self, publication: Publication) -> _PrivateSwarm:
        known = self._swarms.get(publication.info_hash)
        if known is None:
            issued = self._record.restored(publication.info_hash)
            known = _PrivateSwarm(publication, SwarmMembers(self._settings.lifetime, issued))
            self._swarms[publication.info_hash] = known
        return known

    def _tell_soon(self, swarm: _PrivateSwarm) -> None:
        if swarm.timer is None:
            delay = GATHER + GATHER_A_NODE * len(swarm.connected)
            swarm.timer = asyncio.get_running_loop().call_later(delay, self._tell, swarm)

    def _tell(self, swarm: _PrivateSwarm) -> None:
        """Tell the present nodes first, and the new ones of them a moment later."""
        if swarm.timer is not None:
            swarm.timer.cancel()
            swarm.timer = None
        swarm.addresses = swarm.members.addresses(self._clock())
        swarm.listed = frozenset(swarm.addresses.admitted)
        loop = asyncio.get_running_loop()
        for member in swarm.connected.values():
            if member.told:
                member.changed.set()
            else:
                member.told = True
                loop.call_later(HEAD_START, member.changed.set)

    def _check(self, node: NodeIdentity, publication: Publication) -> None:
        if refusal := self._refusal(node, publication):
            raise Forbidden(
                f"{publication.repo} is private: {refusal}", hint="ask the operator of the coordinator for access"
            )

    def _is_refused(self, publication: Publication, node: NodeIdentity) -> bool:
        return bool(self._refusal(node, publication))

    def _refusal(self, node: NodeIdentity, publication: Publication) -> str:
        return self._access.refusal(node, publication.repo, publication.commit)


def _identity(request: web.Request) -> NodeIdentity:
    caller = request[CALLER]
    publisher = caller.name if caller.rights >= Rights.PUBLISHER else ""
    certificate = certificate_name(request)
    return NodeIdentity(_plain(request.remote or ""), (), certificate, publisher, certificate or caller.name)


def _plain(address: str) -> str:
    """An address in one spelling, that of IPv4 for one inside IPv6; "" if it is none."""
    return str(parsed_address(address) or "")


async def _request(socket: web.WebSocketResponse) -> MembershipRequest:
    """The first message. Raises InvalidInput."""
    try:
        async with asyncio.timeout(REQUEST_SECONDS):
            message = await socket.receive()
    except TimeoutError:
        raise InvalidInput("the certificate request did not arrive") from None
    if message.type is not WSMsgType.TEXT:
        raise InvalidInput("the first message is not a certificate request")
    return parse_request(message.data)
