"""The authority of a cluster: strict verification by Python, requests, and what is refused."""

import datetime as dt
import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509

from p2pmodel.errors import Conflict, InvalidInput
from p2pmodel.trust.certificates import Authority, AuthorityFolder, NodeKey, root_of
from tests.support.swarm_certificates import NOW, new_authority


def handshake(authority: AuthorityFolder, name: str, host: str) -> str:
    """A TLS handshake in memory with strict verification of both sides; the name that the server sees."""
    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    for context in (server, client):
        context.load_cert_chain(authority.path / f"{name}.crt", authority.path / f"{name}.key")
        context.load_verify_locations(authority.certificate)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
    server.verify_mode = ssl.CERT_REQUIRED
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        server.wrap_bio(to_server, to_client, server_side=True),
        client.wrap_bio(to_client, to_server, server_hostname=host),
    ]
    for _ in range(6):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    found = ends[0].getpeercert() or {}
    return str(dict(pair[0] for pair in found["subject"])["commonName"])  # type: ignore[misc]


def test_issued_certificates_pass_strict_verification_on_both_sides(tmp_path: Path) -> None:
    folder = AuthorityFolder(tmp_path / "ca")
    folder.init("cluster", now=NOW, days=10)
    folder.issue("gpu001", ["gpu001", "10.0.0.1"], now=NOW, days=5)
    assert handshake(folder, "gpu001", "gpu001") == "gpu001"
    assert handshake(folder, "gpu001", "10.0.0.1") == "gpu001"
    with pytest.raises(ssl.SSLCertVerificationError, match=r"[Hh]ostname|IP address mismatch"):
        handshake(folder, "gpu001", "gpu002")


def test_keys_are_private_and_an_authority_is_not_replaced(tmp_path: Path) -> None:
    folder = AuthorityFolder(tmp_path / "ca")
    folder.init("cluster", now=NOW, days=10)
    issued = folder.issue("gpu001", ["gpu001"], now=NOW, days=5)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (folder.path, folder.key, issued.key)}
    assert modes == {folder.path: 0o700, folder.key: 0o600, issued.key: 0o600}
    before = folder.key.read_bytes()
    with pytest.raises(Conflict, match="there is an authority"):
        folder.init("cluster", now=NOW, days=10)
    assert folder.key.read_bytes() == before
    folder.key.chmod(0o644)
    with pytest.raises(InvalidInput, match="others can read"):
        Authority.read(folder.certificate, folder.key)


@pytest.mark.parametrize("name", ["", "..", "ca", "a/b", "a\nb"])
def test_a_name_that_is_no_file_name_is_refused(name: str, tmp_path: Path) -> None:
    folder = AuthorityFolder(tmp_path / "ca")
    folder.init("cluster", now=NOW, days=10)
    with pytest.raises(InvalidInput):
        folder.issue(name, ["host"], now=NOW, days=5)


def test_a_request_gets_a_certificate_for_what_the_authority_decides_alone() -> None:
    authority, node = new_authority(), NodeKey.new()
    pem = authority.sign(node.request.encode(), "10.0.0.1", ["c" * 40], now=NOW, seconds=60)
    found = x509.load_pem_x509_certificate(pem)
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["c" * 40]
    assert found.not_valid_after_utc == (NOW + dt.timedelta(seconds=60)).replace(microsecond=0)
    found.verify_directly_issued_by(authority.certificate)
    with pytest.raises(InvalidInput, match="certificate request"):
        authority.sign(b"no request", "10.0.0.1", ["c" * 40], now=NOW, seconds=60)


def test_only_one_self_signed_root_is_an_authority(tmp_path: Path) -> None:
    one, other = new_authority("one"), new_authority("two")
    assert root_of(one.pem, "x") == one.certificate
    leaf = one.issue("host", ["host"], now=NOW, days=1)
    for pem in (one.pem + other.pem, b"", leaf.certificate):
        with pytest.raises(InvalidInput):
            root_of(pem, "the file")
