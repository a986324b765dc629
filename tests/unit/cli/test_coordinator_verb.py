"""`p2pmodel coordinator`: what its options refuse before it listens."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from p2pmodel.cli.coordinator import coordinator
from p2pmodel.errors import InvalidInput


def refused(*arguments: str) -> str:
    with pytest.raises(InvalidInput) as caught:
        CliRunner().invoke(coordinator, arguments, standalone_mode=False, catch_exceptions=False)
    return str(caught.value)


def test_other_machines_are_not_served_without_a_token() -> None:
    assert refused("--listen", "0.0.0.0:0").startswith("0.0.0.0:0 is reachable from other machines")


def test_a_malformed_address_is_refused() -> None:
    assert refused("--listen", "6969").startswith("'6969' is not an address with its port")


def test_a_token_file_must_hold_a_token(tmp_path: Path) -> None:
    path = tmp_path / "token"
    assert refused("--token-file", str(path)) == f"the token file {path} cannot be read: No such file or directory"
    path.touch(mode=0o600)
    path.write_text("hush hush secret")
    assert "hush" not in refused("--token-file", str(path))
    path.write_bytes(b"\xff" * 20)
    assert refused("--token-file", str(path)) == f"the token file {path} cannot be read: it is not UTF-8 text"
