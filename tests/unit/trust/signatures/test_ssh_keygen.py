"""SSHSIG against the real ssh-keygen: both sign, both verify, and both refuse the same."""

import asyncio
import os
import subprocess
from pathlib import Path

import pytest

from p2pmodel.errors import InvalidInput, LocalResource
from p2pmodel.trust.signatures.allowed_signers import AllowedSigners, NotAllowed
from p2pmodel.trust.signatures.public_key import parse_public_key
from p2pmodel.trust.signatures.revocations import parse_revocations
from p2pmodel.trust.signatures.signing_key import read_signing_key
from p2pmodel.trust.signatures.sshsig import SshSignature, parse_signature
from p2pmodel.trust.signatures.statement import NAMESPACE
from p2pmodel.trust.signatures.wire import Malformed
from tests.support.eventually import eventually
from tests.support.ssh_keys import KINDS, SshKeys

pytestmark = pytest.mark.needs("ssh-keygen")

MESSAGE = b'{"files":"these"}'
NOW = 1_800_000_000.0
"""2027-01-15 08:00 UTC."""
AT = "-Overify-time=20270115080000Z"


@pytest.fixture
def keys(tmp_path: Path) -> SshKeys:
    return SshKeys(tmp_path / "keys")


def refusal(allowed: Path, signature: SshSignature, *, who: str = "alice", now: float = NOW) -> str:
    try:
        AllowedSigners.parse(allowed.read_text()).signer(signature.key, NAMESPACE, now, [who])
    except NotAllowed as error:
        return str(error)
    return ""


@pytest.mark.parametrize("kind", KINDS)
def test_each_side_verifies_what_the_other_signs(keys: SshKeys, kind: str) -> None:
    key = keys.new("key", kind)
    allowed = keys.allow(f"alice {keys.public(key)}")
    ours = read_signing_key(key).sign(MESSAGE, NAMESPACE)
    assert keys.verifies(allowed, MESSAGE, ours)
    assert not keys.verifies(allowed, MESSAGE + b".", ours)
    theirs = parse_signature(keys.sign(key, MESSAGE))
    assert theirs.covers(MESSAGE)
    assert not theirs.covers(MESSAGE + b".")
    assert refusal(allowed, theirs) == ""
    printed = keys.keygen("-l", "-f", f"{key}.pub").stdout.decode()
    assert theirs.key.fingerprint in printed


@pytest.mark.parametrize("bits", ["384", "521"])
def test_the_larger_curves(keys: SshKeys, bits: str) -> None:
    key = keys.new("key", "ecdsa", bits=("-b", bits))
    assert keys.verifies(
        keys.allow(f"alice {keys.public(key)}"), MESSAGE, read_signing_key(key).sign(MESSAGE, NAMESPACE)
    )
    assert parse_signature(keys.sign(key, MESSAGE)).covers(MESSAGE)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("alice {key}", ""),
        ("a*,!alicia {key}", ""),
        ('"alice" namespaces="git,p2pmodel-*" {key} a comment', ""),
        ('alice valid-after="20270101Z",valid-before="20280101Z" {key}', ""),
        ("# alice {key}", "among the allowed"),
        ("bob {key}", "none that may"),
        ("*,!alice {key}", "none that may"),
        ('alice namespaces="git" {key}', "namespace"),
        ('alice valid-before="20270101Z" {key}', "expired"),
        ('alice valid-after="202702010000Z" {key}', "not valid yet"),
        ("alice {other}", "among the allowed"),
        ("alice cert-authority {key}", "among the allowed"),
    ],
)
def test_lines_of_allowed_signers_mean_the_same_to_both(keys: SshKeys, line: str, reason: str) -> None:
    key, other = keys.new("key"), keys.new("other")
    allowed = keys.allow(line.format(key=keys.public(key), other=keys.public(other)))
    text = keys.sign(key, MESSAGE)
    found = refusal(allowed, parse_signature(text))
    assert reason in found
    assert bool(found) == bool(reason)
    assert keys.verifies(allowed, MESSAGE, text, AT) is (not reason)


@pytest.mark.parametrize(
    ("options", "principals", "reason"),
    [
        (("-V", "20270101:20280101"), "alice,ops", ""),
        ((), "bob", "none that may"),
        (("-V", "20200101:20210101"), "alice", "not valid now"),
    ],
)
def test_certificates_of_an_authority(keys: SshKeys, options: tuple[str, ...], principals: str, reason: str) -> None:
    key, authority = keys.new("key"), keys.new("ca", "ecdsa")
    keys.certify(key, authority, *options, principals=principals)
    allowed = keys.allow(f"alice,ops cert-authority {keys.public(authority)}")
    text = read_signing_key(key).sign(MESSAGE, NAMESPACE)
    signature = parse_signature(text)
    assert signature.covers(MESSAGE)
    assert reason in refusal(allowed, signature)
    assert bool(refusal(allowed, signature)) == bool(reason)
    assert keys.verifies(allowed, MESSAGE, text, AT) is (not reason)


