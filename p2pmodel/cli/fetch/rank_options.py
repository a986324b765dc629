"""`p2pmodel fetch --tensor-parallel N --rank K` and `--plan FILE`: the part of a snapshot that one rank needs."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from p2pmodel.cli.option_types import Count, PathName
from p2pmodel.cli.signals import run_interruptible
from p2pmodel.cli.terminal.console import ConsoleReporter, reporting
from p2pmodel.cli.terminal.output import echo
from p2pmodel.config.settings import Settings
from p2pmodel.core.content.rank_plan import Rule
from p2pmodel.core.network.addresses import ListenAddress
from p2pmodel.core.notes import warning
from p2pmodel.core.sizes import human
from p2pmodel.errors import InvalidInput
from p2pmodel.loading.formats import OTHER_WEIGHTS
from p2pmodel.node.snapshot.target import parse_target

if TYPE_CHECKING:
    from p2pmodel.node.ranks.rank_fetch import RankResult

C = TypeVar("C", bound=Callable[..., Any])

INTERRUPTED = "interrupted; what was verified is kept: the same command resumes"
_GIVEN = ("tensor_parallel", "rank", "expert_parallel", "plan", "out")
_EXCLUDED = {
    **{name: name for name in ("include", "exclude", "load", "prompt", "image", "priority")},
    "local_dir": "local-dir",
    "force_download": "force-download",
    "dry_run": "dry-run",
    "seed_ratio": "seed-ratio",
    "names": "as-ref",
    "command": "exec",
    "engine": "print-serve",
}
"""Names of other options, by parameter, that say nothing about a part."""
_OPTIONS = (
    click.option("--tensor-parallel", type=Count(1, 65536), metavar="N", help="Ranks that share the model."),
    click.option("--rank", type=Count(0, 65535), metavar="K", help="Fetch what rank K needs; from 0."),
    click.option("--expert-parallel", is_flag=True, help="Divide the experts by number, and none of them."),
    click.option(
        "--plan",
        type=PathName(),
        metavar="FILE",
        help="Fetch what this TOML file says (docs/ranks.md).",
    ),
    click.option("--out", type=PathName(), metavar="FILE", help="Safetensors file for the part of the rank."),
)


def rank_options(command: C) -> C:
    """Add the options to `command`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def rank_wanted(flags: dict[str, Any]) -> bool:
    """Whether a part is asked for."""
    return any(_is_given(flags[name]) for name in _GIVEN)


def fetch_rank(settings: Settings, target: str, revision: str | None, flags: dict[str, Any]) -> None:
    """Fetch the part that `flags` ask for, and print the path of its file."""
    rank, rule_of = _rule(flags)
    _check(flags)
    if settings.client.server is not None:
        raise InvalidInput("with --server the files stay on that machine", hint="fetch the part on its own machine")
    from p2pmodel.node.local_address import with_peer_address  # noqa: PLC0415 - imports the engine
    from p2pmodel.node.ranks.rank_fetch import RankFetch, RankRequest  # noqa: PLC0415

    peers = tuple((peer.host, peer.port) for peer in map(ListenAddress.parse, flags["peers"]))
    request = RankRequest(
        parse_target(target, revision),
        flags["out"].absolute(),
        rank,
        OTHER_WEIGHTS,
        peers=peers,
        seed_seconds=flags["seed_time"],
    )
    with reporting(flags["style"], quiet=flags["quiet"]) as screen:

        def ready(result: "RankResult") -> None:
            with screen.aside():
                _print(result, as_json=flags["as_json"])
            sizes = result.sizes
            screen.note(f"{rank}: {human(sizes.needed)} of {human(sizes.total)} in {result.out}")

        work = RankFetch(request, with_peer_address(settings), screen, lambda folder: rule_of(folder, screen))
        run_interruptible(work.run(ready), interrupted=INTERRUPTED)


def _print(result: "RankResult", *, as_json: bool) -> None:
    if not as_json:
        echo(str(result.out))
        return
    manifest = result.manifest
    plain: dict[str, Any] = {"out": str(result.out), "path": str(result.path)}
    plain |= {"repo": str(manifest.repo), "commit": manifest.commit}
    progress = result.progress
    plain |= {name: getattr(progress, name) for name in ("from_cache", "from_peers", "from_mirrors")}
    echo(json.dumps(plain | {"sizes": dataclasses.asdict(result.sizes)}))


def _rule(flags: dict[str, Any]) -> tuple[str, Callable[[Path, ConsoleReporter], Rule]]:
    """The rank in words, and how its rule is made."""
    if flags["plan"] is not None:
        if any(_is_given(flags[name]) for name in ("tensor_parallel", "rank", "expert_parallel")):
            raise InvalidInput("--plan says what the rank needs", hint="leave --tensor-parallel and --rank out")
        from p2pmodel.node.ranks.part_rules import read_plan  # noqa: PLC0415

        plan = read_plan(flags["plan"])
        return f"the plan {flags['plan'].name}", lambda _folder, _screen: plan.rule
    if flags["tensor_parallel"] is None or flags["rank"] is None:
        raise InvalidInput("a part needs --tensor-parallel N and --rank K, or --plan FILE")
    from p2pmodel.loading.optional_imports import check_installed  # noqa: PLC0415
    from p2pmodel.loading.parallel_layout import ParallelRank, parallel_rule  # noqa: PLC0415

    check_installed()
    rank = ParallelRank(flags["tensor_parallel"], flags["rank"], flags["expert_parallel"])

    def unknown(screen: ConsoleReporter, why: str) -> None:
        screen.note(warning("rank_layout_unknown", f"{why}: {rank} gets all weights; --plan FILE can say more"))

    return str(rank), lambda folder, screen: parallel_rule(folder, rank, lambda why: unknown(screen, why))


def _check(flags: dict[str, Any]) -> None:
    if flags["out"] is None:
        raise InvalidInput("a part needs a file", hint="give --out FILE.safetensors")
    for name, option in _EXCLUDED.items():
        if _is_given(flags.get(name)):
            raise InvalidInput(f"--{option} cannot be combined with the part of a rank", hint="leave one of them out")


def _is_given(value: object) -> bool:
    """Whether an option was given; 0 is a value, too."""
    return value is not None and value is not False and value != ()
