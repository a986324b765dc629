"""A daemon with a follow list; its window opens and closes by SIGHUP."""

import json
import random
import signal
import time
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.support.processes import PATIENCE, Nodes, Running, eventually

REPO = "org/model"
DEAD = "http://127.0.0.1:9"
PIECE = 128 << 10
SIZE = 6_000_000


def closed() -> str:
    """A window that opens in some hours."""
    begin = datetime.now(UTC) + timedelta(hours=6)
    return f'window = "{begin:%H:%M}-{begin + timedelta(hours=1):%H:%M}"\nzone = "UTC"\n'


def test_a_list_downloads_in_its_window_alone_and_no_byte_twice(nodes: Nodes, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "config.json").write_text("{}")
    (source / "model.safetensors").write_bytes(random.Random(1).randbytes(SIZE))
    seeder = nodes.seed(source, "--as", REPO, "--upload-limit", "1500000").ready()["coordinator"]
    config = tmp_path / "daemon.toml"
    config.touch(0o600)

    def follow(window: str) -> None:
        config.write_text(f'[[follow]]\nrepo = "{REPO}"\n{window}')

    follow(closed())
    where = ("--coordinator", str(seeder), "--endpoint", DEAD, "--swarm-listen", "127.0.0.11:0", "--json")
    daemon = nodes.start("node", "daemon", *where, "--config", config, "--control-listen", "127.0.0.1:0")
    url = daemon.ready()["url"]

    def transfers() -> list[dict[str, Any]]:
        return answer(f"{url}/api/v1/transfers")

    [shown] = nodes.ok("node", "follow", "ls", "--json").json["follow"]
    assert (shown["is_open"], shown["snapshots"], transfers()) == (False, [], [])
    follow("")
    reload(daemon)
    eventually(lambda: recorded(nodes) > 0, PATIENCE, lambda: str(transfers()))
    follow(closed())
    reload(daemon)
    eventually(lambda: transfers()[0]["state"] == "queued", PATIENCE, lambda: str(transfers()))
    [waiting], kept = transfers(), recorded(nodes)
    assert waiting["awaits_window"]
    assert "its window is closed" in nodes.ok("node", "status").out
    assert 0 < kept < SIZE
    time.sleep(1.0)
    assert recorded(nodes) == kept
    follow("")
    reload(daemon)
    eventually(lambda: transfers()[0]["state"] == "seeding", PATIENCE, lambda: str(transfers()))
    [done] = transfers()
    assert done["completion"]["from_cache"] >= kept
    assert done["completion"]["from_cache"] + done["completion"]["from_peers"] == done["size"]
    path = Path(done["path"])
    assert (path / "model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()
    assert (path.parent.parent / "refs" / "main").read_text() == done["commit"]
    [shown] = answer(f"{url}/api/v1/follow")
    assert shown["snapshots"][0]["complete"]
    assert daemon.stop().code == 0


def answer(url: str) -> list[dict[str, Any]]:
    """The answer of the control API, without a proxy of the environment."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=PATIENCE) as response:
        found = json.load(response)
    assert isinstance(found, list)
    return found


def reload(daemon: Running) -> None:
    """Send SIGHUP, and wait until the reload is over."""
    before = len(daemon.err)
    daemon.process.send_signal(signal.SIGHUP)
    eventually(lambda: '"reloaded"' in "".join(daemon.err[before:]), PATIENCE, lambda: "".join(daemon.err[before:]))


def recorded(nodes: Nodes) -> int:
    """Bytes that are recorded as being on the node's disk, without the short pieces that end a file."""
    records = (json.loads(path.read_text()) for path in nodes.cache("node").rglob("*.ranges"))
    return max(0, sum(end - start for record in records for start, end in record["done"]) - 2 * PIECE)
