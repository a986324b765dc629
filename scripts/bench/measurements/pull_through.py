"""The benchmark behind scripts/bench/pull-through.

cold    `--clients` clients ask an edge mirror at once for one file that only the hub behind it has. Every byte that
        each client gets is compared with the file. Reported: what the hub sent, as a multiple of the file; the time
        until the last client was done; the mirror's highest memory, in all (`rss`) and its own (`anon`).
warm    one client takes the file again `--runs` times, from the mirror and from nginx (`sendfile on`, if it is
        installed), in turn; medians.
"""

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
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from aiohttp import ClientSession, ClientTimeout, TCPConnector

from scripts.bench.rigs.machine import MIB, rig

FILE = "bench/model/resolve/main/model.safetensors"
NGINX = """
daemon off; worker_processes 1; pid {root}/nginx.pid; error_log {root}/nginx.log; {user}
events {{}}
http {{ access_log off; sendfile on; tcp_nopush on; server {{ listen 127.0.0.4:{port}; root {root}/source; }} }}
"""


async def cold(endpoint: str, content: mmap.mmap, clients: int) -> None:
    """All clients at once; AssertionError if one of them gets other bytes."""

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
    """MB/s of one curl that throws everything away."""
    command = ["curl", "--silent", "--fail", "--output", "/dev/null", "--write-out", "%{speed_download}", url]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout) / 1e6


def memory(pid: int) -> tuple[float, float]:
    """Highest memory in all, and the process's own memory now, in MiB."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) / 1024, int(lines["RssAnon"].split()[0]) / 1024


def measure(options: argparse.Namespace, root: Path, stack: ExitStack) -> dict[str, Any]:
    """Both parts, in `root`."""
    source = root / "source"
    source.mkdir()
    path = source / "model.safetensors"
    size = options.size_mib * MIB
    with path.open("wb") as out:
        for _ in range(options.size_mib):
            out.write(os.urandom(MIB))
    log = root / "hub.log"
    hub_command = ["-m", "tests.support.fake_hub", "--dir", source, "--repo", "bench/model", "--log", log]
    hub = start(stack, "url", *hub_command, "--host", "127.0.0.2")[0]
    serve = ["-m", "p2pmodel", "mirror", "serve", "--listen", "127.0.0.3:0", "--json", "--upstream", hub]
    endpoint, pid = start(stack, "endpoint", *serve, "--cache-dir", root / "edge", HOME=str(root))
    with path.open("rb") as file:
        content = stack.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    began = time.monotonic()
    asyncio.run(cold(endpoint, content, options.clients))
    seconds = time.monotonic() - began
    sent = wait_for(lambda: sum(json.loads(line)["sent"] for line in log.read_text().splitlines()), size)
    rss, anon = memory(pid)
    found = {
        "clients": options.clients,
        "size": size,
        "upstream_bytes": sent,
        "upstream_times_file": round(sent / size, 4),
        "seconds": round(seconds, 2),
        "served_mb_s": round(size * options.clients / seconds / 1e6, 1),
        "mirror_rss_mib": round(rss, 1),
        "mirror_anon_mib": round(anon, 1),
    }
    return found | compare(endpoint, root, options.runs, stack)


def compare(endpoint: str, root: Path, runs: int, stack: ExitStack) -> dict[str, Any]:
    """The warm part; empty without nginx and curl."""
    if shutil.which("nginx") is None or shutil.which("curl") is None:
        return {}
    port = 18443
    config = root / "nginx.conf"
    config.write_text(NGINX.format(root=root, port=port, user="user root;" if os.getuid() == 0 else ""))
    nginx = subprocess.Popen(["nginx", "-c", str(config), "-e", f"{root}/nginx.log"])
    stack.callback(stop, nginx)
    time.sleep(0.5)
    urls = {"mirror": f"{endpoint}/{FILE}", "nginx": f"http://127.0.0.4:{port}/model.safetensors"}
    rates: dict[str, list[float]] = {name: [] for name in urls}
    for _ in range(runs + 1):
        for name, url in urls.items():
            rates[name].append(warm(url))
    medians = {name: statistics.median(each[1:]) for name, each in rates.items()}
    ratio = statistics.median(a / b for a, b in zip(rates["mirror"][1:], rates["nginx"][1:], strict=True))
    return {f"warm_{name}_mb_s": round(value, 1) for name, value in medians.items()} | {"warm_ratio": round(ratio, 3)}


def start(stack: ExitStack, key: str, *arguments: str | Path, **env: str) -> tuple[str, int]:
    """Start one of our programs; what its first line says under `key`, and its process id."""
    process = subprocess.Popen(
        [sys.executable, *map(str, arguments)], stdout=subprocess.PIPE, text=True, env={**os.environ, **env}
    )
    stack.callback(stop, process)
    assert process.stdout is not None
    return str(json.loads(process.stdout.readline())[key]), process.pid


def stop(process: subprocess.Popen[Any]) -> None:
    """End a process and wait for it."""
    process.terminate()
    process.wait(30)
    if process.stdout is not None:
        process.stdout.close()


def wait_for(value: Callable[[], int], least: int) -> int:
    """`value()` once it is at least `least`, or after five seconds."""
    deadline = time.monotonic() + 5
    while (now := value()) < least and time.monotonic() < deadline:
        time.sleep(0.05)
    return now


@contextmanager
def workplace(folder: Path | None) -> Iterator[Path]:
    """A directory that is deleted at the end."""
    with tempfile.TemporaryDirectory(prefix="bench-pull-through-", dir=folder) as name:
        yield Path(name)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size-mib", type=int, default=200)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--runs", type=int, default=7, help="rounds of the warm part")
    parser.add_argument("--dir", type=Path, help="where the temporary directory goes")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    options = parser.parse_args()
    print(rig())
    with ExitStack() as stack:
        found = measure(options, stack.enter_context(workplace(options.dir)), stack)
    for name, value in found.items():
        print(f"{name:<20} {value}")
    if options.json:
        options.json.write_text(json.dumps({"rig": rig()} | found, indent=1))


if __name__ == "__main__":
    main()
