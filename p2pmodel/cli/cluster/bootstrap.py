"""`p2pmodel bootstrap`: one snapshot on every host of a cluster, with one command."""

import asyncio
import dataclasses
import json
import os
import shlex
import time
from pathlib import Path
from typing import Any

import click

from p2pmodel.cli import options
from p2pmodel.cli.cluster.bootstrap_kubernetes import (
    KUBERNETES,
    carried_credentials,
    kubernetes,
    options_kubernetes,
    refuse_for_hosts,
)
from p2pmodel.cli.cluster.bootstrap_screen import screen_of
from p2pmodel.cli.option_types import Count, PathName
from p2pmodel.cli.rollout.tables import bound_line, gate_table
from p2pmodel.cli.signals import run_interruptible
from p2pmodel.cli.terminal.console import Style
from p2pmodel.cli.terminal.output import echo
from p2pmodel.cluster.bootstrap import report
from p2pmodel.cluster.bootstrap.bootstrap import Bootstrap, BootstrapScreen, take_down
from p2pmodel.cluster.bootstrap.plan import BootstrapPlan, CoordinatorPlace
from p2pmodel.cluster.bootstrap.roster import Roster
from p2pmodel.cluster.carried import CarriedCredentials, CarriedSettings, carried, carried_settings
from p2pmodel.cluster.launcher import Launcher, check_host
from p2pmodel.cluster.preflight.doctor import manifest_of
from p2pmodel.config.settings import Settings
from p2pmodel.coordinator.client.coordinators import Coordinator, configured
from p2pmodel.coordinator.rollout.report import report_json, rollout_report
from p2pmodel.coordinator.rollout.rollout import MinReady
from p2pmodel.core.content.manifest import Manifest
from p2pmodel.core.content.names import Reference
from p2pmodel.core.extras import check_extra
from p2pmodel.core.files.private_files import write_output
from p2pmodel.errors import InvalidInput, PartialCluster

SLURM = "slurm"
_LEFT = "interrupted; the hosts go on: the same command follows them, with --down it ends them"

_Where = tuple[tuple[str, ...], tuple[str, ...], CoordinatorPlace]
"""The hosts, those that --limit leaves out, and where the coordinator is."""


@click.command()
@options.reference
@click.option("--hosts", "hosts_text", required=True, metavar="SET|@FILE|slurm|k8s", help="Hosts, as in gpu[1-9].")
@click.option("--limit", metavar="SET|@FILE", help="Only these hosts, as in --limit @failed.txt.")
@click.option(
    "--coordinator",
    "place",
    metavar="HOST|URL",
    help="Host to start the coordinator on, or URL of one that runs (default: the first of the hosts that passes).",
)
@click.option(
    "--seeders",
    type=Count(0, 100),
    default=1,
    show_default=True,
    help="Hosts that publish the snapshot, signed with their key if they have one, and keep seeding it.",
)
@click.option(
    "--fanout", type=Count(1, 1000), default=32, show_default=True, help="Hosts that are connected at a time."
)
@click.option("--min-ready", default="100%", show_default=True, metavar="N|P%", help="Hosts that must become ready.")
@click.option(
    "--timeout",
    default="30m",
    show_default=True,
    callback=options.duration,
    help="Longest time for the whole roll-out, as in 2h.",
)
@click.option("--load", is_flag=True, help="Also load the model on each host as soon as its files are there.")
@click.option("--prompt", help="Prompt for the loaded model: a host is ready with its first token. Implies --load.")
@click.option(
    "--serve-command", default="", metavar="COMMAND", help="Shell command to keep running on each ready host."
)
@click.option("--dry-run", is_flag=True, help="Show the preflight of each host, and start nothing.")
@click.option("--down", is_flag=True, help="End what bootstraps have started on the hosts; files stay.")
@click.option(
    "--failed-file",
    type=PathName(),
    default=Path("failed.txt"),
    show_default=True,
    help="File for the hosts that failed, for --limit.",
)
@options_kubernetes
@click.option("--command", metavar="COMMAND", help="Command for p2pmodel on the hosts (default: found on their PATH).")
@click.option(
    "--install",
    type=PathName(exists=True, file_okay=False),
    metavar="FOLDER",
    help="Carry p2pmodel to the hosts: wheels, or a tree of 'pip install --target'.",
)
@click.option(
    "--carry",
    type=click.Choice(["none", "mirrors", "credentials"]),
    default="mirrors",
    show_default=True,
    help="What the hosts get of the settings here: nothing, the mirrors, or their credentials, too.",
)
@click.option("--node-state-dir", metavar="PATH", help="State folder on the hosts (default: that of their user).")
@click.option("--ssh-config", type=PathName(exists=True), help="ssh configuration instead of the user's.")
@click.option(
    "--trust", "_set_swarm__trust", type=click.Choice(["mirrors", "coordinator"]), help="What confirms a torrent."
)
@options.endpoint
@options.common
@options.progress
def bootstrap(settings: Settings, ref: Reference, style: Style, **flags: Any) -> None:
    """Bring REPO onto every host of a cluster: preflight, coordinator, daemons, and the fetch on all at once.

    Hosts are reached by ssh, with the user's own configuration, agent and known hosts. Services that run are reused,
    and a second run changes nothing. --cache-dir and --trust go to the hosts, too, and so do the mirrors, if the
    settings or --endpoint name any. Exits with 0 when --min-ready hosts are ready, and with 8 when only a part is; the
    others are named with their reasons. Ctrl-C leaves the hosts working. --hosts slurm takes the nodes of the
    allocation that it runs in; --hosts k8s prints manifests.
    """
    check_extra("cluster", "bootstrap")
    if flags["hosts_text"] == KUBERNETES:
        kubernetes(settings, ref, flags)
        return
    refuse_for_hosts()
    launcher = _launcher(flags)
    flags["credentials"] = carried_credentials(settings, flags["carry"])
    plan = _plan(settings, ref, _hosts(flags), flags)
    if flags["down"]:
        _taken_down(run_interruptible(take_down(plan, launcher), interrupted="interrupted"), flags)
        return
    began = time.monotonic()
    with screen_of(style, quiet=flags["quiet"]) as screen:
        work = _run(settings, plan, launcher, screen, flags)
        plan, roster = run_interruptible(work, interrupted=_LEFT)
    _report(plan, roster, time.monotonic() - began, flags)


