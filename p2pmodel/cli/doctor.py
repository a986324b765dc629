"""`p2pmodel doctor`: check this machine, and what a snapshot needs on it, before anything moves."""

import json
from typing import Any, TextIO

import click

from p2pmodel import __version__
from p2pmodel.cli import options
from p2pmodel.cli.output import echo
from p2pmodel.cli.signals import run_interruptible
from p2pmodel.cli.table import aligned
from p2pmodel.cluster.preflight.checks import Diagnosed, words
from p2pmodel.cluster.preflight.doctor import Doctor, DoctorRequest, plain, read_manifest
from p2pmodel.config.settings import Settings
from p2pmodel.core.content.names import Reference
from p2pmodel.errors import InvalidInput, LocalResource


@click.command()
@click.argument("repo", metavar="[REPO[@REV]]", required=False)
@click.option("--revision", help="Branch, tag, refs/pr/N or commit (default: main).")
@click.option("--load", is_flag=True, help="Check the memory of the GPUs for the model, too.")
@click.option("--measure", is_flag=True, help="Read a few MiB from each mirror for the estimate; models above 1 GiB.")
@click.option(
    "--manifest", type=click.File("r"), metavar="FILE|-", help="Manifest of the snapshot, instead of asking for REPO."
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
    request = _request(repo, flags)
    found = run_interruptible(Doctor(settings).run(request), interrupted="interrupted")
    if flags["as_json"]:
        echo(json.dumps(plain(found)))
    else:
        _show(found)
    if not found.passed:
        failed = "; ".join(check.line for check in found.failed)
        raise LocalResource(f"{len(found.failed)} of {len(found.checks)} checks failed: {failed}")


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


def _show(found: Diagnosed) -> None:
    rows = [
        (check.name, check.outcome, check.found + (f"; {check.hint}" if check.hint else "")) for check in found.checks
    ]
    echo(aligned(("CHECK", "RESULT", "FOUND"), rows))
    if text := words(found):
        assert found.need is not None
        echo(f"\n{found.need.repo}@{found.need.commit[:12]}: {text}")
