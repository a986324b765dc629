"""Progress and notes on stderr: the text of a line, its style, and the rate of lines."""

import io
import json
import sys
from dataclasses import replace

import pytest

from p2pmodel.cli.terminal import console
from p2pmodel.cli.terminal.bars import _FileBars
from p2pmodel.cli.terminal.console import Style, describe, describe_load, reporting
from p2pmodel.loading.options import LoadProgress
from p2pmodel.node.reporter import FileProgress, Progress

MIB = 1 << 20


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(console, "time", clock)
    return clock


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("progress", "words"),
    [
        (Progress("finding"), "finding"),
        (Progress("hashing", total=0, done=5), "hashing"),
        (Progress("checking", total=3_000_000, done=1_000_000), "checking  33% of 3.0 MB"),
        (Progress("done", total=7, done=7), "done  100% of 7 bytes"),
        (
            Progress("seeding", total=10, done=10, from_cache=10, uploaded=6_000_000),
            "seeding  100% of 10 bytes  from cache 10 bytes  sent 6.0 MB",
        ),
        (Progress("downloading", total=10, done=10, peers=1), "downloading  100% of 10 bytes  1 peer"),
        (
            Progress(
                "downloading",
                total=100_000_000,
                done=91_999_999,
                from_peers=2_000_000,
                from_mirrors=3_000_000,
                download_rate=4_000_000,
                peers=5,
            ),
            "downloading  91% of 100.0 MB  from peers 2.0 MB, mirrors 3.0 MB  4.0 MB/s  2 s left  5 peers",
        ),
    ],
)
def test_a_line_contains_the_known_figures(progress: Progress, words: str) -> None:
    assert describe(progress) == words


