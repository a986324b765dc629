"""The credentials of a coordinator: a token each for members, for every publisher, and for administrators.

Members read, announce, ask for leases and assemble. A publisher may also publish torrents, and withdraw or move what
it has set itself. An administrator may do everything. Without a member token reading, announces and leases are open;
what changes the catalog always requires a token.
"""

import hmac
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from aiohttp import web

from p2pmodel.coordinator.tokens import MEMBER_SETTING, PUBLISH_SETTING
from p2pmodel.core.content.names import RepoId
from p2pmodel.core.network.rights import Right
from p2pmodel.core.network.tokens import announce_key
from p2pmodel.errors import AccessDenied, Forbidden, InvalidInput
from p2pmodel.trust.access.authoriser import refused
from p2pmodel.trust.access.policy import ADMINISTRATOR as SUBJECT_ADMINISTRATOR
from p2pmodel.trust.access.policy import ANYONE, AccessPolicy, Subject, Verb
from p2pmodel.trust.access.policy import LOCAL as SUBJECT_LOCAL

MEMBERS = ""
"""The owner of what members assembled: any publisher may replace it."""
LOCAL = "(local)"
"""The publisher that runs the coordinator itself."""
ADMINISTRATOR = "(administrator)"

NO_RULES = AccessPolicy()

_PUBLISHER = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Rights(IntEnum):
    """The rights of a caller; each includes those below it."""

    NONE = 0
    MEMBER = 1
    PUBLISHER = 2
    ADMINISTRATOR = 3


Refused = Callable[[Subject, Verb, RepoId | None, str], None]
"""Called with what is refused to a client, and why."""


def _ignore(_subject: Subject, _verb: Verb, _repo: RepoId | None, _reason: str) -> None:
    """Record nothing."""


@dataclass(frozen=True, slots=True)
class Caller:
    """The client of a request. `name` is the owner of what it publishes."""

    rights: Rights
    name: str = MEMBERS
    subject: Subject = ANYONE
    policy: AccessPolicy = NO_RULES
    on_refused: Refused = field(default=_ignore, repr=False, compare=False)

    @property
    def is_administrator(self) -> bool:
        """Whether it may change what others have set."""
        return self.rights is Rights.ADMINISTRATOR

    def may(self, verb: Verb, repo: RepoId | None) -> bool:
        """Whether the rules, if there are any, let it do that."""
        return not self.policy.has_rules or self.policy.decide(self.subject, verb, _name(repo)).allowed

    def check(self, verb: Verb, repo: RepoId | None) -> Right:
        """By which right it does that. Raises AccessDenied, Forbidden or GatedRepo unless the rules let it."""
        if not self.policy.has_rules:
            return Right(self.subject.label, "no rules")
        decision = self.policy.decide(self.subject, verb, _name(repo))
        if not decision.allowed:
            self.on_refused(self.subject, verb, repo, decision.reason)
            raise refused(self.subject, verb, _name(repo), decision)
        return Right(self.subject.label, decision.reason)


@dataclass(slots=True)
class Credentials:
    """The tokens of one coordinator; `publishers` by the publisher's name. A reload replaces them."""

    member: str | None = field(default=None, repr=False)
    publishers: Mapping[str, str] = field(default_factory=dict, repr=False)
    admin: str | None = field(default=None, repr=False)

    def change(self, now: "Credentials") -> None:
        """Require the tokens of `now` from the next request on.

        The publisher of the coordinator's own user stays. A coordinator with a member token never loses it: its routes
        were admitted to other machines because of it.
        """
        local = {name: token for name, token in self.publishers.items() if name == LOCAL}
        self.member = now.member or self.member
        self.publishers = now.publishers or local
        self.admin = now.admin

    def authorized(self, authorization: str, least: Rights) -> Caller:
        """The caller that sent this Authorization header. Raises AccessDenied, or Forbidden for too few rights.

        `least`: the rights that the request requires; reading requires none where there is no member token.
        """
        return self.required(self.caller(authorization), least)

    def required(self, caller: Caller, least: Rights) -> Caller:
        """The same caller. Raises as `authorized`."""
        needed = Rights.MEMBER if least is Rights.NONE and self.member is not None else least
        if caller.rights >= needed:
            return caller
        publishes = needed >= Rights.PUBLISHER
        setting = PUBLISH_SETTING if publishes else MEMBER_SETTING
        if caller.rights is Rights.NONE:
            what = (
                "publishing here requires a publisher's token" if publishes else "this coordinator requires its token"
            )
            raise AccessDenied(what, hint=f"set {setting}")
        raise Forbidden("the token of a member does not publish or withdraw torrents", hint=f"set {setting}")

    def knows(self, authorization: str) -> bool:
        """Whether this Authorization header has one of the tokens."""
        return self.caller(authorization).rights > Rights.NONE

    def by_key(self, key: str) -> Caller | None:
        """The caller by the announce key in a tracker URL; None if it is that of none of the tokens."""
        given = key.encode("utf-8", "replace")
        matches = [
            (hmac.compare_digest(given, announce_key(token).encode()), caller) for token, caller in self._known()
        ]
        return next((caller for same, caller in matches if same), None)

    def caller(self, authorization: str) -> Caller:
        """The caller by its token; one without rights for any other header."""
        scheme, _, text = authorization.partition(" ")
        given = text.strip().encode("utf-8", "replace") if scheme.lower() == "bearer" else b""
        found = Caller(Rights.NONE)
        for token, caller in self._known():
            if hmac.compare_digest(given, token.encode()) and caller.rights > found.rights:
                found = caller
        return found

    def _known(self) -> list[tuple[str, Caller]]:
        known = [(token, Caller(Rights.PUBLISHER, name, _publisher(name))) for name, token in self.publishers.items()]
        if self.member is not None:
            known.append((self.member, Caller(Rights.MEMBER, subject=Subject("member"))))
        if self.admin is not None:
            known.append((self.admin, Caller(Rights.ADMINISTRATOR, ADMINISTRATOR, SUBJECT_ADMINISTRATOR)))
        return known


CALLER = web.RequestKey("caller", Caller)
"""Key of a request's caller."""

NO_TOKENS = Credentials()
"""Reading is open, and no client publishes."""


def _publisher(name: str) -> Subject:
    """The publisher of the coordinator's own user is that user."""
    return SUBJECT_LOCAL if name == LOCAL else Subject("publisher", name)


def _name(repo: RepoId | None) -> str | None:
    return None if repo is None else str(repo)


def check_publisher(name: str) -> str:
    """Return the name of a publisher, or raise InvalidInput."""
    if not _PUBLISHER.fullmatch(name):
        raise InvalidInput(
            "the name of a publisher has 1 to 64 letters, digits, '.', '_' or '-'", hint="rename its token file"
        )
    return name
