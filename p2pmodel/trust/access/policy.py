"""The decision whether a client may do something: subjects and rules in, a decision with its reason out. Pure.

Invariants, to re-check when editing:
1. Once there is a rule, what no rule allows is refused.
2. A deny rule that matches wins, wherever it stands.
3. The own user of the process and administrators are bound by no rule: they can change the rules.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Literal

from p2pmodel.config.sections.trust import AccessRule

Kind = Literal[
    "anyone", "hub", "local", "server", "member", "administrator", "publisher", "token", "user", "oidc", "certificate"
]
_UNBOUND = ("local", "administrator")


class Verb(StrEnum):
    """The action of a client."""

    READ = "read"
    INFER = "infer"
    PUBLISH = "publish"
    OPERATE = "operate"


_OF_EVERY_CLIENT = frozenset((Verb.READ, Verb.INFER))
_WITHOUT_RULES: dict[Kind, frozenset[Verb]] = {
    "server": frozenset(Verb),
    "certificate": frozenset(Verb),
    "publisher": _OF_EVERY_CLIENT | {Verb.PUBLISH},
    "anyone": frozenset(Verb),
    "hub": frozenset(Verb),
}
"""The verbs of clients of a server without rules; kinds not named may read and infer. Whether it admits clients
without a credential at all is decided before: `anyone` are then the clients of an open server."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A client as a server knows it."""

    kind: Kind
    name: str = ""
    groups: frozenset[str] = frozenset()
    with_hub_token: bool = False
    """Whether the client also sends a hub token of its own."""

    @property
    def label(self) -> str:
        """As rules and logs name it: `user:anna`, `local`."""
        return f"{self.kind}:{self.name}" if self.name else self.kind

    @property
    def names(self) -> list[str]:
        """All that patterns of rules may match."""
        hub = ["hub"] if self.with_hub_token else []
        return [self.label, "anyone", *hub, *(f"group:{group}" for group in self.groups)]


ANYONE = Subject("anyone")
LOCAL = Subject("local")
SERVER = Subject("server")
ADMINISTRATOR = Subject("administrator")


@dataclass(frozen=True, slots=True)
class Decision:
    """`ask_mirror`: a restricted model needs a mirror's yes to this client, too."""

    allowed: bool
    reason: str
    ask_mirror: bool = False


class AccessPolicy:
    """The rules in force. `closed`: without rules everything is refused."""

    def __init__(self, rules: Sequence[AccessRule] = (), *, closed: bool = False) -> None:
        self._rules = tuple(rules)
        self._closed = closed

    @property
    def has_rules(self) -> bool:
        """Whether access is decided by rules."""
        return bool(self._rules) or self._closed

    def decide(self, subject: Subject, verb: Verb, repo: str | None) -> Decision:
        """Whether `subject` may do `verb` with `repo`; None: with no single repository."""
        if subject.kind in _UNBOUND:
            return Decision(True, "own user" if subject.kind == "local" else "administrator")
        if not self.has_rules:
            allowed = verb in _WITHOUT_RULES.get(subject.kind, _OF_EVERY_CLIENT)
            return Decision(allowed, "no rules", ask_mirror=allowed)
        matching = [(n, rule) for n, rule in enumerate(self._rules, 1) if _matches(rule, subject, verb, repo)]
        for number, rule in matching:
            if rule.action == "deny":
                return Decision(False, f"rule {number} denies it")
        allowing = [(n, rule) for n, rule in matching if rule.action == "allow"]
        for number, rule in allowing:
            if not _by_hub_alone(rule, subject):
                return Decision(True, f"rule {number}")
        return Decision(True, f"rule {allowing[0][0]}", ask_mirror=True) if allowing else Decision(False, "no rule")

    def may_ever(self, subject: Subject, verb: Verb) -> bool:
        """Whether some repository may exist with which `subject` may do `verb`."""
        if subject.kind in _UNBOUND or not self.has_rules:
            return self.decide(subject, verb, None).allowed
        return any(r.action == "allow" and verb in r.verbs and _names(r, subject) for r in self._rules)


def _matches(rule: AccessRule, subject: Subject, verb: Verb, repo: str | None) -> bool:
    return verb in rule.verbs and _names(rule, subject) and _covers(rule.repos, repo)


def _names(rule: AccessRule, subject: Subject) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in rule.subjects for name in subject.names)


def _by_hub_alone(rule: AccessRule, subject: Subject) -> bool:
    """Whether the rule matches `subject` only as a client with a hub token of its own."""
    others = [name for name in subject.names if name != "hub"]
    return not any(fnmatchcase(name, pattern) for pattern in rule.subjects for name in others)


def _covers(patterns: Sequence[str], repo: str | None) -> bool:
    if repo is None:
        return "*" in patterns
    return any(fnmatchcase(repo.lower(), pattern.lower()) for pattern in patterns)
