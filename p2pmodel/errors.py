"""The error tree: message, hint, exit code and HTTP status of every error that a user can see.

Adapters translate the errors of their libraries. The command line prints `str(error)` as one line and exits with
`exit_code`; the service responds with `http_status` and `code`. No other code catches them.
"""

from typing import ClassVar


class P2PModelError(Exception):
    """A failure. `what`: what failed; `hint`: what the user can do. Both fit on one line."""

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
    """A malformed reference, option, setting or request."""

    code = "invalid_input"
    exit_code = 2
    http_status = 400


class InvalidField(InvalidInput):
    """A field of a request body has a value that it cannot have. `field` is its name."""

    code = "invalid_value"

    def __init__(self, what: str, *, field: str = "", hint: str = "") -> None:
        super().__init__(what, hint=hint)
        self.field = field


class UnsupportedField(InvalidField):
    """A field of a request body asks for what this server does not offer."""

    code = "unsupported_parameter"


class PromptTooLong(InvalidInput):
    """A conversation has more tokens than the model has room for."""

    code = "context_length_exceeded"


class TooSlow(InvalidInput):
    """A request that was not complete within its time limit."""

    code = "too_slow"
    http_status = 408


class UnsupportedContent(InvalidInput):
    """A request body of a kind that the server does not accept."""

    code = "unsupported_media_type"
    http_status = 415


class UpgradeRequired(InvalidInput):
    """A request for a WebSocket came without its upgrade headers."""

    code = "upgrade_required"
    http_status = 426


class NotFound(P2PModelError):
    """No source has this repository, revision, file or torrent."""

    code = "not_found"
    exit_code = 3
    http_status = 404


class RepoNotFound(NotFound):
    """No such repository, or a private one that the token (if any) gives no access to."""

    code = "repo_not_found"


class RevisionNotFound(NotFound):
    """The repository has no such branch, tag or commit."""

    code = "revision_not_found"


class EntryNotFound(NotFound):
    """The snapshot has no such file."""

    code = "entry_not_found"


class ModelNotFound(NotFound):
    """This server does not serve that model."""

    code = "model_not_found"


class AccessDenied(P2PModelError):
    """A token is missing, wrong, or not admitted to a gated repository."""

    code = "access_denied"
    exit_code = 4
    http_status = 401


class GatedRepo(AccessDenied):
    """The repository is gated, and this token has no access."""

    code = "gated_repo"
    http_status = 403


class GatedLogin(GatedRepo):
    """The repository is gated, and the request has no token."""

    code = "gated_login"
    http_status = 401


class RefusedContent(AccessDenied):
    """The policy on contents (`contents.rules`) refuses a file or a licence."""

    code = "refused_content"
    http_status = 403


class Forbidden(AccessDenied):
    """This request is not allowed with any token."""

    code = "forbidden"
    http_status = 403


class UnknownCredential(AccessDenied):
    """A credential that this server does not know, or that is no longer valid."""

    code = "unknown_credential"


class Conflict(P2PModelError):
    """The request contradicts the existing state."""

    code = "conflict"
    http_status = 409


class IntegrityError(P2PModelError):
    """Bytes or metadata that do not match their hash or their source."""

    code = "integrity"
    exit_code = 5


class BadTorrent(IntegrityError):
    """An unusable .torrent: not bencode, unsafe paths, or in contradiction to its manifest."""

    code = "bad_torrent"
    http_status = 400


class WrongBytes(IntegrityError):
    """A source sent bytes that fail the hash. Names source, file and expected hash."""

    code = "wrong_bytes"

    def __init__(self, source: str, path: str, expected: str, got: str) -> None:
        super().__init__(
            f"{source} sent wrong bytes for {path}: expected {expected}, got {got}",
            hint="nothing of it was published; correct or remove that mirror, or add another",
        )
        self.source = source
        self.path = path


class WrongTorrent(IntegrityError):
    """A torrent with pieces that pass their hashes, and files that fail those of the hub."""

    code = "wrong_torrent"


class Contradicted(IntegrityError):
    """A manifest with other files than a mirror lists for the same commit."""

    code = "contradicted"


class Untrusted(IntegrityError):
    """A snapshot or torrent without the signature that the settings require, or with a wrong one."""

    code = "untrusted"
    http_status = 403


class Unavailable(P2PModelError):
    """No source answered within the stated bound."""

    code = "unavailable"
    exit_code = 6
    http_status = 503


class Offline(Unavailable):
    """A request for something outside the cache, while this node may not use the network."""

    code = "offline"
    http_status = 501
    """Not 503, on which hub clients retry for 23 s without success."""


class ModelLoading(Unavailable):
    """The model is still on its way, from the network or onto the device. `retry_after` is in seconds."""

    code = "model_loading"

    def __init__(self, what: str, *, hint: str = "", retry_after: int = 1) -> None:
        super().__init__(what, hint=hint)
        self.retry_after = retry_after


class Unconfirmed(Unavailable):
    """A manifest came with a torrent, and no mirror answered whether it is right."""

    code = "unconfirmed"


class NotYet(Unavailable):
    """The resource is being prepared; a retry soon will succeed."""

    code = "not_yet"
    http_status = 429
    """The only status on which hub clients retry the request of a file."""


class TooManyRequests(Unavailable):
    """A client exceeds its request rate. `retry_after` is in seconds."""

    code = "too_many_requests"
    http_status = 429

    def __init__(self, what: str, *, hint: str = "", retry_after: int = 1) -> None:
        super().__init__(what, hint=hint)
        self.retry_after = retry_after


class LocalResource(P2PModelError):
    """A local failure: disk full, directory not writable, port in use."""

    code = "local_resource"
    exit_code = 7


class NoSpace(LocalResource):
    """The disk is full, or too small for the request."""

    code = "no_space"
    http_status = 507


class PartialCluster(P2PModelError):
    """Fewer hosts of a roll-out are ready than it needs; those that are stay ready."""

    code = "partial_cluster"
    exit_code = 8


class PartialUpdate(P2PModelError):
    """Some names in the cache could not be moved to their newest commits; the others were."""

    code = "partial_update"
    exit_code = 8


class Interrupted(P2PModelError):
    """The user stopped the command; verified bytes stay."""

    code = "interrupted"
    exit_code = 130


def restored(code: str, what: str, *, hint: str = "", status: int | None = None) -> P2PModelError:
    """The error that another process reported by its `code`.

    An unknown code gives the error of the HTTP `status`, or a plain P2PModelError without one.
    """
    kind = _by_code(P2PModelError).get(code)
    if kind is None:
        kind = P2PModelError if status is None else BY_STATUS.get(status, Unavailable)
    error = kind.__new__(kind)
    P2PModelError.__init__(error, what, hint=hint)
    return error


BY_STATUS: dict[int, type[P2PModelError]] = {
    400: InvalidInput,
    401: AccessDenied,
    403: AccessDenied,
    404: NotFound,
    409: Conflict,
    410: NotFound,
    413: InvalidInput,
}
"""The error of an HTTP status without a more precise code; all others mean Unavailable."""


def _by_code(kind: type[P2PModelError]) -> dict[str, type[P2PModelError]]:
    found = {kind.code: kind}
    for narrower in kind.__subclasses__():
        found = _by_code(narrower) | found
    return found
