"""The HTTP source of a private seeder, asked by curl, aria2 and a real node: what each certificate opens."""

import asyncio
import datetime as dt
import random
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import ClientSession

from p2pmodel.coordinator.client.coordinators import Coordinator
from p2pmodel.node.private.membership import SwarmMembership
from p2pmodel.node.reporter import Reporter
from p2pmodel.swarm.engine import SwarmCertificate
from p2pmodel.swarm.torrents import Metainfo, parse
from p2pmodel.trust.certificates import Authority
from tests.support.eventually import PATIENCE, eventually
from tests.support.foreign_clients import QBittorrent, foreign_client, free_port
from tests.support.processes import Nodes, Running, token_file
from tests.support.swarm_certificates import certificate_for, new_authority

REPO = "org/model"
SIZE = 6_000_000
UNLISTED = "127.0.0.77"
OTHER = "d" * 40

pytestmark = pytest.mark.needs("curl", "aria2c", "qbittorrent-nox")


@dataclass(frozen=True)
class PrivateSeeder:
    """A seeder of a private snapshot that is its own coordinator, and what a member knows of it."""

    nodes: Nodes
    running: Running
    config: Path
    private: str
    url: str
    token: Path
    metainfo: Metainfo
    port: int

    @property
    def commit(self) -> str:
        return self.metainfo.manifest.commit

    @property
    def uploaded(self) -> int:
        return int(self.running.progress().get("uploaded", 0))

    def revoke(self, name: str) -> None:
        self.config.write_text(f'{self.private}revoked = ["{name}"]\n')
        self.running.process.send_signal(signal.SIGHUP)

    def curl(self, out: Path, certificate: SwarmCertificate | None, *options: str) -> Sequence[str]:
        """A command that downloads the model, as the commit's host, so that TLS asks for it."""
        pair = []
        if certificate is not None:
            pem = out.with_suffix(".pem")
            pem.touch(mode=0o600)
            pem.write_text(certificate.certificate + certificate.key)
            pair = ["--cert", str(pem)]
        host = f"{self.commit}:{self.port}"
        where = ["--resolve", f"{host}:127.0.0.1", f"https://{host}/{REPO}/resolve/{self.commit}/model.safetensors"]
        return ["curl", "-s", "-f", "-k", "-m", f"{PATIENCE:g}", "-o", str(out), *pair, *options, *where]


async def seeding(nodes: Nodes, tmp_path: Path) -> PrivateSeeder:
    source, token, config = tmp_path / "model", token_file(tmp_path / "token"), tmp_path / "seeder.toml"
    source.mkdir()
    (source / "config.json").write_bytes(b"{}")
    (source / "model.safetensors").write_bytes(random.Random(1).randbytes(SIZE))
    made = nodes.ok("seeder", "ca", "init", "--folder", tmp_path / "ca", "--json").json
    port = free_port()
    private = f'[private]\nca_file = "{made["certificate"]}"\nca_key = "{made["key"]}"\nsource_port = {port}\n'
    config.write_text(private)
    config.chmod(0o600)
    where = ("--listen", "127.0.0.1:0", "--swarm-listen", "127.0.0.1:0", "--json", "--progress", "json")
    options = ("--as", REPO, "--private", "--token-file", token, "--config", config)
    running = nodes.start("seeder", "seed", source, *options, *where)
    ready = await asyncio.to_thread(running.ready)
    url = str(ready["coordinator"])
    headers = {"Authorization": f"Bearer {token.read_text().strip()}"}
    torrent = f"{url}/catalog/torrents/{ready['info_hash']}.torrent"
    async with ClientSession(headers=headers) as http, http.get(torrent) as answer:
        metainfo = parse(await answer.read())
    return PrivateSeeder(nodes, running, config, private, url, token, metainfo, port)


async def bytes_of(commands: Mapping[Path, Sequence[str]]) -> dict[str, int]:
    """Run all at once; how many bytes each has written."""
    started = [
        await asyncio.create_subprocess_exec(*command, stderr=subprocess.DEVNULL) for command in commands.values()
    ]
    await asyncio.gather(*(process.wait() for process in started))
    return {path.stem: path.stat().st_size if path.exists() else 0 for path in commands}


