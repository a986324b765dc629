"""`p2pmodel fetch`: bring a snapshot into this node's cache, and load it if asked."""

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import click

from p2pmodel.cli import options, through_daemon
from p2pmodel.cli.console import ConsoleReporter, reporting
from p2pmodel.cli.outcome import FetchReport
from p2pmodel.cli.run import run
from p2pmodel.config.settings import Settings
from p2pmodel.core.addresses import ListenAddress
from p2pmodel.core.sizes import human
from p2pmodel.core.tasks import together
from p2pmodel.errors import Interrupted
from p2pmodel.node.fetch.fetch import Fetch, FetchRequest, FetchResult
from p2pmodel.node.snapshot.resolve import parse_target

INTERRUPTED = "interrupted; what was verified is kept: the same command resumes"
LEFT_TO_DAEMON = "interrupted; the daemon goes on with it ('p2pmodel pause' stops it)"


@click.command()
@click.argument("target", metavar="REPO[@REV]|TORRENT|URL|MAGNET")
@click.option("--revision", help="Branch, tag, refs/pr/N or commit (default: main).")
@click.option("--include", multiple=True, metavar="PATTERN", help="Only files that match; repeatable.")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="No files that match; repeatable.")
@click.option("--peer", "peers", multiple=True, metavar="ADDRESS:PORT", help="Connect to this peer; repeatable.")
@click.option("--seed-time", type=click.FloatRange(min=0), metavar="SECONDS", help="Serve that long once ready.")
@click.option("--seed-ratio", type=click.FloatRange(min=0), metavar="RATIO", help="Serve until RATIO copies are sent.")
@click.option(
    "--priority",
    type=click.IntRange(-100, 100),
    help="Of several that the daemon is to download, the highest goes first (0).",
)
@click.option("--no-daemon", is_flag=True, help="Do it in this command, even if a daemon runs.")
@click.option("--dry-run", is_flag=True, help="Say what would be downloaded, and stop.")
@click.option("--load", is_flag=True, help="Load the model once it is here.")
@click.option("--prompt", help="Ask the loaded model; the answer streams to stdout. Implies --load.")
@click.option("--image", type=click.Path(path_type=Path), help="Picture that the prompt is about.")
@click.option("--device", help="Device to load on (default: cuda if present, else cpu).")
@click.option("--max-new-tokens", type=click.IntRange(min=1), default=256, show_default=True)
@options.socket
@options.listen
@options.origin
@options.common
@options.progress
def fetch(settings: Settings, target: str, revision: str | None, **flags: Any) -> None:
    """Bring a snapshot into the Hugging Face cache and print its path.

    Asks the coordinators for a torrent and joins its swarm; without one, or without peers, takes the files from the
    mirrors. Every byte is verified. Stopped at any time, the same command resumes. While this machine's daemon runs
    ('p2pmodel daemon'), it does the work, and goes on serving the snapshot.
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
        from p2pmodel.cli.answer import check  # noqa: PLC0415 - only where a model is to be loaded

        check(flags["prompt"], flags["image"], flags["device"])
    with ExitStack() as stack:
        screen = stack.enter_context(reporting(flags["style"], quiet=flags["quiet"]))
        fetching = Fetch(request, settings, screen)
        if flags["dry_run"]:
            _show_plan(fetching, screen, as_json=flags["as_json"])
            return
        # Before an answer, which streams to the same terminal, the bar goes for good.
        aside = partial(_for_good, stack) if wants_load else screen.aside
        ready = _ReadyHandler(flags, screen.note, wants_load=wants_load, aside=aside)
        if not flags["no_daemon"] and run(through_daemon.usable(settings, screen), interrupted="interrupted"):
            ready(run(through_daemon.fetch(settings, request, screen, flags["priority"]), interrupted=LEFT_TO_DAEMON))
            if wants_load:
                ready.load(partial(_engine, settings, ready))
            return
        _run(fetching, ready, serves=bool(flags["seed_time"] or flags["seed_ratio"]))


def _engine(settings: Settings, ready: "_ReadyHandler", *, up: bool) -> None:
    assert ready.outcome is not None
    outcome = ready.outcome
    run(through_daemon.engine_is(settings, outcome.repo, outcome.commit, up=up), interrupted="interrupted")


def _nobody(*, up: bool) -> None: ...


@contextmanager
def _for_good(stack: ExitStack) -> Iterator[None]:
    stack.close()
    yield


def _run(fetching: Fetch, ready: "_ReadyHandler", *, serves: bool) -> None:
    meanwhile = serves and ready.wants_load
    try:
        work = _load_while_serving(fetching, ready) if meanwhile else fetching.run(lambda f: ready(_outcome(f)))
        run(work, interrupted=INTERRUPTED)
    except Interrupted:
        # Stopped while serving what is complete: the job itself was done.
        if not ready.complete:
            raise
    if ready.wants_load and not meanwhile:
        ready.load()


async def _load_while_serving(fetching: Fetch, ready: "_ReadyHandler") -> None:
    here = asyncio.Event()

    def on_ready(fetched: FetchResult) -> None:
        ready(_outcome(fetched))
        here.set()

    async def load() -> None:
        await here.wait()
        await asyncio.to_thread(ready.load)

    await together([fetching.run(on_ready), load()])


def _outcome(fetched: FetchResult) -> FetchReport:
    manifest = fetched.manifest
    return FetchReport(
        fetched.path, str(manifest.repo), manifest.commit, manifest.total_size, fetched.timings, fetched.progress
    )


class _ReadyHandler:
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
        self.outcome: FetchReport | None = None
        self._flags = flags
        self._note = note
        self._aside = aside

    def __call__(self, outcome: FetchReport) -> None:
        self.outcome = outcome
        self.complete = not self.wants_load
        with self._aside():
            self._say(outcome)

    def _say(self, outcome: FetchReport) -> None:
        if self._flags["as_json"]:
            if not self.wants_load:
                click.echo(json.dumps(outcome.plain()))
            return
        self._note(outcome.words())
        if self._flags["prompt"] is None:
            click.echo(str(outcome.path))
        else:
            self._note(str(outcome.path))  # stdout is the answer's

    def load(self, tell: Callable[..., None] = _nobody) -> None:
        """Load the snapshot, answer the prompt, and say how long each step took. `tell` is called with `up`: whether
        the model is on the device."""
        from p2pmodel.cli.answer import load_and_answer  # noqa: PLC0415 - torch is loaded only here

        assert self.outcome is not None
        as_json = self._flags["as_json"]
        try:
            outcome = load_and_answer(
                self.outcome.path,
                prompt=self._flags["prompt"],
                image=self._flags["image"],
                device=self._flags["device"],
                max_new_tokens=self._flags["max_new_tokens"],
                as_json=as_json,
                quiet=self._flags["quiet"],
                on_loaded=partial(tell, up=True),
            )
        finally:
            tell(up=False)
        if as_json:
            click.echo(json.dumps(self.outcome.plain() | {"loading": outcome}))
        self.complete = True


def _show_plan(fetching: Fetch, screen: ConsoleReporter, *, as_json: bool) -> None:
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
