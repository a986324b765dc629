"""Error answers that hub clients understand (X-Error-Code, X-Error-Message), and the token check."""

from collections.abc import Collection
from http import HTTPStatus

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from p2pmodel.errors import (
    EntryNotFound,
    GatedLogin,
    GatedRepo,
    P2PModelError,
    RepoNotFound,
    RevisionNotFound,
    TooManyRequests,
)
from p2pmodel.http.admission.access import WRONG_TOKEN, ServerToken, is_bearer
from p2pmodel.http.error_responses import error_middleware

RETRY_AFTER = 5
"""Seconds after which a client may request an unavailable file again."""

_CODES: dict[type[P2PModelError], str] = {
    RepoNotFound: "RepoNotFound",
    RevisionNotFound: "RevisionNotFound",
    EntryNotFound: "EntryNotFound",
    GatedRepo: "GatedRepo",
    GatedLogin: "GatedRepo",
}


def refusal(
    status: int, message: str, *, code: str | None = None, commit: str | None = None, retry_after: int = RETRY_AFTER
) -> web.Response:
    """An error answer. `code` selects the exception that the client raises; `commit` lets it record an absent file.
    `retry_after` (seconds) goes with 429 and 503."""
    headers = {"X-Error-Message": " ".join(message.encode("ascii", "replace").decode().split())}
    if code is not None:
        headers["X-Error-Code"] = code
    if commit is not None:
        headers["X-Repo-Commit"] = commit
    if status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS):
        headers["Retry-After"] = str(retry_after)
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return web.json_response({"error": message}, status=status, headers=headers)


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer the errors that handlers raise."""
    try:
        return await _translated(request, handler)
    except web.HTTPError as error:
        return refusal(error.status, error.reason)


def _respond(error: P2PModelError) -> web.Response:
    wait = error.retry_after if isinstance(error, TooManyRequests) else RETRY_AFTER
    return refusal(error.http_status, str(error), code=_CODES.get(type(error)), retry_after=wait)


_translated = error_middleware(_respond)


def bearer(token: str | ServerToken, *, public: Collection[str] = ()) -> Middleware:
    """The middleware that admits only `Authorization: Bearer <token>`; it belongs inside `errors`.
    Paths in `public` need no token.

    Without a token the answer is the hub's for private repositories: the client raises RepositoryNotFoundError, with
    the advice to log in. With a wrong token it is the hub's for invalid credentials.
    """

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get("Authorization")
        if request.path in public:
            return await handler(request)
        if given is None:
            return refusal(HTTPStatus.UNAUTHORIZED, "Invalid username or password.", code="RepoNotFound")
        if not is_bearer(given, token):
            request[WRONG_TOKEN] = True
            return refusal(HTTPStatus.UNAUTHORIZED, "Invalid credentials in Authorization header")
        return await handler(request)

    return check
