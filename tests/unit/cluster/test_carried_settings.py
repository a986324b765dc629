"""The settings that go to a host, by the real script: what a node there reads, and what never leaves the launcher."""

import asyncio
import os
import stat
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest

from p2pmodel.cluster.carried import FILE, CarriedCredentials, CarriedSettings, carried_settings
from p2pmodel.cluster.launcher import COMMAND_SECONDS, Completed, HostLook
from p2pmodel.cluster.launchers.memory import MemoryHost
from p2pmodel.config.settings import Settings
from p2pmodel.config.sources import load_settings
from p2pmodel.errors import InvalidInput, LocalResource

SECRETS = ("near-secret", "pass-word", "AKIA-EXAMPLE", "s3-secret", "PRIVATE KEY")
LAUNCHER = """
[[mirrors]]
name = "near"
endpoint = "https://near.example/hf"
priority = 3
repos = ["our-org/*", "!Qwen/*"]
token_file = "near.token"
ca_file = "ca.pem"
certificate = "node.pem"
key = "node.key"
max_connections = 4
max_bytes_per_second = "20MB"
redirects = ["10.0.0.0/8"]
[[mirrors]]
name = "store"
endpoint = "s3://models/export"
s3_endpoint = "http://10.0.0.9:9000"
s3_region = "eu-1"
s3_profile = "models"
s3_credentials_file = "aws.ini"
s3_path_style = true
priority = 1
[[mirrors]]
preset = "modelscope"
fallback = true
priority = 9
[[mirrors]]
name = "basic"
endpoint = "https://basic.example"
username = "us\\"er"
token_env = "P2PMODEL_BASIC_TOKEN"
priority = 4
[origin]
part_size = "32MiB"
patience = 7
allowed_networks = ["10.1.0.0/16"]
"""


class ShellHost(MemoryHost):
    """Runs commands of a host on this machine, and keeps them."""

    def __init__(self) -> None:
        super().__init__("gpu001")
        self.commands: list[Sequence[str]] = []

    async def run(self, command: Sequence[str], *, stdin: bytes = b"", timeout: float = COMMAND_SECONDS) -> Completed:
        self.commands.append(command)
        process = await asyncio.create_subprocess_exec(*command, stdin=-1, stdout=-1, stderr=-1)
        out, err = await asyncio.wait_for(process.communicate(stdin), timeout)
        assert process.returncode is not None
        return Completed(process.returncode, out, err)


def settings_here(folder: Path) -> Settings:
    folder.mkdir()
    files = {
        "near.token": "near-secret\n",
        "ca.pem": "AN AUTHORITY\n",
        "node.pem": "A CERTIFICATE\n",
        "node.key": "PRIVATE KEY\n",
        "aws.ini": "[other]\naws_access_key_id = NO\naws_secret_access_key = never-this\n"
        "[models]\naws_access_key_id = AKIA-EXAMPLE\naws_secret_access_key = s3-secret\n",
        "p2pmodel.toml": LAUNCHER,
    }
    for name, text in files.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o600)
    environment = {"HOME": str(folder), "P2PMODEL_BASIC_TOKEN": "pass-word"}
    with patch.dict(os.environ, environment, clear=True):
        return load_settings(config=folder / "p2pmodel.toml")


def settings_there(home: Path, environment: dict[str, str], own: str = "") -> Settings:
    """As a node of the host reads them, with a settings file of its own."""
    config = home / ".config/p2pmodel/p2pmodel.toml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(own)
    with patch.dict(os.environ, {"HOME": str(home)} | environment, clear=True):
        return load_settings()


@pytest.fixture
def host() -> ShellHost:
    return ShellHost()


@pytest.fixture
def look(tmp_path: Path) -> HostLook:
    return HostLook(str(tmp_path / "state dir"), "/run/p2pmodel.sock", ("p2pmodel",), "3.11", 0.0)


def carried(settings: Settings, *, credentials: bool) -> CarriedSettings:
    carrying: CarriedCredentials = "carried" if credentials else "named"
    return carried_settings(settings.mirrors, settings.origin, credentials=carrying)


