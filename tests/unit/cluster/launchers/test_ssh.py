"""The ssh launcher against real servers: keys that are wrong or unknown, configurations that cannot be followed."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from p2pmodel.cluster.launcher import Completed, HostRefused, HostUnreachable
from p2pmodel.cluster.launchers.ssh import SshHost, SshLauncher
from p2pmodel.errors import InvalidInput, P2PModelError
from tests.support.ssh_hosts import SshHosts, make_key

HOST = "gpu001"


async def refusal(hosts: SshHosts, name: str = HOST) -> P2PModelError:
    with pytest.raises(P2PModelError) as raised:
        async with SshLauncher(hosts.config).connect(name):
            pass
    assert raised.value.hint
    return raised.value


async def test_a_wrong_host_key_is_told_from_an_unknown_one(ssh_hosts: SshHosts, tmp_path: Path) -> None:
    ssh_hosts.add(HOST, known=False)
    unknown = await refusal(ssh_hosts)
    assert isinstance(unknown, HostRefused)
    assert "is unknown" in unknown.what
    ssh_hosts.trust(HOST, "127.0.0.21", ssh_hosts.ports[HOST], make_key(tmp_path / "other").with_suffix(".pub"))
    wrong = await refusal(ssh_hosts)
    assert isinstance(wrong, HostRefused)
    assert "not the one in known_hosts" in wrong.what


def ask_for_no_check(hosts: SshHosts) -> None:
    text = hosts.config.read_text()
    text = text.replace(
        f"UserKnownHostsFile {hosts.known_hosts}", "UserKnownHostsFile none\n  StrictHostKeyChecking no"
    )
    hosts.config.write_text(text)


def other_key(hosts: SshHosts) -> None:
    key = make_key(hosts.folder / "stranger")
    hosts.config.write_text(hosts.config.read_text().replace(f"IdentityFile {hosts.key}", f"IdentityFile {key}"))


def missing_key(hosts: SshHosts) -> None:
    hosts.config.write_text(hosts.config.read_text().replace(f"IdentityFile {hosts.key}", "IdentityFile /no/key"))


def own_jump(hosts: SshHosts) -> None:
    hosts.config.write_text(hosts.config.read_text() + f"  ProxyJump {HOST}\n")


def broken_line(hosts: SshHosts) -> None:
    hosts.config.write_text("Port many\n")


@pytest.mark.parametrize(
    ("damage", "kind", "text"),
    [
        (ask_for_no_check, HostRefused, "turns the check of host keys off"),
        (other_key, HostRefused, "admits no ssh key"),
        (missing_key, InvalidInput, "/no/key"),
        (own_jump, InvalidInput, "its own jump host"),
        (broken_line, InvalidInput, "cannot be read"),
    ],
)
async def test_each_refusal_says_what_to_do(
    ssh_hosts: SshHosts, damage: Callable[[SshHosts], None], kind: type[P2PModelError], text: str
) -> None:
    ssh_hosts.add(HOST)
    damage(ssh_hosts)
    error = await refusal(ssh_hosts)
    assert isinstance(error, kind)
    assert text in str(error)


async def test_a_host_that_is_down_is_unreachable(ssh_hosts: SshHosts) -> None:
    ssh_hosts.add(HOST)
    ssh_hosts.stop(HOST)
    error = await refusal(ssh_hosts)
    assert isinstance(error, HostUnreachable)
    assert "cannot connect" in error.what


async def test_connections_that_a_jump_host_resets_are_tried_again(ssh_hosts: SshHosts) -> None:
    ssh_hosts.add("gateway", startups="2:100:2")
    ssh_hosts.add(HOST)
    ssh_hosts.config.write_text(
        ssh_hosts.config.read_text().replace(f"Host {HOST}\n", f"Host {HOST}\n  ProxyJump gateway\n")
    )
    launcher = SshLauncher(ssh_hosts.config)

    async def once() -> int:
        async with launcher.connect(HOST) as host:
            return (await host.run(["true"])).code

    assert await asyncio.gather(*(once() for _ in range(6))) == [0] * 6


class EndedProcess:
    """A command that ended before its input was sent."""

    def __init__(self) -> None:
        self.stdin = self

    def write(self, _data: bytes) -> None:
        raise BrokenPipeError("Channel not open for sending")

    async def wait(self) -> SimpleNamespace:
        return SimpleNamespace(exit_status=3, stdout=b"", stderr=b"no such folder")


class EndedConnection:
    def get_extra_info(self, _name: str) -> None:
        return None

    async def create_process(self, _command: str, **_options: object) -> EndedProcess:
        return EndedProcess()


async def test_a_command_that_ends_without_reading_its_input_has_its_exit_code() -> None:
    host = SshHost(HOST, EndedConnection(), None)  # type: ignore[arg-type]
    assert await host.run(["tee", "x"], stdin=b"data") == Completed(3, b"", b"no such folder")
