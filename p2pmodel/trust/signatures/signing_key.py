"""Keys that sign: a private key file of OpenSSH, or a key in the agent that its public file names."""

import os
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_ssh_private_key,
)

from p2pmodel.core.content.names import printable
from p2pmodel.core.files.own_files import read_own
from p2pmodel.errors import InvalidInput, LocalResource
from p2pmodel.trust.signatures.public_key import ED25519, SshPublicKey, parse_public_key
from p2pmodel.trust.signatures.sshsig import Sign, sign
from p2pmodel.trust.signatures.wire import Malformed, Reader, decoded, mpint, string

AGENT_TIMEOUT = 60.0
"""Seconds for the agent, which may ask its user."""

_REQUEST, _ANSWER, _SHA512 = 13, 14, 4
"""SSH_AGENTC_SIGN_REQUEST, SSH_AGENT_SIGN_RESPONSE and SSH_AGENT_RSA_SHA2_512 (draft-miller-ssh-agent)."""
_MAX_ANSWER: Final = 64 << 10
_CURVES: dict[str, tuple[str, hashes.HashAlgorithm]] = {
    "secp256r1": ("nistp256", hashes.SHA256()),
    "secp384r1": ("nistp384", hashes.SHA384()),
    "secp521r1": ("nistp521", hashes.SHA512()),
}

PrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True, slots=True)
class SigningKey:
    """Signs. `public` is the key, or the certificate beside it, that goes into signatures. Blocks."""

    public: SshPublicKey
    _sign: Sign = field(repr=False)

    def sign(self, message: bytes, namespace: str) -> str:
        """The SSHSIG signature over `message`. Raises LocalResource where an agent does not sign."""
        return sign(message, namespace, self.public.blob, self._sign)


def read_signing_key(path: Path) -> SigningKey:
    """The key at `path`: a private key, with `PATH-cert.pub` if that exists; or a public key or certificate, of which
    the agent (SSH_AUTH_SOCK) has the private key. Raises InvalidInput."""
    if path.suffix == ".pub":
        public = _public(path)
        return SigningKey(public, _AgentKey(public.blob).sign)
    private = _private(path)
    own = parse_public_key(_blob(private))
    certificate = path.with_name(f"{path.name}-cert.pub")
    public = _public(certificate) if certificate.exists() else own
    if public.bare != own.bare:
        raise InvalidInput(f"the certificate {printable(str(certificate))} is not of the signing key beside it")
    return SigningKey(public, _FileKey(private).sign)


@dataclass(frozen=True, slots=True)
class _FileKey:
    key: PrivateKey

    def sign(self, message: bytes) -> bytes:
        if isinstance(self.key, ed25519.Ed25519PrivateKey):
            return string(ED25519) + string(self.key.sign(message))
        if isinstance(self.key, rsa.RSAPrivateKey):
            return string("rsa-sha2-512") + string(self.key.sign(message, padding.PKCS1v15(), hashes.SHA512()))
        name, digest = _CURVES[self.key.curve.name]
        r, s = decode_dss_signature(self.key.sign(message, ec.ECDSA(digest)))
        return string(f"ecdsa-sha2-{name}") + string(mpint(r) + mpint(s))


@dataclass(frozen=True, slots=True)
class _AgentKey:
    blob: bytes

    def sign(self, message: bytes) -> bytes:
        path = os.environ.get("SSH_AUTH_SOCK", "")
        if not path:
            raise LocalResource(
                "no ssh agent runs here (SSH_AUTH_SOCK is not set)", hint="start one, or name the private key"
            )
        body = bytes([_REQUEST]) + string(self.blob) + string(message) + _SHA512.to_bytes(4)
        try:
            with socket.socket(socket.AF_UNIX) as agent:
                agent.settimeout(AGENT_TIMEOUT)
                agent.connect(path)
                agent.sendall(string(body))
                size = int.from_bytes(_received(agent, 4))
                answer = Reader(_received(agent, min(size, _MAX_ANSWER)))
        except TimeoutError:
            raise LocalResource(f"the ssh agent did not sign within {AGENT_TIMEOUT:g} s") from None
        except OSError as error:
            raise LocalResource(f"the ssh agent cannot be used: {error.strerror or 'it closed'}") from None
        try:
            if answer.number(1) == _ANSWER:
                return answer.string()
        except Malformed:
            pass
        raise LocalResource("the ssh agent does not sign with this key", hint="add it with ssh-add")


def _received(agent: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = agent.recv(count - len(data))
        if not part:
            raise ConnectionResetError
        data += part
    return data


def _public(path: Path) -> SshPublicKey:
    parts = read_own(path, "public key").split()
    try:
        return parse_public_key(decoded(parts[1] if len(parts) > 1 else ""))
    except Malformed as error:
        raise InvalidInput(f"the public key {printable(str(path))} cannot be used: {error}") from None


def _private(path: Path) -> PrivateKey:
    data = read_own(path, "signing key", secret=True).encode()
    load = load_ssh_private_key if b"OPENSSH PRIVATE KEY" in data else load_pem_private_key
    shown = printable(str(path))
    try:
        key = load(data, None)
    except TypeError:
        raise InvalidInput(
            f"the signing key {shown} has a pass phrase", hint=f"ssh-add {shown}, and name {shown}.pub instead"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise InvalidInput(f"the signing key {shown} is not a private key of OpenSSH") from None
    curve = key.curve.name if isinstance(key, ec.EllipticCurvePrivateKey) else None
    if not isinstance(key, PrivateKey) or (curve is not None and curve not in _CURVES):
        raise InvalidInput(
            f"the signing key {shown} is of a kind that is not accepted", hint="use ed25519, ecdsa or rsa"
        )
    return key


def _blob(private: PrivateKey) -> bytes:
    return decoded(private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).split()[1].decode())
