"""Rights of the clients of a hub endpoint: which right a request needs, and refusals that hub clients understand."""

from http import HTTPStatus

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from p2pmodel.core.content.manifest import Manifest
from p2pmodel.core.network.rights import OPEN, Right
from p2pmodel.errors import AccessDenied, InvalidInput, NotFound
from p2pmodel.http.admission.authorization import RIGHT, Gate, LocalUsers, admitted, presented_by
from p2pmodel.http.exposition import HEALTH, METRICS
from p2pmodel.node.hub.client_rights import ClientRights
from p2pmodel.origin.relay.hub_paths import HubPath
from p2pmodel.service.hub.errors import refusal
from p2pmodel.service.hub.repositories import repo_of

SYNC_LOG = "/sync-log"


class HubAdmission:
    """The gate of an endpoint, and the rights of clients to restricted models."""

    def __init__(self, gate: Gate, rights: ClientRights) -> None:
        self._gate = gate
        self._rights = rights
        self._users = LocalUsers()

    def middleware(self) -> Middleware:
        """Admits requests. It belongs inside the one that answers errors."""

        @web.middleware
        async def admit(request: web.Request, handler: Handler) -> web.StreamResponse:
            wanted = asked(request)
            if wanted is None:
                return await handler(request)
            try:
                await admitted(request, self._gate, self._users, *wanted)
            except AccessDenied as error:
                refused = _login(error)
                if refused is None:
                    raise
                return refused
            return await handler(request)

        return admit

    async def check(self, request: web.Request, manifest: Manifest, asked_as: str) -> Right:
        """The right by which `request` reads the snapshot of `manifest`, requested as the repository `asked_as`.

        Raises as `Gate.admit` and `ClientRights.check`.
        """
        right: Right = request.get(RIGHT, OPEN)
        if manifest.repo.folded != asked_as.lower():  # an older name
            right = await self._gate.admit(await presented_by(request, self._users), "read", str(manifest.repo))
        if right.ask_mirror and manifest.private:
            reason = await self._rights.check(manifest, right.token)
            right = Right(right.subject, f"{right.reason}, {reason}", token=right.token)
        return right


def asked(request: web.Request) -> tuple[str, str | None] | None:
    """The verb and the repository of a request to an endpoint; None for its health."""
    path = request.path
    if path == HEALTH:
        return None
    if path in (METRICS, SYNC_LOG):
        return "operate", None
    if "repo" in request.match_info:
        return "read", repo_of(request)
    try:
        return "read", HubPath(request.rel_url.raw_path).repo_named
    except (InvalidInput, NotFound):
        return "read", None


def _login(error: AccessDenied) -> web.Response | None:
    """The hub's answer to a request without a token, or with a wrong one; None for other refusals."""
    if type(error) is AccessDenied:
        return refusal(HTTPStatus.UNAUTHORIZED, "Invalid username or password.", code="RepoNotFound")
    if error.code == "unknown_credential":
        return refusal(HTTPStatus.UNAUTHORIZED, f"Invalid credentials in Authorization header: {error}")
    return None
