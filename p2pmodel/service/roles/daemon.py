"""The daemon role: one engine, all transfers of the node, the control API over them, and the hub endpoint.

It starts from the engine outwards and reports ready when every part runs. It stops in the opposite order, each stage
bounded: first the servers (3 s at most), then the transfers leave their swarms (5 s), then the engine ends.
"""

import asyncio
import os
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from aiohttp import web

from p2pmodel.config.settings import Settings
from p2pmodel.core import notes
from p2pmodel.core.content.manifest import Manifest
from p2pmodel.core.content.names import Reference, RepoId, transfer_id
from p2pmodel.core.files.private_files import private_folder
from p2pmodel.core.network.addresses import ListenAddress
from p2pmodel.core.pace import Pace
from p2pmodel.core.tasks import companions
from p2pmodel.errors import NotFound, Untrusted
from p2pmodel.http import limits
from p2pmodel.http.admission.access import RequestGuard, ServerToken, is_bearer
from p2pmodel.http.exposition import HEALTH, Traffic
from p2pmodel.http.server import check_not_running, serving, serving_unix
from p2pmodel.node.backends import engine_of
from p2pmodel.node.fetch.job import NodeContext
from p2pmodel.node.fetch.pieces.piece_server import PieceServer, serving_pieces
from p2pmodel.node.follow.follower import Follower
from p2pmodel.node.local_address import peer_addresses
from p2pmodel.node.node import Node
from p2pmodel.node.node_folder import node_folder
from p2pmodel.node.snapshot.evidence.held_snapshots import HeldSnapshots
from p2pmodel.node.space_keeper import SpaceKeeper
from p2pmodel.service.control.api import NodeApi
from p2pmodel.service.control.app import control_app
from p2pmodel.service.control.dashboard_page import PAGE, add_dashboard
from p2pmodel.service.control.metrics import add_observation
from p2pmodel.service.roles.client_access import authoriser_of, clients_of
from p2pmodel.service.roles.hub_endpoint import HubRole, serving_hub
from p2pmodel.service.roles.own_address import reachable_urls
from p2pmodel.service.roles.reload import LIMITS, SCRUB, Reload
from p2pmodel.service.roles.source import serving_source
from p2pmodel.store.cache import HubCache
from p2pmodel.store.files.space import check_writable
from p2pmodel.swarm.engine import Engine
from p2pmodel.trust.access.authoriser import ClientAccess, ServerGate
from p2pmodel.trust.content_policy import ContentPolicy


def notify(state: str, environ: Mapping[str, str] = os.environ) -> None:
    """Send `state`, as in `READY=1`, to the socket NOTIFY_SOCKET; without that variable do nothing.

    Errors are ignored: an unreachable supervisor must not stop the service.
    """
    address = environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as line:
        line.settimeout(1.0)
        line.connect("\0" + address[1:] if address.startswith("@") else address)
        line.sendall(state.encode())


GRACE = 0.6
HUB_GRACE = 0.2
"""Grace of the hub endpoint: a longer one would not let a download finish, and clients resume."""


@dataclass(frozen=True, slots=True)
class TcpRole:
    """The TCP address of the control API in addition to the unix socket, with its access rules."""

    listen: ListenAddress
    token: ServerToken | None = None
    read_only: bool = False
    tls: ssl.SSLContext | None = None
    """None: plain HTTP."""


@dataclass(frozen=True, slots=True)
class DaemonAddresses:
    """The addresses of a running daemon as others reach it: unix socket, control API over TCP (None: not served), and
    for peers."""

    socket: Path
    url: str | None
    peers: tuple[ListenAddress, ...]
    hub: str | None = None
    """URL of the hub endpoint."""


