"""`p2pmodel fetch`: download a snapshot into the cache, in this process or through the daemon, and load it if asked."""

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from p2pmodel.cli import options
from p2pmodel.cli.completion import repositories
from p2pmodel.cli.fetch import daemon_fetch
from p2pmodel.cli.fetch.hand_off import HandOff, engine_options
from p2pmodel.cli.fetch.options import HubCommand, hub_options, load_options, load_options_of
from p2pmodel.cli.fetch.rank_options import fetch_rank, rank_options, rank_wanted
from p2pmodel.cli.fetch.ready_handler import LocalCopy, ReadyHandler, doubt_cached_files
from p2pmodel.cli.fetch.report import FetchReport, plain_plan, plan_table, plan_words
from p2pmodel.cli.option_types import Count, Number, PathName
from p2pmodel.cli.rollout.options import node_name
from p2pmodel.cli.signals import run_interruptible
from p2pmodel.cli.terminal.console import ConsoleReporter, reporting
from p2pmodel.cli.terminal.output import echo
from p2pmodel.config.settings import Settings
from p2pmodel.core.content.manifest import Selection
from p2pmodel.core.content.names import MODELS, Reference, check_name
from p2pmodel.core.network.addresses import ListenAddress
from p2pmodel.core.notes import info
from p2pmodel.core.progress.views import EngineState
from p2pmodel.core.tasks import companions, together
from p2pmodel.errors import Interrupted, InvalidInput, P2PModelError
from p2pmodel.loading.formats import OTHER_WEIGHTS
from p2pmodel.node.fetch.request import FetchRequest, FetchResult
from p2pmodel.node.local_address import address_notes, with_peer_address
from p2pmodel.node.rollout.participants import FetchRollout
from p2pmodel.node.snapshot.target import parse_target
from p2pmodel.store.cache import HubCache

if TYPE_CHECKING:
    from p2pmodel.loading.model import LoadedModel
    from p2pmodel.node.fetch.fetch import Fetch

INTERRUPTED = "interrupted; what was verified is kept: the same command resumes"
LEFT_TO_DAEMON = "interrupted; the daemon continues the transfer ('p2pmodel pause' stops it)"


@click.command(cls=HubCommand)
@click.argument("target", metavar="REPO[@REV]|TORRENT|BUNDLE|URL|MAGNET", shell_complete=repositories)
@click.option("--revision", help="Branch, tag, refs/pr/N, alias, range such as ^1.2, or commit (default: main).")
@click.option("--as-ref", "names", multiple=True, metavar="NAME", help="Name for the commit in the cache; repeatable.")
@click.option("--peer", "peers", multiple=True, metavar="ADDRESS:PORT", help="Peer to connect to; repeatable.")
@click.option("--seed-time", type=Number(min=0), metavar="SECONDS", help="Seed for this time once complete.")
@click.option("--seed-ratio", type=Number(min=0), metavar="RATIO", help="Seed until RATIO copies are sent.")
@click.option(
    "--priority",
    type=Count(-100, 100),
    help="Queue priority in the daemon; higher first (default: 0).",
)
@click.option(
    "--confirm",
    "_set_trust__confirm",
    type=Count(0, 16),
    metavar="N",
    help="Mirrors that must list the same files (trust.confirm).",
)
@click.option("--no-daemon", is_flag=True, help="Download in this process even if a daemon runs.")
@click.option("--dry-run", is_flag=True, help="Print what would be downloaded, and exit.")
@click.option("--load", is_flag=True, help="Load the model, while its files arrive.")
@click.option("--prompt", help="Prompt for the loaded model; the answer streams to stdout. Implies --load.")
@click.option("--image", type=PathName(), help="Image for the prompt.")
@load_options
@click.option("--max-new-tokens", type=Count(min=1), default=256, show_default=True, help="Bound on generated tokens.")
@rank_options
@engine_options
@hub_options
@options.server
@node_name
@options.listen
@options.origin
@options.common
@options.progress
def fetch(settings: Settings, target: str, revision: str | None, **flags: Any) -> None:
    """Download a snapshot into the Hugging Face cache and print its path.

    The commit of a torrent is named main if it is that of main; --as-ref gives another name.

    Looks up a torrent at the coordinators and joins its swarm; without a torrent, or without peers, downloads the
    files from the mirrors. Every byte is verified. The same command resumes an interrupted download. If this machine's
    daemon runs ('p2pmodel daemon'), the daemon downloads the snapshot and then seeds it; with --server that one does.
    """
    if rank_wanted(flags):
        fetch_rank(settings, target, revision, flags)
        return
    request = FetchRequest(
        target=parse_target(target, revision),
        include=flags["include"],
        exclude=flags["exclude"] + _needless(flags),
        seed_seconds=flags["seed_time"],
        seed_ratio=flags["seed_ratio"],
        peers=tuple((peer.host, peer.port) for peer in map(ListenAddress.parse, flags["peers"])),
        names=tuple(map(check_name, flags["names"])),
    )
    local, hand_off = LocalCopy.of(settings, request, flags), HandOff.of(settings.cache_dir, flags)
    wants_load = flags["load"] or flags["prompt"] is not None
    if wants_load or flags["image"] is not None:
        _check_load(request, flags)
    with ExitStack() as stack:
        screen = stack.enter_context(reporting(flags["style"], quiet=flags["quiet"]))
        if flags["dry_run"]:
            _show_plan(new_fetch(request, settings, screen), screen, as_json=flags["as_json"])
            return
        if flags["force_download"]:
            run_interruptible(doubt_cached_files(settings, request.target, screen), interrupted=INTERRUPTED)
        if local.elsewhere and (local.folder or wants_load or flags["force_download"] or hand_off.wanted):
            raise _files_stay()
        # The output of the command goes to the same terminal, so the progress bar ends before it.
        aside = partial(_closed, stack) if hand_off.command else screen.aside
        ready = ReadyHandler(
            flags,
            screen.note,
            wants_load=wants_load,
            aside=aside,
            end_progress=stack.close,
            local=local,
            hand_off=hand_off,
        )
        if not flags["no_daemon"] and run_interruptible(
            daemon_fetch.usable(settings, screen), interrupted="interrupted"
        ):
            by_daemon = _by_daemon(settings, request, screen, ready, flags["priority"])
            run_interruptible(by_daemon, interrupted=LEFT_TO_DAEMON)
            ready.finish(partial(_report_engine, settings, ready))
            if hand_off.command:
                _report_engine(settings, ready, "loading")
                ready.replace_process()
            return
        _run(new_fetch(request, settings, screen), ready, screen, serves=_serves(flags))


