"""Other people's BitTorrent clients, headless, on loopback, with configuration and ports of their own."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import aiohttp

from tests.support.eventually import PATIENCE, eventually

STOP_SECONDS = 10.0


class ForeignClient(Protocol):
    """A running client (or one that runs per download)."""

    async def download(self, torrent: Path, folder: Path) -> None:
        """Download `torrent` into `folder`; AssertionError when it is not complete within PATIENCE."""


def differences(folder: Path, contents: Mapping[str, bytes]) -> list[str]:
    """Paths below `folder` that are missing or differ from `contents`, byte for byte. Empty files may be missing:
    some clients make none."""
    wrong = []
    for path, data in contents.items():
        try:
            found = (folder / path).read_bytes()
        except FileNotFoundError:
            found = b""
        if found != data:
            wrong.append(path)
    return wrong


@asynccontextmanager
async def foreign_client(name: str, home: Path) -> AsyncIterator[ForeignClient]:
    """Start the Debian client `name` with `home` for everything it writes; stop it in the end."""
    await asyncio.to_thread(home.mkdir)
    if name == "aria2c":
        yield _Aria2(home)
        return
    assert name == "qbittorrent-nox"
    web_port = free_port()
    await asyncio.to_thread(_configure_qbittorrent, home, web_port)
    async with _process("qbittorrent-nox", f"--profile={home}", home=home), aiohttp.ClientSession() as session:
        client = QBittorrent(session, f"http://127.0.0.1:{web_port}/api/v2")
        await client.started()
        yield client


_QBITTORRENT = """\
[LegalNotice]
Accepted=true

[BitTorrent]
Session\\DHTEnabled=false
Session\\LSDEnabled=false
Session\\PeXEnabled=false
Session\\Interface=lo
Session\\InterfaceName=lo
Session\\InterfaceAddress=127.0.0.1
Session\\Port={peer_port}
Session\\DefaultSavePath={home}/downloads
Session\\Preallocation=false

[Network]
PortForwardingEnabled=false

[Preferences]
WebUI\\Enabled=true
WebUI\\Address=127.0.0.1
WebUI\\Port={web_port}
WebUI\\LocalHostAuth=false
WebUI\\UseUPnP=false
"""


def _configure_qbittorrent(home: Path, web_port: int) -> None:
    config = home / "qBittorrent/config/qBittorrent.conf"
    config.parent.mkdir(parents=True)
    config.write_text(_QBITTORRENT.format(home=home, web_port=web_port, peer_port=free_port()))


class QBittorrent:
    def __init__(self, session: aiohttp.ClientSession, api: str) -> None:
        self._session = session
        self._api = api

    async def started(self) -> None:
        for _ in range(int(PATIENCE / 0.05)):
            with contextlib.suppress(aiohttp.ClientConnectionError):
                async with self._session.get(f"{self._api}/app/version") as response:
                    assert response.status == 200, await response.text()
                    return
            await asyncio.sleep(0.05)
        raise AssertionError(f"qbittorrent-nox did not open its port within {PATIENCE} s")

    async def add(self, torrent: Path, folder: Path) -> None:
        """Begin to download `torrent` into `folder`."""
        form = aiohttp.FormData({"savepath": str(folder), "contentLayout": "Original"})
        data = await asyncio.to_thread(torrent.read_bytes)
        form.add_field("torrents", data, filename="x.torrent", content_type="application/x-bittorrent")
        async with self._session.post(f"{self._api}/torrents/add", data=form) as response:
            assert await response.text() == "Ok."

    async def listed(self, folder: Path) -> dict[str, Any]:
        """What the client says of the torrent that it downloads into `folder`; empty if it has none yet."""
        async with self._session.get(f"{self._api}/torrents/info") as response:
            found = [t for t in await response.json() if t["save_path"].rstrip("/") == str(folder)]
        return dict(found[0]) if found else {}

    async def download(self, torrent: Path, folder: Path) -> None:
        await self.add(torrent, folder)
        state = "not listed"
        for _ in range(int(PATIENCE / 0.1)):
            if found := await self.listed(folder):
                state = f"{found['state']} {found['progress']:.0%}"
                if found["state"] in ("uploading", "stalledUP", "forcedUP"):
                    return
            await asyncio.sleep(0.1)
        raise AssertionError(f"qbittorrent-nox after {PATIENCE} s: {state}")


class _Aria2:
    def __init__(self, home: Path) -> None:
        self._home = home

    async def download(self, torrent: Path, folder: Path) -> None:
        quiet = ["enable-dht", "enable-dht6", "bt-enable-lpd", "enable-peer-exchange", "check-certificate"]
        log = self._home / "aria2.log"
        arguments = [
            "--no-conf",
            *(f"--{option}=false" for option in quiet),
            "--seed-time=0",
            "--interface=127.0.0.1",
            f"--listen-port={free_port()}",
            f"--dir={folder}",
            f"--log={log}",
            "--file-allocation=none",
            str(torrent),
        ]
        async with _process("aria2c", *arguments, home=self._home) as process:
            await eventually(lambda: process.returncode is not None, what="aria2c is done")
            assert process.returncode == 0, log.read_text()[-2000:]


@asynccontextmanager
async def _process(program: str, *arguments: str, home: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run `program` with a clean environment; terminate it at the end, kill it if it ignores that."""
    process = await asyncio.create_subprocess_exec(
        program,
        *arguments,
        env={"HOME": str(home), "PATH": os.environ["PATH"], "LANG": "C.UTF-8"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        await _stop(process)


async def _stop(process: asyncio.subprocess.Process) -> None:
    for signal in (process.terminate, process.kill):
        with contextlib.suppress(ProcessLookupError):
            signal()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), STOP_SECONDS)
            return


def free_port() -> int:
    """A port that was free a moment ago, for programs that do not take 0."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


__all__: Sequence[str] = ("ForeignClient", "QBittorrent", "differences", "foreign_client", "free_port")
