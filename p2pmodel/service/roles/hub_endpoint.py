"""The hub endpoint role of a node: the target of `HF_ENDPOINT` on this machine.

Every client that can connect can read what the node's tokens can read, as with a mirror. A client's own token gives
that client alone access to more (`service/hub/relay`); it is neither stored nor logged. On a non-loopback address the
endpoint has a token of its own, which clients must send.
"""

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from p2pmodel.config.settings import Settings
from p2pmodel.core import notes
from p2pmodel.core.network.addresses import ListenAddress
from p2pmodel.errors import InvalidInput, LocalResource
from p2pmodel.http import limits
from p2pmodel.http.access_log import AccessLog
from p2pmodel.http.admission.access import RequestGuard, ServerToken, is_bearer
from p2pmodel.http.exposition import Traffic
from p2pmodel.http.server import serving
from p2pmodel.node.hub.client_rights import ClientRights
from p2pmodel.node.hub.on_demand import HubContent
from p2pmodel.node.hub.token_scope import TokenScope
from p2pmodel.node.node import Node
from p2pmodel.node.reporter import NoteReporter
from p2pmodel.node.snapshot.evidence.held_snapshots import HeldSnapshots
from p2pmodel.service.hub.app import hub_endpoint
from p2pmodel.service.hub.endpoint_access import EndpointAccess, HubAdmission
from p2pmodel.service.hub.library import NodeLibrary
from p2pmodel.service.hub.published_snapshots import PublishedCache
from p2pmodel.service.hub.relay import MirrorRelay
from p2pmodel.store.state.judgements import WithheldModels
from p2pmodel.trust.access.authoriser import NO_CLIENTS, ClientAccess, ServerGate
from p2pmodel.trust.content_policy import ContentPolicy

DEFAULT = ListenAddress("127.0.0.1", 8092)


@dataclass(frozen=True, slots=True)
class HubRole:
    """The address of the endpoint; None: the default address, or no endpoint if that is taken.

    `token`: token that clients on other machines must send.
    """

    listen: ListenAddress | None = None
    token: str | ServerToken | None = field(default=None, repr=False)
    access_log: Path | None = None
    tls: ssl.SSLContext | None = None
    """None: plain HTTP."""


def check_mirrors(settings: Settings, role: HubRole) -> None:
    """Raise InvalidInput for a mirror that is the endpoint itself: its downloads would request themselves."""
    own = str(role.listen or DEFAULT)
    for mirror in settings.mirrors:
        if urlsplit(mirror.endpoint).netloc.replace("localhost", "127.0.0.1") == own:
            raise InvalidInput(
                f"the mirror {mirror.endpoint} is this daemon's own endpoint",
                hint="start the daemon without HF_ENDPOINT, or name its mirrors",
            )


@asynccontextmanager
async def serving_hub(
    node: Node,
    role: HubRole,
    note: Callable[[str], None],
    grace: float,
    traffic: Traffic,
    *,
    clients: ClientAccess = NO_CLIENTS,
    held: HeldSnapshots | None = None,
) -> AsyncIterator[str | None]:
    """Serve the endpoint while the context lasts; yields its URL, or None if the default address is taken.

    `traffic` counts its requests. `clients` decides what they may read, and records what they get. `held` knows
    which snapshots the rules on signatures refuse.
    """
    async with AsyncExitStack() as stack:
        on_demand = await stack.enter_async_context(HubContent(node, NoteReporter(note)))
        log = stack.enter_context(closing(AccessLog(role.access_log))) if role.access_log else None
        listen = role.listen or DEFAULT
        scope = TokenScope(WithheldModels(node.folder / "withheld.json"), on_demand.manifests.opens)
        stack.push_async_callback(scope.close)
        settings, http, token = node.settings, node.settings.http, role.token
        rights = ClientRights(on_demand.manifests, settings.access.rights_ttl)
        stack.push_async_callback(rights.close)
        gate = ServerGate(
            clients.authoriser,
            partial(is_bearer, token=token) if token is not None else None,
            takes_hub_tokens=token is None and on_demand.manifests.takes_client_tokens,
            audit=clients.audit,
        )
        access = EndpointAccess(HubAdmission(gate, rights), clients.audit, ContentPolicy(settings.contents.rules), held)
        app = hub_endpoint(
            node.context.cache,
            library=NodeLibrary(on_demand, PublishedCache(node.context.cache)),
            access_log=log,
            http=http,
            relay=MirrorRelay(on_demand.manifests, scope, access),
            access=access,
        )
        traffic.watch(app, "hub")
        try:
            secured = role.token is not None or (role.tls is not None and http.asks_for_certificates)
            own_user = not clients.authoriser.protects
            guard = RequestGuard.of(http, secured=secured, forms=True, own_user=own_user, url=http.public_url)
            bounds = limits.connections(http)
            server = serving(
                app, listen.host, listen.port, guard=guard, grace=grace, limits=bounds, tls=role.tls, note=note
            )
            url: str | None = await stack.enter_async_context(server)
        except LocalResource as error:
            if role.listen is not None:
                raise
            note(
                notes.error(
                    "hub_endpoint_failed", f"no hub endpoint: {error}; set daemon.hub_listen to another address"
                )
            )
            url = None
        yield url
