"""Settings of trust: which keys sign which repositories and what an unsigned snapshot means; rules of access, machine
tokens, directories of users, and what is recorded.
"""

import fnmatch
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import NoDecode

from p2pmodel.config.checks import check_url, has_port
from p2pmodel.config.sections.section import ByteCount, Section, split_list
from p2pmodel.core.content.names import RepoId


class TrustRule(Section):
    """What the repositories that match a pattern need."""

    repos: tuple[str, ...] = Field(min_length=1)
    """Patterns of repositories, as `ORG/*` or `datasets/ORG/*`; upper and lower case are the same."""
    signature: Literal["off", "warn", "enforce"]
    """The answer to an unsigned or wrongly signed snapshot: none, a warning, or a refusal before any of it is
    downloaded. With `warn` and `enforce` a right signature vouches for a torrent, and no mirror is asked."""
    signers: tuple[str, ...] = ()
    """Identities of the allowed signers that may sign these; none: all."""


class TrustSettings(Section):
    """Signatures of snapshots, and second opinions on them."""

    allowed_signers: Path | None = None
    """File of the keys that may sign, in the form of `ssh-keygen -Y verify` (ALLOWED SIGNERS in ssh-keygen(1))."""
    revoked_signers: Path | None = None
    """File of keys that may not sign any more: a key revocation list of `ssh-keygen -k`, or public keys."""
    signing_key: Path | None = None
    """Key with which this node signs what it publishes: a private SSH key, or the public key of one in the agent."""
    signatures: Path | None = None
    """Folder of `.signatures` files that are read besides the coordinators' catalogs."""
    model_keys: Path | None = None
    """PEM file of the keys, and of the authorities of certificates, that may sign a `model.sig` (OpenSSF model
    signing)."""
    confirm: int = Field(default=0, ge=0, le=16)
    """Mirrors that must list the same files for a commit before any of it is downloaded; 0: no second opinion."""
    file_hashes: Literal["always", "unless_signed"] = "always"
    """When a file from a swarm is hashed whole, besides its pieces, before it has its name in the cache.
    `unless_signed`: not where a rule with `enforce` holds, the signature is over the torrent itself, and every piece of
    the file came in this download. This saves about a quarter of a download's CPU time; see docs/trust.md."""
    rules: tuple[TrustRule, ...] = ()
    """`[[trust.rules]]` tables; the first of which a pattern matches counts. Without one nothing is required."""

    @model_validator(mode="after")
    def _check_signers(self) -> Self:
        if self.allowed_signers is None and any(rule.signature != "off" for rule in self.rules):
            raise ValueError("rules on signatures need trust.allowed_signers")
        return self


_SUBJECT = re.compile(r"anyone|hub|server|member|(?:token|user|oidc|group|certificate|publisher):[^\s:][^\n]{0,255}")
_PATTERN = re.compile(r"[A-Za-z0-9_*?\[\]!./-]{1,200}")
_LDAP_URL = re.compile(r"ldaps?://[A-Za-z0-9.:\[\]_-]+/?")