def _check_load(request: FetchRequest, flags: dict[str, Any]) -> None:
    from p2pmodel.cli.fetch.prompt import check  # noqa: PLC0415 - needed only to load a model

    check(flags["prompt"], flags["image"], load_options_of(flags))
    if isinstance(request.target, Reference) and request.target.repo.kind != MODELS:
        raise InvalidInput(
            f"{request.target.repo} is not a model, so it cannot be loaded", hint="leave --load and --prompt out"
        )


def _serves(flags: dict[str, Any]) -> bool:
    return bool(flags["seed_time"] or flags["seed_ratio"])


async def _by_daemon(
    settings: Settings, request: FetchRequest, screen: ConsoleReporter, ready: ReadyHandler, priority: int | None
) -> None:
    """Let the daemon download; the model is loaded here while the files arrive."""
    follow = partial(daemon_fetch.fetch, settings, request, screen, priority)
    if not ready.wants_load:
        ready(await follow())
        return
    from p2pmodel.loading.arrival.fetch_load import load_beside  # noqa: PLC0415 - needed only to load a model

    cache = HubCache(settings.cache_dir, settings.state_dir)
    chosen = Selection(request.include, request.exclude)
    ready.loaded = await load_beside(
        follow,
        cache,
        chosen,
        load_options_of(ready.flags),
        request=daemon_fetch.order(settings).request,
        on_ready=ready,
        on_progress=screen.loading,
    )


def _files_stay() -> InvalidInput:
    return InvalidInput(
        "with --server the files stay on that machine",
        hint="give --load, --exec, --print-serve, --local-dir, --force-download there, or leave --server out",
    )


def _needless(flags: dict[str, Any]) -> tuple[str, ...]:
    """Patterns of files that loading the model does not use; of none where files are chosen, or not only for that."""
    chosen = flags["include"] or flags["exclude"] or flags["local_dir"] or flags["allow_pickle"]
    loads = flags["load"] or flags["prompt"] is not None
    return OTHER_WEIGHTS if loads and not chosen else ()


def new_fetch(request: FetchRequest, settings: Settings, screen: ConsoleReporter) -> "Fetch":
    """A fetch in this process. Imports the engine: a fetch through the daemon does not need it."""
    from p2pmodel.node.fetch.fetch import Fetch  # noqa: PLC0415 - see above

    placed = with_peer_address(settings)
    address = ListenAddress.parse(str(placed.swarm.listen))
    if placed is not settings and not address.loopback:
        text = f"peers reach this node at {address.host}; --swarm-listen chooses another address"
        screen.note(info("peer_address", text, address=address.host))
    for note in address_notes(placed):
        screen.note(note)
    return Fetch(request, placed, screen)


