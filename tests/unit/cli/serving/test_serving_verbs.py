"""What `serve` and `chat` refuse before anything is fetched."""

from pathlib import Path

import pytest

from tests.support.command_line import CommandLine
from tests.support.processes import token_file


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("serve", "org/m", "--listen", "0.0.0.0:0"), "is reachable from other machines, and no token is set"),
        (("serve", "org/m", "--device", "tpu"), "'tpu' is not a device name; use cpu, cuda or cuda:N"),
        (("serve", "org/m", "--tls-cert", "x.pem"), "TLS needs a certificate and its key"),
        (("serve", "org/m", "--listen", "nowhere"), "nowhere"),
        (("serve", "org/m", "--max-new-tokens", "0"), "--max-new-tokens"),
        (("chat", "org/m", "--device", "tpu"), "'tpu' is not a device name"),
        (("chat", "org/m", "--json"), "chat has no --json; p2pmodel serve answers programs"),
        (("chat", "org/m", "--temperature", "3"), "--temperature"),
        (("chat", "org/m/x", "--no-daemon"), "org/m/x"),
    ],
)
def test_wrong_options(cli: CommandLine, args: tuple[str, ...], says: str) -> None:
    assert says in cli.refuses(2, *args)


def test_the_key_is_in_a_private_file(cli: CommandLine, tmp_path: Path) -> None:
    key = token_file(tmp_path / "key")
    key.chmod(0o644)
    assert str(key) in cli.refuses(2, "serve", "org/m", "--api-key-file", key)
    key.chmod(0o600)
    key.write_text("short\n")
    assert "16 to 128" in cli.refuses(2, "serve", "org/m", "--api-key-file", key)
