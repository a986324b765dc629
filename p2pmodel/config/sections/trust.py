"""Settings of trust: which keys sign which repositories, and what an unsigned snapshot means."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from p2pmodel.config.sections.section import Section


class TrustRule(Section):
    """What the repositories that match a pattern need."""

    repos: tuple[str, ...] = Field(min_length=1)
    """Patterns of repositories, as `ORG/*` or `datasets/ORG/*`; upper and lower case are the same."""
    signature: Literal["off", "warn", "enforce"]
    """What an unsigned or wrongly signed snapshot means: nothing, a warning, or a refusal before any of it is
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
