"""The alerts and Grafana dashboard in scripts/deploy: promtool accepts them, and the daemon exports their metrics."""

import json
import re
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.processes import PATIENCE, Nodes, eventually

DEPLOY = Path(__file__).parents[2] / "scripts" / "deploy"
RULES = DEPLOY / "prometheus-rules.yml"
DASHBOARD = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
OF_PROMETHEUS = {"up"}
LABELS_OF_PROMETHEUS = {"instance", "job"}

CASES = """
rule_files: [{rules}]
evaluation_interval: 1m
tests:
  - name: a transfer that stands still, and others that may
    interval: 1m
    input_series:
      - {{series: 'p2pmodel_transfer_active{{instance="a", repo="org/stuck", commit="1"}}', values: '1+0x40'}}
      - {{series: 'p2pmodel_transfer_done_bytes{{instance="a", repo="org/stuck", commit="1"}}', values: '0+1x5 5+0x34'}}
      - {{series: 'p2pmodel_transfer_active{{instance="a", repo="org/paused", commit="2"}}', values: '0+0x40'}}
      - {{series: 'p2pmodel_transfer_done_bytes{{instance="a", repo="org/paused", commit="2"}}', values: '5+0x40'}}
      - {{series: 'p2pmodel_transfer_active{{instance="a", repo="org/fine", commit="3"}}', values: '1+0x40'}}
      - {{series: 'p2pmodel_transfer_done_bytes{{instance="a", repo="org/fine", commit="3"}}', values: '0+1x40'}}
    alert_rule_test:
      - {{eval_time: 15m, alertname: P2PModelTransferStalled, exp_alerts: []}}
      - eval_time: 35m
        alertname: P2PModelTransferStalled
        exp_alerts:
          - exp_labels: {{severity: warning, instance: a, repo: org/stuck, commit: "1"}}
            exp_annotations:
              summary: a has received no byte of org/stuck for 15 minutes
              description: "'p2pmodel why org/stuck' shows what it waits for."
  - name: an engine that went, one that is up, and a model that none ever had
    interval: 1m
    input_series:
      - {{series: 'p2pmodel_engine_ready{{instance="a", repo="r", commit="1"}}', values: '1x5 0x20'}}
      - {{series: 'p2pmodel_engine_ready{{instance="b", repo="r", commit="1"}}', values: '0x5 1x20'}}
      - {{series: 'p2pmodel_engine_ready{{instance="c", repo="r", commit="1"}}', values: '0x25'}}
    alert_rule_test:
      - {{eval_time: 9m, alertname: P2PModelEngineGone, exp_alerts: []}}
      - eval_time: 15m
        alertname: P2PModelEngineGone
        exp_alerts:
          - exp_labels: {{severity: warning, instance: a, repo: r, commit: "1"}}
            exp_annotations: {{summary: no engine on a serves r any more}}
  - name: three nodes that each take it from the mirrors
    interval: 1m
    input_series:
      - series: 'p2pmodel_transfer_verified_bytes_total{{instance="a", repo="r", commit="1", source="mirror"}}'
        values: '100+0x20'
      - series: 'p2pmodel_transfer_verified_bytes_total{{instance="b", repo="r", commit="1", source="mirror"}}'
        values: '100+0x20'
      - series: 'p2pmodel_transfer_verified_bytes_total{{instance="c", repo="r", commit="1", source="peer"}}'
        values: '100+0x20'
      - {{series: 'p2pmodel_transfer_size_bytes{{instance="a", repo="r", commit="1"}}', values: '100+0x20'}}
      - {{series: 'p2pmodel_transfer_size_bytes{{instance="b", repo="r", commit="1"}}', values: '100+0x20'}}
    alert_rule_test:
      - eval_time: 10m
        alertname: P2PModelManyCopiesOffMirrors
        exp_alerts:
          - exp_labels: {{severity: warning, repo: r, commit: "1"}}
            exp_annotations:
              summary: the nodes took 2 copies of r from the mirrors
              description: "Check that the nodes share a coordinator, and that it has the torrent."
  - name: no usable mirror, and one quarantined
    interval: 1m
    input_series:
      - {{series: 'p2pmodel_mirror_state{{instance="a", mirror="m", state="quarantined"}}', values: '1+0x20'}}
      - {{series: 'p2pmodel_mirror_state{{instance="a", mirror="m", state="healthy"}}', values: '0+0x20'}}
      - {{series: 'p2pmodel_mirror_state{{instance="b", mirror="m", state="healthy"}}', values: '1+0x20'}}
    alert_rule_test:
      - eval_time: 10m
        alertname: P2PModelNoMirrorLeft
        exp_alerts:
          - exp_labels: {{severity: critical, instance: a}}
            exp_annotations: {{summary: a has no usable mirror}}
      - eval_time: 1m
        alertname: P2PModelMirrorQuarantined
        exp_alerts:
          - exp_labels: {{severity: critical, instance: a, mirror: m, state: quarantined}}
            exp_annotations: {{summary: mirror m sent a wrong bytes}}
  - name: a disk that does not hold what is still to come
    interval: 1m
    input_series:
      - {{series: 'p2pmodel_cache_free_bytes{{instance="a"}}', values: '20000000000+0x20'}}
      - {{series: 'p2pmodel_cache_free_bytes{{instance="b"}}', values: '20000000000+0x20'}}
      - {{series: 'p2pmodel_transfer_size_bytes{{instance="a", repo="r", commit="1"}}', values: '40000000000+0x20'}}
      - {{series: 'p2pmodel_transfer_done_bytes{{instance="a", repo="r", commit="1"}}', values: '10000000000+0x20'}}
      - {{series: 'p2pmodel_transfer_size_bytes{{instance="b", repo="r", commit="1"}}', values: '40000000000+0x20'}}
      - {{series: 'p2pmodel_transfer_done_bytes{{instance="b", repo="r", commit="1"}}', values: '39000000000+0x20'}}
    alert_rule_test:
      - eval_time: 10m
        alertname: P2PModelCacheFull
        exp_alerts:
          - exp_labels: {{severity: warning, instance: a}}
            exp_annotations: {{summary: "a has 18.63GiB free, less than its transfers need"}}
"""


