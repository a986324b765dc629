"""The steps of scripts/demo."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

REPO = "demo/tiny-qwen3-vl"
PEERS = 3
SECONDS_TO_SEED = 12
"""The seeder's upload is limited so that one copy takes about this long. It is killed midway."""
DEADLINE = 170.0
QUESTION = "What is in this picture?"
console = Console()


def run(*, size_mb: int, keep: bool) -> int:
    """Run the demo. Returns 0 if every step succeeded."""
    place = Path(".demo").resolve()
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    try:
        with ExitStack() as stack:
            return Demo(place, size_mb, stack).run()
    finally:
        if not keep:
            shutil.rmtree(place, ignore_errors=True)


@dataclass
class DemoPeer:
    """One fetching process and its last report."""

    number: int
    cache: Path
    process: subprocess.Popen[str]
    progress: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)

    def follow(self) -> None:
        """Read the JSON lines of the process until it ends."""
        threading.Thread(target=self._follow_progress, daemon=True).start()
        threading.Thread(target=self._follow_result, daemon=True).start()

    def _follow_progress(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            report = _json(line)
            if "phase" in report:
                self.progress = report
            else:
                console.print(f"  peer {self.number}: {report.get('note', line.strip())}", markup=False)

    def _follow_result(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.result = _json(line)

    @property
    def fraction(self) -> float:
        return self.progress.get("done", 0) / max(self.progress.get("total", 0), 1)


class Demo:
    """The demo's steps, in order."""

    def __init__(self, place: Path, size_mb: int, stack: ExitStack) -> None:
        self.place = place
        self.size_mb = size_mb
        self.stack = stack
        self.log = place / "mirror.log"
        self.uploaded = 0.0

    def run(self) -> int:
        model, image = self._make_model()
        mirror = self._start_mirror(model)
        seeder, ready = self._start_seeder(mirror)
        peers = [self._start_peer(n, mirror, ready["coordinator"]) for n in range(1, PEERS + 1)]
        self._watch(peers, seeder)
        answered = self._answer(peers[0], image)
        equal = self._compare(peers[0], model)
        copies = self._report(peers, ready["size"])
        ok = answered and equal and copies < 2
        console.print("[bold green]The demo succeeded.[/]" if ok else "[bold red]The demo failed: see above.[/]")
        return 0 if ok else 1

    # -- steps -----------------------------------------------------------------------------------------------

    def _make_model(self) -> tuple[Path, Path]:
        with step(f"Make a tiny, real Qwen3-VL and pad its repository to {self.size_mb} MB"):
            from scripts.demonstration.tiny_qwen3_vl import build, make_image  # noqa: PLC0415 - imports torch

            model, image = self.place / "model", self.place / "picture.png"
            build(model, pad_mb=self.size_mb)
            make_image(image)
        return model, image

    def _start_mirror(self, model: Path) -> str:
        with step("Import it into a cache and serve that as a Hugging Face mirror on 127.0.0.2"):
            env = self._env("mirror")
            subprocess.run(
                [*P2PMODEL, "import", str(model), REPO, "-q"], env=env, check=True, stdout=subprocess.DEVNULL
            )
            serve = ["mirror", "serve", "--listen", "127.0.0.2:0", "--json", "--access-log", str(self.log)]
            process = self._start(serve, env)
            return str(_first_json(process)["endpoint"])

    def _start_seeder(self, mirror: str) -> tuple[subprocess.Popen[str], dict[str, Any]]:
        with step("Seed: mirror, verify, build the torrent, serve tracker and catalog on 127.0.0.3"):
            cap = self.size_mb * 1_000_000 // SECONDS_TO_SEED
            seed = ["seed", REPO, "--endpoint", mirror, "--listen", "127.0.0.3:0", "--swarm-listen", "127.0.0.3:0"]
            process = self._start([*seed, "--upload-limit", str(cap), "--json", "-q"], self._env("seeder"))
            ready = _first_json(process)
        console.print(f"  info-hash {ready['info_hash']}", highlight=False)
        return process, ready

    def _start_peer(self, number: int, mirror: str, coordinator: str) -> DemoPeer:
        name = f"peer{number}"
        fetch = ["fetch", REPO, "--endpoint", mirror, "--coordinator", coordinator]
        fetch += ["--swarm-listen", f"127.0.0.{10 + number}:0", "--seed-time", "600", "--json", "--progress", "json"]
        process = self._start(fetch, self._env(name), stderr=subprocess.PIPE)
        peer = DemoPeer(number, self._cache(name), process)
        peer.follow()
        return peer

    def _watch(self, peers: list[DemoPeer], seeder: subprocess.Popen[str]) -> None:
        console.print(f"Fetch on {PEERS} peers at once; the seeder is killed when they have half of it")
        began, killed = time.monotonic(), False
        with Live(console=console, refresh_per_second=5, transient=True) as live:
            while not all(peer.result for peer in peers):
                live.update(_bars(peers))
                if not killed and sum(p.fraction for p in peers) / len(peers) >= 0.5:
                    seeder.kill()
                    killed = True
                    self.uploaded = max(p.fraction for p in peers)
                    console.print(
                        "  [bold]seeder killed (kill -9)[/]: the peers exchange pieces, a mirror supplies the rest"
                    )
                _check_alive(peers, began)
                time.sleep(0.2)
        if not killed:
            raise SystemExit("demo: the peers finished before the seeder was killed")

    def _answer(self, peer: DemoPeer, image: Path) -> bool:
        console.print(f'Ask peer {peer.number}: "{QUESTION}"')
        env = os.environ | {"HF_HUB_CACHE": str(peer.cache), "HF_HUB_OFFLINE": "1"}
        ask = [
            "fetch",
            f"{REPO}@{peer.result['commit']}",
            "--prompt",
            QUESTION,
            "--image",
            str(image),
            "--max-new-tokens",
            "24",
        ]
        done = subprocess.run([*P2PMODEL, *ask], env=env, capture_output=True, text=True, timeout=60, check=False)
        console.print(f"  {done.stdout.strip()!r}", markup=False, highlight=False)
        console.print("  (the weights are random, and so are the words)", style="dim")
        if done.returncode:
            console.print(done.stderr, markup=False)
        return done.returncode == 0 and bool(done.stdout.strip())

    def _compare(self, peer: DemoPeer, model: Path) -> bool:
        with step("Plain from_pretrained(repo_id) with HF_HUB_OFFLINE=1 on its cache, against the original"):
            env = os.environ | {"HF_HUB_CACHE": str(peer.cache), "HF_HUB_OFFLINE": "1"}
            done = subprocess.run(
                [sys.executable, "-c", COMPARE, REPO, str(model)], env=env, check=False, text=True, capture_output=True
            )
        console.print(f"  {done.stdout.strip() or done.stderr.strip()[-300:]}", markup=False)
        return done.returncode == 0

    def _report(self, peers: list[DemoPeer], size: int) -> float:
        table = Table(
            "node", "ready after", "from peers", "from mirror", "from cache", title=f"{REPO}, {size / 1e6:.0f} MB"
        )
        for peer in peers:
            result = peer.result
            sources = [f"{result[key] / 1e6:.1f} MB" for key in ("from_peers", "from_mirrors", "from_cache")]
            table.add_row(f"peer {peer.number}", f"{result['seconds']:.1f} s", *sources)
        console.print(table)
        served = sum(json.loads(line)["bytes"] for line in self.log.read_text().splitlines())
        copies = served / size
        console.print(f"The mirror served {served / 1e6:.0f} MB to 4 nodes: {copies:.2f} x the model's size")
        lost = 1 - self.uploaded
        parts = f"one copy to the seeder, and the {lost:.0%} that it had not uploaded when it was killed"
        console.print(f"  ({parts}: the minimum is {1 + lost:.2f})", style="dim", highlight=False)
        return copies

    # -- processes -------------------------------------------------------------------------------------------

    def _cache(self, name: str) -> Path:
        return self.place / name / "hub"

    def _env(self, name: str) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "P2PMODEL_"))}
        own = {"HF_HOME": self.place / name, "P2PMODEL_STATE_DIR": self.place / name / "state"}
        return kept | {"HF_HUB_CACHE": str(self._cache(name))} | {key: str(path) for key, path in own.items()}

    def _start(self, verb: list[str], env: dict[str, str], stderr: int | None = None) -> subprocess.Popen[str]:
        process = subprocess.Popen([*P2PMODEL, *verb], env=env, text=True, stdout=subprocess.PIPE, stderr=stderr)
        self.stack.callback(_end, process)
        return process


