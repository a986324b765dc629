"""Public keys and certificates of OpenSSH: what verifies a signature, and how a key is named.

Kinds: Ed25519, ECDSA on the NIST curves, RSA of 2048 bits or more with SHA-2; each also in a certificate. DSA, SHA-1
and keys of security tokens (`sk-`) are refused.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    SSHCertificate,
    SSHCertificateType,
    load_ssh_public_identity,
)

from p2pmodel.core.content.names import printable
from p2pmodel.trust.signatures.wire import Malformed, Reader, decoded, encoded

MIN_RSA_BITS = 2048
ED25519 = "ssh-ed25519"
CERTIFICATE = "-cert-v01@openssh.com"
_RSA_HASHES: dict[str, hashes.HashAlgorithm] = {"rsa-sha2-512": hashes.SHA512(), "rsa-sha2-256": hashes.SHA256()}
_CURVES: dict[str, hashes.HashAlgorithm] = {
    "nistp256": hashes.SHA256(),
    "nistp384": hashes.SHA384(),
    "nistp521": hashes.SHA512(),
}
_SSH_CURVES = {"secp256r1": "nistp256", "secp384r1": "nistp384", "secp521r1": "nistp521"}
_CURVE_PREFIX = "ecdsa-sha2-"
_FOR_EVER = (1 << 64) - 1

PlainKey = ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey | rsa.RSAPublicKey


@dataclass(frozen=True, slots=True)
class SshCertificate:
    """An OpenSSH certificate of a key. `authority` is the blob of the key that signed it."""

    authority: bytes = field(repr=False)
    serial: int
    key_id: str
    principals: tuple[str, ...]
    valid_after: int
    valid_before: int

    def is_valid_at(self, now: float) -> bool:
        """Whether `now`, seconds since 1970, is in its time."""
        return self.valid_after <= now and (self.valid_before == _FOR_EVER or now < self.valid_before)


@dataclass(frozen=True, slots=True)
class SshPublicKey:
    """A public key. `blob` is its form in a signature, a certificate included; `bare` the same without one."""

    blob: bytes = field(repr=False)
    bare: bytes = field(repr=False)
    key: PlainKey = field(repr=False)
    certificate: SshCertificate | None = None

    @property
    def fingerprint(self) -> str:
        """`SHA256:...` of the bare key, as `ssh-keygen -l` shows it."""
        return fingerprint(self.bare)

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether `signature`, in SSH's form, is this key's over `message`. Raises Malformed for another kind of
        signature than the key makes."""
        reader = Reader(signature)
        kind, raw = reader.text(), reader.string()
        reader.end()
        try:
            self._check(kind, raw)(message)
        except InvalidSignature:
            return False
        return True

    def _check(self, kind: str, raw: bytes) -> Callable[[bytes], None]:
        key = self.key
        if isinstance(key, ed25519.Ed25519PublicKey) and kind == ED25519:
            return lambda message: key.verify(raw, message)
        if isinstance(key, rsa.RSAPublicKey) and kind in _RSA_HASHES:
            return lambda message: key.verify(raw, message, padding.PKCS1v15(), _RSA_HASHES[kind])
        if isinstance(key, ec.EllipticCurvePublicKey) and kind == _CURVE_PREFIX + _curve(key):
            reader = Reader(raw)
            pair = [int.from_bytes(reader.string(), signed=True) for _ in range(2)]
            reader.end()
            if min(pair) <= 0:
                return _refuse
            der, rule = encode_dss_signature(*pair), ec.ECDSA(_CURVES[_curve(key)])
            return lambda message: key.verify(der, message, rule)
        raise Malformed(f"a signature of kind '{printable(kind, 40)}' is not accepted from such a key")


def fingerprint(bare: bytes) -> str:
    """`SHA256:...` of a key without certificate."""
    return "SHA256:" + encoded(hashlib.sha256(bare).digest()).rstrip("=")


def parse_public_key(blob: bytes) -> SshPublicKey:
    """The key in `blob`; the signature of a certificate in it is verified. Raises Malformed."""
    kind = Reader(blob).text()
    if kind.startswith("sk-"):
        raise Malformed("keys of security tokens (sk-) are not supported")
    try:
        # Parsed by the library: bounds, points on curves, and the signature of a certificate.
        identity = load_ssh_public_identity(f"{kind} {encoded(blob)}".encode())
        if isinstance(identity, SSHCertificate):
            identity.verify_cert_signature()
            return SshPublicKey(
                blob, _bare(identity.public_key()), _plain(identity.public_key()), _certificate(identity)
            )
        key = _plain(identity)
    except Malformed:
        raise
    except (ValueError, TypeError, NotImplementedError, UnsupportedAlgorithm, InvalidSignature):
        raise Malformed(f"its key of kind '{printable(kind, 40)}' cannot be used") from None
    bare = _bare(key)
    if bare != blob:
        raise Malformed("its key is not in its only form")
    return SshPublicKey(blob, bare, key)


def _plain(key: object) -> PlainKey:
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < MIN_RSA_BITS:
        raise Malformed(f"its RSA key has fewer than {MIN_RSA_BITS} bits")
    if not isinstance(key, PlainKey):
        raise Malformed("its key is of a kind that is not accepted")
    return key


def _certificate(found: SSHCertificate) -> SshCertificate:
    if found.type is not SSHCertificateType.USER:
        raise Malformed("its certificate is one of a host")
    if found.critical_options:
        raise Malformed("its certificate has critical options")
    return SshCertificate(
        authority=_bare(_plain(found.signature_key())),
        serial=found.serial,
        key_id=found.key_id.decode("utf-8", "replace"),
        principals=tuple(each.decode("utf-8", "replace") for each in found.valid_principals),
        valid_after=found.valid_after,
        valid_before=found.valid_before,
    )


def _bare(key: object) -> bytes:
    text = _plain(key).public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return decoded(text.split()[1].decode())


def _curve(key: ec.EllipticCurvePublicKey) -> str:
    return _SSH_CURVES.get(key.curve.name, "")


def _refuse(_message: bytes) -> None:
    raise InvalidSignature
