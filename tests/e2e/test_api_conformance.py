"""The control API of a running daemon matches its own OpenAPI document for every request."""

from pathlib import Path

import pytest

from tests.support.processes import Nodes
from tests.support.schemathesis import Schemathesis, schemathesis

__all__ = ["schemathesis"]

REPO = "org/model"
TOKEN = "open-sesame-sesame"
SECONDS = 12
FORGETTING = ("remove", "cancel", "remove_snapshot")
"""Asked apart: after them there is nothing to ask the others about."""


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("guarded", "filters"),
    [
        (False, tuple(f"--exclude-operation-id={name}" for name in FORGETTING)),
        (False, tuple(f"--include-operation-id={name}" for name in (*FORGETTING, "transfers"))),
        (True, ()),
    ],
    ids=["open", "forgetting", "token, read-only"],
)
def test_responses_match_the_document(
    nodes: Nodes, tmp_path: Path, schemathesis: Schemathesis, guarded: bool, filters: tuple[str, ...]
) -> None:
    source, token = tmp_path / "source", tmp_path / "token"
    source.mkdir()
    (source / "config.json").write_text("{}")
    (source / "model.safetensors").write_bytes(bytes(1 << 20))
    token.write_text(TOKEN)
    token.chmod(0o600)
    hub, _ = nodes.hub(source, repo=REPO)
    options = ("--token-file", token, "--read-only") if guarded else ()
    where = ("--control-listen", "127.0.0.1:0", "--hub-listen", "off", "--endpoint", hub, "--json", *options)
    daemon = nodes.start("node", "daemon", *where, P2PMODEL_ORIGIN_PATIENCE="1", P2PMODEL_ORIGIN_CONNECT_TIMEOUT="1")
    url = f"{daemon.ready()['url']}/api/v1/openapi.json"
    nodes.ok("node", "fetch", REPO)
    [transfer] = nodes.ok("node", "status", "--json").json["transfers"]
    secret = TOKEN if guarded else None
    told = schemathesis.run(url, tmp_path, *filters, token=secret, transfer=transfer["id"], seconds=SECONDS)
    assert "Tested:" in told
    nodes.ok("node", "status")
    ended = daemon.stop()
    assert ended.code == 0
    assert "Traceback" not in ended.err
