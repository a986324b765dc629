"""Roll-outs at a coordinator: begin, read, watch and end them, and report the state of nodes."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import aiohttp

from p2pmodel.coordinator.client.coordinators import Coordinator
from p2pmodel.coordinator.client.transport import (
    JSON_BODY,
    NETWORK_ERRORS,
    NO_HEADERS,
    call,
    refusal,
    refused,
    session,
    unreachable,
)
from p2pmodel.coordinator.rollout.messages import (
    MAX_ON_BEHALF,
    MAX_ROLLOUT,
    head_of,
    node_of,
    object_text,
    parsed_object,
    report_plain,
    rollout_id,
    spec_plain,
    view_of,
)
from p2pmodel.coordinator.rollout.nodes import NodeReport, RolloutNode
from p2pmodel.coordinator.rollout.rollout import RolloutSpec, RolloutView
from p2pmodel.core.content.names import check_node_name
from p2pmodel.errors import InvalidInput, P2PModelError, Unavailable
from p2pmodel.http_pool import HttpPool, sent_events

T = TypeVar("T")

TIMEOUT = 10.0
"""Seconds in which a coordinator must answer."""
LOST_FOR = 300.0
"""Seconds for which a watch waits for a coordinator that is gone."""
RETRY = 1.0
"""Seconds between two attempts to watch."""
SILENCE = 30.0
"""Seconds without an event after which the connection counts as lost; a coordinator sends one every 5 s."""


@dataclass(frozen=True, slots=True)
class SnapshotReport:
    """A node's own report on one snapshot."""

    repo: str
    commit: str
    report: NodeReport


