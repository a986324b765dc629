"""Revoked keys: a key revocation list of OpenSSH (PROTOCOL.krl), or a plain list of public keys."""

import hashlib
from dataclasses import dataclass, field

from p2pmodel.errors import InvalidInput
from p2pmodel.trust.signatures.public_key import SshPublicKey, parse_public_key
from p2pmodel.trust.signatures.wire import Malformed, Reader, decoded

_MAGIC = b"SSHKRL\n\x00"
_CERTIFICATES, _KEYS, _SHA1, _SIGNATURE, _SHA256 = 1, 2, 3, 4, 5
_SERIALS, _RANGE, _BITMAP, _KEY_IDS = 0x20, 0x21, 0x22, 0x23
_MAX_BITMAP = 1 << 17
"""Bytes of the largest bitmap; ssh-keygen writes none of more than 32 KiB."""


@dataclass(slots=True)
class _RevokedCertificates:
    """The revoked certificates of one authority, or of all (`authority` is empty)."""

    authority: bytes
    ranges: list[tuple[int, int]] = field(default_factory=list)
    bitmaps: list[tuple[int, int]] = field(default_factory=list)
    key_ids: set[str] = field(default_factory=set)

    def has(self, key: SshPublicKey) -> bool:
        certificate = key.certificate
        if certificate is None or self.authority not in (b"", certificate.authority):
            return False
        serial = certificate.serial
        by_serial = any(low <= serial <= high for low, high in self.ranges) or any(
            0 <= serial - start < bits.bit_length() and bits >> (serial - start) & 1 for start, bits in self.bitmaps
        )
        # A serial of 0 stands for none (PROTOCOL.krl).
        return certificate.key_id in self.key_ids or (serial != 0 and by_serial)


@dataclass(slots=True)
class Revocations:
    """Keys that sign nothing any more."""

    keys: set[bytes] = field(default_factory=set)
    sha1: set[bytes] = field(default_factory=set)
    sha256: set[bytes] = field(default_factory=set)
    certificates: list[_RevokedCertificates] = field(default_factory=list)

    def has(self, key: SshPublicKey) -> bool:
        """Whether `key`, its certificate or the authority of that is revoked."""
        blobs = [key.bare, key.blob, *([key.certificate.authority] if key.certificate else [])]
        return any(map(self._has_blob, blobs)) or any(each.has(key) for each in self.certificates)

    def _has_blob(self, blob: bytes) -> bool:
        short = hashlib.sha1(blob, usedforsecurity=False).digest()
        return blob in self.keys or short in self.sha1 or hashlib.sha256(blob).digest() in self.sha256


def parse_revocations(data: bytes, name: str = "list of revoked keys") -> Revocations:
    """The revoked keys in `data`. Raises InvalidInput: a list that cannot be read revokes nothing it should."""
    found = Revocations()
    try:
        if data.startswith(_MAGIC):
            _read_krl(Reader(data[len(_MAGIC) :]), found)
        else:
            _read_keys(data.decode(), found)
    except (Malformed, UnicodeDecodeError) as error:
        why = error if isinstance(error, Malformed) else "it is neither text nor a KRL"
        raise InvalidInput(f"the {name} cannot be used: {why}", hint="make it with ssh-keygen -k") from None
    return found


def _read_keys(text: str, found: Revocations) -> None:
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            parts = line.split()
            try:
                found.keys.add(parse_public_key(decoded(parts[1] if len(parts) > 1 else "")).bare)
            except Malformed as error:
                raise Malformed(f"line {number}: {error}") from None


def _read_krl(reader: Reader, found: Revocations) -> None:
    if reader.number() != 1:
        raise Malformed("it is not a KRL of format 1")
    for _ in ("version", "date", "flags"):
        reader.number(8)
    reader.string()  # reserved
    reader.string()  # comment
    while not reader.is_empty:
        kind, section = reader.number(1), Reader(reader.string())
        if kind == _CERTIFICATES:
            found.certificates.append(_certificates(section))
        elif kind in (_KEYS, _SHA1, _SHA256):
            into = {_KEYS: found.keys, _SHA1: found.sha1, _SHA256: found.sha256}[kind]
            while not section.is_empty:
                into.add(section.string())
        elif kind == _SIGNATURE:
            raise Malformed("it is signed, which is not supported")
        else:
            raise Malformed(f"it has a section of the unknown kind {kind}")


def _certificates(section: Reader) -> _RevokedCertificates:
    found = _RevokedCertificates(section.string())
    section.string()  # reserved
    while not section.is_empty:
        kind, part = section.number(1), Reader(section.string())
        if kind == _SERIALS:
            while not part.is_empty:
                serial = part.number(8)
                found.ranges.append((serial, serial))
        elif kind == _RANGE:
            found.ranges.append((part.number(8), part.number(8)))
        elif kind == _BITMAP:
            start, bits = part.number(8), part.string()
            if len(bits) > _MAX_BITMAP:
                raise Malformed("a bitmap in it is too long")
            found.bitmaps.append((start, int.from_bytes(bits)))
        elif kind == _KEY_IDS:
            while not part.is_empty:
                found.key_ids.add(part.string().decode("utf-8", "replace"))
        else:
            raise Malformed(f"it revokes certificates in the unknown way {kind}")
    return found
