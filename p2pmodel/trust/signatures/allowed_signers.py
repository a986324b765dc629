"""The allowed signers: which keys sign for which identities (ALLOWED SIGNERS of ssh-keygen(1)).

A line is `PRINCIPALS [OPTIONS] KEYTYPE BASE64 [COMMENT]`. Options: `cert-authority`, `namespaces="..."`,
`valid-after="YYYYMMDD[HHMM[SS]][Z]"`, `valid-before="..."`. A time without Z is local time.
"""

import fnmatch
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from p2pmodel.core.content.names import printable
from p2pmodel.errors import InvalidInput
from p2pmodel.trust.signatures.public_key import SshPublicKey, fingerprint, parse_public_key
from p2pmodel.trust.signatures.wire import Malformed, decoded

_LINE = re.compile(
    r"""(?P<principals>"[^"]*"|\S+)\s+
        (?:(?P<options>(?!(?:ssh-|ecdsa-|sk-))[A-Za-z-]+(?:="[^"]*")?(?:,[A-Za-z-]+(?:="[^"]*")?)*)\s+)?
        (?P<kind>[a-z0-9@.-]+)\s+(?P<key>[A-Za-z0-9+/]+=*)(?:\s.*)?""",
    re.VERBOSE | re.IGNORECASE,
)
_OPTION = re.compile(r'([A-Za-z-]+)(?:="([^"]*)")?(?:,|$)')
_FORMS = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}


class NotAllowed(ValueError):
    """A key that may not sign. The text says why."""


@dataclass(frozen=True, slots=True)
class AllowedKey:
    """One line. `principals` and `namespaces` are lists of patterns; times in seconds since 1970."""

    principals: str
    key: bytes = field(repr=False)
    is_authority: bool = False
    namespaces: str | None = None
    valid_after: float | None = None
    valid_before: float | None = None

    def refusal(self, namespace: str, now: float) -> str:
        """Why the line does not count for `namespace` at `now`; "" if it does."""
        if self.namespaces is not None and not matches(namespace, self.namespaces):
            return f"its key is not for the namespace {namespace}"
        if self.valid_after is not None and now < self.valid_after:
            return "its key is not valid yet"
        if self.valid_before is not None and now > self.valid_before:
            return "its key has expired"
        return ""

    def identities(self, key: SshPublicKey, wanted: Sequence[str]) -> list[str]:
        """The identities for which `key` signs by this line: those of `wanted`, or all if none are wanted. One of a
        certificate is also among its principals."""
        stated = None if key.certificate is None or not self.is_authority else key.certificate.principals
        if wanted:
            return [name for name in wanted if matches(name, self.principals) and (stated is None or name in stated)]
        if stated is not None:
            return [name for name in stated if matches(name, self.principals)]
        return [name for name in self.principals.split(",") if not name.startswith("!")]


@dataclass(frozen=True, slots=True)
class Signer:
    """A signature's signer: an identity of the allowed signers, and the fingerprint of its key."""

    identity: str
    fingerprint: str
    authority: str = ""
    """Fingerprint of the authority, for a key with a certificate."""


@dataclass(frozen=True, slots=True)
class AllowedSigners:
    """The lines of one file."""

    keys: tuple[AllowedKey, ...]

    @classmethod
    def parse(cls, text: str, name: str = "allowed signers") -> "AllowedSigners":
        """The lines of `text`. Raises InvalidInput with the number of the first wrong line."""
        keys = []
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip() and not line.lstrip().startswith("#"):
                try:
                    keys.append(_parsed(line.strip()))
                except Malformed as error:
                    raise InvalidInput(f"line {number} of the {name}: {error}", hint="see ssh-keygen(1)") from None
        return cls(tuple(keys))

    def signer(self, key: SshPublicKey, namespace: str, now: float, wanted: Sequence[str] = ()) -> Signer:
        """The signer with `key`. `wanted`: the identities that count; none: all. Raises NotAllowed with the reason
        of the line that comes closest."""
        reason = "its key is not among the allowed signers"
        for line in self._lines(key):
            refusal = line.refusal(namespace, now)
            if not refusal and line.is_authority:
                refusal = _certificate_refusal(key, now)
            names = [] if refusal else line.identities(key, wanted)
            if names:
                return Signer(names[0], key.fingerprint, fingerprint(line.key) if line.is_authority else "")
            reason = refusal or "its signer is none that may sign this"
        raise NotAllowed(reason)

    def _lines(self, key: SshPublicKey) -> Iterator[AllowedKey]:
        authority = key.certificate.authority if key.certificate else None
        for line in self.keys:
            if line.key == (authority if line.is_authority else key.bare):
                yield line


def _certificate_refusal(key: SshPublicKey, now: float) -> str:
    certificate = key.certificate
    assert certificate is not None
    if not certificate.principals:
        return "its certificate names no principal"
    return "" if certificate.is_valid_at(now) else "its certificate is not valid now"


def matches(name: str, patterns: str) -> bool:
    """Whether `name` matches a pattern of the comma-separated list, and none after `!` (PATTERNS of ssh_config(5))."""
    found = False
    for pattern in patterns.split(","):
        negated = pattern.startswith("!")
        # Only * and ? are special in ssh patterns.
        plain = pattern.removeprefix("!").replace("[", "[[]")
        if fnmatch.fnmatchcase(name, plain):
            if negated:
                return False
            found = True
    return found


def _parsed(line: str) -> AllowedKey:
    match = _LINE.fullmatch(line)
    if match is None:
        raise Malformed("it is not PRINCIPALS [OPTIONS] KEYTYPE BASE64")
    options = _options(match["options"] or "")
    key = parse_public_key(decoded(match["key"]))
    if key.certificate is not None:
        raise Malformed("it has a certificate where the key of its authority belongs")
    return AllowedKey(
        principals=match["principals"].strip('"'),
        key=key.bare,
        is_authority="cert-authority" in options,
        namespaces=options.get("namespaces"),
        valid_after=_time(options["valid-after"]) if "valid-after" in options else None,
        valid_before=_time(options["valid-before"]) if "valid-before" in options else None,
    )


def _options(text: str) -> dict[str, str]:
    options = {}
    for name, value in _OPTION.findall(text):
        known = name.lower()
        if known not in ("cert-authority", "namespaces", "valid-after", "valid-before"):
            raise Malformed(f"there is no option '{printable(name, 40)}'")
        options[known] = value
    return options


def _time(text: str) -> float:
    digits = text.removesuffix("Z")
    try:
        form = _FORMS[len(digits)]
        found = datetime.strptime(digits, form)  # noqa: DTZ007 - local time without Z, as in ssh-keygen
    except (ValueError, KeyError):
        raise Malformed(f"'{printable(text, 40)}' is not a time, YYYYMMDD[HHMM[SS]][Z]") from None
    return (found.replace(tzinfo=UTC) if text.endswith("Z") else found.astimezone()).timestamp()
