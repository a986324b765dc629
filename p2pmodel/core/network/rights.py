"""The credentials that a client presents to a server, and its right there."""

from dataclasses import dataclass, field

LOCAL_LABEL = "local"
"""Label of this process's own user and root, over loopback or a unix socket."""


@dataclass(frozen=True, slots=True)
class RequestCredentials:
    """The credentials of a request: its Authorization header, the name in its client certificate, and whether it comes
    from a process of this process's own user or of root on this machine."""

    authorization: str = field(default="", repr=False)
    certificate: str = ""
    local: bool = False
    address: str = ""

    @property
    def bearer(self) -> str:
        """The bearer token; "" if there is none."""
        scheme, _, token = self.authorization.partition(" ")
        return token.strip() if scheme.lower() == "bearer" else ""


@dataclass(frozen=True, slots=True)
class Right:
    """An admitted request. `subject` names the client, `reason` what admits it.

    `ask_mirror`: a restricted model needs a mirror's yes to this client, too; `token` is the client's own hub token.
    """

    subject: str
    reason: str
    ask_mirror: bool = False
    token: str | None = field(default=None, repr=False)


OPEN = Right("anyone", "the server is open")
"""The right of clients of a server without rules."""