class RolloutClient:
    """The roll-outs of one coordinator, with this user's tokens. `http` are connections to share.

    Calls raise Unavailable for a coordinator that does not answer within `timeout` seconds, AccessDenied for a token
    that it does not accept, and what else it answers.
    """

    def __init__(self, coordinator: Coordinator, timeout: float = TIMEOUT, http: HttpPool | None = None) -> None:
        self._coordinator = coordinator
        self._timeout = timeout
        self._http = http

    async def create(self, spec: RolloutSpec) -> RolloutView:
        """Begin a roll-out, or return the open one of the same snapshot, nodes and gates; its deadline counts anew."""
        return self._view(await self._call("POST", "/rollouts", spec_plain(spec), publishing=True))

    async def read(self, ident: str) -> RolloutView:
        """One roll-out. Raises NotFound."""
        return self._view(await self._call("GET", f"/rollouts/{rollout_id(ident)}"))

    async def all(self) -> list[RolloutView]:
        """All roll-outs, the latest first, without their nodes; `summaries` has their reports."""
        return [self._read(head_of, plain, ()) for plain in await self.summaries()]

    async def summaries(self) -> list[dict[str, Any]]:
        """All roll-outs and their reports as the coordinator's JSON describes them, the latest first."""
        plain = (await self._call("GET", "/rollouts")).get("rollouts")
        if not isinstance(plain, list) or not all(isinstance(each, dict) for each in plain):
            raise Unavailable(f"coordinator {self._coordinator}: its roll-outs cannot be read")
        return plain

    async def end(self, ident: str) -> RolloutView:
        """End a roll-out. Returns its last state. Raises NotFound, Forbidden."""
        return self._view(await self._call("DELETE", f"/rollouts/{rollout_id(ident)}", publishing=True))

    async def report(self, ident: str, reports: Mapping[str, NodeReport]) -> None:
        """Report on behalf of nodes, by their names, for a launcher. Raises NotFound, and Conflict for a roll-out that
        is over."""
        plain = [(check_node_name(name), report_plain(report)) for name, report in reports.items()]
        for first in range(0, len(plain), MAX_ON_BEHALF):
            some = dict(plain[first : first + MAX_ON_BEHALF])
            await self._call("POST", f"/rollouts/{rollout_id(ident)}/nodes", {"reports": some})

    async def report_own(self, node: str, reports: Sequence[SnapshotReport]) -> frozenset[tuple[str, str]]:
        """Report the state of this node. Returns repository and commit of the snapshots with an open roll-out."""
        sent = [{"repo": r.repo, "commit": r.commit, "report": report_plain(r.report)} for r in reports]
        answer = await self._call("POST", "/rollouts/reports", {"node": check_node_name(node), "reports": sent})
        try:
            return frozenset((each["repo"], each["commit"]) for each in answer["open"])
        except (KeyError, TypeError):
            raise Unavailable(f"coordinator {self._coordinator}: its answer cannot be read") from None

    async def watch(
        self, ident: str, *, on_lost: Callable[[Unavailable], None] = lambda _error: None, lost_for: float = LOST_FOR
    ) -> AsyncIterator[RolloutView]:
        """The roll-out now and at each change, until it is over.

        Survives a restart of the coordinator: `on_lost` is called when the connection breaks. Raises Unavailable after
        `lost_for` seconds without one, and NotFound for a roll-out that the coordinator does not have.
        """
        clock = asyncio.get_running_loop().time
        seen = clock()
        while True:
            try:
                async for view in self._watched(rollout_id(ident)):
                    seen = clock()
                    yield view
                    if not view.open:
                        return
                error = Unavailable(f"coordinator {self._coordinator} has closed the connection")
            except Unavailable as failed:
                error = failed
            on_lost(error)
            if clock() - seen >= lost_for:
                raise error
            await asyncio.sleep(RETRY)

    async def _watched(self, ident: str) -> AsyncIterator[RolloutView]:
        """The states that one connection brings."""
        limits = aiohttp.ClientTimeout(total=None, sock_connect=self._timeout, sock_read=SILENCE)
        nodes: dict[str, RolloutNode] = {}
        try:
            async with (
                session(self._timeout, self._http) as http,
                http.get(
                    f"{self._coordinator.url}/rollouts/{ident}/events",
                    headers=self._coordinator.headers,
                    timeout=limits,
                    ssl=self._coordinator.tls,
                    allow_redirects=False,
                ) as response,
            ):
                if response.status != 200:
                    raise refused(self._coordinator, await refusal(response))
                async for _, data in sent_events(response):
                    plain = self._read(parsed_object, data, MAX_ROLLOUT)
                    if "node" in plain:
                        node = self._read(node_of, plain["node"])
                        nodes[node.name] = node
                    elif "rollout" in plain:
                        yield self._read(head_of, plain["rollout"], tuple(nodes.values()))
        except NETWORK_ERRORS as error:
            raise unreachable(self._coordinator, error) from None

    async def _call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, publishing: bool = False
    ) -> dict[str, Any]:
        answer = await call(
            *(self._coordinator, method, path),
            timeout=self._timeout,
            http=self._http,
            body=None if body is None else object_text(body).encode(),
            headers=NO_HEADERS if body is None else JSON_BODY,
            publishing=publishing,
            limit=MAX_ROLLOUT,
        )
        return self._read(parsed_object, answer or b"", MAX_ROLLOUT)

    def _view(self, plain: dict[str, Any]) -> RolloutView:
        return self._read(view_of, plain)

    def _read(self, read: Callable[..., T], *values: object) -> T:
        """Read an answer: one that is malformed is the coordinator's fault."""
        try:
            return read(*values)
        except InvalidInput as error:
            raise Unavailable(f"coordinator {self._coordinator}: {error.what}") from None


async def first_with(coordinators: Sequence[Coordinator], ident: str) -> tuple[RolloutClient, RolloutView]:
    """The first of `coordinators` that has the roll-out. Raises the last error of those that do not."""
    failed: P2PModelError = InvalidInput("no coordinator is configured", hint="give --coordinator URL")
    for coordinator in coordinators:
        client = RolloutClient(coordinator)
        try:
            return client, await client.read(ident)
        except P2PModelError as error:
            failed = error
    raise failed
