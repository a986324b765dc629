"""scripts/deploy/nginx.conf with the real nginx and a real HTTP/2 client."""

import gzip
import hashlib
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.hub_layout import write_snapshot
from tests.support.processes import PATIENCE, ROOT, Nodes, eventually, served

pytestmark = pytest.mark.needs("nginx", "curl", "openssl")

REPO = "org/model"
WEIGHTS = os.urandom(3 << 20)
TEXT = json.dumps({f"layer.{n}": n for n in range(2000)}).encode()
FILES = {"model.safetensors": WEIGHTS, "config.json": TEXT, "tiny.json": b"{}", "random.bin": os.urandom(4096)}
FILES |= {f"shards/{n}.bin": b"s" for n in range(30)}


@dataclass(frozen=True)
class Answer:
    version: str
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Front:
    """nginx at `url`, its certificate, and the access log of the mirror behind it."""

    url: str
    certificate: Path
    log: Path

    def ask(self, path: str, *options: str) -> Answer:
        """One request by curl over HTTP/2; a body is as it came on the wire."""
        headers, body = self.log.with_name("headers"), self.log.with_name("body")
        body.write_bytes(b"")
        command = ["curl", "--silent", "--http2", "--cacert", self.certificate, "--max-time", "30"]
        done = subprocess.run(
            [*command, "-D", headers, "-o", body, "-w", "%{http_version} %{http_code}", *options, f"{self.url}/{path}"],
            capture_output=True,
            text=True,
            check=True,
        )
        version, status = done.stdout.split()
        pairs = [line.partition(":") for line in headers.read_text().splitlines() if ":" in line]
        return Answer(version, int(status), {k.strip().lower(): v.strip() for k, _, v in pairs}, body.read_bytes())