async def test_no_client_without_a_right_gets_a_byte_while_an_entitled_node_finishes(
    nodes: Nodes, tmp_path: Path
) -> None:
    seeder = await seeding(nodes, tmp_path)
    ours = Authority.read(tmp_path / "ca" / "ca.crt", tmp_path / "ca" / "ca.key")
    membership = SwarmMembership([Coordinator(seeder.url, seeder.token.read_text().strip())], Reporter())
    await membership.join(seeder.metainfo, ["127.0.0.1"], timeout=PATIENCE)
    right, folder = membership.certificate, tmp_path / "got"
    folder.mkdir()
    plain = f"https://127.0.0.1:{seeder.port}/{REPO}/resolve/{seeder.commit}/model.safetensors"
    intruders = {
        "none": seeder.curl(folder / "none.bin", None),
        "other_ca": seeder.curl(folder / "other_ca.bin", certificate_for(new_authority("other"), seeder.commit)),
        "expired": seeder.curl(
            folder / "expired.bin",
            # Within the authority's time, which began a moment before this test.
            certificate_for(ours, seeder.commit, now=dt.datetime.now(dt.UTC) - dt.timedelta(minutes=2), seconds=60),
        ),
        "other_commit": seeder.curl(folder / "other_commit.bin", certificate_for(ours, OTHER)),
        "unlisted": seeder.curl(folder / "unlisted.bin", right, "--interface", UNLISTED),
        "aria2": [
            "aria2c",
            "-q",
            "--check-certificate=false",
            "--max-tries=2",
            "-d",
            str(folder),
            "-o",
            "aria2.bin",
            plain,
        ],
    }
    commands = {folder / f"{name}.bin": command for name, command in intruders.items()}
    nothing = dict.fromkeys(intruders, 0)
    assert await bytes_of(commands) == nothing
    assert seeder.uploaded == 0, "nor has the seeder sent one"

    member = {"P2PMODEL_COORDINATOR_TOKEN_FILE": str(seeder.token), "P2PMODEL_PUBLISH_TOKEN_FILE": ""}
    node = nodes.fetch(
        "node", REPO, "--coordinator", seeder.url, "--endpoint", "http://127.0.0.1:9", address="127.0.0.43", **member
    )
    stolen = tmp_path / "stolen.torrent"
    stolen.write_bytes(seeder.metainfo.raw)
    async with foreign_client("qbittorrent-nox", tmp_path / "qbittorrent") as foreign:
        assert isinstance(foreign, QBittorrent)
        await foreign.add(stolen, folder)
        async with asyncio.timeout(PATIENCE):
            while not await foreign.listed(folder):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)
        assert await bytes_of(commands) == nothing
        done = await asyncio.to_thread(node.wait)
        assert done.code == 0, done.err[-2000:]
        assert (await foreign.listed(folder))["downloaded"] == 0, "with the key of a member, at the address of one"
    assert node.progress()["from_seeders"] > 0, "the source is under leases"
    assert await bytes_of({folder / "right.bin": seeder.curl(folder / "right.bin", right)}) == {"right": SIZE}
    await membership.close()


async def test_a_member_is_cut_off_in_the_middle_of_a_response(nodes: Nodes, tmp_path: Path) -> None:
    seeder = await seeding(nodes, tmp_path)
    publisher = nodes.publish_token.read_text().strip()
    membership = SwarmMembership([Coordinator(seeder.url, publisher)], Reporter())
    await membership.join(seeder.metainfo, ["127.0.0.1"], timeout=PATIENCE)
    out = tmp_path / "cut.bin"
    command = seeder.curl(out, membership.certificate, "--limit-rate", "100k")
    reading = await asyncio.create_subprocess_exec(*command)
    await eventually(lambda: out.exists() and out.stat().st_size > 0, what="bytes come")
    seeder.revoke(nodes.publish_token.stem)
    async with asyncio.timeout(PATIENCE):
        assert await reading.wait() != 0
    cut = out.stat().st_size
    assert 0 < cut < SIZE
    assert await bytes_of({tmp_path / "again.bin": seeder.curl(tmp_path / "again.bin", membership.certificate)}) == {
        "again": 0
    }
    await membership.close()
