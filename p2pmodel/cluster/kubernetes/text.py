"""The manifests as YAML, with what to do before they are applied."""

from collections.abc import Callable, Mapping

import yaml

from p2pmodel.cluster.kubernetes.manifests import (
    MEMBER,
    PUBLISHER,
    SECRET,
    KubernetesPlan,
    Object,
    configuration,
    objects,
    storage_container,
    waiting_pod,
)

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