def test_revoked_by_a_list_of_keys_and_by_a_krl(keys: SshKeys) -> None:
    key, other, authority = keys.new("key"), keys.new("other"), keys.new("ca")
    plain = parse_signature(keys.sign(key, MESSAGE))
    keys.certify(key, authority)
    certified = parse_signature(read_signing_key(key).sign(MESSAGE, NAMESPACE))
    assert certified.key.certificate is not None
    spec = keys.folder / "spec"

    def krl(*lines: str, authority: Path = authority) -> bytes:
        spec.write_text("".join(f"{line}\n" for line in lines))
        keys.keygen("-k", "-f", str(keys.folder / "krl"), "-s", f"{authority}.pub", str(spec))
        return (keys.folder / "krl").read_bytes()

    for data, revoked in (
        (keys.public(key).encode(), (True, True)),
        (keys.public(other).encode(), (False, False)),
        (keys.public(authority).encode(), (False, True)),
        (krl(f"key: {keys.public(key)}"), (True, True)),
        (krl(f"sha256: {keys.public(key)}"), (True, True)),
        (krl(f"sha1: {keys.public(key)}"), (True, True)),
        (krl("serial: 7"), (False, True)),
        (krl("serial: 5-9"), (False, True)),
        (krl(*(f"serial: {n}" for n in range(1, 60, 2))), (False, True)),
        (krl("serial: 8"), (False, False)),
        (krl("id: cert-of-alice"), (False, True)),
        (krl("serial: 7", authority=other), (False, False)),
    ):
        found = parse_revocations(data)
        assert (found.has(plain.key), found.has(certified.key)) == revoked, data


def test_a_revocation_list_that_cannot_be_read_is_an_error(keys: SshKeys) -> None:
    key = keys.new("key")
    keys.keygen("-k", "-f", str(keys.folder / "krl"), f"{key}.pub")
    data = (keys.folder / "krl").read_bytes()
    for wrong in (data[:-3], b"nonsense", b"\xff\xfe", data + b"\x09\x00\x00\x00\x00"):
        with pytest.raises(InvalidInput, match="revoked keys cannot be used"):
            parse_revocations(wrong)


def test_the_agent_signs_with_the_key_that_a_public_file_names(keys: SshKeys) -> None:
    key = keys.new("key", "rsa", phrase="secret")
    with pytest.raises(InvalidInput, match=r"pass phrase.*ssh-add"):
        read_signing_key(key)
    named = key.with_name("key.pub")
    socket = str(keys.folder / "agent")
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.DEVNULL)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("SSH_AUTH_SOCK", raising=False)
            with pytest.raises(LocalResource, match="no ssh agent"):
                read_signing_key(named).sign(MESSAGE, NAMESPACE)
            patch.setenv("SSH_AUTH_SOCK", socket)
            ask = keys.folder / "ask"
            ask.write_text("#!/bin/sh\necho secret\n")
            ask.chmod(0o700)
            env = os.environ | {"SSH_ASKPASS": str(ask), "SSH_ASKPASS_REQUIRE": "force"}
            asyncio.run(eventually(Path(socket).is_socket, what="the agent's socket"))
            subprocess.run(["ssh-add", "-q", str(key)], env=env, stdin=subprocess.DEVNULL, timeout=60, check=True)
            text = read_signing_key(named).sign(MESSAGE, NAMESPACE)
            with pytest.raises(LocalResource, match="ssh-add"):
                read_signing_key(keys.new("other").with_name("other.pub")).sign(MESSAGE, NAMESPACE)
    finally:
        agent.terminate()
        agent.wait(30)
    assert b"rsa-sha2-512" in parse_signature(text).signature
    assert keys.verifies(keys.allow(f"alice {keys.public(key)}"), MESSAGE, text)


@pytest.mark.parametrize("mutation", ["cut", "armor", "magic", "namespace", "signature", "key"])
def test_a_changed_signature_covers_nothing(keys: SshKeys, mutation: str) -> None:
    text = keys.sign(keys.new("key"), MESSAGE)
    lines = text.splitlines(keepends=True)
    other = keys.sign(keys.new("other"), MESSAGE).splitlines(keepends=True)
    changed = {
        "cut": "".join([*lines[:-2], lines[-1]]),
        "armor": text.replace("BEGIN", "END"),
        "magic": text.replace("\nU1NIU0lH", "\nU1NIU0lI"),
        "namespace": keys.sign(keys.folder / "key", MESSAGE, "other-space"),
        "signature": "".join([*lines[:-3], *other[-3:]]),
        "key": "".join([lines[0], other[1], *lines[2:]]),
    }[mutation]
    try:
        found = parse_signature(changed)
        assert found.namespace != NAMESPACE or not found.covers(MESSAGE)
    except Malformed:
        assert mutation != "namespace"


def test_a_compressed_point_is_refused_like_any_other_odd_key(keys: SshKeys) -> None:
    blob = read_signing_key(keys.new("key", "ecdsa")).public.blob
    point = blob[-65:]
    compressed = blob[:-69] + (33).to_bytes(4) + bytes([2 + point[-1] % 2]) + point[1:33]
    with pytest.raises(Malformed, match="cannot be used"):
        parse_public_key(compressed)
    assert parse_public_key(blob).blob == blob


def test_wrong_lines_are_named_by_their_number(keys: SshKeys) -> None:
    public = keys.public(keys.new("key"))
    for line in ("alice", f'alice colour="red" {public}', f'alice valid-after="soon" {public}', f"alice {public[:60]}"):
        with pytest.raises(InvalidInput, match="line 2"):
            AllowedSigners.parse(f"bob {public}\n{line}\n")
    short = keys.new("short", "rsa", bits=("-b", "1024"))
    with pytest.raises(InvalidInput, match="fewer than 2048 bits"):
        AllowedSigners.parse(f"bob {keys.public(short)}\n")
