"""`p2pmodel fetch`: bring a snapshot into this node's cache, and load it if asked."""

import asyncio
import dataclasses
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import click

from p2pmodel.cli import options
from p2pmodel.cli.console import Screen, reporting
from p2pmodel.cli.running import run
from p2pmodel.domain.addresses import ListenAddress
from p2pmodel.domain.sizes import human
from p2pmodel.errors import Interrupted
from p2pmodel.node.fetching import Fetched, Fetching, FetchRequest
from p2pmodel.node.finding import parse_target
from p2pmodel.node.tasks import together
from p2pmodel.settings import Settings

INTERRUPTED = "interrupted; what was verified is kept: the same command resumes"


@click.command()
@click.argument("target", metavar="REPO[@REV]|TORRENT|URL|MAGNET")
@click.option("--revision", help="Branch, tag, refs/pr/N or commit (default: main).")
@click.option("--include", multiple=True, metavar="PATTERN", help="Only files that match; repeatable.")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="No files that match; repeatable.")
@click.option("--peer", "peers", multiple=True, metavar="ADDRESS:PORT", help="Connect to this peer; repeatable.")
@click.option("--seed-time", type=click.FloatRange(min=0), metavar="SECONDS", help="Serve that long once ready.")
@click.option("--seed-ratio", type=click.FloatRange(min=0), metavar="RATIO", help="Serve until RATIO copies are sent.")
@click.option("--dry-run", is_flag=True, help="Say what would be downloaded, and stop.")
@click.option("--load", is_flag=True, help="Load the model once it is here.")
@click.option("--prompt", help="Ask the loaded model; the answer streams to stdout. Implies --load.")
@click.option("--image", type=click.Path(path_type=Path), help="Picture that the prompt is about.")
@click.option("--device", help="Device to load on (default: cuda if present, else cpu).")
@click.option("--max-new-tokens", type=click.IntRange(min=1), default=256, show_default=True)
@options.listen
@options.origin
@options.common
@options.progress
def fetch(settings: Settings, target: str, revision: str | None, **flags: Any) -> None:
    """Bring a snapshot into the Hugging Face cache and print its path.

    Asks the coordinators for a torrent and joins its swarm; without one, or without peers, takes the files from the
    mirrors. Every byte is verified. Stopped at any time, the same command resumes.
    """
    request = FetchRequest(
        target=parse_target(target, revision),
        include=flags["include"],
        exclude=flags["exclude"],
        seed_seconds=flags["seed_time"],
        seed_ratio=flags["seed_ratio"],
        peers=tuple((peer.host, peer.port) for peer in map(ListenAddress.parse, flags["peers"])),
    )
    wants_load = flags["load"] or flags["prompt"] is not None
    if wants_load or flags["image"] is not None:
        from p2pmodel.cli.answering import check  # noqa: PLC0415 - only where a model is to be loaded

        check(flags["prompt"], flags["image"], flags["device"])
    with ExitStack() as stack:
        screen = stack.enter_context(reporting(flags["style"], quiet=flags["quiet"]))
        fetching = Fetching(request, settings, screen)
        if flags["dry_run"]:
            _show_plan(fetching, screen, as_json=flags["as_json"])
            return
        # Before an answer, which streams to the same terminal, the bar goes for good.
        aside = partial(_for_good, stack) if wants_load else screen.aside
        ready = _Ready(flags, screen.note, wants_load=wants_load, aside=aside)
        _run(fetching, ready, serves=bool(flags["seed_time"] or flags["seed_ratio"]))


@contextmanager
def _for_good(stack: ExitStack) -> Iterator[None]:
    stack.close()
    yield


def _run(fetching: Fetching, ready: "_Ready", *, serves: bool) -> None:
    meanwhile = serves and ready.wants_load
    try:
        run(_load_while_serving(fetching, ready) if meanwhile else fetching.run(ready), interrupted=INTERRUPTED)
    except Interrupted:
        # Stopped while serving what is complete: the job itself was done.
        if not ready.complete:
            raise
    if ready.wants_load and not meanwhile:
        ready.load()


async def _load_while_serving(fetching: Fetching, ready: "_Ready") -> None:
    here = asyncio.Event()

    def on_ready(fetched: Fetched) -> None:
        ready(fetched)
        here.set()

    async def load() -> None:
        await here.wait()
        await asyncio.to_thread(ready.load)

    await together([fetching.run(on_ready), load()])


class _Ready:
    """Says that the snapshot is there as soon as it is, and loads it."""

    def __init__(
        self,
        flags: dict[str, Any],
        note: Callable[[str], None],
        *,
        wants_load: bool,
        aside: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self.wants_load = wants_load
        self.complete = False
        """Whether all was done that was asked for, but serving it."""
        self._fetched: Fetched | None = None
        self._flags = flags
        self._note = note
        self._aside = aside

    def __call__(self, fetched: Fetched) -> None:
        self._fetched = fetched
        self.complete = not self.wants_load
        with self._aside():
            self._say(fetched)

    def _say(self, fetched: Fetched) -> None:
        if self._flags["as_json"]:
            if not self.wants_load:
                click.echo(json.dumps(_result(fetched)))
            return
        self._note(_timing(fetched))
        if self._flags["prompt"] is None:
            click.echo(str(fetched.path))
        else:
            self._note(str(fetched.path))  # stdout is the answer's

    def load(self) -> None:
        """Load the snapshot, answer the prompt, and say how long each step took."""
        from p2pmodel.cli.answering import load_and_answer  # noqa: PLC0415 - torch is loaded only here

        assert self._fetched is not None
        as_json = self._flags["as_json"]
        outcome = load_and_answer(
            self._fetched.path,
            prompt=self._flags["prompt"],
            image=self._flags["image"],
            device=self._flags["device"],
            max_new_tokens=self._flags["max_new_tokens"],
            as_json=as_json,
            quiet=self._flags["quiet"],
        )
        if as_json:
            click.echo(json.dumps(_result(self._fetched) | {"loading": outcome}))
        self.complete = True


def _result(fetched: Fetched) -> dict[str, Any]:
    progress = dataclasses.asdict(fetched.progress)
    sources = {key: progress[key] for key in ("from_cache", "from_peers", "from_mirrors", "from_other_zones")}
    timings = fetched.timings
    return {
        "path": str(fetched.path),
        "repo": str(fetched.manifest.repo),
        "commit": fetched.manifest.commit,
        "size": fetched.manifest.total_size,
        "seconds": round(timings.total, 3),
        "find_seconds": round(timings.find, 3),
        "download_seconds": round(timings.download, 3),
        "verify_seconds": round(timings.verify, 3),
    } | sources


def _timing(fetched: Fetched) -> str:
    timings, progress = fetched.timings, fetched.progress
    came = progress.from_peers + progress.from_mirrors
    if not came:
        return f"{human(progress.total)} were here already, verified in {timings.verify:.2f} s"
    return f"downloaded {human(came)} in {timings.download:.2f} s, then verified in {timings.verify:.2f} s"


def _show_plan(fetching: Fetching, screen: Screen, *, as_json: bool) -> None:
    manifest, absent = run(fetching.plan(), interrupted="interrupted")
    needed = sum(file.size for file in absent)
    if as_json:
        plain = {"repo": str(manifest.repo), "commit": manifest.commit, "download": needed}
        click.echo(json.dumps(plain | {"files": [{"path": f.path, "size": f.size} for f in absent]}))
        return
    with screen.aside():
        for file in absent:
            click.echo(f"{human(file.size):>10}  {file.path}")
        screen.note(f"{len(absent)} files, {human(needed)} to download of {manifest.repo}@{manifest.commit}")
