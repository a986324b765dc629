"""Machine tokens: stored as hashes, found by token and by announce key, with expiry and revocation."""

from pathlib import Path

import pytest

from p2pmodel.core.network.tokens import announce_key
from p2pmodel.errors import Conflict, InvalidInput, NotFound
from p2pmodel.trust.access import machine_tokens
from p2pmodel.trust.access.machine_tokens import MachineTokens
from p2pmodel.trust.access.policy import Subject


class Wall:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def at(tmp_path: Path) -> Path:
    return tmp_path / "access" / "tokens.json"


@pytest.fixture
def tokens(at: Path, monkeypatch: pytest.MonkeyPatch) -> MachineTokens:
    monkeypatch.setattr(machine_tokens, "LOOK_EVERY", 0.0)
    return MachineTokens(at, clock=Wall())


def test_a_token_is_known_by_its_text_and_its_key_and_stored_as_a_hash(tokens: MachineTokens, at: Path) -> None:
    token = tokens.issue("ci", ["build", "ml"], None)
    found = tokens.by_token(token)
    assert found is not None
    assert found.subject == Subject("token", "ci", frozenset({"build", "ml"}))
    assert tokens.by_key(announce_key(token)) == found
    assert token not in at.read_text()
    assert at.stat().st_mode & 0o777 == 0o600
    assert tokens.by_token(token + "0") is None
    assert tokens.by_token(found.digest) is None, "the stored hash opens nothing"


def test_a_running_server_sees_what_another_process_changes(tokens: MachineTokens, at: Path) -> None:
    other = MachineTokens(at, clock=Wall())
    token = other.issue("ci", [], None)
    assert tokens.by_token(token) is not None
    other.revoke("ci")
    assert tokens.by_token(token) is None
    assert tokens.by_key(announce_key(token)) is None
    assert [each.state(Wall.now) for each in tokens.all()] == ["revoked"]


def test_a_token_expires(at: Path) -> None:
    wall = Wall()
    tokens = MachineTokens(at, clock=wall)
    token = tokens.issue("ci", [], 60.0)
    assert tokens.by_token(token) is not None
    wall.now = Wall.now + 60.0
    assert tokens.by_token(token) is None
    assert tokens.issue("ci", [], None) != token, "the name is free again"


def test_names_are_unique_and_plain(tokens: MachineTokens) -> None:
    tokens.issue("ci", [], None)
    with pytest.raises(Conflict, match="token revoke ci"):
        tokens.issue("ci", [], None)
    for name, group in (("", "g"), ("a b", "g"), ("a", "x:y"), ("a\n", "g")):
        with pytest.raises(InvalidInput):
            tokens.issue(name, [group], None)
    with pytest.raises(NotFound):
        tokens.revoke("other")


def test_a_damaged_or_foreign_file_opens_nothing(tokens: MachineTokens, at: Path) -> None:
    token = tokens.issue("ci", [], None)
    whole = at.read_text()
    at.write_text(whole[:-9])
    assert tokens.by_token(token) is None
    with pytest.raises(InvalidInput, match="malformed"):
        tokens.all()
    at.write_text(whole)
    at.chmod(0o644)
    assert tokens.by_token(token) is None
