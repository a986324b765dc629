"""OpenSSF model signatures: which count, by keys and by certificates, and what they say of which files."""

import base64
import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

from p2pmodel.errors import InvalidInput
from p2pmodel.trust.signatures.model_keys import read_model_keys, read_model_signer
from p2pmodel.trust.signatures.model_signature import parse_model_signature, sign_model
from p2pmodel.trust.signatures.wire import Malformed

NOW = datetime(2027, 1, 15, tzinfo=UTC)
FILES = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("a.safetensors", "config.json", "d/b.bin")}
HIDDEN = {".gitattributes": "00" * 32, ".github/x": "11" * 32}


def private(path: Path, curve: ec.EllipticCurve | None = None) -> ec.EllipticCurvePrivateKey:
    key = ec.generate_private_key(curve or ec.SECP256R1())
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(0o600)
    return key


def public(path: Path, *keys: Any) -> Path:
    path.write_bytes(
        b"".join(k.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo) for k in keys)
    )
    return path


def certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    above: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None = None,
    *,
    ca: bool = False,
    signs: bool = True,
    days: tuple[int, int] = (-10, 10),
    critical: bool = False,
    path_length: int | None = None,
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    usage = dict.fromkeys(
        (
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(above[0].subject if above else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + timedelta(days[0]))
        .not_valid_after(NOW + timedelta(days[1]))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=path_length if ca else None), critical=True)
        .add_extension(
            x509.KeyUsage(digital_signature=signs and not ca, key_cert_sign=ca, crl_sign=ca, **usage), critical=True
        )
    )
    if critical:
        built = built.add_extension(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"x"), critical=True)
    return built.sign(above[1] if above else key, hashes.SHA256())


def pem(path: Path, *certificates: x509.Certificate) -> Path:
    path.write_bytes(b"".join(each.public_bytes(Encoding.PEM) for each in certificates))
    return path


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
def test_a_key_signs_and_any_of_the_model_keys_verifies(tmp_path: Path, curve: ec.EllipticCurve) -> None:
    key = private(tmp_path / "key", curve)
    other = ec.generate_private_key(ec.SECP256R1())
    loaded, chain = read_model_signer(tmp_path / "key", None)
    found = parse_model_signature(sign_model("model", FILES | HIDDEN | {"model.sig": "22" * 32}, loaded, chain))
    assert read_model_keys(public(tmp_path / "keys", other, key)).signer(found, NOW.timestamp()) == "key 2"
    with pytest.raises(Malformed, match="none of the model keys"):
        read_model_keys(public(tmp_path / "keys", other)).signer(found, NOW.timestamp())
    stated = found.files()
    assert stated.difference(FILES | HIDDEN | {"model.sig": "33" * 32}) == ""
    assert stated.difference(FILES) == ""
    assert "no more.py" in stated.difference(FILES | {"more.py": "00" * 32})
    assert "another hash of config.json" in stated.difference(FILES | {"config.json": "00" * 32})
    assert "also has d/b.bin" in stated.difference({k: v for k, v in FILES.items() if k != "d/b.bin"})


def test_certificates_lead_to_an_authority(tmp_path: Path) -> None:
    root_key, mid_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    key = private(tmp_path / "key")
    root = certificate("root", root_key, ca=True)
    mid = certificate("mid", mid_key, (root, root_key), ca=True)
    flat = certificate("flat", mid_key, (root, root_key), ca=True, path_length=0)
    deep = certificate("deep", root_key, (flat, mid_key), ca=True)
    stranger = certificate("root", mid_key, ca=True)

    def signer(*chain: x509.Certificate, roots: Sequence[x509.Certificate] = (root,)) -> str:
        keys = read_model_keys(pem(tmp_path / "roots", *roots))
        loaded, certificates = read_model_signer(tmp_path / "key", pem(tmp_path / "chain", *chain))
        return keys.signer(parse_model_signature(sign_model("m", FILES, loaded, certificates)), NOW.timestamp())

    leaf = certificate("alice", key, (mid, mid_key))
    assert signer(leaf, mid) == "CN=alice"
    assert signer(certificate("bob", key, (root, root_key))) == "CN=bob"
    assert signer(leaf, roots=[mid]) == "CN=alice"
    for chain, roots, reason in (
        ((leaf,), (root,), "no authority"),
        ((leaf, mid), (stranger,), "no authority"),
        ((leaf, stranger), (root,), "no authority"),
        ((certificate("eve", key),), (root,), "no authority"),
        ((certificate("old", key, (mid, mid_key), days=(-9, -1)), mid), (root,), "not valid now"),
        ((certificate("new", key, (mid, mid_key), days=(1, 9)), mid), (root,), "not valid now"),
        ((certificate("mute", key, (mid, mid_key), signs=False), mid), (root,), "not for signatures"),
        ((certificate("odd", key, (mid, mid_key), critical=True), mid), (root,), "critical extension"),
        ((certificate("deep", key, (deep, root_key)), deep, flat), (root,), "no authority"),
    ):
        with pytest.raises(Malformed, match=reason):
            signer(*chain, roots=roots)
    # A certificate of a signer is none of an authority.
    below = certificate("below", mid_key, (certificate("bob", key, (root, root_key)), key))
    assert below is not None
    wrong = certificate("wrong", mid_key, (root, root_key))
    with pytest.raises(InvalidInput, match="is not of the signing key"):
        signer(wrong)


def test_what_is_malformed_counts_for_nothing(tmp_path: Path) -> None:
    key = private(tmp_path / "key")
    data = json.loads(sign_model("m", FILES, key))
    payload = json.loads(base64.b64decode(data["dsseEnvelope"]["payload"]))

    def resigned(changed: dict[str, Any]) -> bytes:
        return json.dumps(
            data
            | {
                "dsseEnvelope": data["dsseEnvelope"]
                | {"payload": base64.b64encode(json.dumps(changed).encode()).decode()}
            }
        ).encode()

    other = parse_model_signature(resigned(payload | {"subject": []}))
    assert not other.is_by(key.public_key())
    for statement in (
        payload | {"_type": "x"},
        payload | {"predicateType": "x"},
        payload | {"subject": []},
        payload | {"predicate": {}},
        payload | {"predicate": payload["predicate"] | {"resources": payload["predicate"]["resources"][:1]}},
        [],
    ):
        with pytest.raises(Malformed):
            parse_model_signature(resigned(statement)).files()
    material = {"certificate": {"rawBytes": ""}}
    for wrong in (b"", b"[]", b"{}", json.dumps(data | {"mediaType": "x"}).encode(), b"\xff"):
        with pytest.raises(Malformed):
            parse_model_signature(wrong)
    with pytest.raises(Malformed, match="keyless"):
        parse_model_signature(json.dumps(data | {"verificationMaterial": material}).encode())


def test_files_of_keys_that_cannot_be_used_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    for data, reason in (
        (b"", "neither a public key"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "not PEM"),
    ):
        path.write_bytes(data)
        with pytest.raises(InvalidInput, match=reason):
            read_model_keys(path)
    with pytest.raises(InvalidInput, match="no elliptic curve"):
        read_model_keys(public(path, ed25519.Ed25519PrivateKey.generate()))
    with pytest.raises(InvalidInput, match="curve"):
        read_model_keys(public(path, ec.generate_private_key(ec.SECP256K1())))
