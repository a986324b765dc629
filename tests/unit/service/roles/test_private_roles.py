"""What a coordinator and a seeder refuse before they serve: swarms that no node could join."""

import ssl
from pathlib import Path

import pytest

from p2pmodel.config.sections.coordinator import PrivateSettings
from p2pmodel.coordinator.server.credentials import Credentials
from p2pmodel.core.content.names import RepoId
from p2pmodel.core.network.addresses import ListenAddress
from p2pmodel.errors import BadTorrent, InvalidInput
from p2pmodel.node.private.authority import authority_of, check_private
from p2pmodel.service.roles.coordinator import CoordinatorRole
from p2pmodel.swarm.torrents import parse
from p2pmodel.trust.certificates import AuthorityFolder
from tests.support.swarm_certificates import NOW
from tests.support.torrent_files import SMALL, torrent_of

WHERE = ListenAddress("127.0.0.1", 0)


def test_client_certificates_need_a_token_for_announces() -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    assert not CoordinatorRole.of(WHERE, None, Credentials(), tls).requires_certificates
    tls.verify_mode = ssl.CERT_OPTIONAL
    with pytest.raises(InvalidInput, match="announces carry its key"):
        CoordinatorRole.of(WHERE, None, Credentials(), tls)
    assert CoordinatorRole.of(WHERE, None, Credentials(member="m" * 16), tls).requires_certificates


def test_a_private_repository_needs_an_authority(tmp_path: Path) -> None:
    settings = PrivateSettings(repos=("Org/*",))
    assert authority_of(RepoId("other/model"), settings) is None
    with pytest.raises(InvalidInput, match=r"private\.ca_file"):
        authority_of(RepoId("org/model"), settings)
    with pytest.raises(InvalidInput, match=r"private\.ca_file"):
        authority_of(RepoId("other/model"), settings, asked=True)
    folder = AuthorityFolder(tmp_path / "ca")
    folder.init("test", now=NOW, days=1)
    found = settings.model_copy(update={"ca_file": folder.certificate})
    assert authority_of(RepoId("org/model"), found) == folder.certificate.read_text()


def test_a_public_torrent_of_a_private_repository_is_refused(tmp_path: Path) -> None:
    folder = AuthorityFolder(tmp_path / "ca")
    folder.init("test", now=NOW, days=1)
    settings, pem = PrivateSettings(repos=("org/*",)), folder.certificate.read_text()
    check_private(parse(torrent_of(SMALL, repo="org/model", authority=pem)), settings)
    check_private(parse(torrent_of(SMALL, repo="other/model")), settings)
    with pytest.raises(BadTorrent, match="requires a private swarm"):
        check_private(parse(torrent_of(SMALL, repo="org/model")), settings)
