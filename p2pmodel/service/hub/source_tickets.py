"""Tokens of a node's HTTP source, one for each snapshot: leases of one open no other."""

import hmac
import secrets
from hashlib import sha256
from http import HTTPStatus

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from p2pmodel.core.content.manifest import Manifest
from p2pmodel.core.network.rights import Right
from p2pmodel.errors import AccessDenied
from p2pmodel.http.admission.access import WRONG_TOKEN, is_bearer
from p2pmodel.http.admission.authorization import RIGHT
from p2pmodel.http.exposition import HEALTH
from p2pmodel.service.hub.errors import refusal

LEASEHOLDER = Right("leaseholder", "the token of a lease", ask_mirror=True)
"""The right of a request with a token, until it is known of which snapshot it is."""


class SourceTickets:
    """The tokens of one run; as `EndpointAdmission`."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)

    def of(self, manifest: Manifest) -> str:
        """The token of a snapshot."""
        return hmac.new(self._secret, f"{manifest.repo}@{manifest.commit}".encode(), sha256).hexdigest()[:40]

    def middleware(self) -> Middleware:
        """Admits requests with a token; `check` compares it."""

        @web.middleware
        async def admit(request: web.Request, handler: Handler) -> web.StreamResponse:
            if request.path != HEALTH:
                if "Authorization" not in request.headers:
                    return refusal(HTTPStatus.UNAUTHORIZED, "Invalid username or password.", code="RepoNotFound")
                request[RIGHT] = LEASEHOLDER
            return await handler(request)

        return admit

    async def check(self, request: web.Request, manifest: Manifest, asked_as: str) -> Right:  # noqa: ARG002
        """The right of a leaseholder of the snapshot. Raises AccessDenied for the token of another one."""
        if is_bearer(request.headers.get("Authorization", ""), self.of(manifest)):
            return LEASEHOLDER
        request[WRONG_TOKEN] = True
        raise AccessDenied("Invalid credentials in Authorization header")
