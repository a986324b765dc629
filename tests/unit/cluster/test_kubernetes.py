"""The manifests: what a schema does not find, and what they must not contain."""

import asyncio
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from p2pmodel.cluster.kubernetes import (
    COORDINATOR,
    PROBE,
    SECRET,
    SOCKET,
    USER,
    KubernetesPlan,
    configuration,
    objects,
    rendered,
    storage_container,
    waiting_pod,
)
from p2pmodel.core.content.names import Reference
from p2pmodel.node.local_address import PEER_PORT, PIECE_PORT, PRIVATE_PORT, PRIVATE_SOURCE_PORT, SOURCE_PORT

LONGEST_PORT_NAME = 15
PLAN = KubernetesPlan(
    Reference.parse("Qwen/Qwen3-VL-8B-Instruct"),
    image="registry.site/p2pmodel:1",
    namespace="models",
    node_selector=(("gpu", "true"),),
    settings={"p2pmodel.toml": '[[mirrors]]\nname = "near"\nendpoint = "http://mirror.site"\n'},
)
PODS = [*objects(PLAN)[1:], waiting_pod(PLAN)]


def spec_of(workload: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = workload["spec"]
    return spec if workload["kind"] == "Pod" else spec["template"]["spec"]


def containers(workload: dict[str, Any]) -> Iterator[dict[str, Any]]:
    spec = spec_of(workload)
    yield from spec.get("initContainers", [])
    yield from spec["containers"]


@pytest.mark.parametrize("workload", PODS, ids=lambda each: each["kind"])
def test_every_mount_has_its_volume_and_every_volume_a_mount(workload: dict[str, Any]) -> None:
    volumes = [volume["name"] for volume in spec_of(workload)["volumes"]]
    mounts = [mount["name"] for each in containers(workload) for mount in each.get("volumeMounts", [])]
    assert len(volumes) == len(set(volumes))
    assert set(mounts) == set(volumes)
    for each in containers(workload):
        paths = [mount["mountPath"] for mount in each.get("volumeMounts", [])]
        assert len(paths) == len(set(paths)), each["name"]


@pytest.mark.parametrize("workload", objects(PLAN)[1:], ids=lambda each: each["kind"])
def test_selectors_are_the_labels_of_the_pods(workload: dict[str, Any]) -> None:
    labels = workload["spec"]["template"]["metadata"]["labels"]
    assert workload["spec"]["selector"]["matchLabels"] == labels


def test_the_service_leads_to_the_coordinator_at_a_port_that_it_has() -> None:
    service, coordinator, daemons = objects(PLAN)
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == coordinator["spec"]["template"]["metadata"]["labels"]
    ports = {port["name"] for each in containers(coordinator) for port in each.get("ports", [])}
    assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    url = f"http://{COORDINATOR}.models.svc:6969"
    assert f"--public-url={url}" in next(containers(coordinator))["args"]
    variables = {each["name"]: each.get("value") for each in list(containers(daemons))[1]["env"]}
    assert variables["P2PMODEL_COORDINATORS"] == url


def test_the_daemon_names_each_port_that_other_nodes_connect_to() -> None:
    (daemon,) = (each for each in containers(objects(PLAN)[2]) if each["name"] == "daemon")
    ports = {port["containerPort"]: port["name"] for port in daemon["ports"]}
    assert set(ports) == {PEER_PORT, SOURCE_PORT, PRIVATE_PORT, PRIVATE_SOURCE_PORT, PIECE_PORT, 6885, 6886, 6887}
    assert len(set(ports.values())) == len(ports)
    assert all(len(name) <= LONGEST_PORT_NAME for name in ports.values())


@pytest.mark.parametrize("workload", PODS, ids=lambda each: each["kind"])
def test_probes_name_ports_that_exist_and_ask_for_the_model(workload: dict[str, Any]) -> None:
    for each in containers(workload):
        ports = {port["name"] for port in each.get("ports", [])}
        for kind in ("readinessProbe", "livenessProbe", "startupProbe"):
            probe = each.get(kind, {})
            if "tcpSocket" in probe:
                assert probe["tcpSocket"]["port"] in ports
    daemon = next(c for c in containers(objects(PLAN)[2]) if c["name"] == "daemon")
    command = daemon["readinessProbe"]["exec"]["command"]
    assert command[-2:] == [SOCKET, "/readyz?model=Qwen/Qwen3-VL-8B-Instruct@main"]
    compile(command[3], "probe", "exec")


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
async def test_the_probe_asks_at_the_socket(tmp_path: Path, status: int, code: int) -> None:
    asked = []

    async def ready(request: web.Request) -> web.Response:
        asked.append(request.query["model"])
        return web.Response(status=status)

    app = web.Application()
    app.router.add_get("/readyz", ready)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.UnixSite(runner, str(tmp_path / "s")).start()
    try:
        command = [sys.executable, "-IS", "-c", PROBE, str(tmp_path / "s"), "/readyz?model=org/model@main"]
        process = await asyncio.create_subprocess_exec(*command)
        assert await asyncio.wait_for(process.wait(), 60) == code
    finally:
        await runner.cleanup()
    assert asked == ["org/model@main"]


@pytest.mark.parametrize("workload", PODS, ids=lambda each: each["kind"])
def test_pods_have_no_rights_that_they_do_not_need(workload: dict[str, Any]) -> None:
    spec = spec_of(workload)
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == USER
    assert "hostNetwork" not in spec
    for each in containers(workload):
        rights = each.get("securityContext")
        if rights is None:
            assert each["name"] == "engine"  # the user's own
            continue
        assert rights["capabilities"]["drop"] == ["ALL"]
        assert rights["allowPrivilegeEscalation"] is False
        assert rights["readOnlyRootFilesystem"] is True
        assert rights.get("runAsUser", USER) == (0 if each["name"] == "owner" else USER)


def test_the_text_has_all_objects_and_no_secret() -> None:
    text = rendered(PLAN, "cluster")
    found = [each for each in yaml.safe_load_all(text) if each]
    assert [each["kind"] for each in found] == ["ConfigMap", "Service", "Deployment", "DaemonSet"]
    assert found == [*configuration(PLAN), *objects(PLAN)]
    assert all(each["kind"] != "Secret" for each in found)
    assert f"kubectl -n models create secret generic {SECRET}" in text
    assert {each["metadata"]["namespace"] for each in found} == {"models"}


@pytest.mark.parametrize(("form", "kind"), [("init", "Pod"), ("kserve", "ClusterStorageContainer")])
def test_other_forms_are_one_object_beside_the_settings(form: str, kind: str) -> None:
    *settings, found = yaml.safe_load_all(rendered(PLAN, form))
    assert settings == (configuration(PLAN) if form == "init" else [])
    assert found["kind"] == kind
    assert found == (waiting_pod(PLAN) if form == "init" else storage_container(PLAN))


def test_other_settings_make_other_pods() -> None:
    other = replace(PLAN, settings={"p2pmodel.toml": ""})
    marks = [objects(plan)[2]["spec"]["template"]["metadata"]["annotations"] for plan in (PLAN, other)]
    assert marks[0] != marks[1]
