"""The Kubernetes objects of a roll-out: coordinator, Service, DaemonSet, pods that wait for a model.

They are plain values, printed as YAML with what to do before they are applied, or applied by the user's kubectl.

- Pods of the DaemonSet keep the cache on the node (hostPath), so that it outlives them; other pods mount it read-only.
- A pod is ready when the daemon has verified all files of the model: the probe asks /readyz at the daemon's socket, so
  that no port is opened for it.
- No object needs a right at the API server, so there is no RBAC, and no pod gets a service account token.
- Tokens come from a Secret, as files. They stand in no manifest. Secrets go through kubectl's stdin.
"""

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from p2pmodel.cluster.carried import FILE
from p2pmodel.coordinator.tokens import new_token
from p2pmodel.core.content.names import Reference, printable
from p2pmodel.errors import LocalResource, Unavailable
from p2pmodel.node.local_address import (
    AUTO_ENGINES,
    PEER_PORT,
    PIECE_PORT,
    PRIVATE_PORT,
    PRIVATE_SOURCE_PORT,
    SOURCE_PORT,
)
from p2pmodel.swarm.split.named_peers import further_port

USER = 10001
"""The user of the image."""
NAME, COORDINATOR = "p2pmodel", "p2pmodel-coordinator"
CONFIG = "p2pmodel-settings"
SECRET, MEMBER, PUBLISHER = "p2pmodel-tokens", "member", "publisher"
COORDINATOR_PORT = 6969
HOME = "/var/lib/p2pmodel"
SOCKET = "/run/p2pmodel/p2pmodel.sock"
CACHE = "/var/lib/p2pmodel"
"""Folder on each node."""
_TOKENS = "/run/secrets/p2pmodel"
_SETTINGS = "/etc/p2pmodel"
_HUB = f"{HOME}/hub"

Object = dict[str, Any]

PROBE = (
    "import http.client,socket,sys;"
    "c=http.client.HTTPConnection('localhost',timeout=4);"
    "c.sock=socket.socket(socket.AF_UNIX);c.sock.settimeout(4);c.sock.connect(sys.argv[1]);"
    "c.request('GET',sys.argv[2]);sys.exit(c.getresponse().status!=200)"
)
"""Exits with 0 if the path of the second argument is answered with 200 at the socket of the first."""


@dataclass(frozen=True, slots=True)
class KubernetesPlan:
    """What to run: the image, the model, the folder of the cache on each node, and labels of the nodes. `tolerate`:
    also on nodes with taints for GPUs; `settings`: settings files by name, without secrets, of which p2pmodel.toml is
    read; `trust`: as the setting `swarm.trust`."""

    ref: Reference
    image: str
    namespace: str = "default"
    cache: str = CACHE
    node_selector: tuple[tuple[str, str], ...] = ()
    tolerate: bool = True
    settings: Mapping[str, str] = field(default_factory=dict)
    trust: str = "mirrors"

    @property
    def coordinator_url(self) -> str:
        """The coordinator's URL inside the cluster."""
        return f"http://{COORDINATOR}.{self.namespace}.svc:{COORDINATOR_PORT}"


def objects(plan: KubernetesPlan) -> list[Object]:
    """Coordinator, its Service, and the DaemonSet, in the order to apply them."""
    return [_service(plan), _coordinator(plan), _daemons(plan)]