P2PMODEL = [sys.executable, "-m", "p2pmodel"]
COMPARE = """
import sys, torch
from transformers import Qwen3VLForConditionalGeneration as Model
there, here = (Model.from_pretrained(name).state_dict() for name in sys.argv[1:])
assert there.keys() == here.keys() and all(torch.equal(there[k], here[k]) for k in here)
print(f"{len(here)} tensors, all equal")
"""


@contextmanager
def step(title: str) -> Iterator[None]:
    """Print the step, and its duration."""
    began = time.monotonic()
    console.print(title + " ...", highlight=False)
    yield
    console.print(f"  {time.monotonic() - began:.1f} s", style="dim", highlight=False)


def _bars(peers: list[DemoPeer]) -> Group:
    rows = Table.grid(padding=(0, 1))
    for peer in peers:
        last = peer.progress
        figures = f"{peer.fraction:4.0%}  {last.get('download_rate', 0) / 1e6:5.1f} MB/s  {last.get('peers', 0)} peers"
        figures += f"  {last.get('waiting_for', '')}"
        rows.add_row(f"  peer {peer.number}", ProgressBar(total=1.0, completed=peer.fraction, width=40), figures)
    return Group(rows)


def _check_alive(peers: list[DemoPeer], began: float) -> None:
    if time.monotonic() - began > DEADLINE:
        raise SystemExit(f"demo: not done after {DEADLINE:.0f} s")
    for peer in peers:
        if peer.process.poll() is not None and not peer.result:
            raise SystemExit(f"demo: peer {peer.number} ended with exit code {peer.process.returncode}")


def _first_json(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"demo: {' '.join(map(str, process.args))} ended with exit code {process.wait()}")  # type: ignore[union-attr]
    return _json(line)


def _json(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        return {"note": line.strip()}
    return found if isinstance(found, dict) else {"note": line.strip()}


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
