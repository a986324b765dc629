"""`p2pmodel bootstrap --hosts k8s`: print the manifests of a cluster, or apply them with the user's kubectl."""

from collections.abc import Callable
from typing import Any

import click

from p2pmodel.cli import options
from p2pmodel.cli.terminal.output import echo
from p2pmodel.cluster.carried import CarriedCredentials, carried_settings
from p2pmodel.config.settings import Settings
from p2pmodel.config.sources import DEFAULT
from p2pmodel.core.content.names import Reference
from p2pmodel.errors import InvalidInput

KUBERNETES = "k8s"
FORMS = ("cluster", "init", "kserve")
_ONLY_HERE = ("--image", "--namespace", "--node-selector", "--form", "--apply")
ELSEWHERE = (
    *("--limit", "--coordinator", "--seeders", "--load", "--prompt", "--serve-command", "--install"),
    *("--dry-run", "--down", "--command", "--ssh-config"),
)
"""Options that are for hosts which this machine reaches."""


def options_kubernetes(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that are for Kubernetes alone."""
    for add in (
        click.option("--apply", is_flag=True, help="k8s: apply the manifests with kubectl, and wait for every node."),
        click.option(
            "--form",
            type=click.Choice(FORMS),
            default="cluster",
            show_default=True,
            help="k8s: coordinator and daemons, a pod that waits for the model, or KServe's storage container.",
        ),
        click.option("--node-selector", multiple=True, metavar="KEY=VALUE", help="k8s: label of nodes; repeatable."),
        click.option("--namespace", default="default", show_default=True, help="k8s: namespace of the objects."),
        click.option("--image", help="k8s: image of p2pmodel (see Containerfile)."),
    ):
        verb = add(verb)
    return verb


def refuse_for_hosts() -> None:
    """Raise InvalidInput for an option that is for Kubernetes alone."""
    if given := options.given(*_ONLY_HERE):
        raise InvalidInput(f"{given[0]} is for --hosts {KUBERNETES}", hint="leave it out")


def kubernetes(settings: Settings, ref: Reference, flags: dict[str, Any]) -> None:
    """Print the manifests; with --apply apply them, and wait until every node has the model."""
    if given := options.given(*ELSEWHERE):
        raise InvalidInput(f"{given[0]} is not for --hosts k8s", hint="leave it out; kubectl does that")
    if flags["image"] is None:
        raise InvalidInput(
            "--hosts k8s needs the image of p2pmodel", hint="build it (Containerfile), name it by --image"
        )
    from p2pmodel.cluster.kubernetes import CACHE, KubernetesPlan, apply, rendered, wait  # noqa: PLC0415 - of the extra

    plan = KubernetesPlan(
        ref,
        image=flags["image"],
        namespace=flags["namespace"],
        node_selector=tuple(map(_selector, flags["node_selector"])),
        settings=_settings(settings, flags["carry"]),
        trust=settings.swarm.trust,
        cache=str(settings.cache_dir) if options.given("--cache-dir") else CACHE,
    )
    if not flags["apply"]:
        echo(rendered(plan, flags["form"]), nl=False)
        return
    if flags["form"] != "cluster":
        raise InvalidInput("--apply is for the form cluster", hint="pipe the printed manifest into kubectl")
    echo(apply(plan), err=True)
    echo(wait(plan, flags["timeout"]), err=True)


def carried_credentials(settings: Settings, carry: str) -> CarriedCredentials | None:
    """What the nodes get of the mirrors' credentials; None: not even the mirrors, since --carry says so, or no setting
    names one."""
    if carry == "none" and options.given("--endpoint"):
        raise InvalidInput("--endpoint is for the hosts, and --carry none for no host", hint="leave one of them out")
    named = any(each.key == "mirrors" and each.source != DEFAULT for each in options.values(settings))
    if carry == "credentials":
        return "carried"
    return "named" if named and carry == "mirrors" else None


def _settings(settings: Settings, carry: str) -> dict[str, str]:
    """The settings files of the pods, by name; says what they lack."""
    carrying = carried_credentials(settings, carry)
    if carrying == "carried":
        hint = "put them into a Secret, and into the pods as the variables that token_env names"
        raise InvalidInput("--carry credentials is not for --hosts k8s", hint=hint)
    if carrying is None:
        return {}
    found = carried_settings(settings.mirrors, settings.origin, credentials="none")
    for line in found.kept:
        echo(line, err=True)
    return {name: data.decode() for name, data in found.files.items()}


def _selector(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise InvalidInput(f"'{text}' is not a node label", hint="write --node-selector KEY=VALUE")
    return key, value
