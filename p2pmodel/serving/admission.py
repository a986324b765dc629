"""Rights of the clients of a served model: which right a request needs, and what of it is recorded."""

from collections.abc import Callable, Collection

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from p2pmodel.core.network.rights import OPEN
from p2pmodel.http.admission.access import ServerToken, is_bearer
from p2pmodel.http.admission.authorization import RIGHT, Gate, LocalUsers, admitted
from p2pmodel.http.exposition import METRICS
from p2pmodel.trust.access.authoriser import ClientAccess, ServerGate
from p2pmodel.trust.audit_log import AuditTrail

ANSWER = "answer"
"""The value of `what` in a line of the audit log about an answer."""


class ServingAdmission:
    """The gate of one server, and its audit log if one is kept."""

    def __init__(self, gate: Gate, audit: AuditTrail | None = None) -> None:
        self._gate = gate
        self._audit = audit
        self._users = LocalUsers()

    @classmethod
    def of(cls, clients: ClientAccess, key: ServerToken | None) -> "ServingAdmission":
        """The admission of a server with the key `key`; None: the server has no key of its own."""

        def is_own(authorization: str) -> bool:
            return key is not None and is_bearer(authorization, key)

        gate = ServerGate(clients.authoriser, is_own if key is not None else None, audit=clients.audit)
        return cls(gate, clients.audit)

    def middleware(self, repos: Callable[[], Collection[str]], public: Collection[str]) -> Middleware:
        """Admits requests for the model that has the names `repos` now: a client needs the right for each of them.

        Paths in `public` need none. It belongs inside the one that answers errors.
        """

        @web.middleware
        async def admit(request: web.Request, handler: Handler) -> web.StreamResponse:
            if request.path == METRICS:
                await self._admit(request, "operate", None)
            elif request.path not in public:
                for repo in repos():
                    await self._admit(request, "infer", repo)
            return await handler(request)

        return admit

    def record(self, request: web.Request, repo: str, commit: str) -> None:
        """Record that the client gets an answer of the model of this snapshot. Raises LocalResource if it cannot be."""
        if self._audit is not None:
            self._audit.record(request.get(RIGHT, OPEN), request.remote or "", ANSWER, repo, commit)

    async def _admit(self, request: web.Request, verb: str, repo: str | None) -> None:
        await admitted(request, self._gate, self._users, verb, repo)
