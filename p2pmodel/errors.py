"""The one error tree: what went wrong, what to do about it, the exit code and the HTTP status.

Every error a user can meet is one of these. Adapters translate what their library raises at their own
edge; the command line prints `str(error)` as one line and exits with `exit_code`; the service answers
`http_status` with `code`. Nothing else is caught on the way.
"""

from typing import ClassVar


class P2PModelError(Exception):
    """Something failed. `what` says what, `hint` what the user can do; both fit on one line."""

    code: ClassVar[str] = "failed"
    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500

    def __init__(self, what: str, *, hint: str = "") -> None:
        super().__init__(what, hint)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.what}; {self.hint}" if self.hint else self.what
        return " ".join(text.split())


class InvalidInput(P2PModelError):
    """The caller's words do not make sense: a malformed reference, option, setting or request."""

    code = "invalid_input"
    exit_code = 2
    http_status = 400


class TooSlow(InvalidInput):
    """A request that did not arrive in the time there is for one."""

    code = "too_slow"
    http_status = 408


class NotFound(P2PModelError):
    """A repository, revision, file or torrent that nobody asked has."""

    code = "not_found"
    exit_code = 3
    http_status = 404


class RepoNotFound(NotFound):
    """No such repository, or it is private and the token (if any) does not open it."""

    code = "repo_not_found"


class RevisionNotFound(NotFound):
    """The repository has no such branch, tag or commit."""

    code = "revision_not_found"


class EntryNotFound(NotFound):
    """The snapshot has no such file."""

    code = "entry_not_found"


class AccessDenied(P2PModelError):
    """A token is missing, wrong, or not admitted to a gated repository."""

    code = "access_denied"
    exit_code = 4
    http_status = 401


class GatedRepo(AccessDenied):
    """The repository is gated and this token has not been granted access."""

    code = "gated_repo"
    http_status = 403


class Forbidden(AccessDenied):
    """Whatever token there is, this request may not be made this way."""

    code = "forbidden"
    http_status = 403


class Conflict(P2PModelError):
    """What is asked contradicts what is there already."""

    code = "conflict"
    http_status = 409


class IntegrityError(P2PModelError):
    """Bytes or metadata that do not match what vouches for them."""

    code = "integrity"
    exit_code = 5


class BadTorrent(IntegrityError):
    """A .torrent that cannot be used: not bencode, unsafe paths, or contradicting its own manifest."""

    code = "bad_torrent"
    http_status = 400


class WrongBytes(IntegrityError):
    """A source sent bytes that fail the hash. Names the source, the file and the expectation."""

    code = "wrong_bytes"

    def __init__(self, source: str, path: str, expected: str, got: str) -> None:
        super().__init__(
            f"{source} sent wrong bytes for {path}: expected {expected}, got {got}",
            hint="nothing of it was published; fix or remove that mirror, or add an honest one",
        )
        self.source = source
        self.path = path


class WrongTorrent(IntegrityError):
    """A torrent whose pieces, all right, do not make the content that the hub vouches for."""

    code = "wrong_torrent"


class Unavailable(P2PModelError):
    """Nobody who could answer did, within the stated bound."""

    code = "unavailable"
    exit_code = 6
    http_status = 503


class Offline(Unavailable):
    """It would have to be asked for, and this node may ask nobody."""

    code = "offline"
    http_status = 501
    """Hub clients ask again for 23 s on 503, and the answer stays the same."""


class NotYet(Unavailable):
    """It is on its way, or will be, and asking again soon is all there is to do."""

    code = "not_yet"
    http_status = 429
    """Hub clients ask again for a file on this one alone."""


class TooManyRequests(Unavailable):
    """Somebody asks more often than is allowed. `retry_after` is in seconds."""

    code = "too_many_requests"
    http_status = 429

    def __init__(self, what: str, *, hint: str = "", retry_after: int = 1) -> None:
        super().__init__(what, hint=hint)
        self.retry_after = retry_after


class LocalResource(P2PModelError):
    """This machine cannot: disk full, directory not writable, port in use."""

    code = "local_resource"
    exit_code = 7


class NoSpace(LocalResource):
    """The disk is full, or too small for what is asked."""

    code = "no_space"
    http_status = 507


class PartialCluster(P2PModelError):
    """Some nodes are ready and some are not."""

    code = "partial_cluster"
    exit_code = 8


class Interrupted(P2PModelError):
    """The user stopped the command; what was verified so far is kept."""

    code = "interrupted"
    exit_code = 130


def restored(code: str, what: str, *, hint: str = "", status: int | None = None) -> P2PModelError:
    """The error that another process reported by its `code`.

    An unknown code gives the error of the HTTP `status`, or a plain P2PModelError without one.
    """
    kind = _by_code(P2PModelError).get(code)
    if kind is None:
        kind = P2PModelError if status is None else _BY_STATUS.get(status, Unavailable)
    error = kind.__new__(kind)
    P2PModelError.__init__(error, what, hint=hint)
    return error


_BY_STATUS: dict[int, type[P2PModelError]] = {
    400: InvalidInput,
    401: AccessDenied,
    403: AccessDenied,
    404: NotFound,
    409: Conflict,
    413: InvalidInput,
}


def _by_code(kind: type[P2PModelError]) -> dict[str, type[P2PModelError]]:
    found = {kind.code: kind}
    for narrower in kind.__subclasses__():
        found = _by_code(narrower) | found
    return found
