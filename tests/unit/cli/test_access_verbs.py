"""The verbs of machine tokens and of the audit log."""

import json
from pathlib import Path

from p2pmodel.trust.audit_log import AuditLog
from tests.support.command_line import CommandLine


def test_a_token_is_issued_listed_and_revoked(cli: CommandLine) -> None:
    made = cli("token", "issue", "ci", "--group", "build", "--expires", "30d")
    assert (made.code, made.out.startswith("p2pm_")) == (0, True)
    token = made.out.strip()
    assert token not in made.err
    listed = cli("token", "list", "--json")
    (found,) = json.loads(listed.out)["tokens"]
    assert (found["name"], found["state"], found["groups"]) == ("ci", "valid", ["build"])
    assert found["expires"] > found["issued"]
    assert token not in listed.out + cli("token", "list").out
    again = cli("token", "issue", "ci")
    assert (again.code, "there is a token 'ci' already" in again.err) == (1, True)
    assert cli("token", "revoke", "ci").code == 0
    assert cli("token", "revoke", "ci").code == 3
    assert json.loads(cli("token", "list", "--json").out)["tokens"][0]["state"] == "revoked"
    assert cli("token", "issue", "a b").code == 2


def filled(folder: Path) -> None:
    log = AuditLog(folder, "daemon", 1 << 20, clock=lambda: 1_800_000_000.0)
    log.open()
    for subject, repo in (("user:anna", "org/a"), ("token:ci", "org/b"), ("user:anna", "org/b")):
        log.record({"subject": subject, "client": "10.0.0.1", "repo": repo, "commit": "0" * 40, "path": "f"})
    log.close()


def test_the_audit_log_is_shown_verified_and_exported(cli: CommandLine) -> None:
    folder = cli.home / "audit"
    where = {"P2PMODEL_AUDIT_FOLDER": str(folder)}
    none = cli("audit", "show", **where)
    assert (none.code, "set audit.enabled" in none.err) == (3, True)
    filled(folder)
    shown = cli("audit", "show", "--subject", "user:anna", "--repo", "org/b", "--json", **where)
    assert [line["seq"] for line in json.loads(shown.out)["lines"]] == [3]
    assert "user:anna" in cli("audit", "show", **where).out
    exported = cli("audit", "export", "--since", "2027-01-15", "--until", "2027-01-16", **where).out
    assert exported == (folder / "daemon.jsonl").read_text()
    assert cli("audit", "export", "--since", "2027-01-16", **where).out == ""
    assert cli("audit", "export", "--since", "yesterday", **where).code == 2
    checked = cli("audit", "verify", **where)
    head = checked.out.split()[0]
    assert cli("audit", "verify", "--server", "daemon", "--expect", head, **where).code == 0
    assert cli("audit", "verify", "--server", "daemon", "--expect", "0" * 63 + "1", **where).code == 5
    path = folder / "daemon.jsonl"
    path.write_text(path.read_text().replace("org/a", "org/c"))
    wrong = cli("audit", "verify", **where)
    assert (wrong.code, "line 1 of the audit log was changed" in wrong.err) == (5, True)