def _launcher(flags: dict[str, Any]) -> Launcher:
    """The launcher for the hosts; for Slurm `hosts_text` and `node_state_dir` become those of the allocation."""
    from p2pmodel.cluster.launchers import slurm  # noqa: PLC0415 - of the extra, as ssh
    from p2pmodel.cluster.launchers.ssh import SshLauncher  # noqa: PLC0415

    if flags["hosts_text"] != SLURM:
        return SshLauncher(flags["ssh_config"], state_dir=flags["node_state_dir"])
    job, flags["hosts_text"] = slurm.allocation(os.environ)
    flags["node_state_dir"] = flags["node_state_dir"] or slurm.node_state_dir()
    return slurm.SlurmLauncher(job, state_dir=flags["node_state_dir"])


def _hosts(flags: dict[str, Any]) -> _Where:
    from p2pmodel.cluster.node_sets import folded, parse_hosts  # noqa: PLC0415 - of the extra

    hosts, beyond = parse_hosts(flags["hosts_text"]), tuple[str, ...]()
    place = CoordinatorPlace.parse(flags["place"]) if flags["place"] else CoordinatorPlace(hosts[0], fixed=False)
    if place.host:
        check_host(place.host)
    if flags["limit"]:
        limit = parse_hosts(flags["limit"])
        if strange := [name for name in limit if name not in hosts]:
            raise InvalidInput(f"--limit names {folded(strange)}, not in --hosts", hint="give the whole set to --hosts")
        hosts, beyond = limit, tuple(name for name in hosts if name not in limit)
    return hosts, beyond, place


async def _run(
    settings: Settings, plan: BootstrapPlan, launcher: Launcher, screen: BootstrapScreen, flags: dict[str, Any]
) -> tuple[BootstrapPlan, Roster]:
    """Look the snapshot up, and roll it out. Returns the plan with the manifest."""
    place, credentials = plan.coordinator, flags["credentials"]
    given = _given(settings, place)
    screen.stage(f"looking {plan.ref} up")
    own = settings.model_copy(update={"coordinators": (place.url,)}) if place.url else settings
    package = await carried(flags["install"]) if flags["install"] else None
    along = await asyncio.to_thread(_settings_of_hosts, settings, credentials) if credentials else None
    plan = dataclasses.replace(plan, manifest=await manifest_of(plan.ref, own), package=package, settings=along)
    work = Bootstrap(plan, launcher, screen, given)
    return plan, await (work.examine() if flags["dry_run"] else work.run())