def promtool(*args: str | Path) -> None:
    done = subprocess.run(["promtool", *args], check=False, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.needs("promtool")
def test_promtool_understands_the_rules() -> None:
    promtool("check", "rules", RULES)


@pytest.mark.needs("promtool")
def test_alerts_are_raised_when_they_should(tmp_path: Path) -> None:
    cases = tmp_path / "cases.yml"
    cases.write_text(CASES.format(rules=RULES))
    promtool("test", "rules", cases)


@pytest.mark.needs("promtool")
def test_promtool_understands_every_query_of_the_dashboard(tmp_path: Path) -> None:
    rules = [{"record": "x", "expr": query.replace("$__rate_interval", "1m")} for query in queries()]
    written = tmp_path / "queries.yml"
    written.write_text(json.dumps({"groups": [{"name": f"q{i}", "rules": [r]} for i, r in enumerate(rules)]}))
    promtool("check", "rules", "--lint=none", written)


def queries() -> Iterator[str]:
    """Every expression of the dashboard."""
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            yield target["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        if isinstance(variable["query"], dict):
            yield re.sub(r"label_values\((\w+), \w+\)", r"\1", variable["query"]["query"])


def asked() -> set[str]:
    """Names of metrics that the rules and the dashboard use."""
    text = "\n".join([RULES.read_text().split("groups:")[1], *queries()])
    return set(re.findall(r"\bp2pmodel_\w+", text))


def labels() -> set[str]:
    """Labels that they group by, select by, and show."""
    legends = [target["legendFormat"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    text = "\n".join([RULES.read_text().split("groups:")[1], *queries(), *legends])
    grouped = {name.strip() for names in re.findall(r"\b(?:by|on) \(([^)]*)\)", text) for name in names.split(",")}
    selected = set(re.findall(r'(\w+)(?:=|!=|=~|!~)"', text))
    return grouped | selected | set(re.findall(r"\{\{ ?(?:\$labels\.)?(\w+) ?\}\}", text))


def test_the_daemon_exports_their_metrics(nodes: Nodes, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "config.json").write_text("{}")
    seeder = str(nodes.seed(source, "--as", "org/model").ready()["coordinator"])
    where = ("--coordinator", seeder, "--endpoint", "http://127.0.0.1:9", "--swarm-listen", "127.0.0.11:0")
    settings = tmp_path / "p2pmodel.toml"
    settings.write_text('[[follow]]\nrepo = "org/model"\n')
    config = {"P2PMODEL_CONFIG": str(settings)}
    running = nodes.start("node", "daemon", *where, "--control-listen", "127.0.0.1:0", "--json", **config)
    url = str(running.ready()["url"])
    nodes.ok("node", "fetch", "org/model", "-q")
    eventually(lambda: ready(url) == 200, PATIENCE, lambda: str(ready(url)))
    families = list(text_string_to_metric_families(get(f"{url}/metrics")))
    names = {family.name + ("_total" if family.type == "counter" else "") for family in families}
    names |= {sample.name for family in families for sample in family.samples}
    assert asked() <= names | OF_PROMETHEUS
    known = {label for family in families for sample in family.samples for label in sample.labels}
    assert labels() - {"value"} <= known | LABELS_OF_PROMETHEUS
    assert len(asked()) > 20


def ready(url: str) -> int:
    try:
        with urllib.request.urlopen(f"{url}/readyz?model=org/model@main", timeout=PATIENCE) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code if json.load(error)["ready"] is False else 200


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        return str(answer.read().decode())


def test_panels_do_not_overlap() -> None:
    taken: dict[tuple[int, int], Any] = {}
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        for spot in ((x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])):
            assert spot[0] < 24
            assert taken.setdefault(spot, panel["id"]) == panel["id"]
