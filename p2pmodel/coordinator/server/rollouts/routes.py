"""Roll-outs over HTTP. Errors are `{"code", "message", "hint"}` with the status of the error tree.

POST   /rollouts                     begin one (201), or find the open one of the same terms (200)
GET    /rollouts                     all, without their nodes
GET    /rollouts/<id>                one, with its nodes and its report
GET    /rollouts/<id>/events         server-sent events at each change
DELETE /rollouts/<id>                end it
POST   /rollouts/reports             a node's own reports on snapshots
POST   /rollouts/<id>/nodes          reports on behalf of nodes
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from p2pmodel.coordinator.rollout.messages import (
    MAX_ON_BEHALF,
    MAX_REPORT,
    MAX_REPORTS,
    MAX_SPEC,
    head_plain,
    node_plain,
    parsed_object,
    report_of,
    rollout_id,
    spec_of,
    view_plain,
)
from p2pmodel.coordinator.rollout.nodes import RolloutNode
from p2pmodel.coordinator.rollout.report import report_json, rollout_report
from p2pmodel.coordinator.rollout.rollout import RolloutView
from p2pmodel.coordinator.server.credentials import CALLER, Rights
from p2pmodel.coordinator.server.rollouts.registry import Rollouts
from p2pmodel.core.content.names import RepoId, check_node_name, is_commit
from p2pmodel.errors import InvalidInput, TooSlow
from p2pmodel.http.event_streams import EventStreams
from p2pmodel.trust.access.policy import Verb

BODY_TIMEOUT = 30.0
"""Seconds in which the body of a request must have arrived."""
PAUSE = 0.5
"""Seconds between two events at least."""
HEAD = "rollout"
"""Key of the roll-out itself in its event stream; it comes after the nodes that changed with it."""

_ROLLOUT = "/rollouts/{id:[0-9a-f]{4,32}}"


class RolloutRoutes:
    """The handlers around the roll-outs of one coordinator."""

    def __init__(self, rollouts: Rollouts) -> None:
        self._rollouts = rollouts
        self._streams = EventStreams(rollouts.version, pause=PAUSE)

    def table(self) -> list[tuple[str, str, Handler, Rights]]:
        """Method, path, handler, and the least rights of the caller."""
        return [
            ("POST", "/rollouts", self.handle_create, Rights.PUBLISHER),
            ("GET", "/rollouts", self.handle_list, Rights.NONE),
            ("POST", "/rollouts/reports", self.handle_reports, Rights.NONE),
            ("GET", _ROLLOUT, self.handle_get, Rights.NONE),
            ("DELETE", _ROLLOUT, self.handle_end, Rights.PUBLISHER),
            ("GET", _ROLLOUT + "/events", self.handle_events, Rights.NONE),
            ("POST", _ROLLOUT + "/nodes", self.handle_reports_on_behalf, Rights.NONE),
        ]

    async def run(self, _app: web.Application) -> Any:
        """Run the roll-outs as long as the application. For `cleanup_ctx`."""
        task = asyncio.create_task(self._rollouts.run())
        yield
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await self._rollouts.close()

    async def close(self, _app: web.Application) -> None:
        """End the event streams. For `on_shutdown`."""
        await self._streams.close()

    async def handle_create(self, request: web.Request) -> web.Response:
        """Begin a roll-out. 201 with its JSON, or 200 with that of the open one of the same terms."""
        spec = spec_of(await _body(request, MAX_SPEC))
        request[CALLER].check(Verb.PUBLISH, spec.repo)
        view, is_new = await self._rollouts.create(spec, request[CALLER])
        return web.json_response(_whole(view), status=201 if is_new else 200)

    async def handle_list(self, request: web.Request) -> web.Response:
        """All roll-outs, the latest first, each with its report."""
        views = [view for view in self._rollouts.views() if request[CALLER].may(Verb.READ, view.spec.repo)]
        plain = [head_plain(view) | {"report": report_json(rollout_report(view))} for view in views]
        return web.json_response({"rollouts": plain})

    async def handle_get(self, request: web.Request) -> web.Response:
        """One roll-out."""
        return web.json_response(_whole(self._view(request, Verb.READ)))

    async def handle_end(self, request: web.Request) -> web.Response:
        """End a roll-out. Returns its last state."""
        self._view(request, Verb.PUBLISH)
        return web.json_response(_whole(await self._rollouts.end(request.match_info["id"], request[CALLER])))

    async def handle_events(self, request: web.Request) -> web.StreamResponse:
        """Stream a roll-out: each node, and the roll-out itself, whenever it changes."""
        ident = rollout_id(request.match_info["id"])
        self._view(request, Verb.READ)
        return await self._streams.serve(request, _Changes(lambda: self._rollouts.view(ident)).states, forever=True)

    async def handle_reports(self, request: web.Request) -> web.Response:
        """Take a node's own reports. Returns the roll-outs that they went to."""
        plain = await _body(request, MAX_REPORT)
        name, reports = plain.get("node"), plain.get("reports")
        name = check_node_name(name if isinstance(name, str) else "")
        if not isinstance(reports, list) or len(reports) > MAX_REPORTS:
            raise InvalidInput(f"'reports' is a list of at most {MAX_REPORTS} reports")
        parsed = [(*_snapshot(each), report_of(each.get("report"))) for each in reports]
        open_rollouts = []
        for repo, commit, report in parsed:
            if self._rollouts.is_open(repo, commit) and request[CALLER].may(Verb.READ, repo):
                ids = await self._rollouts.report(name, repo, commit, report)
                open_rollouts.append({"repo": str(repo), "commit": commit, "rollouts": ids})
        return web.json_response({"open": open_rollouts})

    async def handle_reports_on_behalf(self, request: web.Request) -> web.Response:
        """Take reports on behalf of nodes, all or none. Returns the roll-out without its nodes."""
        self._view(request, Verb.READ)
        reports = (await _body(request, MAX_SPEC)).get("reports")
        if not isinstance(reports, dict) or not 0 < len(reports) <= MAX_ON_BEHALF:
            raise InvalidInput(f"'reports' has the reports of 1 to {MAX_ON_BEHALF} nodes by their names")
        parsed = {check_node_name(name): report_of(report) for name, report in reports.items()}
        view = await self._rollouts.report_on_behalf(request.match_info["id"], parsed)
        return web.json_response(head_plain(view))

    def _view(self, request: web.Request, verb: Verb) -> RolloutView:
        """The roll-out that a request names. Raises unless the caller may do that with its repository."""
        view = self._rollouts.view(request.match_info["id"])
        request[CALLER].check(verb, view.spec.repo)
        return view


