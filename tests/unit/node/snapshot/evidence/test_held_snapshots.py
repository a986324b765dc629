"""What a server holds is judged again: refused once the key of its signature is revoked, and served when it counts."""

from pathlib import Path

import pytest
from aiohttp import ClientSession

from p2pmodel.core.content.manifest import Manifest
from p2pmodel.core.notes import Note
from p2pmodel.errors import InvalidInput, Untrusted
from p2pmodel.http.server import serving
from p2pmodel.node.snapshot.evidence.held_snapshots import HeldSnapshots
from p2pmodel.node.snapshot.evidence.signature_check import signature_records
from p2pmodel.service.hub.app import hub_endpoint
from p2pmodel.service.hub.endpoint_access import EndpointAccess
from tests.support.stored import publish
from tests.unit.node.snapshot.evidence.test_signature_check import Signed

pytestmark = pytest.mark.needs("ssh-keygen")


class Server:
    """A server with a signed snapshot in its cache, and a revocation list that a test changes."""

    def __init__(self, root: Path, mode: str = "enforce", case: str = "good") -> None:
        self.node, self.notes, self.refused = Signed(root, case), list[str](), list[Manifest]()
        self.manifest = publish(self.node.cache, self.node.swarm.snapshot)
        settings = self.node.settings(mode)
        for signed in self.node.statements():
            signature_records(settings).record(self.manifest.repo, self.manifest.commit, signed)
        self.held = HeldSnapshots(
            self.node.cache,
            settings,
            self.notes.append,
            on_refused=lambda manifest, _error: self.refused.append(manifest),
        )

    def revoke(self, *, on: bool = True) -> None:
        self.node.revoked.write_text(self.node.keys.public(self.node.key) if on else "")


async def test_a_snapshot_of_a_revoked_key_is_refused_until_the_key_counts_again(tmp_path: Path) -> None:
    server = Server(tmp_path)
    await server.held.look()
    server.held.check(server.manifest)
    server.revoke()
    for _ in range(2):
        await server.held.look()
        with pytest.raises(Untrusted, match="its key is revoked"):
            server.held.check(server.manifest)
    assert server.refused == [server.manifest]
    assert [Note.of(line).event for line in server.notes] == ["snapshot_refused"]
    lines = server.node.allowed.read_text()
    server.node.allowed.unlink()
    with pytest.raises(InvalidInput):
        await server.held.look()
    await server.held.run()
    assert Note.of(server.notes[-1]).event == "signatures_unchecked"
    with pytest.raises(Untrusted):
        server.held.check(server.manifest)
    server.node.allowed.write_text(lines)
    server.revoke(on=False)
    await server.held.look()
    server.held.check(server.manifest)


@pytest.mark.parametrize(("mode", "case", "served"), [("enforce", "unsigned", False), ("warn", "revoked", True)])
async def test_other_rules_hold_as_for_a_fetch(tmp_path: Path, mode: str, case: str, served: bool) -> None:
    server = Server(tmp_path, mode, case)
    await server.held.look()
    assert (server.refused == []) is served


async def test_an_endpoint_refuses_files_and_lists_of_a_refused_snapshot(tmp_path: Path) -> None:
    server = Server(tmp_path)
    name, commit = server.manifest.repo, server.manifest.commit
    paths = f"/{name}/resolve/{commit}/config.json", f"/{name}/resolve/main/config.json", f"/api/models/{name}"
    app = hub_endpoint(server.node.cache, access=EndpointAccess(held=server.held))
    async with serving(app, "127.0.0.1", 0, grace=0.2) as url, ClientSession() as session:
        for status in (200, 403):
            for path in paths:
                async with session.get(url + path) as answer:
                    assert (answer.status, path) == (status, path)
            server.revoke()
            await server.held.look()
