"""The user's kubectl, which has the access to the cluster. Secrets go through its stdin."""

import json
import shutil
import subprocess
from collections.abc import Sequence

from p2pmodel.cluster.kubernetes.manifests import (
    MEMBER,
    NAME,
    PUBLISHER,
    SECRET,
    KubernetesPlan,
    configuration,
    objects,
)
from p2pmodel.cluster.kubernetes.text import yaml_of
from p2pmodel.coordinator.tokens import new_token
from p2pmodel.core.content.names import printable
from p2pmodel.errors import LocalResource, Unavailable

CALL_SECONDS = 60.0
KUBECTL = "kubectl"


def apply(plan: KubernetesPlan) -> str:
    """Apply the objects of a cluster, and make its tokens once; what kubectl printed. Blocks.

    Raises LocalResource without kubectl, Unavailable for what it refuses.
    """
    if shutil.which(KUBECTL) is None:
        raise LocalResource("kubectl is not installed", hint="leave --apply out, and apply the printed manifests")
    if _run(plan, "get", "secret", SECRET, "--ignore-not-found", "-o", "name") == "":
        tokens = {MEMBER: new_token(), PUBLISHER: new_token()}
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": SECRET, "namespace": plan.namespace},
            "stringData": tokens,
        }
        _run(plan, "create", "-f", "-", stdin=json.dumps(secret))
    return _run(plan, "apply", "-f", "-", stdin=yaml_of([*configuration(plan), *objects(plan)]))


def wait(plan: KubernetesPlan, seconds: float) -> str:
    """Wait until every node's pod is ready, which means that its node has the model. Blocks."""
    bound = f"--timeout={max(1, int(seconds))}s"
    return _run(plan, "rollout", "status", f"daemonset/{NAME}", bound, within=seconds + CALL_SECONDS)


def _run(plan: KubernetesPlan, *arguments: str, stdin: str = "", within: float = CALL_SECONDS) -> str:
    command: Sequence[str] = [KUBECTL, "-n", plan.namespace, *arguments]
    try:
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=within, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        raise Unavailable(
            f"kubectl {arguments[0]} has not ended within {within:g} s", hint="see 'kubectl get pods'"
        ) from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise Unavailable(f"kubectl {arguments[0]}: {printable(lines[-1], 300)}", hint="see 'kubectl get pods'")
    return done.stdout.strip()
