"""The authoriser of a process: from what a client presents to its subject, and from there to a decision.

Every server asks the same one, through a `ServerGate` that knows the server's own token.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from p2pmodel.config.sections.trust import AccessSettings
from p2pmodel.core.content.names import printable
from p2pmodel.core.network.rights import RequestCredentials, Right
from p2pmodel.errors import AccessDenied, Forbidden, GatedLogin, GatedRepo, P2PModelError, UnknownCredential
from p2pmodel.trust.access.machine_tokens import PREFIX, MachineTokens
from p2pmodel.trust.access.policy import ANYONE, LOCAL, SERVER, AccessPolicy, Decision, Subject, Verb
from p2pmodel.trust.audit_log import AuditTrail

LOGIN_HINT = "send a token that this server knows, or ask its operator for one"


class Directory(Protocol):
    """Knows clients by a kind of credential: an LDAP server, an OIDC issuer."""

    def recognises(self, presented: RequestCredentials) -> bool:
        """Whether the credential is of its kind."""

    async def subject(self, presented: RequestCredentials) -> Subject:
        """The client. Raises UnknownCredential for a wrong credential, Unavailable if it cannot be checked now."""

    async def close(self) -> None:
        """End the connections that it keeps."""


@dataclass(slots=True)
class Authoriser:
    """The rules, and what is known of clients. A reload replaces the rules."""

    policy: AccessPolicy = field(default_factory=AccessPolicy)
    tokens: MachineTokens | None = None
    directories: Sequence[Directory] = ()

    def change(self, settings: AccessSettings) -> None:
        """Apply the rules of `settings` from the next request on.

        A server that has had rules stays closed without them: it was opened to other machines because of them.
        """
        self.policy = AccessPolicy(settings.rules, closed=self.policy.has_rules)

    @property
    def protects(self) -> bool:
        """Whether clients without a credential get only what rules allow."""
        return self.policy.has_rules

    @property
    def may_change(self) -> bool:
        """Whether a client may lose a right while the server runs."""
        return self.policy.has_rules or self.tokens is not None or bool(self.directories)

    async def known(self, presented: RequestCredentials) -> Subject | None:
        """The client by its machine token, or its credential of a directory; None for a credential of another kind.

        Raises UnknownCredential, and Unavailable if a directory does not answer.
        """
        if not presented.authorization:
            return None
        token = presented.bearer
        if token.startswith(PREFIX):
            found = self.tokens.by_token(token) if self.tokens is not None else None
            if found is None:
                raise UnknownCredential("this token is unknown, expired or revoked", hint=LOGIN_HINT)
            return found.subject
        for directory in self.directories:
            if directory.recognises(presented):
                return await directory.subject(presented)
        return None

    async def close(self) -> None:
        """End the connections to directories."""
        for directory in self.directories:
            await directory.close()

    def by_key(self, key: str) -> Subject | None:
        """The client by the announce key of its machine token."""
        found = self.tokens.by_key(key) if self.tokens is not None else None
        return found.subject if found is not None else None


class ServerGate:
    """The authoriser at one server.

    `is_own`: whether an Authorization header has the server's own token; None: it has none, and admits clients without
    a credential, as far as the rules do. `takes_hub_tokens`: tokens that are not known here are the clients' own, for
    the hub; else such a token is wrong where the server has one of its own, and ignored elsewhere. `audit` records what
    is refused to a known client.
    """

    def __init__(
        self,
        authoriser: Authoriser,
        is_own: Callable[[str], bool] | None = None,
        *,
        takes_hub_tokens: bool = False,
        audit: AuditTrail | None = None,
    ) -> None:
        self.authoriser = authoriser
        self._audit = audit
        self._is_own = is_own
        self._takes_hub_tokens = takes_hub_tokens

    async def admit(self, presented: RequestCredentials, verb: str, repo: str | None) -> Right:
        """The right of a client to do `verb` with `repo`. Raises AccessDenied, Forbidden, GatedRepo, and Unavailable if
        a directory does not answer."""
        subject, token = await self._subject(presented)
        return self._decided(subject, token, Verb(verb), repo, presented.address)

    async def _subject(self, presented: RequestCredentials) -> tuple[Subject, str | None]:
        """The client, and its own hub token."""
        if presented.authorization:
            if self._is_own is not None and self._is_own(presented.authorization):
                return SERVER, None
            known = await self.authoriser.known(presented)
            if known is not None:
                return known, None
            if self._is_own is not None and not self._takes_hub_tokens:
                raise UnknownCredential("this token is not known here", hint=LOGIN_HINT)
        token = presented.bearer if self._takes_hub_tokens else ""
        if presented.certificate:
            return Subject("certificate", presented.certificate, with_hub_token=bool(token)), token or None
        if token:
            return Subject("hub"), token
        return (LOCAL if presented.local and self._is_own is None else ANYONE), None

    def _decided(self, subject: Subject, token: str | None, verb: Verb, repo: str | None, address: str) -> Right:
        policy = self.authoriser.policy
        if subject == ANYONE and self._is_own is not None and not policy.has_rules:
            raise AccessDenied("this server requires a token", hint=LOGIN_HINT)
        decision = policy.decide(subject, verb, repo)
        if not decision.allowed:
            if self._audit is not None:
                self._audit.refuse(subject.label, decision.reason, address, verb, repo or "")
            raise refused(subject, verb, repo, decision)
        return Right(subject.label, decision.reason, decision.ask_mirror, token)


def refused(subject: Subject, verb: Verb, repo: str | None, decision: Decision) -> P2PModelError:
    """The error for what a decision refuses."""
    client = printable(subject.label, 80)
    does = "get answers of" if verb is Verb.INFER else str(verb)
    what = f"may not {does} {printable(repo)}" if repo is not None else f"has no right to {verb} here"
    text = f"{client} {what} ({decision.reason})"
    hint = "see 'access.rules' in the settings of the server"
    if verb is not Verb.READ or repo is None:
        return AccessDenied(text, hint=LOGIN_HINT) if subject == ANYONE else Forbidden(text, hint=hint)
    return GatedLogin(text, hint=LOGIN_HINT) if subject == ANYONE else GatedRepo(text, hint=hint)


@dataclass(frozen=True, slots=True)
class ClientAccess:
    """The authoriser, and the audit trail if one is kept."""

    authoriser: Authoriser = field(default_factory=Authoriser)
    audit: AuditTrail | None = None


NO_CLIENTS = ClientAccess()
"""No rules, no further clients, no audit log."""