def configuration(plan: KubernetesPlan) -> list[Object]:
    """The ConfigMap with the settings files, if there are any."""
    if not plan.settings:
        return []
    return [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": _metadata(plan, CONFIG), "data": dict(plan.settings)}]


def waiting_pod(plan: KubernetesPlan) -> Object:
    """A pod that starts with the model on its node: its init container fetches what is missing there."""
    fetch = _container(plan, "model", ["fetch", str(plan.ref), "--socket", SOCKET, "--quiet"])
    fetch["volumeMounts"] += [{"name": "socket", "mountPath": "/run/p2pmodel"}]
    engine = {
        "name": "engine",
        "image": "IMAGE-OF-THE-ENGINE",
        "env": [{"name": "HF_HUB_CACHE", "value": _HUB}, {"name": "HF_HUB_OFFLINE", "value": "1"}],
        "volumeMounts": [{"name": "home", "mountPath": HOME, "readOnly": True}],
    }
    spec = _pod(plan, [engine], initial=[fetch])
    spec["volumes"].append(_socket_volume(plan))
    return {"apiVersion": "v1", "kind": "Pod", "metadata": _metadata(plan, "model-user"), "spec": spec}


def storage_container(plan: KubernetesPlan) -> Object:
    """KServe's ClusterStorageContainer: models of `hf://` URIs come through the swarm."""
    container = {
        "name": "storage-initializer",
        "image": plan.image,
        "command": ["p2pmodel", "storage-initializer"],
        "env": [
            {"name": "P2PMODEL_COORDINATORS", "value": plan.coordinator_url},
            {"name": "P2PMODEL_SWARM_TRUST", "value": plan.trust},
            {"name": "COORDINATOR_TOKEN", "valueFrom": {"secretKeyRef": {"name": SECRET, "key": MEMBER}}},
        ],
        "resources": _resources("1", "1Gi"),
    }
    return {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "ClusterStorageContainer",
        "metadata": {"name": NAME},
        "spec": {"container": container, "supportedUriFormats": [{"prefix": "hf://"}]},
    }


def _service(plan: KubernetesPlan) -> Object:
    # Headless: its name leads to the coordinator itself, which sees the peers' own addresses.
    spec = {
        "clusterIP": "None",
        "selector": {"app": COORDINATOR},
        "ports": [{"name": "http", "port": COORDINATOR_PORT, "targetPort": "http"}],
    }
    return {"apiVersion": "v1", "kind": "Service", "metadata": _metadata(plan, COORDINATOR), "spec": spec}


def _coordinator(plan: KubernetesPlan) -> Object:
    arguments = ["coordinator", f"--listen=0.0.0.0:{COORDINATOR_PORT}", f"--public-url={plan.coordinator_url}"]
    arguments += [f"--token-file={_TOKENS}/{MEMBER}", f"--publish-token-file={_TOKENS}/{PUBLISHER}"]
    container = _container(plan, "coordinator", [*arguments, f"--state-dir={HOME}/catalog"])
    container["ports"] = [{"name": "http", "containerPort": COORDINATOR_PORT}]
    container["readinessProbe"] = {"tcpSocket": {"port": "http"}, "periodSeconds": 5}
    container["resources"] = _resources("250m", "256Mi")
    pod = _pod(plan, [container], home={"emptyDir": {}})
    template = {"metadata": {"labels": {"app": COORDINATOR}}, "spec": pod}
    spec = {
        "replicas": 1,
        "strategy": {"type": "Recreate"},
        "selector": {"matchLabels": {"app": COORDINATOR}},
        "template": template,
    }
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": _metadata(plan, COORDINATOR), "spec": spec}


def _daemons(plan: KubernetesPlan) -> Object:
    daemon = _container(plan, "daemon", ["daemon", "--socket", SOCKET])
    daemon["env"].append({"name": "P2PMODEL_SWARM_LISTEN", "value": f"$(POD_IP):{PEER_PORT}"})
    daemon["env"].insert(0, {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}})
    daemon["ports"] = [
        {"name": "peers", "containerPort": PEER_PORT},
        {"name": "source", "containerPort": SOURCE_PORT},
        {"name": "private-peers", "containerPort": PRIVATE_PORT},
        {"name": "private-source", "containerPort": PRIVATE_SOURCE_PORT},
        {"name": "other-zones", "containerPort": PIECE_PORT},
        *({"name": f"engine-{n}", "containerPort": further_port(PEER_PORT, n)} for n in range(1, AUTO_ENGINES)),
    ]
    path = f"/readyz?model={plan.ref}"
    daemon["readinessProbe"] = _asking(path, period=5, failures=1)
    daemon["livenessProbe"] = _asking("/healthz", period=20, failures=6)
    daemon["resources"] = _resources("1", "1Gi")
    # Again and again until it succeeds: a mirror may be away for an hour. Then it waits for its end.
    script = 'until p2pmodel fetch "$1" --socket "$2" --quiet; do sleep 15; done; exec sleep infinity'
    fetch = _container(plan, "fetch", [])
    fetch["command"] = ["sh", "-c", script, "fetch", str(plan.ref), SOCKET]
    fetch["resources"] = _resources("100m", "256Mi")
    for container in (daemon, fetch):
        container["volumeMounts"].append({"name": "socket", "mountPath": "/run/p2pmodel"})
    pod = _pod(plan, [daemon, fetch], initial=[_owner(plan)])
    pod["volumes"].append(_socket_volume(plan))
    if plan.node_selector:
        pod["nodeSelector"] = dict(plan.node_selector)
    if plan.tolerate:
        pod["tolerations"] = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    spec = {
        "selector": {"matchLabels": {"app": NAME}},
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "10%"}},
        "template": {"metadata": {"labels": {"app": NAME}, "annotations": _annotations(plan)}, "spec": pod},
    }
    return {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": _metadata(plan, NAME), "spec": spec}


def _owner(plan: KubernetesPlan) -> Object:
    """The first container on a node: the folders that the kubelet made belong to root."""
    script = (
        f"install -d -o {USER} -g {USER} {HOME} {HOME}/hub {HOME}/state && install -d -o {USER} -g {USER} /run/p2pmodel"
    )
    return {
        "name": "owner",
        "image": plan.image,
        "command": ["sh", "-c", script],
        "securityContext": {
            "runAsUser": 0,
            "runAsNonRoot": False,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"], "add": ["CHOWN", "FOWNER", "DAC_OVERRIDE"]},
        },
        "resources": _resources("50m", "32Mi"),
        "volumeMounts": [{"name": "home", "mountPath": HOME}, {"name": "socket", "mountPath": "/run/p2pmodel"}],
    }


def _container(plan: KubernetesPlan, name: str, arguments: Sequence[str]) -> Object:
    environment = {
        "P2PMODEL_COORDINATORS": plan.coordinator_url,
        "P2PMODEL_COORDINATOR_TOKEN_FILE": f"{_TOKENS}/{MEMBER}",
        "P2PMODEL_SWARM_TRUST": plan.trust,
        **({"P2PMODEL_CLUSTER_CONFIG": f"{_SETTINGS}/{FILE}"} if plan.settings else {}),
    }
    return {
        "name": name,
        "image": plan.image,
        "args": list(arguments),
        "env": [{"name": key, "value": value} for key, value in environment.items()],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "resources": _resources("100m", "256Mi"),
        "volumeMounts": [
            {"name": "home", "mountPath": HOME},
            {"name": "tokens", "mountPath": _TOKENS, "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - inside the container
            *([{"name": "settings", "mountPath": _SETTINGS, "readOnly": True}] if plan.settings else []),
        ],
    }


def _pod(
    plan: KubernetesPlan, containers: list[Object], *, initial: Sequence[Object] = (), home: Object | None = None
) -> Object:
    on_node = {"hostPath": {"path": plan.cache, "type": "DirectoryOrCreate"}}
    pod: Object = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {"runAsUser": USER, "runAsGroup": USER, "runAsNonRoot": True, "fsGroup": USER},
        "containers": containers,
        "volumes": [
            {"name": "home", **(home or on_node)},
            {"name": "tokens", "secret": {"secretName": SECRET, "defaultMode": 0o440}},
            {"name": "tmp", "emptyDir": {}},
            *([{"name": "settings", "configMap": {"name": CONFIG}}] if plan.settings else []),
        ],
    }
    return pod | ({"initContainers": list(initial)} if initial else {})


def _socket_volume(plan: KubernetesPlan) -> Object:
    path = {"path": f"{plan.cache}-run", "type": "DirectoryOrCreate"}
    return {"name": "socket", "hostPath": path}


def _asking(path: str, *, period: int, failures: int) -> Object:
    command = ["python3", "-IS", "-c", PROBE, SOCKET, path]
    return {
        "exec": {"command": command},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def _metadata(plan: KubernetesPlan, name: str) -> Object:
    return {"name": name, "namespace": plan.namespace, "labels": {"app": name, "app.kubernetes.io/part-of": NAME}}


def _annotations(plan: KubernetesPlan) -> dict[str, str]:
    """Other settings make other pods: a ConfigMap that changes restarts none."""
    if not plan.settings:
        return {}
    return {"p2pmodel/settings": hashlib.sha256(repr(sorted(plan.settings.items())).encode()).hexdigest()[:16]}


def _resources(cpu: str, memory: str) -> Object:
    return {"requests": {"cpu": cpu, "memory": memory}}


FORMS: Mapping[str, Callable[[KubernetesPlan], list[Object]]] = {
    "cluster": lambda plan: [*configuration(plan), *objects(plan)],
    "init": lambda plan: [*configuration(plan), waiting_pod(plan)],
    "kserve": lambda plan: [storage_container(plan)],
}
"""`cluster`: coordinator and daemons; `init`: a pod that waits for the model; `kserve`: for models of `hf://` URIs."""

_HEAD = {
    "cluster": "# Once, before these objects: the tokens, which stand in no manifest.\n#   {secret}\n",
    "init": "# A pod that starts with the model in its node's cache; put your engine into it.\n",
    "kserve": (
        "# Once for the cluster; InferenceServices with storageUri hf://ORG/NAME use it.\n"
        "# Their namespaces need the Secret, too.\n"
    ),
}


def rendered(plan: KubernetesPlan, form: str) -> str:
    """The objects of `form` as one YAML text."""
    return _HEAD[form].format(secret=secret_command(plan)) + yaml_of(FORMS[form](plan))


def yaml_of(found: list[Object]) -> str:
    """Objects as YAML documents."""
    text: str = yaml.dump_all(found, sort_keys=False, default_flow_style=False, width=110, explicit_start=True)
    return text


def secret_command(plan: KubernetesPlan) -> str:
    """The command that makes the Secret with new tokens."""
    tokens = " ".join(f"--from-file={name}=<(openssl rand -hex 16)" for name in (MEMBER, PUBLISHER))
    return f"kubectl -n {plan.namespace} create secret generic {SECRET} {tokens}"


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
