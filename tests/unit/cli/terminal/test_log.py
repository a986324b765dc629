"""The log: JSON lines with level, event and keys; no events below the level."""

import json
import logging

import pytest

from p2pmodel.cli.terminal import log
from p2pmodel.core.content.names import printable
from p2pmodel.core.notes import debug, info, warning


@pytest.fixture(autouse=True)
def restored():
    names = ("p2pmodel", "aiohttp", "asyncio")
    before = {name: (logging.getLogger(name).handlers[:], logging.getLogger(name).level) for name in names}
    yield
    for name, (handlers, level) in before.items():
        logging.getLogger(name).handlers[:] = handlers
        logging.getLogger(name).setLevel(level)


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_an_event_has_its_level_name_keys_and_text(capsys: pytest.CaptureFixture[str]):
    log.configure("info")
    log.log(warning("mirror_failed", "mirror near failed: HTTP 500\x1b[2J", mirror="near", status=500))
    [line] = lines(capsys)
    assert line.pop("timestamp")
    assert line == {
        "level": "warning",
        "event": "mirror_failed",
        "message": printable("mirror near failed: HTTP 500\x1b[2J"),
        "mirror": "near",
        "status": 500,
    }


def test_a_plain_line_is_a_note(capsys: pytest.CaptureFixture[str]):
    log.configure("info")
    log.log("something happened")
    assert [(line["event"], line["level"], line["message"]) for line in lines(capsys)] == [
        ("note", "info", "something happened")
    ]


@pytest.mark.parametrize(
    ("level", "expected"),
    [("debug", ["a", "b", "c"]), ("info", ["b", "c"]), ("warning", ["c"]), ("error", [])],
)
def test_events_below_the_level_are_not_logged(capsys: pytest.CaptureFixture[str], level, expected: list[str]):
    log.configure(level)
    notes = [debug("a", "a"), info("b", "b"), warning("c", "c")]
    for note in notes:
        log.log(note)
    assert [line["event"] for line in lines(capsys)] == expected
    assert [note for note in notes if log.shows(note)] == expected


def test_a_librarys_warning_is_an_event_too(capsys: pytest.CaptureFixture[str]):
    log.configure("info")
    logging.getLogger("asyncio").warning("slow callback took %s", "2 s")
    assert [(line["event"], line["message"]) for line in lines(capsys)] == [("library", "slow callback took 2 s")]
