"""The audit log: a chain over rotated files, continued after a crash, with every change detected."""

import json
from pathlib import Path

import pytest

from p2pmodel.core.network.rights import Right
from p2pmodel.errors import IntegrityError, LocalResource, NotFound
from p2pmodel.trust.audit_log import (
    AGAIN_AFTER,
    MOST_REFUSALS,
    AuditLog,
    AuditTrail,
    files_of,
    lines_of,
    servers_of,
    verify_audit,
)

NAME = "daemon"


def filled(folder: Path, count: int, *, rotate: int = 1 << 20) -> None:
    log = AuditLog(folder, NAME, rotate, clock=lambda: 1_800_000_000.0)
    log.open()
    for number in range(count):
        log.record({"subject": "user:anna", "path": f"file-{number}"})
    log.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "audit"


def test_rotation_does_not_end_the_chain(folder: Path) -> None:
    for _ in range(3):
        filled(folder, 10, rotate=1000)
    assert len(files_of(folder, NAME)) > 5
    first, head = verify_audit(folder, NAME)
    assert (first, head.seq) == (1, 30)
    assert servers_of(folder) == [NAME]
    assert [json.loads(line)["seq"] for line in lines_of(folder, NAME)] == list(range(1, 31))
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in folder.iterdir())
    assert verify_audit(folder, NAME, head.hash)[1] == head


def test_old_files_may_go_and_the_rest_still_verifies(folder: Path) -> None:
    filled(folder, 30, rotate=1000)
    files_of(folder, NAME)[0].unlink()
    first, head = verify_audit(folder, NAME)
    assert first > 1
    assert head.seq == 30
    files_of(folder, NAME)[1].unlink()
    with pytest.raises(IntegrityError, match="does not follow"):
        verify_audit(folder, NAME)


def test_a_changed_or_removed_line_is_found(folder: Path) -> None:
    filled(folder, 5)
    (path,) = files_of(folder, NAME)
    whole = path.read_bytes()
    _, head = verify_audit(folder, NAME)
    path.write_bytes(whole.replace(b"file-2", b"file-9"))
    with pytest.raises(IntegrityError, match="line 3 of the audit log was changed"):
        verify_audit(folder, NAME)
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))
    assert verify_audit(folder, NAME)[1].seq == 4, "a cut end is found by a hash that was kept"
    with pytest.raises(IntegrityError, match="another log"):
        verify_audit(folder, NAME, head.hash)


def test_it_goes_on_after_a_crash_in_the_middle_of_a_line(folder: Path) -> None:
    filled(folder, 3)
    (path,) = files_of(folder, NAME)
    path.write_bytes(path.read_bytes() + b'{"seq": 4, "hash"')
    filled(folder, 2)
    assert verify_audit(folder, NAME)[1].seq == 5


def test_a_log_of_nothing_but_a_closed_file_goes_on(folder: Path) -> None:
    filled(folder, 3)
    (path,) = files_of(folder, NAME)
    path.rename(folder / f"{NAME}.000000000001.jsonl")
    filled(folder, 1)
    assert verify_audit(folder, NAME) == (1, verify_audit(folder, NAME)[1])
    assert verify_audit(folder, NAME)[1].seq == 4


def test_one_process_writes_it(folder: Path) -> None:
    log = AuditLog(folder, NAME, 1 << 20)
    log.open()
    with pytest.raises(LocalResource, match="another process"):
        AuditLog(folder, NAME, 1 << 20).open()
    log.close()
    with pytest.raises(NotFound):
        verify_audit(folder, "other")


def test_a_client_that_reads_a_file_in_parts_is_one_line(folder: Path) -> None:
    now = [0.0]
    log = AuditLog(folder, NAME, 1 << 20)
    log.open()
    trail = AuditTrail(log, clock=lambda: now[0])
    right = Right("user:anna", "rule 1", token="hf_secret")

    def record(path: str) -> None:
        trail.record(right, "10.0.0.1", "file", "org/m", "0" * 40, path=path, digest="e" * 64)

    for path in ("a", "a", "b", "a"):
        record(path)
    now[0] = AGAIN_AFTER
    record("a")
    log.close()
    lines = [json.loads(line) for line in lines_of(folder, NAME)]
    assert [line["path"] for line in lines] == ["a", "b", "a"]
    assert {key: lines[0][key] for key in ("subject", "right", "client", "what", "repo")} == {
        "subject": "user:anna", "right": "rule 1", "client": "10.0.0.1", "what": "file", "repo": "org/m",
    }  # fmt: skip
    assert "hf_secret" not in files_of(folder, NAME)[0].read_text()


def test_refusals_of_a_client_are_one_line_for_each_repository_and_bounded(folder: Path) -> None:
    now = [0.0]
    log = AuditLog(folder, NAME, 1 << 20)
    log.open()
    trail = AuditTrail(log, clock=lambda: now[0])

    def refuse(subject: str, repo: str, client: str = "10.0.0.1") -> None:
        trail.refuse(subject, "no rule", client, "read", repo)

    for _ in range(3):
        refuse("token:bert", "org/m")
    refuse("anyone", "org/m")
    for number in range(2 * MOST_REFUSALS):
        refuse("token:bert", f"org/{number}")
    refuse("token:bert", "org/m", "10.0.0.2")
    now[0] = AGAIN_AFTER
    refuse("token:bert", "org/m")
    log.close()
    lines = [json.loads(line) for line in lines_of(folder, NAME)]
    assert len(lines) == MOST_REFUSALS + 2
    assert {(line["subject"], line["what"], line["verb"], line["right"]) for line in lines} == {
        ("token:bert", "refused", "read", "no rule")
    }
    assert [line["client"] for line in lines[-2:]] == ["10.0.0.2", "10.0.0.1"]


def test_what_cannot_be_recorded_is_an_error(folder: Path) -> None:
    log = AuditLog(folder, NAME, 1 << 20)
    log.open()
    log.record({"path": "a"})
    log.close()
    with pytest.raises(LocalResource):
        log.record({"path": "b"})
