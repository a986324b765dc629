"""The key of a node in one private swarm, and its certificate request.

The key is made on the node, stays in its memory, and ends with the transfer.
"""

from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from p2pmodel.trust.certificates.authority import key_pem, new_key


@dataclass(frozen=True, slots=True)
class NodeKey:
    """A private key and the certificate request for it, both PEM."""

    key: str = field(repr=False)
    request: str

    @classmethod
    def new(cls) -> "NodeKey":
        """A new key. The request names nothing: the coordinator decides what the certificate is for."""
        key = new_key()
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "node")])
        request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
        return cls(key_pem(key).decode(), request.public_bytes(serialization.Encoding.PEM).decode())
