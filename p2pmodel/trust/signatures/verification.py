"""Whether a repository must be signed, and whether a signed statement counts.

In this order: its form, its subject, its signature, its signer.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from p2pmodel.core.files.own_files import opened, read_own
from p2pmodel.errors import InvalidInput
from p2pmodel.trust.signatures.allowed_signers import AllowedSigners, NotAllowed, Signer
from p2pmodel.trust.signatures.revocations import Revocations, parse_revocations
from p2pmodel.trust.signatures.sshsig import parse_signature
from p2pmodel.trust.signatures.statement import NAMESPACE, SignedStatement, SignedSubject
from p2pmodel.trust.signatures.wire import Malformed

UNSIGNED = "it is not signed"
_MAX_REVOCATIONS = 16 << 20


@dataclass(frozen=True, slots=True)
class Verified:
    """A statement that counts, and its signer."""

    signed: SignedStatement
    signer: Signer


@dataclass(frozen=True, slots=True)
class SignatureVerdict:
    """The first statement that counts; else None and the reason of the one that came closest."""

    found: Verified | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class SignatureVerifier:
    """Verifies by the allowed signers and the revoked keys of one moment. Pure."""

    allowed: AllowedSigners
    revoked: Revocations = field(default_factory=Revocations)

    def judge(
        self, statements: Iterable[SignedStatement], subject: SignedSubject, now: float, *, signers: Sequence[str] = ()
    ) -> SignatureVerdict:
        """The verdict on `subject`. `signers`: the identities that count; none: all that are allowed."""
        reason = UNSIGNED
        for signed in statements:
            try:
                return SignatureVerdict(Verified(signed, self._signer(signed, subject, now, signers)))
            except (Malformed, NotAllowed) as error:
                reason = f"its signature does not count: {error}"
        return SignatureVerdict(None, reason)

    def _signer(self, signed: SignedStatement, subject: SignedSubject, now: float, wanted: Sequence[str]) -> Signer:
        if difference := signed.parsed().difference(subject):
            raise NotAllowed(difference)
        signature = parse_signature(signed.signature)
        if signature.namespace != NAMESPACE:
            raise NotAllowed(f"its namespace is not {NAMESPACE}")
        if not signature.covers(signed.statement.encode()):
            raise NotAllowed("the statement was changed after it was signed")
        if self.revoked.has(signature.key):
            raise NotAllowed("its key is revoked")
        return self.allowed.signer(signature.key, NAMESPACE, now, wanted)


def read_verifier(allowed: Path, revoked: Path | None) -> SignatureVerifier:
    """The verifier by the files of the settings, as they are now. Raises InvalidInput. Blocks."""
    signers = AllowedSigners.parse(read_own(allowed, "allowed signers file"))
    return SignatureVerifier(signers, Revocations() if revoked is None else _revocations(revoked))


def _revocations(path: Path) -> Revocations:
    with opened(path, "list of revoked keys") as descriptor, open(descriptor, "rb", closefd=False) as file:
        data = file.read(_MAX_REVOCATIONS + 1)
    if len(data) > _MAX_REVOCATIONS:
        raise InvalidInput(f"the list of revoked keys {path} is longer than {_MAX_REVOCATIONS >> 20} MiB")
    return parse_revocations(data)
