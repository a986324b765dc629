"""Notes: text for the user, and an event for the log."""

import pytest

from p2pmodel.core.notes import Note, debug, error, info, warning


def test_a_note_is_its_text():
    note = warning("mirror_failed", "mirror near failed:\n  HTTP 500", mirror="near")
    assert note == "mirror near failed: HTTP 500"
    assert (note.level, note.event, note.keys) == ("warning", "mirror_failed", {"mirror": "near"})


@pytest.mark.parametrize(("make", "level"), [(debug, "debug"), (info, "info"), (warning, "warning"), (error, "error")])
def test_levels(make, level: str):
    assert make("name", "text").level == level


def test_any_line_is_a_note():
    note = info("ready", "ready")
    assert Note.of(note) is note
    assert (Note.of("plain").event, Note.of("plain").level) == ("note", "info")


def test_a_prefix_keeps_the_event():
    note = warning("peer_banned", "peer 10.0.0.9 is banned", peer="10.0.0.9").within("org/m: ", repo="org/m")
    assert note == "org/m: peer 10.0.0.9 is banned"
    assert (note.event, note.level, note.keys) == ("peer_banned", "warning", {"repo": "org/m", "peer": "10.0.0.9"})