class AccessRule(Section):
    """One rule. A deny rule that matches wins over every allow rule; what no rule allows is refused."""

    action: Literal["allow", "deny"] = "allow"
    """`allow` or `deny`."""
    subjects: tuple[str, ...] = ("anyone",)
    """Clients: `anyone`; `token:NAME`, `user:NAME` (LDAP), `oidc:SUBJECT`, `group:NAME`, `certificate:NAME`,
    `publisher:NAME`, with `*` for any part; `member` and `server`: the holder of the coordinator's or the server's own
    token; `hub`: clients with a hub token of their own that a mirror accepts for the model."""
    verbs: tuple[Literal["read", "infer", "publish", "operate"], ...] = ("read",)
    """`read`: models, torrents, announces and leases; `infer`: answers of a model of `serve`; `publish`: torrents;
    `operate`: control API, metrics, roll-outs, sync log."""
    repos: tuple[str, ...] = ("*",)
    """Repositories, as `Qwen/*`; `datasets/NAME` and `spaces/NAME` for the others. What concerns no single repository
    is matched by `*` alone."""

    @field_validator("subjects")
    @classmethod
    def _check_subjects(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            if not _SUBJECT.fullmatch(text):
                raise ValueError(f"'{text[:80]}' is not a subject: anyone, hub, server, member, or KIND:NAME")
        return value

    @field_validator("repos")
    @classmethod
    def _check_repos(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            if not _PATTERN.fullmatch(text):
                raise ValueError(f"'{text[:80]}' is not a pattern of repositories")
        return value

    @model_validator(mode="after")
    def _check_verbs(self) -> "AccessRule":
        if "operate" in self.verbs and "*" not in self.repos:
            raise ValueError("operate concerns no single repository: give it repos = ['*'], in a rule of its own")
        return self


class AccessSettings(Section):
    """Rights of clients. All servers read the same rules."""

    rules: tuple[AccessRule, ...] = ()
    """`[[access.rules]]` tables. Once there is one, what no rule allows is refused."""
    tokens_file: Path | None = None
    """File of the machine tokens that `p2pmodel token issue` makes; None: `access/tokens.json` in `state_dir`."""
    rights_ttl: float = Field(default=60.0, ge=0, le=3600)
    """Seconds for which the answer of a mirror counts, whether a client's own token opens a restricted model; also of
    the answers of the LDAP server."""


class LdapSettings(Section):
    """Users of an LDAP directory: they send name and password (HTTP basic authentication). Needs the extra `ldap`."""

    url: str | None = None
    """URL of the server, ldaps://HOST[:PORT], or ldap://HOST[:PORT], which is used with StartTLS; None: no LDAP."""
    ca_file: Path | None = None
    """PEM file of the authorities that sign its certificate; None: the system's."""
    user_dn: str | None = None
    """Distinguished name of a user, with `{user}` for the name, as `uid={user},ou=people,dc=example,dc=org`."""
    group_base: str | None = None
    """Below this entry groups are searched that list the user as `member`, and no others count; None: all groups in the
    user's `memberOf`."""
    group_depth: int = Field(default=8, ge=1, le=32)
    """Levels of groups below `group_base`: 1: those that list the user; 2: also those that list one of these; and so
    on."""
    timeout: float = Field(default=5.0, gt=0, le=60)
    """Seconds for one login."""
    connections: int = Field(default=4, ge=1, le=64)
    """Logins at a time, each on a connection of its own, which is used again: few logins need a TLS handshake. More
    than 4 help with a distant server only."""

    @field_validator("url")
    @classmethod
    def _check_ldap_url(cls, value: str | None) -> str | None:
        if value is not None and not (_LDAP_URL.fullmatch(value) and has_port(value)):
            raise ValueError("it is not ldaps://HOST[:PORT] or ldap://HOST[:PORT]")
        return value

    @model_validator(mode="after")
    def _check_user_dn(self) -> "LdapSettings":
        if self.url is not None and (self.user_dn is None or self.user_dn.count("{user}") != 1):
            raise ValueError("user_dn is missing, or does not contain {user} once")
        return self


class OidcSettings(Section):
    """Bearer tokens (JWT) of an OpenID Connect issuer. Needs the extra `oidc`."""

    issuer: str | None = None
    """URL of the issuer, exactly as its tokens name it; None: no OIDC."""
    audience: str | None = None
    """Audience that tokens must name."""
    algorithms: Annotated[tuple[str, ...], NoDecode] = ("RS256", "ES256", "EdDSA", "Ed25519")
    """Accepted signature algorithms; comma-separated in an environment variable."""
    subject_claim: str = "sub"
    """Claim with the name of the client."""
    groups_claim: str = "groups"
    """Claim with the list of its groups."""
    keys_ttl: float = Field(default=300.0, gt=0)
    """Seconds for which the issuer's keys are kept; a token with an unknown key id fetches them sooner."""
    ca_file: Path | None = None
    """PEM file of certificate authorities trusted for the issuer, besides the system's."""

    @field_validator("algorithms", mode="before")
    @classmethod
    def _split_algorithms(cls, value: Any) -> Any:
        return split_list(value, ",")

    @field_validator("algorithms")
    @classmethod
    def _check_algorithms(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        known = {f"{family}{bits}" for family in ("RS", "PS", "ES") for bits in (256, 384, 512)}
        known |= {"EdDSA", "Ed25519", "Ed448"}
        if not value or not known.issuperset(value):
            raise ValueError(f"choose from {', '.join(sorted(known))}: 'none' and shared keys (HS...) are not accepted")
        return value

    @field_validator("issuer")
    @classmethod
    def _check_issuer(cls, value: str | None) -> str | None:
        if value is not None:
            check_url(value)
        return value

    @model_validator(mode="after")
    def _check_audience(self) -> "OidcSettings":
        if self.issuer is not None and not self.audience:
            raise ValueError("audience is missing: tokens for other services would be accepted")
        return self


class AuditSettings(Section):
    """The audit log: which client got which file, and by which right."""

    folder: Path | None = None
    """Folder of the log of each server; None: `audit` in `state_dir`."""
    enabled: bool = False
    """Keep the audit log. A request that cannot be recorded is refused."""
    rotate_bytes: ByteCount = Field(default=64 << 20, ge=4096)
    """Size at which the log goes on in a new file, and its first line covers the last one before."""


class ContentRule(Section):
    """What snapshots of some repositories may contain. Every rule that matches a repository applies."""

    repos: tuple[str, ...] = ("*",)
    """Repositories, as `Qwen/*`."""
    formats: tuple[Literal["safetensors", "gguf", "onnx", "pickle", "keras", "tflite", "msgpack", "code"], ...] = ()
    """Formats of weights that are accepted, and `code` for Python files; empty: all. Files of no known format are
    always accepted."""
    licenses: tuple[str, ...] = ()
    """Licences in the model card that are accepted, as `apache-2.0` or `llama*`; empty: all."""
    refused_files: tuple[str, ...] = ()
    """Patterns of files that are refused, as `*.exe`."""


class ContentSettings(Section):
    """The policy on contents. It is applied before a file is published to clients."""

    rules: tuple[ContentRule, ...] = ()
    """`[[contents.rules]]` tables."""


def rule_of(rules: Iterable[TrustRule], repo: RepoId) -> TrustRule | None:
    """The first of `rules` with a pattern that matches `repo`; None if nothing is required of it."""
    for rule in rules:
        if any(fnmatch.fnmatchcase(repo.folded, pattern.lower()) for pattern in rule.repos):
            return None if rule.signature == "off" else rule
    return None