@dataclass(slots=True)
class _Changes:
    """The states of one event stream. Nodes are frozen, so the JSON of one that has not changed is used again."""

    view: Callable[[], RolloutView]
    known: dict[str, tuple[RolloutNode, dict[str, Any]]] = field(default_factory=dict)

    def states(self) -> Mapping[str, object]:
        view = self.view()
        for node in view.nodes:
            before = self.known.get(node.name)
            if before is None or before[0] is not node:
                self.known[node.name] = node, {"node": node_plain(node)}
        states: dict[str, object] = {f"node {name}": plain for name, (_, plain) in self.known.items()}
        return states | {HEAD: {HEAD: head_plain(view)}}


def _whole(view: RolloutView) -> dict[str, Any]:
    return view_plain(view) | {"report": report_json(rollout_report(view))}


def _snapshot(plain: Any) -> tuple[RepoId, str]:
    repo, commit = (plain.get("repo"), plain.get("commit")) if isinstance(plain, dict) else ("", "")
    if not isinstance(repo, str) or not isinstance(commit, str) or not is_commit(commit):
        raise InvalidInput("a report names no repository and commit")
    return RepoId(repo), commit


async def _body(request: web.Request, limit: int) -> dict[str, Any]:
    if (request.content_length or 0) > limit:
        raise InvalidInput(f"the body is longer than {limit} bytes")
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            data = await request.read()
    except TimeoutError:
        raise TooSlow(f"the body did not arrive within {BODY_TIMEOUT:g} s") from None
    return parsed_object(data, limit)


class NodeNumbers:
    """Passes the key `report` of a node's messages about leases or an assembly to the roll-outs of its snapshot.

    The node is named in the query of its connection. `request` opened the connection.
    """

    def __init__(self, rollouts: Rollouts, request: web.Request, repo: RepoId, commit: str) -> None:
        self._rollouts = rollouts
        self._name = request.query.get("node", "")
        self._repo = repo
        self._commit = commit

    def take(self, message: Mapping[str, Any]) -> None:
        """Take what `message` has for an open roll-out. Raises InvalidInput."""
        if "report" in message and self._name and self._rollouts.is_open(self._repo, self._commit):
            self._rollouts.numbers(self._name, self._repo, self._commit, report_of(message["report"]))
