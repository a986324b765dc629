"""Probes of announced addresses: bounded, shared, and never of a machine that the client is not."""

import asyncio
import socket

from p2pmodel.coordinator.server import probes as module
from p2pmodel.coordinator.server.probes import BAD_FOR, GOOD_FOR, MOST_OF_ADDRESS, ConnectionProbes, connect
from p2pmodel.core.network.addresses import ListenAddress

HOST = "10.0.0.7"


class Rig:
    """Probes under a hand-driven clock, of peers with given answers. `open` lets the attempts end."""

    def __init__(self) -> None:
        self.now, self.answer, self.open = 0.0, "", asyncio.Event()
        self.open.set()
        self.tried: list[tuple[str, int]] = []
        self.probes = ConnectionProbes(lambda: self.now, self.connect)

    async def connect(self, host: str, port: int) -> str:
        self.tried.append((host, port))
        await self.open.wait()
        return self.answer

    async def failure(self, port: int = 1, host: str = HOST, source: str = HOST, *, again: bool = False) -> str:
        return await self.probes.failure(ListenAddress(host, port), source, again=again)


async def test_a_good_result_is_used_for_longer_than_a_bad_one() -> None:
    rig = Rig()
    assert await rig.failure() == ""
    rig.now = GOOD_FOR - 1
    rig.answer = "timed out"
    assert await rig.failure() == ""
    assert await rig.failure(again=True) == "timed out"
    rig.answer = ""
    assert await rig.failure() == "timed out", "known a moment ago"
    rig.now += BAD_FOR
    assert await rig.failure() == ""
    rig.answer = "timed out"
    assert await rig.failure(again=True) == "timed out"
    rig.answer = ""
    assert await rig.failure(again=True) == "", "whatever was known a moment ago"
    assert len(rig.tried) == 5


async def test_attempts_are_shared_and_bounded_for_each_address() -> None:
    rig = Rig()
    rig.answer = "timed out"
    rig.open.clear()
    asked = [asyncio.create_task(rig.failure(port)) for port in range(1, 100) for _ in range(2)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(rig.tried) == len(set(rig.tried)) == MOST_OF_ADDRESS
    rig.open.set()
    found = await asyncio.gather(*asked)
    assert found.count("timed out") == 2 * MOST_OF_ADDRESS
    assert await rig.failure(200) == "timed out", "there is room again"


async def test_no_client_makes_it_connect_to_the_coordinators_own_machine() -> None:
    rig = Rig()
    rig.answer = "refused"
    for host in ("127.0.0.1", "::1", "0.0.0.0", "169.254.169.254", "fe80::1", "224.0.0.1"):
        assert await rig.failure(host=host, source="10.0.0.7") == ""
    assert rig.tried == []
    assert await rig.failure(host="127.0.0.2", source="127.0.0.2") == "refused", "a client of this machine"


async def test_they_can_be_turned_off() -> None:
    rig = Rig()
    rig.answer = "timed out"
    off = ConnectionProbes(lambda: 0.0, rig.connect, enabled=False)
    assert await off.failure(ListenAddress(HOST, 1), HOST) == ""
    assert rig.tried == []


async def test_real_connections(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert await connect("127.0.0.1", port) == ""
    assert await connect("127.0.0.1", port) == "connection refused"

    async def hang(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(module, "PROBE_SECONDS", 0.01)
    monkeypatch.setattr(asyncio, "open_connection", hang)
    assert await connect("127.0.0.1", port) == "timed out"
