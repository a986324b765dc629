"""The goodput of one TCP stream between two hosts of a cluster.

As a program: `receive ADDRESS PORT SECONDS` prints bytes per second after a ramp-up of one second; `send ADDRESS PORT`
sends until the receiver closes.
"""

import json
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress

from scripts.bench.rigs.cluster import Host
from scripts.bench.rigs.programs import Program

PORT = 5201
RAMP_UP = 1.0
_CHUNK = 256 << 10


def goodputs(pairs: Sequence[tuple[Host, Host]], seconds: float = 4.0) -> list[float]:
    """Bytes per second from the first host of each pair to its second, all pairs at once."""
    with ExitStack() as stack:
        programs = []
        for number, (_sender, receiver) in enumerate(pairs):
            arguments = ["receive", receiver.address, str(PORT + number), str(seconds)]
            programs.append(_program(receiver, arguments, stack))
        for program in programs:
            program.first()
        for number, (sender, receiver) in enumerate(pairs):
            _program(sender, ["send", receiver.address, str(PORT + number)], stack)
        return [_result(program, seconds + RAMP_UP + 20) for program in programs]


def _program(host: Host, arguments: list[str], stack: ExitStack) -> Program:
    return Program(host.inside([sys.executable, "-m", "scripts.bench.rigs.goodput", *arguments]), stack)


def _result(program: Program, seconds: float) -> float:
    deadline = time.monotonic() + seconds
    while len(program.lines) < 2:
        if time.monotonic() > deadline:
            raise SystemExit("no TCP stream passed a link of the rig")
        time.sleep(0.05)
    return float(json.loads(program.lines[1][1])["rate"])


def receive(address: str, port: int, seconds: float) -> None:
    """Take one stream, and print its rate."""
    with socket.create_server((address, port)) as server:
        print(json.dumps({"port": port}), flush=True)
        stream, _ = server.accept()
    with stream:
        _count(stream, RAMP_UP)
        count, spent = _count(stream, seconds)
    print(json.dumps({"rate": count / spent}), flush=True)


def _count(stream: socket.socket, seconds: float) -> tuple[int, float]:
    began, count = time.monotonic(), 0
    while (spent := time.monotonic() - began) < seconds:
        count += len(stream.recv(_CHUNK))
    return count, spent


def send(address: str, port: int) -> None:
    """Send zeros at full rate."""
    zeros = bytes(_CHUNK)
    with socket.create_connection((address, port), 10) as stream, suppress(OSError):
        while True:
            stream.sendall(zeros)


if __name__ == "__main__":
    if sys.argv[1] == "receive":
        receive(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
    else:
        send(sys.argv[2], int(sys.argv[3]))
