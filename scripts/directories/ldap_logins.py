"""Many logins at once at a real slapd over TLS: how long they take, and how long the event loop is held meanwhile.

Prints a line for each number of connections and each delay of the network, after one without logins: what the machine
itself holds. Exit code 1 if the loop is held longer than --bound more than that.
"""

import argparse
import asyncio
import base64
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import astuple, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

from p2pmodel.config.sections.trust import LdapSettings
from p2pmodel.core.network.rights import RequestCredentials
from p2pmodel.trust.access.ldap import LdapDirectory
from tests.support.slapd import SLAPD, made, user

TICK = 0.001


@dataclass(frozen=True)
class Measurement:
    """Seconds of the logins together, and the longest time in which nothing else ran."""

    seconds: float
    held: float
    computing: float
    """The longest time in which this process computed, and nothing else ran: a busy machine does not count."""

    @property
    def shown(self) -> str:
        """The times for which the loop was held."""
        return f"loop held {self.held * 1000:.1f} ms at most, computing {self.computing * 1000:.1f} ms"


def main() -> int:
    """Measure, print, and return the exit code."""
    options = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    options.add_argument("--logins", type=int, default=50, help="Logins at once.")
    options.add_argument("--rounds", type=int, default=3, help="Repetitions; the median counts.")
    options.add_argument("--connections", type=int, nargs="+", default=[1, 4, 16], help="Settings to measure.")
    options.add_argument("--delays", type=float, nargs="+", default=[0, 25], help="One-way delays, milliseconds.")
    options.add_argument("--bound", type=float, default=20.0, help="Milliseconds for which the loop may be held.")
    given = options.parse_args()
    if not SLAPD:
        print("slapd is not installed (Debian: apt-get install slapd)", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        server = made(Path(folder), [user(f"user{number}") for number in range(given.logins)])
        server.start()
        try:
            own = asyncio.run(measured(lambda: asyncio.sleep(1.0)))
            print(f"no logins, {own.seconds:.1f} s: {own.shown}")
            return max(
                measure_delay(given, server.tls, delay / 1000, Path(folder) / "ca.pem", own) for delay in given.delays
            )
        finally:
            server.stop()


def measure_delay(given: argparse.Namespace, port: int, delay: float, ca_file: Path, own: Measurement) -> int:
    """Measure behind a wire with a delay; the exit code."""
    here, there = multiprocessing.Pipe()
    relay = multiprocessing.get_context("spawn").Process(target=run_relay, args=(port, delay, there), daemon=True)
    relay.start()
    url, failed = f"ldaps://127.0.0.1:{here.recv()}", 0
    for connections in given.connections:
        rounds = [asyncio.run(log_in(url, ca_file, connections, given.logins)) for _ in range(given.rounds)]
        usual = Measurement(*(median(values) for values in zip(*map(astuple, rounds), strict=True)))
        print(
            f"{given.logins} logins, {connections} connections, {delay * 1000:.0f} ms away: "
            f"{usual.seconds:.2f} s, {usual.shown}"
        )
        failed |= usual.held * 1000 > given.bound + own.held * 1000
    relay.kill()
    relay.join()
    return int(failed)


async def log_in(url: str, ca_file: Path, connections: int, logins: int) -> Measurement:
    """Log in as many users at once, none of them known yet."""
    plain = {"url": url, "ca_file": ca_file, "user_dn": "uid={user},ou=people,dc=example,dc=org", "timeout": 60}
    directory = LdapDirectory(LdapSettings.model_validate(plain | {"connections": connections}), ttl=60.0)

    async def every_login() -> None:
        await asyncio.gather(*(directory.subject(credentials(f"user{number}")) for number in range(logins)))

    return await measured(every_login)


def credentials(name: str) -> RequestCredentials:
    """Name and password of a user, as a client sends them."""
    return RequestCredentials("Basic " + base64.b64encode(f"{name}:{name}-pw".encode()).decode())


async def measured(work: Callable[[], Awaitable[None]]) -> Measurement:
    """Run `work` beside a timer that should fire every millisecond."""
    held = computing = 0.0

    async def tick() -> None:
        nonlocal held, computing
        while True:
            before, cpu = time.perf_counter(), time.process_time()
            await asyncio.sleep(TICK)
            late = time.perf_counter() - before - TICK
            held, computing = max(held, late), max(computing, min(late, time.process_time() - cpu))

    ticking = asyncio.create_task(tick())
    await asyncio.sleep(0.05)
    started = time.perf_counter()
    await work()
    seconds = time.perf_counter() - started
    await asyncio.sleep(0.05)
    ticking.cancel()
    return Measurement(seconds, held, computing)


def run_relay(port: int, delay: float, answer: Connection) -> None:
    """Relay connections to `port` with a delay each way; `answer` gets the port to connect to. Runs until killed."""

    async def serve() -> None:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            onward_reader, onward_writer = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(carry(reader, onward_writer, delay), carry(onward_reader, writer, delay))

        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        answer.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(serve())


async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
    """What `reader` has, `delay` seconds later."""
    on_the_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def arrive() -> None:
        data = b"x"
        while data:
            due, data = await on_the_way.get()
            await asyncio.sleep(due - time.monotonic())
            writer.write(data)
        writer.close()

    arriving = asyncio.create_task(arrive())
    data = b"x"
    while data:
        try:
            data = await reader.read(1 << 16)
        except OSError:
            data = b""
        on_the_way.put_nowait((time.monotonic() + delay, data))
    await arriving


if __name__ == "__main__":
    sys.exit(main())
