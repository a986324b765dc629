"""The verbs of the daemon without a daemon: refused options and the rendering of views."""

import json
from pathlib import Path

import pytest

from p2pmodel.cli.fetch.report import FetchReport
from p2pmodel.cli.transfers.daemon_client import chosen
from p2pmodel.cli.transfers.status import follow_table, peer_table, table, words
from p2pmodel.core.network.connections import PeerConnection
from p2pmodel.core.progress.diagnosis import Diagnosis
from p2pmodel.core.progress.progress import Progress, Timings
from p2pmodel.core.progress.views import FollowedSnapshot, FollowView, TransferError, TransferView
from p2pmodel.errors import InvalidInput, NotFound
from tests.support.command_line import CommandLine

VIEW = TransferView(
    id="0123456789ab",
    repo="org/model",
    commit="ab" * 20,
    revisions=("main",),
    state="active",
    complete=False,
    priority=0,
    added=1.0,
    path="/hub/x",
    size=3_000_000_000,
    progress=Progress("downloading", 2_000_000_000, 500_000_000, peers=3, download_rate=40_000_000),
    eta=37.5,
)


def view(**changes: object) -> TransferView:
    import dataclasses

    return dataclasses.replace(VIEW, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--token-file", "t"), "need --control-listen"),
        (("--read-only",), "need --control-listen"),
        (("--control-listen", "here"), "is not an address"),
        (("--control-listen", "0.0.0.0:80"), "is reachable from other machines"),
        (("--control-listen", "127.0.0.1:0", "--token-file", "none"), "cannot be read"),
        (("--max-active", "0"), "--max-active"),
    ],
)
def test_invalid_daemon_options_are_refused(cli: CommandLine, options: tuple[str, ...], said: str):
    assert said in cli.refuses(2, "daemon", *options)


def test_a_token_that_others_can_read_is_refused(cli: CommandLine):
    token = cli.home / "token"
    token.write_text("open-sesame-sesame")
    token.chmod(0o640)
    said = cli.refuses(2, "daemon", "--control-listen", "127.0.0.1:0", "--token-file", token)
    assert "others can read the token file" in said
    assert "sesame" not in said


def test_an_impossible_socket_path_is_refused(cli: CommandLine):
    assert "the socket is too long" in cli.refuses(7, "daemon", "--socket", cli.home / ("x" * 120))


@pytest.mark.parametrize(
    "verb", [("status",), ("pause", "a/b"), ("resume", "a/b"), ("why", "a/b"), ("limits",), ("status", "--watch")]
)
def test_no_daemon_is_one_line(cli: CommandLine, verb: tuple[str, ...]):
    said = cli.refuses(6, *verb, P2PMODEL_DAEMON_SOCKET=str(cli.home / "d.sock"))
    assert said.endswith(f"no daemon is running (looked for {cli.home}/d.sock); start one with 'p2pmodel daemon'")


def test_ls_of_an_empty_cache(cli: CommandLine):
    assert json.loads(cli.ok("ls", "--json")) == {"snapshots": []}
    assert cli.ok("ls").split() == ["REPO", "COMMIT", "NAMES", "SIZE", "FILES", "STATE"]
    assert "is not in this cache" in cli.refuses(3, "rm", "org/model")


def test_a_transfer_is_named_by_its_repository_or_a_revision():
    other = view(id="1" * 12, commit="cd" * 20, revisions=("v1",))
    assert chosen([VIEW, other], "org/model") == (VIEW, other)
    assert chosen([VIEW, other], "org/model@v1") == (other,)
    assert chosen([VIEW, other], f"org/model@{'ab' * 20}") == (VIEW,)
    with pytest.raises(NotFound):
        chosen([VIEW], "org/model@v2")
    with pytest.raises(InvalidInput):
        chosen([VIEW], "no such name")


def test_the_table_names_what_an_engine_does():
    [_, row] = table([view(state="ready", complete=True, engine="loading")]).splitlines()
    assert "engine: loading" in row


def test_the_table_shows_state_and_rates():
    waiting = view(progress=Progress("downloading", 10, 5, waiting_for="peers (none is connected)"))
    failed = view(state="failed", error=TransferError("unavailable", "nobody answers"))
    rows = table([VIEW, waiting, failed, view(state="ready", complete=True, progress=Progress("finding"))]).splitlines()
    assert " ".join(rows[1].split()) == "org/model abababab active 25% 2.0 GB 40.0 MB/s 0.0 MB/s 38 s 3 downloading"
    assert rows[2].endswith("waiting for peers (none is connected)")
    assert rows[3].endswith("nobody answers")
    assert "100%" in rows[4]


