"""Provenance: every voucher of a snapshot is named, and none that does not exist."""

import json
from pathlib import Path

import pytest

from p2pmodel.errors import IntegrityError
from p2pmodel.node.snapshot.evidence.provenance import NOT_JUDGED, provenance_of
from p2pmodel.node.snapshot.evidence.second_opinion import confirmed_commits
from p2pmodel.node.snapshot.evidence.signature_check import signature_records
from p2pmodel.node.snapshot.evidence.voucher import vouched_commits
from p2pmodel.store.state.judgements import ConfirmedCommit
from p2pmodel.store.state.sync_log import SyncLog
from tests.support.command_line import CommandLine
from tests.support.torrent_files import SMALL, manifest_of
from tests.unit.node.snapshot.evidence.test_signature_check import NOW, Signed

pytestmark = pytest.mark.needs("ssh-keygen")


async def test_nothing_is_known_of_a_new_snapshot(tmp_path: Path) -> None:
    node = Signed(tmp_path, "unsigned")
    settings, manifest = node.settings("off"), node.swarm.metainfo.manifest
    plain = (await provenance_of(manifest, settings, tmp_path / "log")).plain()
    assert (plain["vouched_by"], plain["same_files"], plain["rule"]) == (None, True, "off")
    assert (plain["confirmed"], plain["signatures"], plain["warned"], plain["sync_log"]) == (None, [], None, None)


async def test_every_voucher_is_named(tmp_path: Path) -> None:
    node = Signed(tmp_path, "good")
    settings, manifest = node.settings("enforce"), node.swarm.metainfo.manifest
    log, content = SyncLog(tmp_path / "log.jsonl", clock=lambda: NOW), tmp_path / "content"
    content.write_bytes(b"x")
    log.record(manifest, manifest.files[0], content, ["near"], "mirror near")
    log.record(manifest_of(SMALL), manifest_of(SMALL).files[0], content, ["far"], "record")
    log.record(manifest, manifest.files[1], content, [], "record")
    vouched_commits(settings).record(manifest, "mirror near", proven=True)
    confirmed_commits(settings).record(manifest, ConfirmedCommit(("far", "near"), NOW))
    signature_records(settings).record(manifest.repo, manifest.commit, node.statements()[0])
    found = await provenance_of(manifest, settings, log.path, clock=lambda: NOW)
    assert (found.vouched_by, found.fits, found.rule) == ("mirror near", True, "enforce")
    assert found.confirmed == ConfirmedCommit(("far", "near"), NOW)
    assert [(each.signer, each.reason) for each in found.signatures] == [("alice", "")]
    assert found.synced is not None
    assert [(line.seq, line.sources) for line in found.synced.lines] == [(1, ("near",)), (3, ())]
    assert json.loads(json.dumps(found.plain())) == found.plain() | {
        "confirmed": {"mirrors": ["far", "near"], "time": NOW},
        "sync_log": json.loads(json.dumps(found.plain()["sync_log"])),
    }

    node.revoked.write_text(node.keys.public(node.key))
    late = await provenance_of(manifest, settings, log.path)
    assert [(each.signer, "revoked" in each.reason) for each in late.signatures] == [("", True)]
    blind = settings.model_copy(update={"trust": settings.trust.model_copy(update={"allowed_signers": None})})
    assert [each.reason for each in (await provenance_of(manifest, blind, log.path)).signatures] == [NOT_JUDGED]
    log.path.write_bytes(log.path.read_bytes().replace(b"far", b"fan"))
    with pytest.raises(IntegrityError, match="line 2 of the sync log was changed"):
        await provenance_of(manifest, settings, log.path)


def test_the_verb_prints_it(cli: CommandLine, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "config.json").write_bytes(b"{}")
    cli.ok("import", folder, "org/model")
    plain = json.loads(cli.ok("provenance", "org/model", "--json"))
    shown = cli.ok("provenance", "org/model")
    assert f"org/model@{plain['commit']}" in shown
    assert (plain["vouched_by"], plain["files"]) == (None, 1)
    assert "no record" in shown
    assert "is not in the cache" in cli.refuses(3, "provenance", "org/other")
