"""Parsers of signatures, keys, revocation lists and bundles."""

import json
import tempfile
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    SSHCertificateBuilder,
    SSHCertificateType,
)

from p2pmodel.store.bundles import open_bundle, write_bundle
from p2pmodel.trust.signatures.allowed_signers import AllowedSigners
from p2pmodel.trust.signatures.model_signature import parse_model_signature, sign_model
from p2pmodel.trust.signatures.public_key import parse_public_key
from p2pmodel.trust.signatures.record import SignatureRecords
from p2pmodel.trust.signatures.revocations import parse_revocations
from p2pmodel.trust.signatures.signing_key import SigningKey, read_signing_key
from p2pmodel.trust.signatures.sshsig import parse_signature
from p2pmodel.trust.signatures.statement import SignedStatement, Statement, parse_statement, read, written
from p2pmodel.trust.signatures.wire import Malformed, decoded, encoded, string
from scripts.fuzzing import seeds
from scripts.fuzzing.seeds import as_json
from scripts.fuzzing.target import Target, of_bytes, of_text, of_value

_MESSAGE = b"message"


def signature_targets(folder: Path) -> list[Target]:
    """All of them; `folder` is for keys and archives."""
    keys = [_key(folder, _ed25519()), _key(folder, ec.derive_private_key(7, ec.SECP256R1()))]
    signatures = [key.sign(_MESSAGE, "p2pmodel-snapshot") for key in keys]
    signed = [SignedStatement.by(key, Statement.over(seeds.manifest(), "", 0.0)) for key in keys]
    lines = [f'a@b,*.c namespaces="x,y",valid-after="20260101Z" {_line(key)}' for key in keys]
    model = sign_model("m", {"a": seeds.SHA256, "b/c": seeds.SHA256}, ec.derive_private_key(7, ec.SECP256R1()))
    stated = json.loads(decoded(json.loads(model)["dsseEnvelope"]["payload"]))
    bundle = folder / "b.tar"
    write_bundle(bundle, manifest=b"{}", torrent=b"t", signatures=b"s", files=[], count=lambda _: None)
    wrong = (Malformed,)
    return [
        Target("SSH signature", _signature, signatures, of_text, wrong),
        Target("SSH signature of bytes", _armored, [_blob(text) for text in signatures], of_bytes, wrong),
        Target("SSH public key", parse_public_key, [*(key.public.blob for key in keys), _certified()], of_bytes, wrong),
        Target("signed statements", _statements, [written(signed)], of_bytes, wrong),
        Target("statement", parse_statement, [each.statement for each in signed], of_text, wrong),
        Target("allowed signers", AllowedSigners.parse, ["\n".join(lines)], of_text),
        Target("revoked keys", _revocations, [_krl(keys[0]), _line(keys[1]).encode()], of_bytes),
        Target("model signature", _model_signature, [model], of_bytes, wrong),
        Target("model signature of values", _model, [stated], of_value, wrong),
        Target("bundle", lambda data: _bundle(bundle, data), [bundle.read_bytes()], of_bytes),
        Target("signature record", lambda data: _record(folder, data), [written(signed)], of_bytes),
    ]


def _ed25519() -> ed25519.Ed25519PrivateKey:
    return ed25519.Ed25519PrivateKey.from_private_bytes(b"k" * 32)


def _key(folder: Path, key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> SigningKey:
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        file.write(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
        file.flush()
        return read_signing_key(Path(file.name))


def _line(key: SigningKey) -> str:
    kind = key.public.blob[4 : 4 + int.from_bytes(key.public.blob[:4])].decode()
    return f"{kind} {encoded(key.public.blob)}"


def _blob(text: str) -> bytes:
    return decoded("".join(text.split("\n")[1:-2]))


def _certified() -> bytes:
    """The blob of a certificate."""
    built = SSHCertificateBuilder().public_key(_ed25519().public_key()).type(SSHCertificateType.USER).serial(7)
    built = built.key_id(b"id").valid_principals([b"a", b"b"]).valid_after(0).valid_before(1 << 40)
    return decoded(built.sign(ec.derive_private_key(7, ec.SECP256R1())).public_bytes().split()[1].decode())


def _signature(text: str) -> None:
    parse_signature(text).covers(_MESSAGE)


def _armored(blob: bytes) -> None:
    _signature(f"-----BEGIN SSH SIGNATURE-----\n{encoded(blob)}\n-----END SSH SIGNATURE-----\n")


def _statements(data: bytes) -> None:
    for each in read(data):
        each.parsed()


def _krl(key: SigningKey) -> bytes:
    """Of a key, a fingerprint, serials, a range, a bitmap and an id."""
    parts = ((0x20, (7).to_bytes(8)), (0x21, bytes(16)), (0x22, bytes(8) + string(b"\x05")), (0x23, string("id")))
    certificates = string(key.public.blob) + string(b"") + b"".join(bytes([k]) + string(v) for k, v in parts)
    sections = ((1, certificates), (2, string(key.public.blob)), (5, string(b"f" * 32)))
    head = b"SSHKRL\n\0" + (1).to_bytes(4) + bytes(24) + string(b"") + string("comment")
    return head + b"".join(bytes([kind]) + string(section) for kind, section in sections)


def _revocations(data: bytes) -> None:
    key = parse_public_key(_ed25519_blob())
    parse_revocations(data).has(key)


def _ed25519_blob() -> bytes:
    return string("ssh-ed25519") + string(_ed25519().public_key().public_bytes_raw())


def _model_signature(data: bytes) -> None:
    found = parse_model_signature(data)
    found.is_by(ec.derive_private_key(7, ec.SECP256R1()).public_key())
    found.files().difference({"a": seeds.SHA256})


def _model(statement: Any) -> None:
    payload = encoded(as_json(statement))
    envelope = {"payload": payload, "payloadType": "application/vnd.in-toto+json", "signatures": [{"sig": ""}]}
    media = "application/vnd.dev.sigstore.bundle.v0.3+json"
    _model_signature(json.dumps({"mediaType": media, "verificationMaterial": {}, "dsseEnvelope": envelope}).encode())


def _bundle(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with open_bundle(path) as bundle:
        for file in bundle.files.values():
            bundle.read(file, 0, 100)


def _record(folder: Path, data: bytes) -> None:
    records = SignatureRecords(folder, folder)
    manifest = seeds.manifest()
    for path in (records._path(manifest.repo, manifest.commit), folder / "x.signatures"):  # noqa: SLF001
        path.write_bytes(data)
    records.statements(manifest.repo, manifest.commit)
    records.warning(manifest.repo, manifest.commit)
