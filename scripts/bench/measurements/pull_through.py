"""The benchmark scripts/bench/pull-through: many clients on a pull-through mirror."""

import argparse
import asyncio
import json
import mmap
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from aiohttp import ClientSession, ClientTimeout, TCPConnector

from scripts.bench.rigs.machine import P2PMODEL, describe_machine, environment
from scripts.bench.rigs.programs import Program
from scripts.bench.rigs.reports import write_json
from scripts.bench.rigs.snapshots import write_random

MIB = 1 << 20
FILE = "bench/model/resolve/main/model.safetensors"
NGINX_PORT = 18443
NGINX = """
daemon off; worker_processes 1; pid {root}/nginx.pid; error_log {root}/nginx.log; {user}
events {{}}
http {{ access_log off; sendfile on; tcp_nopush on; server {{ listen 127.0.0.4:{port}; root {root}/source; }} }}
"""


async def cold(endpoint: str, content: mmap.mmap, clients: int) -> None:
    """All clients at once. AssertionError if one of them gets other bytes."""

    async def one(http: ClientSession) -> None:
        offset = 0
        async with http.get(f"{endpoint}/{FILE}") as answer:
            async for piece in answer.content.iter_any():
                assert content[offset : offset + len(piece)] == piece, f"wrong bytes at {offset}"
                offset += len(piece)
        assert offset == len(content), f"{offset} bytes only"

    async with ClientSession(connector=TCPConnector(limit=0), timeout=ClientTimeout(3000)) as http:
        await asyncio.gather(*(one(http) for _ in range(clients)))


def warm(url: str) -> float:
    """MB/s of one curl that discards the content."""
    command = ["curl", "--silent", "--fail", "--output", "/dev/null", "--write-out", "%{speed_download}", url]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout) / 1e6


def measure(options: argparse.Namespace, root: Path, stack: ExitStack) -> dict[str, Any]:
    """Both parts, in `root`."""
    source = root / "source"
    source.mkdir()
    path = source / "model.safetensors"
    size = options.size_mib * MIB
    write_random(path, size)
    served = root / "hub.served"
    hub_command = [sys.executable, "-m", "tests.support.fake_hub", "--dir", str(source), "--repo", "bench/model"]
    hub = Program([*hub_command, "--log", str(served), "--host", "127.0.0.2"], stack, log=root / "hub.log")
    serve = [*P2PMODEL, "mirror", "serve", "--listen", "127.0.0.3:0", "--json", "--upstream", hub.first()["url"]]
    env, cache = environment(root), root / "edge"
    mirror = Program([*serve, "--cache-dir", str(cache)], stack, env=env, log=root / "mirror.log")
    endpoint = mirror.first()["endpoint"]
    with path.open("rb") as file:
        content = stack.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    began = time.monotonic()
    asyncio.run(cold(endpoint, content, options.clients))
    seconds = time.monotonic() - began
    sent = wait_for(lambda: sum(json.loads(line)["sent"] for line in served.read_text().splitlines()), size)
    found = {
        "clients": options.clients,
        "size": size,
        "upstream_bytes": sent,
        "upstream_times_file": round(sent / size, 4),
        "seconds": round(seconds, 2),
        "served_mb_s": round(size * options.clients / seconds / 1e6, 1),
        "mirror_rss_mib": round(mirror.memory() / MIB, 1),
        "mirror_anon_mib": round(mirror.memory("RssAnon") / MIB, 1),
    }
    return found | compare(endpoint, root, options.runs, stack)


def compare(endpoint: str, root: Path, runs: int, stack: ExitStack) -> dict[str, Any]:
    """The warm part; empty without nginx and curl."""
    if shutil.which("nginx") is None or shutil.which("curl") is None:
        return {}
    config = root / "nginx.conf"
    config.write_text(NGINX.format(root=root, port=NGINX_PORT, user="user root;" if os.getuid() == 0 else ""))
    Program(["nginx", "-c", str(config), "-e", f"{root}/nginx.log"], stack)
    time.sleep(0.5)
    urls = {"mirror": f"{endpoint}/{FILE}", "nginx": f"http://127.0.0.4:{NGINX_PORT}/model.safetensors"}
    rates: dict[str, list[float]] = {name: [] for name in urls}
    for _ in range(runs + 1):
        for name, url in urls.items():
            rates[name].append(warm(url))
    medians = {name: statistics.median(each[1:]) for name, each in rates.items()}
    ratio = statistics.median(a / b for a, b in zip(rates["mirror"][1:], rates["nginx"][1:], strict=True))
    return {f"warm_{name}_mb_s": round(value, 1) for name, value in medians.items()} | {"warm_ratio": round(ratio, 3)}


def wait_for(value: Callable[[], int], least: int) -> int:
    """`value()` once it is at least `least`, or after five seconds."""
    deadline = time.monotonic() + 5
    while (now := value()) < least and time.monotonic() < deadline:
        time.sleep(0.05)
    return now


def main(options: argparse.Namespace) -> None:
    """Measure, print, and write the figures to --json."""
    machine = describe_machine()
    print(machine)
    with ExitStack() as stack:
        name = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-pull-through-", dir=options.dir))
        found = measure(options, Path(name), stack)
    for key, value in found.items():
        print(f"{key:<20} {value}")
    write_json(options.json, {"rig": machine} | found)