def _report_engine(
    settings: Settings, ready: ReadyHandler, state: EngineState, _error: P2PModelError | None = None
) -> None:
    assert ready.report is not None
    report = daemon_fetch.report_engine(settings, ready.report.repo, ready.report.commit, state)
    run_interruptible(report, interrupted="interrupted")


def _report_to_coordinators(rollout: FetchRollout, state: EngineState, error: P2PModelError | None = None) -> None:
    """Report the model of a fetch that has ended. The first token is not held up: it is reported after the last."""
    rollout.engine(state, error)
    if state != "answered":
        run_interruptible(rollout.report_engine(last=state in ("none", "failed")), interrupted="interrupted")


@contextmanager
def _closed(stack: ExitStack) -> Iterator[None]:
    stack.close()
    yield


def _run(fetching: "Fetch", ready: ReadyHandler, screen: ConsoleReporter, *, serves: bool) -> None:
    if serves and ready.hand_off.command:
        raise click.exceptions.Exit(run_interruptible(_command_while_seeding(fetching, ready), interrupted=INTERRUPTED))
    meanwhile = serves and ready.has_more
    try:
        loads = ready.wants_load
        work = _loading(fetching, ready, screen, meanwhile) if loads else _fetching(fetching, ready, meanwhile)
        run_interruptible(work, interrupted=INTERRUPTED)
    except Interrupted:
        # Stopped while seeding a complete snapshot: the fetch itself succeeded.
        if not ready.complete:
            raise
    if not meanwhile:
        assert fetching.rollout is not None
        ready.finish(partial(_report_to_coordinators, fetching.rollout))
    if ready.hand_off.command:
        ready.replace_process()


async def _fetching(fetching: "Fetch", ready: ReadyHandler, meanwhile: bool) -> None:
    """Fetch; with `meanwhile` the rest of the work is done while the fetch seeds."""
    complete = asyncio.Event()

    def on_ready(fetched: FetchResult) -> None:
        ready(report_of(fetched))
        complete.set()

    async def finish() -> None:
        await complete.wait()
        await asyncio.to_thread(_finish, fetching, ready, asyncio.get_running_loop())

    await together([fetching.run(on_ready), *([finish()] if meanwhile else [])])


async def _loading(fetching: "Fetch", ready: ReadyHandler, screen: ConsoleReporter, meanwhile: bool) -> None:
    """As `_fetching`; the model is loaded while the files arrive."""
    from p2pmodel.loading.arrival.fetch_load import fetch_and_load  # noqa: PLC0415 - needed only to load a model

    loop = asyncio.get_running_loop()

    def use(outcome: "Callable[[], LoadedModel]") -> None:
        ready.loaded = outcome
        if meanwhile:
            _finish(fetching, ready, loop)

    await fetch_and_load(
        fetching,
        load_options_of(ready.flags),
        on_ready=lambda fetched: ready(report_of(fetched)),
        on_progress=screen.loading,
        use=use,
    )


def _finish(fetching: "Fetch", ready: ReadyHandler, loop: asyncio.AbstractEventLoop) -> None:
    """Finish in a thread, while the fetch seeds in `loop`."""
    assert fetching.rollout is not None
    note = fetching.rollout.engine
    ready.finish(lambda *state: loop.call_soon_threadsafe(note, *state))


async def _command_while_seeding(fetching: "Fetch", ready: ReadyHandler) -> int:
    """Run the command of --exec while the snapshot is seeded; its exit code. It outlives a failure of the seeding."""
    complete = asyncio.Event()

    def on_ready(fetched: FetchResult) -> None:
        ready(report_of(fetched))
        complete.set()

    async def seed() -> None:
        try:
            await fetching.run(on_ready)
        except P2PModelError as error:
            if not complete.is_set():
                raise
            ready.note(f"the snapshot is seeded no longer: {error}")

    async with companions() as start:
        start(seed())
        await complete.wait()
        await asyncio.to_thread(ready.finish, lambda *_state: None)
        return await ready.run_command()


def report_of(fetched: FetchResult) -> FetchReport:
    manifest = fetched.manifest
    return FetchReport(
        fetched.path,
        str(manifest.repo),
        manifest.commit,
        manifest.total_size,
        fetched.timings,
        fetched.progress,
        fetched.vouched_by,
    )


def _show_plan(fetching: "Fetch", screen: ConsoleReporter, *, as_json: bool) -> None:
    plan = run_interruptible(fetching.plan(), interrupted="interrupted")
    if as_json:
        echo(json.dumps(plain_plan(plan)))
        return
    with screen.aside():
        echo(plan_table(plan), nl=False)
        screen.note(plan_words(plan))