class Daemon:
    """One run of `p2pmodel daemon`. `note` receives the events for the log, `source_tls` is that of the HTTP source."""

    def __init__(
        self,
        settings: Settings,
        tcp: TcpRole | None,
        note: Callable[[str], None],
        hub: HubRole | None = None,
        *,
        reload: Reload | None = None,
        source_tls: ssl.SSLContext | None = None,
    ) -> None:
        self._reload = reload
        self._source_tls = source_tls
        self._settings = settings
        self._hub = hub
        self._tcp = tcp
        self._note = note
        self._traffic = Traffic()

    async def run(self, on_ready: Callable[[DaemonAddresses], None]) -> None:
        """Run the node until cancelled; `on_ready` is called once clients can connect."""
        settings = self._settings
        assert settings.state_dir is not None
        assert settings.daemon.socket is not None
        path, folder = settings.daemon.socket, node_folder(settings.state_dir)
        check_not_running(path)
        for each in (settings.state_dir, folder):
            await asyncio.to_thread(private_folder, each)
        await asyncio.to_thread(check_writable, folder)
        await asyncio.to_thread(self._check_cache)
        async with AsyncExitStack() as stack:
            engine = await stack.enter_async_context(engine_of(settings))
            cache = HubCache(settings.cache_dir, settings.state_dir, policy=ContentPolicy(settings.contents.rules))
            peer = ListenAddress(*engine.address)
            source = serving_source(
                *(cache, peer, settings),
                grace=HUB_GRACE,
                note=self._note,
                traffic=self._traffic,
                tls=self._source_tls,
            )
            web_seed = await stack.enter_async_context(source)
            pace = Pace(settings.swarm.download_limit)
            pieces = await self._serve_pieces(engine, stack)
            context = NodeContext(engine, cache, pace=pace, web_seed=web_seed, upload=web_seed.pace, pieces=pieces)
            node = await stack.enter_async_context(Node(context, settings, folder, note=self._note))
            keeper, follower = SpaceKeeper(cache, settings, node, log=self._note), Follower(node)
            await follower.restore()
            start = await stack.enter_async_context(companions())
            start(keeper.run())
            self._follow_settings(node, keeper, follower)
            held = HeldSnapshots(
                cache, settings, self._note, arriving=partial(_arriving, node), on_refused=partial(_refuse, node)
            )
            if self._reload is not None:
                self._reload.work("signatures", held.look)
            known = clients_of(settings, "daemon", authoriser_of(settings, self._reload))
            clients = await stack.enter_async_context(known)
            hub = await self._serve_hub(node, stack, clients, held)
            peers = await asyncio.to_thread(peer_addresses, settings.swarm, peer)
            api = NodeApi(node, hub, str(peers[0]), follower=follower, keeper=keeper)
            app = control_app(api, http=settings.http.unpaced)
            add_observation(self._traffic.watch(app, "socket"), api, self._traffic)
            await stack.enter_async_context(self._unix(app, path))
            url = await self._serve_tcp(api, stack, clients)
            on_ready(DaemonAddresses(path, url, peers, hub))
            start(held.run())
            start(follower.run())
            notify("READY=1")
            stack.callback(notify, "STOPPING=1")
            await asyncio.Event().wait()

    async def _serve_pieces(self, engine: Engine, stack: AsyncExitStack) -> PieceServer | None:
        swarm = self._settings.swarm
        if not swarm.zone:
            return None
        server = serving_pieces(engine.address[0], swarm.piece_port, zone=swarm.zone, note=self._note)
        return await stack.enter_async_context(server)

    def _unix(self, app: web.Application, path: Path) -> AbstractAsyncContextManager[None]:
        bounds, group = limits.connections(self._settings.http), self._settings.daemon.socket_group
        return serving_unix(app, path, grace=GRACE, limits=bounds, group=group, note=self._note)

    def _follow_settings(self, node: Node, keeper: SpaceKeeper, follower: Follower) -> None:
        if self._reload is None:
            return
        schedules = ("daemon.upload_schedule", "daemon.download_schedule")
        self._reload.setting(*LIMITS, *schedules, apply=node.change_limits)
        self._reload.setting("daemon.max_active", apply=node.change_max_active)
        self._reload.setting(*SCRUB, apply=node.change_scrub)
        self._reload.setting("follow", apply=follower.change)
        self._reload.setting("store.budget", "store.low_mark", "store.unused_days", apply=keeper.change)

    def _check_cache(self) -> None:
        cache = HubCache(self._settings.cache_dir, self._settings.state_dir)
        if not cache.check_usable():
            text = f"{cache.root} cannot be written to: its snapshots are served, and nothing is downloaded to it"
            self._note(notes.warning("cache_read_only", text))

    async def _serve_hub(
        self, node: Node, stack: AsyncExitStack, clients: ClientAccess, held: HeldSnapshots
    ) -> str | None:
        if self._hub is None:
            return None
        serving_it = serving_hub(node, self._hub, self._note, HUB_GRACE, self._traffic, clients=clients, held=held)
        url = await stack.enter_async_context(serving_it)
        return await self._reachable(url) if url else None

    async def _serve_tcp(self, api: NodeApi, stack: AsyncExitStack, clients: ClientAccess) -> str | None:
        tcp = self._tcp
        if tcp is None:
            return None
        http = self._settings.http
        public = (*PAGE, HEALTH)
        secured = tcp.token is not None or (tcp.tls is not None and http.asks_for_certificates)
        guard = RequestGuard.of(http, secured=secured, public=public, own_user=not clients.authoriser.protects)
        own = partial(is_bearer, token=tcp.token) if tcp.token is not None else None
        gate = ServerGate(clients.authoriser, own, audit=clients.audit)
        app = control_app(api, tcp.token, gate=gate, read_only=tcp.read_only, public=public, http=http)
        add_observation(self._traffic.watch(app, "control"), api, self._traffic)
        add_dashboard(app)
        bounds = limits.connections(http)
        server = serving(
            *(app, tcp.listen.host, tcp.listen.port),
            guard=guard,
            grace=GRACE,
            limits=bounds,
            tls=tcp.tls,
            note=self._note,
        )
        return await self._reachable(await stack.enter_async_context(server))

    async def _reachable(self, bound: str) -> str:
        return (await asyncio.to_thread(reachable_urls, bound, self._settings))[0]


def _arriving(node: Node) -> Iterator[Manifest]:
    """The snapshots of the transfers, also of those that have nothing in the cache yet."""
    for view in node.transfers():
        found = node.found(Reference(RepoId(view.repo), view.commit))
        if found is not None:
            yield found.manifest


def _refuse(node: Node, manifest: Manifest, error: Untrusted) -> None:
    with suppress(NotFound):  # in the cache alone
        node.refuse(transfer_id(manifest.repo, manifest.commit), error)
