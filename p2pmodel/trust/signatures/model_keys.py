"""The keys that may sign models: public keys, and authorities for certificates, in one PEM file."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from cryptography.x509 import (
    BasicConstraints,
    Certificate,
    ExtendedKeyUsage,
    ExtensionNotFound,
    KeyUsage,
    SubjectAlternativeName,
    load_pem_x509_certificate,
    load_pem_x509_certificates,
)
from cryptography.x509.oid import ExtendedKeyUsageOID

from p2pmodel.core.content.names import printable
from p2pmodel.core.files.own_files import read_own
from p2pmodel.errors import InvalidInput
from p2pmodel.trust.signatures.model_signature import ModelSignature, hash_of
from p2pmodel.trust.signatures.wire import Malformed

_BLOCK = re.compile(r"-----BEGIN (PUBLIC KEY|CERTIFICATE)-----.+?-----END \1-----", re.DOTALL)
_DEPTH = 4
"""Certificates between the signer's and an authority, at most."""
_UNDERSTOOD = (BasicConstraints, KeyUsage, ExtendedKeyUsage, SubjectAlternativeName)
"""Extensions that may be critical."""


@dataclass(frozen=True, slots=True)
class ModelKeys:
    """The keys and the authorities of one file."""

    keys: tuple[ec.EllipticCurvePublicKey, ...]
    authorities: tuple[Certificate, ...]

    def signer(self, signature: ModelSignature, now: float) -> str:
        """The name of the signer: of the subject of its certificate, or `key N`, by its place. Raises Malformed with
        the reason why it does not count."""
        if not signature.certificates:
            for number, key in enumerate(self.keys, 1):
                if signature.is_by(key):
                    return f"key {number}"
            raise Malformed("none of the model keys made it")
        leaf = signature.certificates[0]
        certified = leaf.public_key()
        if not isinstance(certified, ec.EllipticCurvePublicKey) or not signature.is_by(certified):
            raise Malformed("the key of its certificate did not make it")
        if not _may_sign(leaf):
            raise Malformed("its certificate is not for signatures")
        self._check_chain(leaf, signature.certificates[1:], datetime.fromtimestamp(now, UTC))
        return printable(leaf.subject.rfc4514_string())

    def _check_chain(self, leaf: Certificate, between: Sequence[Certificate], now: datetime) -> None:
        """Raise Malformed unless a chain of valid certificates leads from `leaf` to an authority."""
        current = leaf
        for depth in range(_DEPTH):
            _check_certificate(current, now)
            if current in self.authorities or any(_issued(current, each, depth, now) for each in self.authorities):
                return
            above = next((each for each in between if each != current and _issued(current, each, depth, now)), None)
            if above is None:
                break
            current = above
        raise Malformed("its certificate is of no authority among the model keys")


def read_model_keys(path: Path) -> ModelKeys:
    """The keys in the PEM file at `path`. Raises InvalidInput. Blocks."""
    keys, authorities = list[ec.EllipticCurvePublicKey](), list[Certificate]()
    try:
        for block in _BLOCK.finditer(read_own(path, "file of model keys")):
            if block[1] == "CERTIFICATE":
                authorities.append(load_pem_x509_certificate(block[0].encode()))
                continue
            key = load_pem_public_key(block[0].encode())
            if not isinstance(key, ec.EllipticCurvePublicKey):
                raise Malformed("a key in it is on no elliptic curve")
            hash_of(key)
            keys.append(key)
    except (ValueError, UnsupportedAlgorithm) as error:
        why = error if isinstance(error, Malformed) else "it is not PEM"
        raise InvalidInput(f"the file of model keys {printable(str(path))} cannot be used: {why}") from None
    if not keys and not authorities:
        raise InvalidInput(f"the file of model keys {printable(str(path))} has neither a public key nor a certificate")
    return ModelKeys(tuple(keys), tuple(authorities))


def read_model_signer(path: Path, chain: Path | None) -> tuple[ec.EllipticCurvePrivateKey, tuple[Certificate, ...]]:
    """The private key at `path`, and the certificate chain of it at `chain`, PEM. Raises InvalidInput. Blocks."""
    shown = printable(str(path))
    try:
        key = load_pem_private_key(read_own(path, "signing key", secret=True).encode(), None)
        certificates = load_pem_x509_certificates(read_own(chain, "certificate").encode()) if chain else []
    except TypeError:
        raise InvalidInput(f"the signing key {shown} has a pass phrase", hint="give a key without one") from None
    except (ValueError, UnsupportedAlgorithm):
        raise InvalidInput(f"the signing key {shown} or its certificate is not PEM") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise InvalidInput(f"the signing key {shown} is on no elliptic curve", hint="a model signature needs one")
    if certificates and certificates[0].public_key() != key.public_key():
        raise InvalidInput(f"the first certificate of {printable(str(chain))} is not of the signing key {shown}")
    return key, tuple(certificates)


def _issued(certificate: Certificate, above: Certificate, depth: int, now: datetime) -> bool:
    """Whether the authority `above` issued `certificate`, which has `depth` certificates of authorities below it."""
    try:
        certificate.verify_directly_issued_by(above)
        constraints = above.extensions.get_extension_for_class(BasicConstraints).value
    except (ValueError, TypeError, InvalidSignature, ExtensionNotFound):
        return False
    short = constraints.path_length is None or constraints.path_length >= depth
    valid = above.not_valid_before_utc <= now <= above.not_valid_after_utc
    return constraints.ca and short and valid and _may_issue(above)


def _check_certificate(certificate: Certificate, now: datetime) -> None:
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise Malformed("a certificate of its signer is not valid now")
    for extension in certificate.extensions:
        if extension.critical and not isinstance(extension.value, _UNDERSTOOD):
            raise Malformed("a certificate of its signer has a critical extension that is not understood")


def _may_issue(certificate: Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(KeyUsage).value.key_cert_sign
    except ExtensionNotFound:
        return True


def _may_sign(certificate: Certificate) -> bool:
    extensions = certificate.extensions
    try:
        if extensions.get_extension_for_class(KeyUsage).value.digital_signature:
            return True
    except ExtensionNotFound:
        return False
    try:
        return ExtendedKeyUsageOID.CODE_SIGNING in extensions.get_extension_for_class(ExtendedKeyUsage).value
    except ExtensionNotFound:
        return False
