"""What a node reports about itself beside its demand, over the connection that it keeps for leases or an assembly."""

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from p2pmodel.coordinator.rollout.messages import report_of
from p2pmodel.coordinator.server.rollouts.registry import Rollouts
from p2pmodel.core.content.names import RepoId


class NodeNumbers:
    """Passes the key `report` of a node's messages to the roll-outs of its snapshot.

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