@pytest.mark.parametrize(("style", "every"), [("plain", 5.0), ("json", 0.2)])
def test_reports_are_throttled_but_never_a_new_phase(
    style: Style, every: float, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with reporting(style, quiet=False) as reporter:
        for done in range(10):
            reporter.progress(Progress("mirroring", 100, done))
            clock.now += 1.001 * every / 4
        reporter.progress(Progress("hashing", 100, 1))
        reporter.progress(Progress("hashing", 100, 2))
        reporter.progress(Progress("done", 100, 100))
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    if style == "json":
        shown = [(p["phase"], p["done"]) for p in map(json.loads, lines)]
    else:
        shown = [(line.split()[0], int(line.split()[1].rstrip("%"))) for line in lines]
    assert shown == [("mirroring", 0), ("mirroring", 4), ("mirroring", 8), ("hashing", 1), ("done", 100)]
    assert err.endswith("\n")


@pytest.mark.parametrize("style", ["plain", "json"])
def test_the_reason_of_a_wait_is_printed_without_a_later_report(
    style: Style, capsys: pytest.CaptureFixture[str]
) -> None:
    with reporting(style, quiet=False) as reporter:
        reporter.progress(Progress("downloading", 10, 5))
        reporter.progress(Progress("downloading", 10, 5, waiting_for="p2pmodel resume"))
    assert "p2pmodel resume" in capsys.readouterr().err


def test_json_lines_have_every_number_and_notes_apart(capsys: pytest.CaptureFixture[str]) -> None:
    with reporting("json", quiet=False) as reporter:
        reporter.progress(Progress("downloading", 10, 5, peers=2))
        reporter.note('a mirror "lied"')
    progress, note = map(json.loads, capsys.readouterr().err.splitlines())
    assert progress == {
        "phase": "downloading", "total": 10, "done": 5, "from_cache": 0, "from_peers": 0, "from_mirrors": 0,
        "from_other_zones": None, "uploaded": 0, "peers": 2, "download_rate": 0, "upload_rate": 0, "waiting_for": "",
        "rejected": 0, "from_seeders": 0, "eta": None, "exception": "", "unreachable": "",
    }  # fmt: skip
    assert note == {"note": 'a mirror "lied"', "event": "note", "level": "info"}


def test_a_node_that_only_serves_repeats_no_line(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    serving = Progress("seeding", 10, 10, from_mirrors=10)
    with reporting("plain", quiet=False) as reporter:
        for second in range(1800):
            clock.now = float(second)
            reporter.progress(serving)
        assert capsys.readouterr().err.count("\n") == 1, "idle"
        for second in range(1800, 2400):
            clock.now = float(second)
            reporter.progress(replace(serving, uploaded=1000 * second))
    assert 1 < capsys.readouterr().err.count("\n") <= 10, "a line a minute at most"


def test_bytes_of_other_zones_are_shown_if_there_are_zones() -> None:
    assert "zone" not in describe(Progress("downloading", 10, 5, from_peers=5))
    told = describe(Progress("downloading", 10, 5, from_peers=5, from_other_zones=3))
    assert told == "downloading  50% of 10 bytes  from peers 5 bytes, 3 bytes of other zones"


def test_notes_are_never_throttled(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with reporting("plain", quiet=False) as reporter:
        for number in range(3):
            reporter.note(f"note {number}")
    assert capsys.readouterr().err == "note 0\nnote 1\nnote 2\n"


@pytest.mark.parametrize("style", console.STYLES)
def test_quiet_is_quiet_in_every_style(style: Style, capsys: pytest.CaptureFixture[str]) -> None:
    with reporting(style, quiet=True) as reporter:
        reporter.progress(Progress("finding"))
        reporter.note("psst")
        with reporter.aside():
            pass
    assert capsys.readouterr() == ("", "")


def test_without_a_terminal_auto_is_plain_and_none_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    for style in ("auto", "none"):
        with reporting(style, quiet=False) as reporter:
            reporter.progress(Progress("finding"))
    assert capsys.readouterr() == ("", "finding\n")


def test_on_a_terminal_auto_is_a_bar_that_leaves_only_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with reporting("auto", quiet=False) as reporter:
        reporter.progress(Progress("mirroring", 10 * MIB, 5 * MIB, from_mirrors=5 * MIB))
        reporter.note("a [mirror] failed")
        with reporter.aside():
            terminal.write("RESULT\n")
        reporter.progress(Progress("done", 10 * MIB, 10 * MIB))
    text = terminal.getvalue()
    assert "a [mirror] failed" in text
    assert "mirroring  50% of 10.5 MB" in text
    assert visible(text) == ["a [mirror] failed", "RESULT"]
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h"), "the cursor stays hidden"


def visible(text: str) -> list[str]:
    """The final lines of a terminal, for the control codes that a one-line bar uses."""
    lines = [""]
    row = 0
    at = 0
    while at < len(text):
        if text[at] == "\x1b":
            end = next(i for i in range(at + 2, len(text)) if text[i].isalpha())
            code, number = text[end], text[at + 2 : end]
            if code == "A":
                row -= int(number or 1)
            elif code == "K":
                lines[row] = ""
            at = end
        elif text[at] == "\n":
            row += 1
            if row == len(lines):
                lines.append("")
        elif text[at] != "\r":
            lines[row] += text[at]
        at += 1
    return [line for line in lines if line.strip()]


@pytest.mark.parametrize(
    ("load", "words"),
    [
        (LoadProgress("waiting"), "model: waiting for its small files and headers"),
        (LoadProgress("loading", 1_000_000, 2_000_000, 3_000_000), "model: loading  33% of 3.0 MB"),
        (LoadProgress("verifying", 7, 9, 7), "model: tensors loaded, waiting for the last hashes  100% of 7 bytes"),
        (LoadProgress("loading"), "model: loading"),
        (LoadProgress("loaded", 7, 9, 7), "model: loaded  100% of 7 bytes"),
    ],
)
def test_a_load_has_a_line_of_its_own(load: LoadProgress, words: str) -> None:
    assert describe_load(load) == words


def test_each_json_line_has_the_transfer_and_the_load(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with reporting("json", quiet=False) as reporter:
        reporter.progress(Progress("downloading", 100, 1))
        reporter.loading(LoadProgress("waiting"))
        clock.now += 1
        reporter.progress(Progress("downloading", 100, 50))
        for loaded in range(3):
            reporter.loading(LoadProgress("loading", loaded, 50, 90))
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    seen = [(line["done"], (line.get("load") or {}).get("phase")) for line in lines]
    assert seen == [(1, None), (1, "waiting"), (50, "waiting"), (50, "loading")]
    assert lines[-1]["load"] == {"phase": "loading", "loaded": 0, "arrived": 50, "total": 90}


def test_plain_lines_show_a_new_phase_of_the_load_at_once(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with reporting("plain", quiet=False) as reporter:
        for load in (LoadProgress("waiting"), LoadProgress("loading", 1, 2, 4), LoadProgress("loading", 2, 2, 4)):
            reporter.loading(load)
        clock.now += 5.1
        reporter.loading(LoadProgress("loading", 3, 4, 4))
    shown = capsys.readouterr().err.splitlines()
    assert [line.rpartition("  ")[2] for line in shown] == [
        describe_load(LoadProgress("waiting")),
        *("25% of 4 bytes", "75% of 4 bytes"),
    ]


def test_the_bar_of_the_load_is_below_that_of_the_transfer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with reporting("bar", quiet=False) as reporter:
        reporter.progress(Progress("downloading", 100, 40))
        reporter.loading(LoadProgress("loading", 10, 40, 100))
        with reporter.aside():
            pass
    shown = terminal.getvalue()
    assert shown.index("downloading  40% of 100 bytes") < shown.index("model: loading  10% of 100 bytes")


def fetched(reporter: console.ConsoleReporter, clock: Clock) -> None:
    """Three files come one after the other, the first from the cache."""
    for done, verified in ((0, 0), (50, 0), (100, 0), (100, 100), (100, 100)):
        files = (
            FileProgress("config.json", 3, 3, verified=True),
            FileProgress("model.safetensors", 100, done, verified=verified == 100),
            FileProgress("empty", 0, 0, verified=verified == 100),
        )
        reporter.files(lambda now=files: now)  # type: ignore[misc]
        reporter.progress(Progress("downloading", 103, 3 + done))
        clock.now += 1


def test_each_file_has_a_line_once_it_is_verified(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with reporting("files", quiet=False) as reporter:
        assert reporter.wants_files
        fetched(reporter, clock)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "config.json  3 bytes"
    assert [line for line in lines if not line.startswith("downloading")] == [
        "config.json  3 bytes", "model.safetensors  100 bytes", "empty  0 bytes",
    ]  # fmt: skip
    assert "downloading  2% of 103 bytes" in lines


def test_the_last_files_have_lines_without_a_later_report(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with reporting("files", quiet=False) as reporter:
        reporter.progress(Progress("done", 5, 5))
        reporter.files(lambda: (FileProgress("late", 5, 5, verified=True),))
    assert capsys.readouterr().err.splitlines()[-1] == "late  5 bytes"


def test_on_a_terminal_files_on_their_way_have_bars(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with reporting("files", quiet=False) as reporter:
        assert isinstance(reporter, _FileBars)
        bars = reporter._bars._bars
        reporter.files(lambda: (FileProgress("a", 100, 50), FileProgress("b", 5, 0), FileProgress("c", 9, 9)))
        reporter.progress(Progress("downloading", 114, 59))
        words = [task.fields["words"] for task in bars.tasks[1:]]
        assert words == ["a  50% of 100 bytes", "c  100% of 9 bytes"]
        clock.now += 1
        fetched(reporter, clock)
        assert len(bars.tasks) == 1
    assert "model.safetensors  100 bytes" in screen.getvalue()
