"""SSHSIG: signatures over any bytes by SSH keys, as `ssh-keygen -Y` makes and verifies them (PROTOCOL.sshsig)."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from p2pmodel.trust.signatures.public_key import SshPublicKey, parse_public_key
from p2pmodel.trust.signatures.wire import MAX_SIGNATURE, Malformed, Reader, decoded, encoded, string

_MAGIC = b"SSHSIG"
_VERSION = 1
_HASHES = {"sha512": hashlib.sha512, "sha256": hashlib.sha256}
_HASH = "sha512"
_WIDTH = 70
_ARMOR = re.compile(r"\s*-----BEGIN SSH SIGNATURE-----\n([A-Za-z0-9+/=\s]+)\n-----END SSH SIGNATURE-----\s*")

Sign = Callable[[bytes], bytes]
"""Signs a message; returns a signature in SSH's form."""


@dataclass(frozen=True, slots=True)
class SshSignature:
    """A parsed signature; nothing of it is verified, except the certificate in its key."""

    key: SshPublicKey
    namespace: str
    hash: str
    signature: bytes = field(repr=False)

    def covers(self, message: bytes) -> bool:
        """Whether the key in it signed `message`. Raises Malformed. The key itself may be anyone's."""
        return self.key.verifies(self.signature, _signed(self.namespace, self.hash, message))


def parse_signature(armored: str) -> SshSignature:
    """The signature in its text form. Raises Malformed."""
    match = _ARMOR.fullmatch(armored) if len(armored) <= MAX_SIGNATURE else None
    if match is None:
        raise Malformed("it is not an SSH signature")
    reader = Reader(decoded("".join(match[1].split())))
    if reader.take(len(_MAGIC)) != _MAGIC or reader.number() != _VERSION:
        raise Malformed("it is not an SSH signature of version 1")
    key, namespace = parse_public_key(reader.string()), reader.text()
    reader.string()  # reserved
    name, signature = reader.text(), reader.string()
    reader.end()
    if name not in _HASHES:
        raise Malformed("its hash is neither sha512 nor sha256")
    return SshSignature(key, namespace, name, signature)


def sign(message: bytes, namespace: str, key_blob: bytes, sign_with: Sign) -> str:
    """The signature over `message` in its text form, by the key with the public form `key_blob`."""
    signature = sign_with(_signed(namespace, _HASH, message))
    blob = _MAGIC + _VERSION.to_bytes(4) + string(key_blob) + _rest(namespace, _HASH, signature)
    text = encoded(blob)
    lines = [text[at : at + _WIDTH] for at in range(0, len(text), _WIDTH)]
    return "\n".join(["-----BEGIN SSH SIGNATURE-----", *lines, "-----END SSH SIGNATURE-----", ""])


def _signed(namespace: str, name: str, message: bytes) -> bytes:
    return _MAGIC + _rest(namespace, name, _HASHES[name](message).digest())


def _rest(namespace: str, name: str, last: bytes) -> bytes:
    return string(namespace) + string(b"") + string(name) + string(last)