def _given(settings: Settings, place: CoordinatorPlace) -> Coordinator | None:
    if not place.url:
        return None
    return configured(settings.model_copy(update={"coordinators": (place.url,)}))[0]


def _plan(settings: Settings, ref: Reference, where: _Where, flags: dict[str, Any]) -> BootstrapPlan:
    """The plan, for a manifest that is not known yet."""
    hosts, beyond, place = where
    if flags["install"] and flags["command"]:
        raise InvalidInput("--install and --command are both given", hint="give one of them")
    try:
        command = tuple(shlex.split(flags["command"] or ""))
    except ValueError as error:
        raise InvalidInput(f"--command cannot be split into words: {error}", hint="quote it as for a shell") from None
    return BootstrapPlan(
        ref=ref,
        manifest=Manifest(ref.repo, "0" * 40, ()),
        hosts=hosts,
        coordinator=place,
        seeders=flags["seeders"],
        fanout=flags["fanout"],
        min_ready=MinReady.parse(flags["min_ready"]),
        timeout=flags["timeout"],
        load=flags["load"] or flags["prompt"] is not None,
        prompt=flags["prompt"],
        serve=flags["serve_command"],
        command=command,
        environment=_environment(settings, flags),
        beyond=beyond,
    )


def _settings_of_hosts(settings: Settings, credentials: CarriedCredentials) -> CarriedSettings:
    found = carried_settings(settings.mirrors, settings.origin, credentials=credentials)
    more = "; hosts need them in the same place, or --carry credentials"
    return dataclasses.replace(found, kept=tuple(f"{line}{more}" for line in found.kept))


def _environment(settings: Settings, flags: dict[str, Any]) -> dict[str, str]:
    """The settings of this command line that are for the hosts."""
    found = {}
    if options.given("--cache-dir"):
        found["HF_HUB_CACHE"] = str(settings.cache_dir)
    if options.given("--trust"):
        found["P2PMODEL_SWARM_TRUST"] = settings.swarm.trust
    if flags["node_state_dir"]:
        found["P2PMODEL_STATE_DIR"] = flags["node_state_dir"]
    return found


def _report(plan: BootstrapPlan, roster: Roster, seconds: float, flags: dict[str, Any]) -> None:
    from p2pmodel.cluster.node_sets import folded  # noqa: PLC0415 - of the extra

    failed = [entry.name for entry in roster.failed]
    hint = ""
    if failed:
        write_output(flags["failed_file"], "".join(f"{name}\n" for name in failed).encode())
        hint = f"mend them, then run it again with --limit @{flags['failed_file']}"
    if flags["as_json"]:
        view = roster.rollout
        record = {"id": view.id, "state": view.state, **report_json(rollout_report(view))} if view else None
        echo(json.dumps(report.plain(plan, roster, seconds, folded) | {"rollout": record}))
    if not flags["quiet"]:
        shown = report.examined(roster) if flags["dry_run"] else report.words(plan, roster, seconds)
        for line in (*roster.notes, *shown):
            echo(line, err=True)
        if roster.rollout:
            found = rollout_report(roster.rollout)
            echo(f"{gate_table(found)}\n(seconds since the roll-out began)", err=True)
            if bound := bound_line(found):
                echo(bound, err=True)
    error = report.refused(roster, hint) if flags["dry_run"] else report.verdict(plan, roster, hint)
    if error:
        raise error


def _taken_down(roster: Roster, flags: dict[str, Any]) -> None:
    failed = {entry.name: str(entry.failure) for entry in roster.failed}
    if flags["as_json"]:
        echo(json.dumps({"hosts": len(roster.entries), "down": len(roster.done), "failed": failed}))
    for name, reason in failed.items():
        echo(f"{name}: {reason.removeprefix(f'{name}: ')}", err=True)
    if failed:
        raise PartialCluster(f"{len(failed)} of {len(roster.entries)} hosts were not reached", hint="run it again")
    if not flags["quiet"]:
        echo(f"down on {len(roster.done)} hosts; their files stay", err=True)
