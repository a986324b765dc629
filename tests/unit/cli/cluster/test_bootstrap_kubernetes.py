"""`p2pmodel bootstrap --hosts k8s`: manifests on stdout, or through the user's kubectl."""

import json
import os
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.support.command_line import CommandLine

RUN = ("bootstrap", "org/model", "--hosts", "k8s", "--image", "site/p2pmodel:1")
KUBECTL = """#!/bin/sh
echo "$*" >>"$CALLS"
case "$*" in
  *"get secret"*) [ -e "$CALLS.secret" ] && echo secret/p2pmodel-tokens; exit 0;;
  *create*) cat >"$CALLS.secret";;
  *apply*) cat >"$CALLS.applied"; echo applied;;
  *rollout*) [ -z "$STUCK" ] || { echo "error: timed out waiting" >&2; exit 1; }; echo rolled out;;
esac
"""


def test_it_prints_manifests_that_kubectl_takes(cli: CommandLine) -> None:
    found = list(yaml.safe_load_all(cli.ok(*RUN, "--namespace", "models", "--endpoint", "http://mirror.site")))
    assert [each["kind"] for each in found] == ["ConfigMap", "Service", "Deployment", "DaemonSet"]
    assert "http://mirror.site" in found[0]["data"]["p2pmodel.toml"]
    alone = list(yaml.safe_load_all(cli.ok(*RUN, "--namespace", "models")))
    assert [each["kind"] for each in alone] == ["Service", "Deployment", "DaemonSet"]


def test_the_mirrors_of_the_settings_reach_the_pods_without_their_credentials(cli: CommandLine, tmp_path: Path) -> None:
    config = tmp_path / "p2pmodel.toml"
    config.touch(0o600)
    mirror = '[[mirrors]]\nname = "near"\nendpoint = "http://mirror.site"\nrepos = ["org/*"]\n'
    config.write_text(f'{mirror}token = "a-very-secret-token"\n')
    done = cli(*RUN, "--config", str(config))
    assert done.code == 0
    assert "a-very-secret-token" not in done.out
    assert "the credentials of the mirror near stay here" in done.err
    found = list(yaml.safe_load_all(done.out))
    assert tomllib.loads(found[0]["data"]["p2pmodel.toml"])["mirrors"][0]["repos"] == ["org/*"]
    for pod in (found[2]["spec"]["template"]["spec"], found[3]["spec"]["template"]["spec"]):
        variables = {each["name"]: each.get("value") for each in pod["containers"][0]["env"]}
        [mount] = [each for each in pod["containers"][0]["volumeMounts"] if each["name"] == "settings"]
        assert variables["P2PMODEL_CLUSTER_CONFIG"] == f"{mount['mountPath']}/p2pmodel.toml"
        assert {"name": "settings", "configMap": {"name": found[0]["metadata"]["name"]}} in pod["volumes"]
    assert "put them into a Secret" in cli.refuses(2, *RUN, "--config", str(config), "--carry", "credentials")
    assert "ConfigMap" not in cli.ok(*RUN, "--config", str(config), "--carry", "none")


@pytest.fixture
def kubectl(tmp_path: Path) -> dict[str, str]:
    program = tmp_path / "bin/kubectl"
    program.parent.mkdir()
    program.write_text(KUBECTL)
    program.chmod(0o755)
    return {"PATH": f"{program.parent}:{os.environ['PATH']}", "CALLS": str(tmp_path / "calls")}


def test_apply_makes_the_tokens_once_and_shows_them_nowhere(cli: CommandLine, kubectl: dict[str, str]) -> None:
    calls = Path(kubectl["CALLS"])
    for _ in range(2):
        done = cli(*RUN, "--apply", **kubectl)
        assert done.code == 0, done.err
    secret = json.loads(calls.with_name("calls.secret").read_text())
    tokens = list(secret["stringData"].values())
    assert len(set(tokens)) == 2
    seen = calls.read_text() + calls.with_name("calls.applied").read_text() + done.err + done.out
    assert not [token for token in tokens if token in seen]
    verbs = [line.split()[2] for line in calls.read_text().splitlines()]
    assert verbs == ["get", "create", "apply", "rollout", "get", "apply", "rollout"]


def test_nodes_that_do_not_become_ready_are_an_error(cli: CommandLine, kubectl: dict[str, str]) -> None:
    done = cli(*RUN, "--apply", **kubectl, STUCK="1")
    assert done.code == 6
    assert "timed out waiting" in done.err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("bootstrap", "org/model", "--hosts", "k8s"), "needs the image"),
        ((*RUN, "--seeders", "2"), "--seeders is not for --hosts k8s"),
        ((*RUN, "--node-selector", "gpu"), "is not a node label"),
        ((*RUN, "--apply", "--form", "kserve"), "form cluster"),
        (("bootstrap", "org/model", "--hosts", "gpu1", "--apply"), "--apply is for --hosts k8s"),
    ],
)
def test_options_of_other_launchers_are_refused(cli: CommandLine, arguments: tuple[str, ...], text: str) -> None:
    assert text in cli.refuses(2, *arguments)


def test_without_kubectl_apply_says_so(cli: CommandLine, tmp_path: Path) -> None:
    assert "kubectl is not installed" in cli.refuses(7, *RUN, "--apply", PATH=str(tmp_path))