def front_of(nodes: Nodes, tmp_path: Path, *options: str) -> Iterator[Front]:
    endpoint, log = nodes.mirror("--accel", "/_blobs/", *options)
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    make = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    make += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run(["openssl", *make, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    config = (ROOT / "scripts" / "deploy" / "nginx.conf").read_text()
    for ours, its in {
        "user www-data;": "user root;" if os.getuid() == 0 else "",
        "/run/p2pmodel-nginx.pid": f"{tmp_path}/nginx.pid",
        "/var/log/nginx/": f"{tmp_path}/",
        "listen 443": f"listen 127.0.0.1:{port}",
        "127.0.0.1:8090": endpoint.removeprefix("http://"),
        "/etc/ssl/p2pmodel/": f"{tmp_path}/",
        "/srv/hub/": f"{nodes.cache('mirror')}/",
        "worker_processes auto": "worker_processes 1",
    }.items():
        assert ours in config, ours
        config = config.replace(ours, its)
    written = tmp_path / "nginx.conf"
    written.write_text(config)
    command = ["nginx", "-c", str(written), "-e", f"{tmp_path}/start.log", "-p", str(tmp_path)]
    subprocess.run([*command, "-t"], check=True, capture_output=True)
    process = subprocess.Popen([*command, "-g", "daemon off;"], stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: _listens(port), PATIENCE)
        yield Front(f"https://localhost:{port}", certificate, log)
    finally:
        process.terminate()
        process.wait(PATIENCE)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def front(nodes: Nodes, tmp_path: Path) -> Iterator[Front]:
    write_snapshot(nodes.cache("mirror"), REPO, FILES)
    yield from front_of(nodes, tmp_path)


def test_a_blob_is_sent_by_nginx_with_the_mirrors_headers(front: Front) -> None:
    answer = front.ask(f"{REPO}/resolve/main/model.safetensors", "-H", "Accept-Encoding: gzip")
    etag = hashlib.sha256(WEIGHTS).hexdigest()
    assert (answer.version, answer.status) == ("2", 200)
    assert answer.body == WEIGHTS
    assert answer.headers["etag"] == answer.headers["x-linked-etag"] == f'"{etag}"'
    assert answer.headers["content-length"] == answer.headers["x-linked-size"] == str(len(WEIGHTS))
    assert len(answer.headers["x-repo-commit"]) == 40
    assert not {"x-accel-redirect", "last-modified", "content-encoding"} & answer.headers.keys()
    assert served(front.log)[-1]["bytes"] == 0, "the mirror sent the body itself"


def test_ranges_and_validators_of_a_blob(front: Front) -> None:
    path, etag = f"{REPO}/resolve/main/model.safetensors", f'"{hashlib.sha256(WEIGHTS).hexdigest()}"'
    part = front.ask(path, "-r", "100-1000099", "-H", "Accept-Encoding: gzip")
    assert (part.status, part.body) == (206, WEIGHTS[100:1000100])
    assert part.headers["content-range"] == f"bytes 100-1000099/{len(WEIGHTS)}"
    assert part.headers["etag"] == etag
    assert front.ask(path, "-r", "5-9", "-H", f"If-Range: {etag}").status == 206
    assert front.ask(path, "-r", "5-9", "-H", 'If-Range: "other"').body == WEIGHTS
    assert front.ask(path, "-H", f"If-None-Match: {etag}").status == 304
    assert front.ask(path, "-r", f"{len(WEIGHTS)}-").status == 416
    head = front.ask(path, "-I")
    assert (head.status, head.headers["content-length"], head.headers["etag"]) == (200, str(len(WEIGHTS)), etag)


def test_only_json_and_small_text_are_compressed(front: Front) -> None:
    asked = ("-H", "Accept-Encoding: gzip")
    listing = front.ask(f"api/models/{REPO}/tree/main?recursive=true", *asked)
    assert listing.headers["content-encoding"] == "gzip"
    assert len(json.loads(gzip.decompress(listing.body))) == len(FILES) + 1
    text = front.ask(f"{REPO}/resolve/main/config.json", *asked)
    assert text.headers["content-encoding"] == "gzip"
    assert gzip.decompress(text.body) == TEXT
    assert len(text.body) < len(TEXT) / 2
    plain = front.ask(f"{REPO}/resolve/main/config.json")
    assert (plain.body, plain.headers["content-length"]) == (TEXT, str(len(TEXT)))
    part = front.ask(f"{REPO}/resolve/main/config.json", "-r", "0-1999", *asked)
    assert (part.status, part.body) == (206, TEXT[:2000])
    for name in ("tiny.json", "random.bin"):
        answer = front.ask(f"{REPO}/resolve/main/{name}", *asked)
        assert "content-encoding" not in answer.headers
        assert answer.body == FILES[name]


def test_the_cache_itself_is_not_accessible(front: Front) -> None:
    etag = hashlib.sha256(WEIGHTS).hexdigest()
    for path in (f"_blobs/models--org--model/blobs/{etag}", "_blobs/", "_blobs/../etc/passwd"):
        assert front.ask(path, "--path-as-is").status == 404


def test_pages_lead_back_to_https(front: Front) -> None:
    page = front.ask(f"api/models/{REPO}/tree/main?recursive=true&limit=5")
    assert page.headers["link"].startswith(f"<{front.url}/api/models/{REPO}/tree/main?")


def test_a_fetch_through_it(front: Front, nodes: Nodes) -> None:
    env = {"SSL_CERT_FILE": str(front.certificate), "REQUESTS_CA_BUNDLE": str(front.certificate)}
    done = nodes.ok("peer", "fetch", REPO, "--endpoint", front.url, "--json", "-q", **env)
    path = Path(done.json["path"])
    assert {name: (path / name).read_bytes() for name in FILES} == FILES


def test_a_cold_file_through_both(nodes: Nodes, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "model.safetensors").write_bytes(WEIGHTS)
    hub, log = nodes.hub(model, f"slow:{4 << 20}@*")
    for front in front_of(nodes, tmp_path, "--upstream", hub):
        path = f"{REPO}/resolve/main/model.safetensors"
        assert front.ask(path).body == WEIGHTS
        eventually(lambda: list(nodes.cache("mirror").glob("*/snapshots/*/*")) != [], PATIENCE)
        assert front.ask(path).body == WEIGHTS
        assert [entry["bytes"] for entry in served(front.log)] == [len(WEIGHTS), 0]
        eventually(lambda: sum(entry["sent"] for entry in served(log)) == len(WEIGHTS), PATIENCE)


def test_a_cut_connection_is_passed_on(nodes: Nodes, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "model.safetensors").write_bytes(WEIGHTS)
    hub, _ = nodes.hub(model, "flip@*")
    for front in front_of(nodes, tmp_path, "--upstream", hub):
        with pytest.raises(subprocess.CalledProcessError):
            front.ask(f"{REPO}/resolve/main/model.safetensors")
