"""`p2pmodel doctor`: check this machine, and what a snapshot needs on it, before anything moves."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any, TextIO

import click

from p2pmodel import __version__
from p2pmodel.cli import options
from p2pmodel.cli.signals import run_interruptible
from p2pmodel.cli.terminal.output import aligned, echo
from p2pmodel.cluster.preflight.checks import DoctorCheck, PreflightReport, words
from p2pmodel.cluster.preflight.doctor import Doctor, DoctorRequest, plain, reached, read_manifest
from p2pmodel.config.settings import Settings
from p2pmodel.core.content.names import Reference
from p2pmodel.core.network.addresses import ListenAddress
from p2pmodel.errors import InvalidInput, LocalResource


@click.command()
@click.argument("repo", metavar="[REPO[@REV]]", required=False)
@click.option("--revision", help="Branch, tag, refs/pr/N or commit (default: main).")
@click.option("--load", is_flag=True, help="Check the memory of the GPUs for the model, too.")
@click.option("--measure", is_flag=True, help="Read a few MiB from each mirror for the estimate; models above 1 GiB.")
@click.option(
    "--manifest", type=click.File("r"), metavar="FILE|-", help="Manifest of the snapshot, instead of asking for REPO."
)
@click.option(
    "--reach", multiple=True, metavar="ADDRESS:PORT", help="Only check that this machine connects there; repeatable."
)
@click.option("--expect-version", default=__version__, metavar="VERSION", help="Version that this node needs.")
@options.listen
@options.socket
@options.origin
@options.common
def doctor(settings: Settings, repo: str | None, **flags: Any) -> None:
    """Check this machine: disk, cache, ports, clock, open files, cores, mirrors, coordinators.

    With REPO also whether the snapshot fits, and how long it takes at least. Downloads nothing of a model. Exits with 7
    if a check fails; warnings alone are no failure. With --json one object on stdout.
    """
    if flags["reach"]:
        _reach(repo, flags)
        return
    request = _request(repo, flags)
    found = run_interruptible(Doctor(settings).run(request), interrupted="interrupted")
    if flags["as_json"]:
        echo(json.dumps(plain(found)))
    else:
        _show(found)
    _judge(found.checks)


def _reach(repo: str | None, flags: dict[str, Any]) -> None:
    if repo or flags["manifest"]:
        raise InvalidInput("--reach checks connections alone", hint="leave the REPO out")
    addresses = [ListenAddress.parse(text) for text in flags["reach"]]
    checks = run_interruptible(reached(addresses), interrupted="interrupted")
    if flags["as_json"]:
        echo(json.dumps({"checks": [dataclasses.asdict(check) for check in checks]}))
    else:
        echo(_table(checks))
    _judge(checks)


def _judge(checks: Sequence[DoctorCheck]) -> None:
    failed = [check.line for check in checks if check.outcome == "failed"]
    if failed:
        raise LocalResource(f"{len(failed)} of {len(checks)} checks failed: {'; '.join(failed)}")


def _table(checks: Sequence[DoctorCheck]) -> str:
    rows = [(check.name, check.outcome, "; ".join(filter(None, (check.found, check.hint)))) for check in checks]
    return aligned(("CHECK", "RESULT", "FOUND"), rows)


def _request(repo: str | None, flags: dict[str, Any]) -> DoctorRequest:
    manifest: TextIO | None = flags["manifest"]
    if repo and manifest:
        raise InvalidInput("REPO and --manifest are both given", hint="give one of them")
    if flags["load"] and not (repo or manifest):
        raise InvalidInput("--load needs the model", hint="name the REPO")
    ref = Reference.parse(repo, revision=flags["revision"]) if repo else None
    return DoctorRequest(
        ref,
        read_manifest(manifest.read()) if manifest else None,
        load=flags["load"],
        measure=flags["measure"],
        version=flags["expect_version"],
    )


def _show(found: PreflightReport) -> None:
    echo(_table(found.checks))
    if text := words(found):
        assert found.need is not None
        echo(f"\n{found.need.repo}@{found.need.commit[:12]}: {text}")
