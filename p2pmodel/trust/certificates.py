"""The certificate authority of a cluster, one self-signed root for servers and nodes, and the folder of its files.

Python 3.13 verifies strictly, and libtorrent accepts no intermediates: so the root has critical basic constraints, a
critical key usage and a subject key identifier, and signs every certificate itself.
"""

import datetime as dt
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from p2pmodel.core.content.names import printable
from p2pmodel.core.files.own_files import read_own
from p2pmodel.core.files.private_files import private_folder, write_private
from p2pmodel.errors import Conflict, InvalidInput
from p2pmodel.os_errors import translated

BACKDATED = dt.timedelta(minutes=5)
"""How far before its issue a certificate is valid: clocks of nodes differ."""
MOST_NAME = 64
"""Characters of a common name (RFC 5280)."""
_PEM = serialization.Encoding.PEM
_AGAIN = "make a new one with 'p2pmodel ca init'"


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and its private key, both PEM."""

    certificate: bytes
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Authority:
    """The root certificate, and its private key, which never leaves this object."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @classmethod
    def new(cls, name: str, *, now: dt.datetime, days: int) -> tuple["Authority", bytes]:
        """A new authority, valid for `days` from `now`, and the PEM of its key."""
        key = new_key()
        subject = _named(name)
        usage = _key_usage(signs_certificates=True)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATED)
            .not_valid_after(now + dt.timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, key), key_pem(key)

    @classmethod
    def read(cls, certificate: Path, key: Path) -> "Authority":
        """The authority in two PEM files; others can read neither the key nor change either. Raises InvalidInput."""
        found = read_root(certificate)
        try:
            text = read_own(key, "authority's key", secret=True)
            private = serialization.load_pem_private_key(text.encode(), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise InvalidInput(f"the authority's key {key} is no PEM key without a pass phrase", hint=_AGAIN) from None
        if not isinstance(private, ec.EllipticCurvePrivateKey):
            raise InvalidInput(f"the authority's key {key} is not one of an elliptic curve", hint=_AGAIN)
        if private.public_key() != found.public_key():
            raise InvalidInput(f"the key {key} does not belong to the authority {certificate}")
        return cls(found, private)

    @property
    def pem(self) -> bytes:
        """The root certificate."""
        return self.certificate.public_bytes(_PEM)

    def issue(self, name: str, alternatives: Sequence[str], *, now: dt.datetime, days: int) -> Issued:
        """A certificate of a server or node `name` with its key; it may also be presented as a client.

        `alternatives`: the host names and IP addresses by which it is reached. Raises InvalidInput.
        """
        key = new_key()
        until = now + dt.timedelta(days=days)
        return Issued(self._signed(key.public_key(), name, alternatives, now=now, until=until), key_pem(key))

    def sign(
        self, request: bytes, name: str, alternatives: Sequence[str], *, now: dt.datetime, seconds: float
    ) -> bytes:
        """The certificate (PEM) for the key of a certificate request (PEM), which proves that its sender has the key.

        Only the key of the request is used: name and `alternatives` are the caller's decision. Raises InvalidInput.
        """
        try:
            asked = x509.load_pem_x509_csr(request)
            sound = asked.is_signature_valid
            public = asked.public_key()
        except (ValueError, UnsupportedAlgorithm, InvalidSignature):
            sound, public = False, None
        if not sound or not isinstance(public, ec.EllipticCurvePublicKey) or public.curve.name != ec.SECP256R1.name:
            raise InvalidInput("the certificate request is not a valid one with a P-256 key")
        until = now + dt.timedelta(seconds=seconds)
        return self._signed(public, name, alternatives, now=now, until=until)

    def _signed(
        self,
        public: ec.EllipticCurvePublicKey,
        name: str,
        alternatives: Sequence[str],
        *,
        now: dt.datetime,
        until: dt.datetime,
    ) -> bytes:
        builder = (
            x509.CertificateBuilder()
            .subject_name(_named(name))
            .issuer_name(self.certificate.subject)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(max(now - BACKDATED, self.certificate.not_valid_before_utc))
            .not_valid_after(min(until, self.certificate.not_valid_after_utc))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )
        if names := [_general_name(text) for text in dict.fromkeys(alternatives)]:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(_PEM)


def read_root(path: Path) -> x509.Certificate:
    """The one root certificate in a PEM file. Raises InvalidInput."""
    return root_of(read_own(path, "authority's certificate").encode(), str(path))


def root_of(pem: bytes, place: str) -> x509.Certificate:
    """The one root certificate in `pem`, which is from `place`. Raises InvalidInput."""
    try:
        found = x509.load_pem_x509_certificates(pem)
    except ValueError:
        found = []
    if len(found) != 1:
        raise InvalidInput(f"{place} holds {len(found)} PEM certificates, and must hold one", hint=_AGAIN)
    try:
        constraints = found[0].extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = found[0].extensions.get_extension_for_class(x509.KeyUsage).value
    except (x509.ExtensionNotFound, ValueError):
        raise InvalidInput(f"{place} is no certificate of an authority", hint=_AGAIN) from None
    if not constraints.ca or not usage.key_cert_sign or found[0].issuer != found[0].subject:
        raise InvalidInput(f"{place} is no self-signed certificate of an authority", hint=_AGAIN)
    return found[0]


def root_pem(path: Path) -> bytes:
    """The one root certificate in a PEM file, as PEM in its canonical form. Raises InvalidInput."""
    return read_root(path).public_bytes(_PEM)


def serial_of(certificate: bytes) -> str:
    """The number of a certificate (PEM), hexadecimal."""
    return f"{x509.load_pem_x509_certificate(certificate).serial_number:x}"


def new_key() -> ec.EllipticCurvePrivateKey:
    """A new private key, P-256."""
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A private key as PEM without a pass phrase."""
    return key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _named(name: str) -> x509.Name:
    if not 1 <= len(name) <= MOST_NAME or not name.isprintable():
        raise InvalidInput(f"the name of a certificate has 1 to {MOST_NAME} printable characters")
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _general_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        pass
    try:
        return x509.DNSName(text)
    except ValueError:
        raise InvalidInput("the name of a host in a certificate has plain letters and digits alone") from None


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


@dataclass(frozen=True, slots=True)
class NodeKey:
    """The private key of a node in one private swarm, and the certificate request for it, both PEM.

    The key is made on the node, stays in its memory, and ends with the transfer.
    """

    key: str = field(repr=False)
    request: str

    @classmethod
    def new(cls) -> "NodeKey":
        """A new key. The request names nothing: the coordinator decides what the certificate is for."""
        key = new_key()
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "node")])
        request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
        return cls(key_pem(key).decode(), request.public_bytes(serialization.Encoding.PEM).decode())


CERTIFICATE, KEY = "ca.crt", "ca.key"


@dataclass(frozen=True, slots=True)
class IssuedFiles:
    """Where a certificate and its key are."""

    name: str
    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class AuthorityFolder:
    """The folder `path`, of mode 0700; every file in it has mode 0600."""

    path: Path

    @property
    def certificate(self) -> Path:
        """The root certificate, for every node."""
        return self.path / CERTIFICATE

    @property
    def key(self) -> Path:
        """The root's key, for the coordinator alone."""
        return self.path / KEY

    @translated()
    def init(self, name: str, *, now: dt.datetime, days: int) -> None:
        """Make a new authority here. Raises Conflict where there is one: its certificates would be worth nothing."""
        if self.certificate.exists() or self.key.exists():
            raise Conflict(
                f"there is an authority in {printable(str(self.path))}", hint="give another folder with --folder"
            )
        private_folder(self.path)
        authority, key = Authority.new(name, now=now, days=days)
        write_private(self.key, key)
        write_private(self.certificate, authority.pem)

    @translated()
    def issue(self, name: str, alternatives: Sequence[str], *, now: dt.datetime, days: int) -> IssuedFiles:
        """Issue a certificate to `name.crt` with its key in `name.key`, in place of an earlier one.

        Raises InvalidInput for a name that is no file name, or without an authority.
        """
        if not name or name in (".", "..", "ca") or "/" in name or not name.isprintable():
            raise InvalidInput(f"'{printable(name)}' cannot name a certificate", hint="give a host name or an address")
        if not self.certificate.exists():
            raise InvalidInput(
                f"there is no authority in {printable(str(self.path))}", hint="make one with 'p2pmodel ca init'"
            )
        issued = Authority.read(self.certificate, self.key).issue(name, alternatives, now=now, days=days)
        files = IssuedFiles(name, self.path / f"{name}.crt", self.path / f"{name}.key")
        write_private(files.key, issued.key)
        write_private(files.certificate, issued.certificate)
        return files
