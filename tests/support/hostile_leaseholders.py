"""Clients of a coordinator that hold its token, lease without pulling, invent numbers, send garbage, come and go."""

import asyncio
import base64
import itertools
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import aiohttp

from tests.support.eventually import PATIENCE

EVERYTHING = base64.b64encode(b"\xff" * 512).decode()
TURN = 0.2
STAYS = 1 << 30
GARBAGE = ("", "{}", "[1", '{"scarce": "!"}', json.dumps({"scarce": EVERYTHING, "want": float("nan")}), "x" * 5000)


@asynccontextmanager
async def hostile_leaseholders(
    url: str, count: int, *, manifest: str = "", token: str = "", source: str = ""
) -> AsyncIterator[None]:
    """`count` such clients of the WebSocket at `url`, all of which have been there; the first message is `manifest`.

    They connect from the address `source`; without one, from that of honest nodes on this machine.
    """
    arrived = asyncio.Semaphore(0)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    connector = aiohttp.TCPConnector(limit=0, local_addr=(source, 0) if source else None)
    async with aiohttp.ClientSession(headers=headers, connector=connector) as session, asyncio.TaskGroup() as group:
        clients = [group.create_task(_haunt(session, url, manifest, n, arrived)) for n in range(count)]
        async with asyncio.timeout(PATIENCE):
            for _ in clients:
                await arrived.acquire()
        yield
        for client in clients:
            client.cancel()


async def _haunt(
    session: aiohttp.ClientSession, url: str, manifest: str, number: int, arrived: asyncio.Semaphore
) -> None:
    """One client: every fourth flaps, every tenth sends garbage."""
    dice, turns = random.Random(number), 5 if number % 4 == 0 else STAYS
    for visit in itertools.count():
        query = {"peer": f"10.6.6.{number}:6", "id": f"{number}-{visit}", "node": "\x1b[31mhostile"}
        with suppress(aiohttp.ClientError, ConnectionError):
            async with session.ws_connect(url, params=query) as socket:
                if manifest:
                    await socket.send_str(manifest)
                await socket.send_str(_demand(number))
                if not visit:
                    arrived.release()
                await _lease(socket, number, dice, turns)
        await asyncio.sleep(TURN)


async def _lease(socket: aiohttp.ClientWebSocketResponse, number: int, dice: random.Random, turns: int) -> None:
    for _ in range(turns):
        await socket.send_str(_demand(number))
        await asyncio.sleep(TURN)
        if number % 10 == 0:
            await socket.send_str(dice.choice(GARBAGE))


def _demand(number: int) -> str:
    """A state that asks for everything and stays as it is: what is leased to it comes from nowhere."""
    return json.dumps(
        {
            "scarce": EVERYTHING,
            "from_seeders": number % 3 > 0,
            "want": 1 << 40,
            "origin_bytes": 1 << 60 if number == 1 else 0,
            "leased": EVERYTHING if number % 7 == 1 else "",
            "cut_off": True,
        }
    )
