"""The record of issued certificates: what a restarted coordinator reads, and files that it cannot use."""

import stat
from pathlib import Path

import pytest

from p2pmodel.coordinator.private.access import NodeIdentity
from p2pmodel.coordinator.private.issued import IssuedCertificates
from p2pmodel.coordinator.server.issued_record import IssuedRecord
from p2pmodel.core.notes import Note

SWARM = "ab" * 32
NODE = NodeIdentity("10.0.0.1", ("10.1.0.1",), publisher="gone", name="gone")


def withdrawn_one(until: float = 600.0) -> IssuedCertificates:
    issued = IssuedCertificates()
    issued.add("a1", "a", NODE, until, request="a")
    issued.withdraw("a", "lost")
    return issued


def record(folder: Path | None, notes: list[str], *, clock: float = 0.0, wall: float = 1_000_000.0) -> IssuedRecord:
    return IssuedRecord(folder, notes.append, clock=lambda: clock, wall=lambda: wall)


async def test_a_withdrawn_certificate_outlives_a_restart_for_as_long_as_it_is_valid(tmp_path: Path) -> None:
    folder, notes = tmp_path / "state" / "private-swarms", list[str]()
    await record(folder, notes).save({SWARM: withdrawn_one()})
    assert stat.S_IMODE((folder / f"{SWARM}.json").stat().st_mode) == 0o600
    again = record(folder, notes, wall=1_000_400.0)
    await again.load(now=50.0)
    issued = again.restored(SWARM)
    assert issued.withdrawn(50.0) == ("a1",)
    assert issued.shut(50.0) == {"10.0.0.1": 250.0, "10.1.0.1": 250.0}
    assert not again.restored(SWARM), "once"
    late = record(folder, notes, wall=1_000_601.0)
    await late.load(now=50.0)
    assert not late.restored(SWARM)
    assert notes == []


async def test_what_no_swarm_needs_any_more_is_removed(tmp_path: Path) -> None:
    kept = record(tmp_path / "state", [])
    await kept.save({SWARM: withdrawn_one()})
    await kept.save({})
    assert list((tmp_path / "state").iterdir()) == []


@pytest.mark.parametrize("text", ["", "{", "7", "[1]", '[{"serial": "a1"}]', '[{"addresses": [], "serial": "a"}]'])
async def test_a_file_of_no_use_is_noted_and_replaced(tmp_path: Path, text: str) -> None:
    (tmp_path / f"{SWARM}.json").write_text(text)
    (tmp_path / "other.json").write_text(text)
    notes = list[str]()
    again = record(tmp_path, notes)
    await again.load(now=0.0)
    assert not again.restored(SWARM)
    assert [Note.of(note).level for note in notes] == ["warning"]
    await again.save({SWARM: withdrawn_one()})
    await again.load(now=0.0)
    assert again.restored(SWARM)


async def test_without_a_folder_nothing_is_kept_and_a_failed_write_is_noted(tmp_path: Path) -> None:
    none = record(None, [])
    await none.load(now=0.0)
    await none.save({SWARM: withdrawn_one()})
    assert not none.restored(SWARM)
    (tmp_path / "file").touch()
    notes = list[str]()
    full = record(tmp_path / "file", notes)
    await full.save({SWARM: withdrawn_one()})
    assert "not recorded" in notes[0]
