"""A mirror and a daemon below a path of the real nginx: the hub's own client reads a listing of several pages."""

import json
import re
import urllib.request
from pathlib import Path
from urllib.parse import urljoin

import pytest
from huggingface_hub import HfApi, snapshot_download

from tests.support.eventually import PATIENCE
from tests.support.hub_layout import write_snapshot
from tests.support.nginx import free_port, nginx
from tests.support.processes import Nodes

pytestmark = pytest.mark.needs("nginx")

REPO = "org/many"
FILES = {f"parts/{n:04}.txt": b"%d" % n for n in range(1100)} | {"config.json": b"{}"}

FORWARDED = """
location /{name}/ {{
    proxy_pass {upstream}/;
    proxy_set_header Host $http_host;
    proxy_set_header X-Forwarded-Proto $scheme;
    proxy_set_header X-Forwarded-Prefix /{name};
}}
"""
PLAIN = "location /{name}/ {{ proxy_pass {upstream}/; }}"


@pytest.mark.parametrize("configured", [False, True], ids=["by headers", "by its setting"])
def test_the_hubs_client_reads_every_page_below_a_path(nodes: Nodes, tmp_path: Path, *, configured: bool) -> None:
    write_snapshot(nodes.cache("mirror"), REPO, FILES)
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}/hf"
    options = ("--public-url", endpoint) if configured else ()
    ready = nodes.start("mirror", "mirror", "serve", "--listen", "127.0.0.1:0", "--json", *options).ready()
    assert ready["endpoint"] == (endpoint if configured else ready["listen"])
    front = (PLAIN if configured else FORWARDED).format(name="hf", upstream=ready["listen"])
    with nginx(tmp_path, port, front):
        listed = {entry.path for entry in HfApi(endpoint).list_repo_tree(REPO, recursive=True)}
        assert listed == {*FILES, "parts"}
        chosen = ["config.json", "parts/109*"]
        done = snapshot_download(REPO, endpoint=endpoint, cache_dir=tmp_path / "own", allow_patterns=chosen)
    assert (Path(done) / "parts/1099.txt").read_bytes() == b"1099"


def test_the_dashboard_and_the_api_document_hold_below_a_path(nodes: Nodes, tmp_path: Path) -> None:
    ready = nodes.start("peer", "daemon", "--control-listen", "127.0.0.1:0", "--hub-listen", "off", "--json").ready()
    port = free_port()
    page = f"http://127.0.0.1:{port}/node/"
    with nginx(tmp_path, port, FORWARDED.format(name="node", upstream=ready["url"])):
        assets = [urljoin(page, found) for found in re.findall(r'(?:src|href)="([^"#]+)"', got(page))]
        assert len(assets) >= 4
        for url in assets:
            assert url.startswith(page)
            got(url)
        document = json.loads(got(f"{page}api/v1/openapi.json"))
        assert [server["url"] for server in document["servers"]] == [page.rstrip("/")]


def got(url: str) -> str:
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        return str(answer.read().decode())