def test_a_report_shows_bytes_and_timings():
    def outcome(progress: Progress) -> FetchReport:
        return FetchReport(Path("/x"), "a/b", "ab" * 20, 10, Timings(3.0, 0.5, 2.0, 0.5), progress, "mirror m")

    came = outcome(Progress("done", 10, 10, from_cache=2, from_peers=5, from_mirrors=3))
    assert came.words() == "downloaded 8 bytes in 2.00 s, then verified in 0.50 s"
    assert came.plain()["from_mirrors"] == 3
    assert "10 bytes were in the cache already" in outcome(Progress("done", 10, 10, from_cache=10)).words()


def test_a_diagnosis_is_one_line():
    found = Diagnosis("1" * 12, "org/model", "limit", "the limit is used up", "raise it", 9.5e6, 10e6, 0.95)
    assert words(found) == "org/model: limit: the limit is used up (9.5 MB/s of 10.0 MB/s, 95%); raise it"
    assert (
        words(Diagnosis("1" * 12, "org/model", "nothing", "it is complete", "")) == "org/model: nothing: it is complete"
    )


def test_the_peers_of_a_transfer_are_lines() -> None:
    peer = PeerConnection("10.0.0.2:6881", "peer", "qBittorrent/4.5.2", "", 0.999, 2_000_000, 0, 5_000_000, 0, "DI")
    seeder = PeerConnection("http://10.0.0.1:6969", "seeder", zone="rack-1")
    lines = [line.split("  ") for line in peer_table([(VIEW, peer), (VIEW, seeder)]).splitlines()]
    cells = [[cell.strip() for cell in line if cell] for line in lines]
    assert cells[0] == ["REPO", "PEER", "HAS", "DOWN", "UP", "RECEIVED", "SENT", "FLAGS", "ZONE", "CLIENT"]
    assert cells[1][1:6] == ["10.0.0.2:6881", "99%", "2.0 MB/s", "0.0 MB/s", "5.0 MB"]
    assert cells[1][7:] == ["DI", "-", "qBittorrent/4.5.2"]
    assert cells[2][7:] == ["-", "rack-1", "seeder over HTTP"]


def test_status_watches_or_shows_peers(cli: CommandLine) -> None:
    assert "--watch and --peers cannot be combined" in cli.refuses(2, "status", "--watch", "--peers")


def test_an_engine_is_ready_for_some_time(cli: CommandLine) -> None:
    assert "--for" in cli.refuses(2, "ready", "org/model", "--for", "0")


def test_transfers_are_chosen_by_the_beginning_of_a_commit() -> None:
    views = [view(), view(id="2", commit="ab" * 4 + "cd" * 16, revisions=())]
    assert chosen(views, "org/model@" + "ab" * 6) == (views[0],)
    assert chosen(views, "org/model@" + "ab" * 4 + "cd") == (views[1],)
    with pytest.raises(InvalidInput, match=f"ambiguous.*{'ab' * 4 + 'cd' * 16}"):
        chosen(views, "org/model@" + "ab" * 4)
    with pytest.raises(NotFound):
        chosen(views, "org/model@" + "ab" * 3)


def test_follow_lists_are_shown_with_window_progress_and_failure() -> None:
    half = FollowedSnapshot("org/model", "main", "ab" * 20, "0123456789ab", "queued", False, 50, 100)
    lists = (
        FollowView("org/model", "main", (), (), "22:00-06:00", "UTC", False, 7300.0, (half,), checked=40.0),
        FollowView("org/*", "v*", (), (), "", "", True, None, error="no mirror answers"),
        FollowView("org/new", "main", (), (), "", "", True, None),
    )
    shown = [" ".join(line.split()) for line in follow_table(lists, 100.0).splitlines()[1:]]
    assert shown == [
        "org/model@main abababab queued 50% 100 bytes closed for 2 h 1 min ago",
        "org/*@v* - - - - always - no mirror answers",
        "org/new@main - - - - always - not looked up yet",
    ]


def test_a_transfer_that_waits_for_its_window_says_so() -> None:
    assert "its window is closed" in table([view(state="queued", awaits_window=True)])
    assert "its window is closed" not in table([view(state="seeding", awaits_window=True)])