async def test_a_host_uses_the_mirrors_as_the_launcher_does(tmp_path: Path, host: ShellHost, look: HostLook) -> None:
    here = settings_here(tmp_path / "launcher")
    package = carried(here, credentials=False)
    environment = await package.onto(host, look)
    own = '[[mirrors]]\nname="own"\nendpoint="http://own"\n[swarm]\nzone="rack-7"\n[origin]\nread_timeout=3\npatience=99\n'
    there = settings_there(tmp_path, environment, own)
    assert (there.swarm.zone, there.origin.read_timeout) == ("rack-7", 3.0)  # of the host itself
    assert (there.origin.patience, there.origin.part_size) == (7.0, 32 << 20)
    assert there.origin.allowed_networks == ("10.1.0.0/16",)
    files = {"ca_file", "token"}
    assert [mirror.model_dump(exclude=files) for mirror in there.mirrors] == [
        mirror.model_dump(exclude=files) for mirror in here.mirrors
    ]
    near = there.mirrors[1]
    assert (near.name, near.repos) == ("near", ("our-org/*", "!Qwen/*"))
    assert near.ca_file is not None
    assert near.ca_file.read_text() == "AN AUTHORITY\n"
    # Files with secrets are named as they are named here, and nothing of their content is there.
    settings = Path(environment["P2PMODEL_CLUSTER_CONFIG"])
    written = b"".join(file.read_bytes() for file in settings.parent.iterdir())
    assert not [secret for secret in SECRETS if secret.encode() in written]
    assert "aws.ini" in package.kept[0]
    assert "near.token" in package.kept[1]
    assert "P2PMODEL_BASIC_TOKEN" in package.kept[2]


async def test_credentials_go_along_only_on_request_and_never_in_a_command(
    tmp_path: Path, host: ShellHost, look: HostLook
) -> None:
    here = settings_here(tmp_path / "launcher")
    package = carried(here, credentials=True)
    environment = await package.onto(host, look)
    assert package.kept == ()
    there = settings_there(tmp_path, environment)
    assert [mirror.token for mirror in there.mirrors] == [mirror.token for mirror in here.mirrors]
    store, near = there.mirrors[:2]
    assert near.key is not None
    assert near.key.read_text() == "PRIVATE KEY\n"
    assert store.s3_credentials_file is not None
    text = store.s3_credentials_file.read_text()
    assert text.split() == [
        *("[models]", "aws_access_key_id", "=", "AKIA-EXAMPLE"),
        *("aws_secret_access_key", "=", "s3-secret"),
    ]
    for file in (store.s3_credentials_file.parent, *store.s3_credentials_file.parent.iterdir()):
        assert not stat.S_IMODE(file.stat().st_mode) & 0o077, file
    shown = " ".join(word for command in host.commands for word in command) + " ".join(environment.values())
    assert not [secret for secret in SECRETS if secret in shown]
    assert not [secret for secret in SECRETS if secret in repr(package)]


def inodes(folder: Path) -> dict[str, int]:
    return {str(file.relative_to(folder)): file.stat().st_ino for file in folder.rglob("*")}


async def test_a_host_gets_the_files_once_in_a_roll_out_and_the_next_one_replaces_them(
    tmp_path: Path, host: ShellHost, look: HostLook
) -> None:
    here = settings_here(tmp_path / "launcher")
    first = carried(here, credentials=True)
    folder = Path(look.state_dir) / "cluster"
    assert await first.onto(host, look) == {"P2PMODEL_CLUSTER_CONFIG": f"{folder}/settings/{FILE}"}
    before = inodes(folder)
    await first.onto(host, look)
    assert inodes(folder) == before
    await carried(here, credentials=False).onto(host, look)
    assert sorted(inodes(folder)) == ["settings", "settings/1-ca.pem", f"settings/{FILE}", "settings/run"]


async def test_a_host_that_cannot_take_them_is_named(tmp_path: Path, host: ShellHost, look: HostLook) -> None:
    look = replace(look, state_dir="/dev/null")
    package = carried(settings_here(tmp_path / "launcher"), credentials=False)
    with pytest.raises(LocalResource, match="gpu001: the settings were not written there"):
        await package.onto(host, look)


async def test_a_file_that_others_can_read_is_no_secret_to_carry(tmp_path: Path) -> None:
    here = settings_here(tmp_path / "launcher")
    (tmp_path / "launcher/node.key").chmod(0o644)
    with pytest.raises(InvalidInput, match="others can read the key"):
        carried(here, credentials=True)
    assert carried(here, credentials=False).files
