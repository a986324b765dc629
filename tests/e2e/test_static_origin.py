"""Static files as the central origin: plain nginx, and a bucket, with what `p2pmodel mirror export` wrote."""

import os
import random
from pathlib import Path

import pytest

from tests.support.nginx import free_port, nginx
from tests.support.processes import Nodes, served
from tests.support.s3_server import BUCKET, CREDENTIALS, ENVIRONMENT, s3_server

SITE = "root {root}; location /api/ {{ default_type application/json; try_files $uri $uri/index.json =404; }}"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "w").mkdir(parents=True)
    (folder / "w" / "a b.safetensors").write_bytes(random.Random(3).randbytes(3_000_000))
    (folder / "config.json").write_text("{}")
    return folder


@pytest.mark.main
@pytest.mark.needs("nginx")
def test_plain_nginx_is_the_origin_of_a_cluster(nodes: Nodes, model: Path, tmp_path: Path) -> None:
    hub, _ = nodes.hub(model)
    site = tmp_path / "site"
    done = nodes.ok("mirror", "mirror", "export", "org/model", site, "--endpoint", hub, "--json", "-q").json
    assert done["written"] == 3_000_002
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    with nginx(tmp_path, port, SITE.format(root=site)):
        seeder = nodes.seed("org/model", "--endpoint", endpoint)
        fetched = nodes.fetch(
            "peer", "org/model", "--coordinator", seeder.ready()["coordinator"], "--endpoint", endpoint
        )
        path = Path(fetched.wait().json["path"])
        again = nodes.ok("mirror", "mirror", "export", "org/model", site, "--cached", "--json", "-q").json
    assert (path / "w" / "a b.safetensors").read_bytes() == (model / "w" / "a b.safetensors").read_bytes()
    assert (again["kept"], again["written"]) == (3_000_002, 0)


def test_a_bucket_is_the_origin_and_no_log_has_a_secret(
    nodes: Nodes, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    hub, log = nodes.hub(model)
    address = f"s3://{BUCKET}/hf"
    credentials = tmp_path / "credentials"
    credentials.write_text("[ours]\n" + "".join(f"{name.lower()} = {value}\n" for name, value in CREDENTIALS.items()))
    env = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
    settings = tmp_path / "p2pmodel.toml"
    with s3_server() as store:
        settings.write_text(
            f'[[mirrors]]\nname = "bucket"\nendpoint = "{address}"\ns3_endpoint = "{store.url}"\n'
            f's3_profile = "ours"\ns3_credentials_file = "{credentials}"\n'
        )
        config = ("--config", settings)
        written = nodes.ok(
            "mirror",
            "mirror",
            "export",
            "org/model",
            address,
            *config,
            "--endpoint",
            hub,
            "--endpoint",
            "bucket",
            **env,
        )
        before = len(served(log))
        fetched = nodes.ok("peer", "fetch", "org/model", "-v", *config, **env)
        assert len(served(log)) == before, "the bucket alone is the origin"
    assert (Path(fetched.out.strip()) / "config.json").read_text() == "{}"
    said = written.out + written.err + fetched.out + fetched.err
    assert not any(secret in said for secret in (*CREDENTIALS.values(), "X-Amz-Signature"))
    assert "AWS_SECRET_ACCESS_KEY" in os.environ
