"""A TCP proxy that simulates distance: every byte arrives `--delay` seconds later, in both directions.

It does not delay the handshake, and TCP's windows do not see the distance: it shows the waiting time of each request.
Usage: python -m scripts.bench.rigs.delay_proxy --listen HOST:PORT --to HOST:PORT --delay SECONDS
"""

import argparse
import asyncio
import contextlib
import json

_BLOCK = 1 << 16
_IN_FLIGHT = 4096
"""Blocks in flight at most: 256 MiB in each direction."""

_Due = tuple[float, bytes]


async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
    """Pass bytes on, each `delay` seconds after its arrival, until either side ends."""
    loop = asyncio.get_running_loop()
    waiting: asyncio.Queue[_Due] = asyncio.Queue(_IN_FLIGHT)

    async def receive() -> None:
        data = b"-"
        while data:
            data = await reader.read(_BLOCK)
            await waiting.put((loop.time() + delay, data))

    receiving = asyncio.ensure_future(receive())
    try:
        while True:
            due, data = await waiting.get()
            await asyncio.sleep(due - loop.time())
            if not data:
                return
            writer.write(data)
            await writer.drain()
    finally:
        receiving.cancel()
        writer.close()


async def serve(listen: str, to: str, delay: float) -> None:
    """Serve until cancelled. The endpoint is printed as one JSON line."""
    host, _, port = to.rpartition(":")

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(pipe(reader, far_writer, delay), pipe(far_reader, writer, delay))

    own_host, _, own_port = listen.rpartition(":")
    server = await asyncio.start_server(connected, own_host, int(own_port))
    address = server.sockets[0].getsockname()
    print(json.dumps({"endpoint": f"http://{address[0]}:{address[1]}"}), flush=True)
    await server.serve_forever()


def main() -> None:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser(prog="scripts.bench.rigs.delay_proxy", description="A TCP proxy with a delay.")
    parser.add_argument("--listen", required=True, metavar="HOST:PORT", help="address of the proxy")
    parser.add_argument("--to", required=True, metavar="HOST:PORT", help="address of the server")
    parser.add_argument("--delay", type=float, required=True, help="seconds each way")
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(options.listen, options.to, options.delay))


if __name__ == "__main__":
    main()
