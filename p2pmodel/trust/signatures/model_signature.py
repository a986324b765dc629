"""OpenSSF model signatures (`model.sig`): a Sigstore bundle around a DSSE envelope around a list of files.

Made by a key on a NIST curve, alone or with a certificate, as `model_signing sign key|certificate` does. Keyless
signatures of Sigstore, which need its servers, are refused. The list has the sha256 of each file, so a signature is
compared with a manifest, and nothing is hashed again.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import Certificate, load_der_x509_certificate

from p2pmodel.core.content.names import printable
from p2pmodel.core.plain_json import parse_json
from p2pmodel.trust.signatures.wire import Malformed, decoded, encoded

MODEL_SIGNATURE = "model.sig"
"""The usual name in a repository."""
MAX_MODEL_SIGNATURE = 64 << 20
"""Bytes; 100,000 files have about 30 MB."""
MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"

_PAYLOAD = "application/vnd.in-toto+json"
_STATEMENT = "https://in-toto.io/Statement/v1"
_PREDICATE = "https://model_signing/signature/v1.0"
_GIT = (".git", ".gitattributes", ".github", ".gitignore")
"""What model_signing leaves out by default."""
_HASHES: dict[str, Callable[[], hashes.HashAlgorithm]] = {
    "secp256r1": hashes.SHA256,
    "secp384r1": hashes.SHA384,
    "secp521r1": hashes.SHA512,
}


@dataclass(frozen=True, slots=True)
class SignedFiles:
    """The content of a signature: sha256 by path, and the paths (with all below them) that it leaves out."""

    digests: Mapping[str, str]
    ignored: tuple[str, ...]

    def difference(self, files: Mapping[str, str]) -> str:
        """The first difference from `files`, sha256 by path; "" if they are the same."""
        for path in sorted({*self.digests, *files}):
            if path not in files:
                return f"it also has {printable(path)}"
            if path not in self.digests:
                if not self.ignores(path):
                    return f"it has no {printable(path)}"
            elif self.digests[path] != files[path]:
                return f"it has another hash of {printable(path)}"
        return ""

    def ignores(self, path: str) -> bool:
        """Whether it says nothing of `path`."""
        return path == MODEL_SIGNATURE or any(path == each or path.startswith(f"{each}/") for each in self.ignored)


@dataclass(frozen=True, slots=True)
class ModelSignature:
    """A parsed signature; nothing of it is verified. `certificates`: the signer's first, then those above it."""

    payload: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    certificates: tuple[Certificate, ...] = ()

    def is_by(self, key: ec.EllipticCurvePublicKey) -> bool:
        """Whether `key` made it."""
        try:
            key.verify(self.signature, _signed(self.payload), ec.ECDSA(hash_of(key)))
        except InvalidSignature:
            return False
        return True

    def files(self) -> SignedFiles:
        """The signed files. Raises Malformed."""
        try:
            return _files(parse_json(self.payload))
        except Malformed:
            raise
        except (ValueError, TypeError, LookupError, AttributeError):
            raise Malformed("its list of files is malformed") from None


def parse_model_signature(data: bytes) -> ModelSignature:
    """The signature in a `model.sig`. Raises Malformed."""
    try:
        return _bundled(parse_json(data))
    except Malformed:
        raise
    except (ValueError, TypeError, LookupError, AttributeError):
        raise Malformed("it is not a model signature") from None


def sign_model(
    name: str, files: Mapping[str, str], key: ec.EllipticCurvePrivateKey, certificates: tuple[Certificate, ...] = ()
) -> bytes:
    """The `model.sig` of the model `name` with `files`, sha256 by path, by `key` (and its certificate chain)."""
    ignored = [MODEL_SIGNATURE, *_GIT]
    listed = {
        path: digest for path, digest in sorted(files.items()) if not SignedFiles({}, tuple(ignored)).ignores(path)
    }
    root = hashlib.sha256(b"".join(map(bytes.fromhex, listed.values()))).hexdigest()
    resources = [{"algorithm": "sha256", "digest": digest, "name": path} for path, digest in listed.items()]
    form = {"method": "files", "hash_type": "sha256", "allow_symlinks": True, "ignore_paths": ignored}
    statement = {
        "_type": _STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": root}}],
        "predicateType": _PREDICATE,
        "predicate": {"serialization": form, "resources": resources},
    }
    payload = json.dumps(statement, indent=1).encode()
    signature = key.sign(_signed(payload), ec.ECDSA(hash_of(key.public_key())))
    bundle = {
        "mediaType": MEDIA_TYPE,
        "verificationMaterial": _material(key.public_key(), certificates),
        "dsseEnvelope": {
            "payload": encoded(payload),
            "payloadType": _PAYLOAD,
            "signatures": [{"sig": encoded(signature), "keyid": ""}],
        },
    }
    return json.dumps(bundle).encode() + b"\n"


def hash_of(key: ec.EllipticCurvePublicKey) -> hashes.HashAlgorithm:
    """The hash of signatures by `key`. Raises Malformed for another curve than those that are supported."""
    found = _HASHES.get(key.curve.name)
    if found is None:
        raise Malformed(f"its key is on the curve {key.curve.name}")
    return found()


def _bundled(bundle: Mapping[str, Any]) -> ModelSignature:
    envelope, material = bundle["dsseEnvelope"], bundle["verificationMaterial"]
    if bundle["mediaType"] != MEDIA_TYPE or envelope["payloadType"] != _PAYLOAD:
        raise Malformed("it is not a Sigstore bundle of version 0.3 with an in-toto statement")
    if "certificate" in material:
        raise Malformed("it is a keyless signature of Sigstore, which is not supported")
    chain = material.get("x509CertificateChain", {}).get("certificates", [])
    certificates = tuple(load_der_x509_certificate(decoded(each["rawBytes"])) for each in chain[:8])
    (signature,) = envelope["signatures"]
    return ModelSignature(decoded(envelope["payload"]), decoded(signature["sig"]), certificates)


def _files(statement: Mapping[str, Any]) -> SignedFiles:
    if (statement["_type"], statement["predicateType"]) != (_STATEMENT, _PREDICATE):
        raise Malformed("it is not a model signature of version 1.0")
    (subject,) = statement["subject"]
    predicate, digests = statement["predicate"], dict[str, str]()
    for resource in predicate["resources"]:
        if resource["algorithm"] != "sha256" or resource["name"] in digests:
            raise Malformed("it has a file twice, or hashes of another kind than sha256")
        digests[str(resource["name"])] = bytes.fromhex(resource["digest"]).hex()
    if hashlib.sha256(b"".join(map(bytes.fromhex, digests.values()))).hexdigest() != subject["digest"]["sha256"]:
        raise Malformed("its list of files contradicts itself")
    ignored = tuple(map(str, predicate["serialization"].get("ignore_paths") or ()))
    return SignedFiles(digests, (*ignored, *_GIT))


def _signed(payload: bytes) -> bytes:
    """The pre-authentication encoding (DSSE v1)."""
    return b"DSSEv1 %d %s %d %s" % (len(_PAYLOAD), _PAYLOAD.encode(), len(payload), payload)


def _material(key: ec.EllipticCurvePublicKey, certificates: tuple[Certificate, ...]) -> dict[str, Any]:
    if certificates:
        chain = [{"rawBytes": encoded(each.public_bytes(Encoding.DER))} for each in certificates]
        return {"x509CertificateChain": {"certificates": chain}, "tlogEntries": []}
    hint = hashlib.sha256(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)).hexdigest()
    return {"publicKey": {"hint": hint}, "tlogEntries": []}
