"""Which signed statements count, and why others do not; rules by repository; records on disk."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from p2pmodel.config.sections.trust import TrustRule, rule_of
from p2pmodel.core.content.manifest import Manifest
from p2pmodel.core.content.names import RepoId
from p2pmodel.trust.signatures.allowed_signers import AllowedSigners
from p2pmodel.trust.signatures.record import SignatureRecords, SignatureWarning
from p2pmodel.trust.signatures.revocations import parse_revocations
from p2pmodel.trust.signatures.signing_key import read_signing_key
from p2pmodel.trust.signatures.statement import (
    SUFFIX,
    SignedStatement,
    SignedSubject,
    Statement,
    manifest_digest,
    parse_statement,
    read,
    written,
)
from p2pmodel.trust.signatures.verification import UNSIGNED, SignatureVerifier
from p2pmodel.trust.signatures.wire import Malformed
from tests.support.ssh_keys import SshKeys
from tests.support.torrent_files import SMALL, manifest_of

pytestmark = pytest.mark.needs("ssh-keygen")

NOW = 1_800_000_000.0
MANIFEST = manifest_of(SMALL)
HASH, OTHER = "aa" * 32, "bb" * 32


@pytest.fixture
def keys(tmp_path: Path) -> SshKeys:
    return SshKeys(tmp_path / "keys")


def sign(key: Path, manifest: Manifest = MANIFEST, info_hash: str = HASH) -> SignedStatement:
    return SignedStatement.by(read_signing_key(key), Statement.over(manifest, info_hash, NOW))


def reason(verifier: SignatureVerifier, *signed: SignedStatement, info_hash: str | None = HASH) -> str:
    return verifier.judge(signed, SignedSubject.of(MANIFEST, info_hash), NOW).reason


def test_what_counts_and_what_does_not(keys: SshKeys) -> None:
    key, stranger = keys.new("key"), keys.new("stranger")
    verifier = SignatureVerifier(AllowedSigners.parse(f"alice {keys.public(key)}"))
    good = sign(key)
    changed = manifest_of(dict(SMALL) | {"config.json": b"[]" * 40})
    added = manifest_of(dict(SMALL) | {"more.py": b"import os"})
    assert verifier.judge([good], SignedSubject.of(MANIFEST, HASH), NOW).found is not None
    assert verifier.judge([good], SignedSubject.of(MANIFEST, None), NOW).found is not None
    assert verifier.judge([sign(key, info_hash="")], SignedSubject.of(MANIFEST, OTHER), NOW).found is not None
    assert reason(verifier) == UNSIGNED
    assert "other files" in reason(verifier, sign(key, changed))
    assert "other files" in reason(verifier, sign(key, added))
    assert "another torrent" in reason(verifier, good, info_hash=OTHER)
    assert "not among the allowed signers" in reason(verifier, sign(stranger))
    forged = replace(good, statement=sign(key, info_hash=OTHER).statement)
    assert "changed after it was signed" in reason(verifier, forged, info_hash=OTHER)
    wrong_space = replace(good, signature=keys.sign(key, good.statement.encode(), "git"))
    assert "namespace" in reason(verifier, wrong_space)
    revoked = replace(verifier, revoked=parse_revocations(keys.public(key).encode()))
    assert "revoked" in reason(revoked, good)
    expired = SignatureVerifier(AllowedSigners.parse(f'alice valid-before="20260101Z" {keys.public(key)}'))
    assert "expired" in reason(expired, good)
    # A right one among wrong ones counts.
    assert verifier.judge([sign(stranger), forged, good], SignedSubject.of(MANIFEST, HASH), NOW).found is not None


def test_a_rule_names_the_identities_that_count(keys: SshKeys) -> None:
    key = keys.new("key")
    verifier = SignatureVerifier(AllowedSigners.parse(f"alice,bob {keys.public(key)}"))
    found = verifier.judge([sign(key)], SignedSubject.of(MANIFEST, HASH), NOW, signers=["bob"]).found
    assert found is not None
    assert found.signer.identity == "bob"
    assert verifier.judge([sign(key)], SignedSubject.of(MANIFEST, HASH), NOW, signers=["eve"]).found is None


def test_ssh_keygen_verifies_a_statement(keys: SshKeys) -> None:
    key = keys.new("key")
    signed = sign(key)
    assert keys.verifies(keys.allow(f"alice {keys.public(key)}"), signed.statement.encode(), signed.signature)


def test_a_private_flag_and_the_spelling_of_the_name_do_not_matter_to_a_statement() -> None:
    assert manifest_digest(MANIFEST) == manifest_digest(replace(MANIFEST, private=True))
    assert manifest_digest(MANIFEST) != manifest_digest(replace(MANIFEST, files=MANIFEST.files[1:]))


def test_statements_have_one_form(keys: SshKeys) -> None:
    text = Statement.over(MANIFEST, HASH, NOW).text
    assert parse_statement(text).text == text
    plain = json.loads(text)
    for wrong in (
        text + " ",
        json.dumps(plain),
        json.dumps(plain | {"v": 2}, sort_keys=True, separators=(",", ":")),
        json.dumps(plain | {"more": 1}, sort_keys=True, separators=(",", ":")),
        text.replace(MANIFEST.commit, "main"),
        text.replace(HASH, "x" * 64),
        text.replace("2027-01-15", "soon"),
        text.replace("org/tiny", "../tiny"),
        "[]",
        "x" * 2000,
    ):
        with pytest.raises(Malformed):
            parse_statement(wrong)
    signed = sign(keys.new("key"))
    assert read(written([signed, signed])) == (signed, signed)
    for data in (b"", b"[]", b'{"signatures": 1}', b'{"signatures": [{"statement": 1, "signature": ""}]}', b"\xff"):
        with pytest.raises(Malformed):
            read(data)


def test_the_first_matching_rule_holds() -> None:
    strict = TrustRule(repos=("Org/*", "other/model"), signature="enforce")
    rules = [TrustRule(repos=("org/free-*",), signature="off"), strict]
    assert rule_of(rules, RepoId("org/model")) is strict
    assert rule_of(rules, RepoId("ORG/Model")) is strict
    assert rule_of(rules, RepoId("org/free-model")) is None
    assert rule_of(rules, RepoId("other/models")) is None


def test_records_outlive_a_run_and_forget_a_warning(keys: SshKeys, tmp_path: Path) -> None:
    records, signed = SignatureRecords(tmp_path / "state"), sign(keys.new("key"))
    repo, commit = MANIFEST.repo, MANIFEST.commit
    assert records.statements(repo, commit) == ()
    records.warn(repo, commit, SignatureWarning(UNSIGNED, NOW))
    assert records.warning(repo, commit) == SignatureWarning(UNSIGNED, NOW)
    records.record(repo, commit, signed)
    again = SignatureRecords(tmp_path / "state", tmp_path)
    assert again.statements(RepoId("ORG/tiny"), commit) == (signed,)
    assert again.warning(repo, commit) is None
    (tmp_path / f"x{SUFFIX}").write_bytes(written([sign(keys.folder / "key", info_hash="")]))
    (tmp_path / f"y{SUFFIX}").write_bytes(b"nonsense")
    assert len(again.statements(repo, commit)) == 2
    assert again.statements(repo, "0" * 40) == ()
